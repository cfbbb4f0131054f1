//! Questions with a time limit, several at once over one session: each answer names its question.
//!
//!     cargo run -p slimline-session --example request_reply -- serve
//!     cargo run -p slimline-session --example request_reply -- ask 6 7 8

mod common;

use std::collections::BTreeMap;
use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use common::Arguments;
use slimline_session::{App, Publish, SessionConfig, SessionHandle};

/// Where question and answer carry what pairs them.
const QUESTION: &str = "question";

/// What `--help` shows.
const USAGE: &str = "\
usage: request_reply serve           squares numbers; Ctrl-C ends it
       request_reply ask NUMBER...   asks for squares, all at once";

#[tokio::main]
async fn main() -> ExitCode {
    common::exit(run().await)
}

async fn run() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::read(USAGE)?;
    match arguments.words()[..] {
        ["serve"] => {
            let app = arguments.app("slimline/demo/squares").await?;
            common::until_stopped(&app, serve(&app)).await
        }
        ["ask", ref numbers @ ..] if !numbers.is_empty() => {
            let app = arguments.app("slimline/demo/curious").await?;
            common::until_stopped(&app, ask(&app, numbers)).await
        }
        _ => Err(arguments.misused()),
    }
}

async fn serve(app: &App) -> Result<(), Box<dyn Error>> {
    println!("I am {} and square numbers.", app.name());
    loop {
        let session = app.listen().await?;
        tokio::spawn(async move {
            while let Ok(message) = session.recv().await {
                let number = String::from_utf8_lossy(&message.payload).parse::<u64>();
                let square = |n| (u128::from(n) * u128::from(n)).to_string();
                let answer = number.map_or_else(|_| "not a number I know".to_owned(), square);
                let reply = Publish { metadata: message.metadata, ..Publish::from(answer) };
                if session.publish(reply).await.is_err() {
                    return;
                }
            }
        });
    }
}

async fn ask(app: &App, numbers: &[&str]) -> Result<(), Box<dyn Error>> {
    let session = app.create_session(SessionConfig::point_to_point(), &"slimline/demo/squares".parse()?).await?;
    for (index, number) in numbers.iter().enumerate() {
        let metadata = BTreeMap::from([(QUESTION.to_owned(), index.to_string())]);
        session.publish(Publish { metadata, ..Publish::from(*number) }).await?;
    }
    collect(&session, numbers).await?;
    session.close().await?;
    Ok(())
}

async fn collect(session: &SessionHandle, numbers: &[&str]) -> Result<(), Box<dyn Error>> {
    for _ in numbers {
        let answer = session.recv_within(Duration::from_secs(5)).await?;
        let index: usize = answer.metadata.get(QUESTION).ok_or("an answer to nothing")?.parse()?;
        let question = numbers.get(index).ok_or("an answer to nothing")?;
        println!("{question} squared is {}", String::from_utf8_lossy(&answer.payload));
    }
    Ok(())
}
