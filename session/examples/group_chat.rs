//! A chat in a group: one program founds the channel and invites, the others are invited. What you type, all read.
//!
//!     cargo run -p slimline-session --example group_chat -- join anna
//!     cargo run -p slimline-session --example group_chat -- join bert
//!     cargo run -p slimline-session --example group_chat -- host anna bert

mod common;

use std::error::Error;
use std::process::ExitCode;

use common::{Arguments, coloured};
use slimline_session::error::SessionError;
use slimline_session::{App, Event, Name, ReceiveError, SessionConfig, SessionHandle};

const CHANNEL: &str = "slimline/demo/chat";

/// What `--help` shows.
const USAGE: &str = "\
usage: group_chat join NAME       waits to be invited, then chats: each line goes to all
       group_chat host GUEST...   founds the channel, invites and chats; the channel ends with its host

  /invite NAME         the host types this to invite somebody later
  Ctrl-D, Ctrl-C       leaves";

#[tokio::main]
async fn main() -> ExitCode {
    common::exit(run().await)
}

async fn run() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::read(USAGE)?;
    match arguments.words()[..] {
        ["host", ref guests @ ..] if !guests.is_empty() => {
            let app = arguments.app("slimline/demo/host").await?;
            common::until_stopped(&app, host(&app, guests)).await
        }
        ["join", me] => {
            let app = arguments.app(&format!("slimline/demo/{me}")).await?;
            common::until_stopped(&app, join(&app, me)).await
        }
        _ => Err(arguments.misused()),
    }
}

async fn host(app: &App, guests: &[&str]) -> Result<(), Box<dyn Error>> {
    let session = app.create_session(SessionConfig::group(), &CHANNEL.parse()?).await?;
    for guest in guests {
        invite(&session, guest).await;
    }
    say(&session, "Hello group!").await?;
    chat(&session).await?;
    session.close().await?;
    Ok(())
}

async fn join(app: &App, me: &str) -> Result<(), Box<dyn Error>> {
    println!("I am {} and wait to be invited.", coloured(me));
    let session = app.listen().await?;
    chat(&session).await?;
    session.close().await?;
    Ok(())
}

async fn invite(session: &SessionHandle, guest: &str) {
    let invited = async {
        let name: Name = format!("slimline/demo/{guest}").parse()?;
        session.invite(&name).await
    };
    match invited.await {
        Ok(()) => println!("{} is here", coloured(guest)),
        Err(error) => println!("{error}"),
    }
}

/// Where nobody hears, the chat goes on: somebody may come (back).
async fn say(session: &SessionHandle, line: &str) -> Result<(), SessionError> {
    match session.publish(line).await {
        Err(SessionError::NobodyOnline) => println!("(nobody is here to read that)"),
        published => drop(published?),
    }
    Ok(())
}

/// Until the input or the session ends.
async fn chat(session: &SessionHandle) -> Result<(), Box<dyn Error>> {
    let mut lines = common::typed();
    loop {
        tokio::select! {
            line = lines.recv() => match line.as_deref() {
                Some("") => {}
                Some(line) => match line.strip_prefix("/invite ") {
                    Some(guest) => {
                        let (session, guest) = (session.clone(), guest.trim().to_owned());
                        tokio::spawn(async move { invite(&session, &guest).await });
                    }
                    None => say(session, line).await?,
                },
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
