//! The classic first steps: a moderator creates a channel and invites `participant1`, says hello to the group, hears the
//! answer, and both leave.
//!
//!     cargo run -p slimline-session --example hello_group -- join participant1
//!     cargo run -p slimline-session --example hello_group -- moderate participant1

mod common;

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use common::Arguments;
use slimline_session::{App, Name, SessionConfig, SessionHandle};

const CHANNEL: &str = "slimline/demo/channel";
const PATIENCE: Duration = Duration::from_secs(30);

/// What `--help` shows.
const USAGE: &str = "\
usage: hello_group join NAME        waits to be invited, hears, answers, and leaves when the channel ends
       hello_group moderate GUEST   creates the channel, invites the guest, says hello, hears the answer, and ends it";

#[tokio::main]
async fn main() -> ExitCode {
    common::exit(run().await)
}

async fn run() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::read(USAGE)?;
    match arguments.words()[..] {
        ["moderate", guest] => {
            let app = arguments.app("slimline/demo/moderator").await?;
            common::until_stopped(&app, moderate(&app, guest)).await?;
        }
        ["join", me] => {
            let app = arguments.app(&format!("slimline/demo/{me}")).await?;
            common::until_stopped(&app, join(&app)).await?;
        }
        _ => return Err(arguments.misused()),
    }
    println!("left");
    Ok(())
}

async fn moderate(app: &App, guest: &str) -> Result<(), Box<dyn Error>> {
    let session = app.create_session(SessionConfig::group(), &CHANNEL.parse()?).await?;
    let guest: Name = format!("slimline/demo/{guest}").parse()?;
    session.invite(&guest).await?;
    println!("in the channel: {}", members(&session)?);
    let delivery = session.publish("Hello group!").await?.delivered().await?;
    println!("delivered: {}", delivery.is_complete());
    hear(&session).await?;
    session.close().await?; // the channel ends with its moderator
    Ok(())
}

async fn join(app: &App) -> Result<(), Box<dyn Error>> {
    println!("I am {} and wait to be invited.", app.name());
    let session = app.listen().await?;
    hear(&session).await?;
    let answer = session.publish(format!("Hello, this is {}!", app.name().components()[2])).await?;
    println!("delivered: {}", answer.delivered().await?.is_complete());
    println!("{}", session.closed().await);
    Ok(())
}

async fn hear(session: &SessionHandle) -> Result<(), Box<dyn Error>> {
    let message = session.recv_within(PATIENCE).await?;
    println!("{}: {}", message.source.components()[2], String::from_utf8_lossy(&message.payload));
    Ok(())
}

fn members(session: &SessionHandle) -> Result<String, Box<dyn Error>> {
    let mut names: Vec<_> =
        session.participants()?.into_iter().map(|member| member.name.components()[2].to_owned()).collect();
    names.sort();
    Ok(names.join(", "))
}
