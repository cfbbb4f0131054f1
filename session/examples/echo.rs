//! One application answers, another asks: end to end encrypted, each message delivered or reported.
//!
//!     cargo run -p slimline-session --example echo -- serve
//!     cargo run -p slimline-session --example echo -- say "hello there"

mod common;

use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use common::Arguments;
use slimline_session::{App, ReceiveError, SessionConfig, SessionHandle};

/// What `--help` shows.
const USAGE: &str = "\
usage: echo serve        answers whoever calls, with what was said; Ctrl-C ends it
       echo say TEXT...  says it to the server and shows answer and outcome";

#[tokio::main]
async fn main() -> ExitCode {
    common::exit(run().await)
}

async fn run() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::read(USAGE)?;
    match arguments.words()[..] {
        ["serve"] => {
            let app = arguments.app("slimline/demo/echo").await?;
            common::until_stopped(&app, serve(&app)).await
        }
        ["say", ref words @ ..] if !words.is_empty() => {
            let app = arguments.app("slimline/demo/caller").await?;
            common::until_stopped(&app, say(&app, &words.join(" "))).await
        }
        _ => Err(arguments.misused()),
    }
}

async fn serve(app: &App) -> Result<(), Box<dyn Error>> {
    println!("I am {} and answer whoever calls.", app.name());
    loop {
        let session = app.listen().await?;
        tokio::spawn(answer(session));
    }
}

async fn answer(session: SessionHandle) {
    let mut answered = 0;
    loop {
        match session.recv().await {
            Ok(message) => {
                if session.publish(message.payload).await.is_ok() {
                    answered += 1;
                }
            }
            Err(ReceiveError::Lost { count, .. }) => println!("{count} messages were lost"),
            Err(end) => return println!("answered {answered} messages; {end}"),
        }
    }
}

async fn say(app: &App, text: &str) -> Result<(), Box<dyn Error>> {
    let session = app.create_session(SessionConfig::point_to_point(), &"slimline/demo/echo".parse()?).await?;
    let started = Instant::now();
    let publication = session.publish(text).await?;
    let echo = session.recv_within(Duration::from_secs(10)).await?;
    println!("{} says {:?} after {:.1?}", echo.source, String::from_utf8_lossy(&echo.payload), started.elapsed());
    let delivery = publication.delivered().await?;
    println!("delivered: {:?}", delivery.recipients);
    session.close().await?;
    Ok(())
}
