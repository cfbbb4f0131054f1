//! A chat in a group: one program founds the channel and invites, the others are invited. What you type, all read.
//!
//!     cargo run -p slimline-session --example group_chat -- join anna
//!     cargo run -p slimline-session --example group_chat -- join bert
//!     cargo run -p slimline-session --example group_chat -- host anna bert

mod common;

use std::error::Error;
use std::process::ExitCode;

use common::{Arguments, coloured};
use slimline_session::{Event, Name, ReceiveError, SessionConfig, SessionHandle};
use tokio::io::{AsyncBufReadExt, BufReader};

const CHANNEL: &str = "slimline/demo/chat";

/// What `--help` shows.
const USAGE: &str = "\
usage: group_chat join NAME       waits to be invited, then chats: each line goes to all
       group_chat host GUEST...   founds the channel, invites and chats; the end of the input closes it";

#[tokio::main]
async fn main() -> ExitCode {
    common::exit(run().await)
}

async fn run() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::read(USAGE)?;
    match arguments.words()[..] {
        ["host", ref guests @ ..] if !guests.is_empty() => {
            let app = arguments.app("slimline/demo/host").await?;
            let session = app.create_session(SessionConfig::group(), &CHANNEL.parse()?).await?;
            for guest in guests {
                let name: Name = format!("slimline/demo/{guest}").parse()?;
                match session.invite(&name).await {
                    Ok(()) => println!("{} is here", coloured(guest)),
                    Err(error) => println!("{error}"),
                }
            }
            session.publish(b"Hello group!".to_vec()).await?;
            chat(&session).await?;
            session.close().await?;
            app.shut_down().await;
        }
        ["join", me] => {
            let app = arguments.app(&format!("slimline/demo/{me}")).await?;
            println!("I am {} and wait to be invited.", coloured(me));
            let session = app.listen().await?;
            chat(&session).await?;
            session.close().await?;
            app.shut_down().await;
        }
        _ => return Err(arguments.misused()),
    }
    Ok(())
}

/// Until the input or the session ends.
async fn chat(session: &SessionHandle) -> Result<(), Box<dyn Error>> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    loop {
        tokio::select! {
            line = lines.next_line() => match line? {
                Some(line) if line.is_empty() => {}
                Some(line) => drop(session.publish(line.into_bytes()).await?),
                None => return Ok(()),
            },
            message = session.recv() => match message {
                Ok(message) => {
                    let [.., who] = message.source.components();
                    println!("{}: {}", coloured(who), String::from_utf8_lossy(&message.payload));
                }
                Err(ReceiveError::Lost { source_name, count }) => println!("({count} messages of {source_name} were lost)"),
                Err(end) => {
                    println!("{end}");
                    return Ok(());
                }
            },
            event = session.event() => match event {
                Ok(Event::Joined(name)) => println!("({} joined)", name.components()[2]),
                Ok(Event::Left(name)) => println!("({} left)", name.components()[2]),
                Ok(Event::Offline(name)) => println!("({} is offline)", name.components()[2]),
                Ok(Event::Online(name)) => println!("({} is back)", name.components()[2]),
                Ok(_) => {}
                Err(end) => {
                    println!("{end}");
                    return Ok(());
                }
            },
        }
    }
}
