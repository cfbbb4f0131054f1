//! A file, in pieces that arrive in order, with its digest at the end.
//!
//!     cargo run --release -p slimline-session --example file_drop -- receive ./inbox
//!     cargo run --release -p slimline-session --example file_drop -- send ./large.iso

mod common;

use std::error::Error;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{Context, SHA256};
use common::Arguments;
use slimline_session::{App, Publish, SessionConfig, SessionHandle};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PIECE_OCTETS: usize = 256 * 1024;

/// What `--help` shows.
const USAGE: &str = "\
usage: file_drop receive FOLDER   puts there what is sent
       file_drop send FILE        sends it; the receiver compares digests";

#[tokio::main]
async fn main() -> ExitCode {
    common::exit(run().await)
}

async fn run() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::read(USAGE)?;
    match arguments.words()[..] {
        ["receive", folder] => receive(&arguments.app("slimline/demo/drop").await?, Path::new(folder)).await,
        ["send", file] => send(&arguments.app("slimline/demo/dropper").await?, Path::new(file)).await,
        _ => Err(arguments.misused()),
    }
}

fn said(kind: &str, payload: Vec<u8>) -> Publish {
    Publish { payload_type: Some(kind.to_owned()), ..Publish::from(payload) }
}

async fn send(app: &App, path: &Path) -> Result<(), Box<dyn Error>> {
    let name = path.file_name().ok_or("not a file")?.to_string_lossy().into_owned();
    let mut file = tokio::fs::File::open(path).await?;
    let total = file.metadata().await?.len();
    let config =
        SessionConfig::point_to_point().with_metadata("file", &name).with_metadata("octets", &total.to_string());
    let session = app.create_session(config, &"slimline/demo/drop".parse()?).await?;
    let (mut digest, mut sent, started) = (Context::new(&SHA256), 0_u64, Instant::now());
    loop {
        let mut piece = vec![0; PIECE_OCTETS];
        let read = file.read(&mut piece).await?;
        if read == 0 {
            break;
        }
        piece.truncate(read);
        digest.update(&piece);
        session.publish(said("piece", piece)).await?;
        sent += read as u64;
        bar(sent, total, started);
    }
    session.publish(said("digest", digest.finish().as_ref().to_vec())).await?;
    let answer = session.recv_within(Duration::from_secs(30)).await?;
    println!("\n{}", String::from_utf8_lossy(&answer.payload));
    session.close().await?;
    Ok(())
}

async fn receive(app: &App, folder: &Path) -> Result<(), Box<dyn Error>> {
    tokio::fs::create_dir_all(folder).await?;
    println!("I am {} and put what I get into {}.", app.name(), folder.display());
    loop {
        let session = app.listen().await?;
        let file = session.metadata().get("file").cloned().unwrap_or_default();
        // A name from outside is a name, never a path.
        let name = Path::new(&file).file_name().map_or_else(|| PathBuf::from("unnamed"), PathBuf::from);
        if let Err(error) = take(&session, &folder.join(name)).await {
            println!("\n{file}: {error}");
        }
    }
}

async fn take(session: &SessionHandle, path: &Path) -> Result<(), Box<dyn Error>> {
    let total = session.metadata().get("octets").and_then(|octets| octets.parse().ok()).unwrap_or(0);
    let mut file = tokio::fs::File::create(path).await?;
    let (mut digest, mut taken, started) = (Context::new(&SHA256), 0_u64, Instant::now());
    loop {
        let message = session.recv_within(Duration::from_secs(30)).await?;
        if message.payload_type == "digest" {
            file.flush().await?;
            let whole = digest.finish().as_ref() == &message.payload[..];
            let verdict = if whole { "arrived whole" } else { "arrived damaged" };
            println!("\n{}: {verdict}", path.display());
            session.publish(format!("{taken} octets {verdict}").into_bytes()).await?.delivered().await?;
            session.closed().await;
            return Ok(());
        }
        digest.update(&message.payload);
        file.write_all(&message.payload).await?;
        taken += message.payload.len() as u64;
        bar(taken, total, started);
    }
}

fn bar(done: u64, total: u64, started: Instant) {
    const WIDTH: u64 = 40;
    let filled = (done * WIDTH).checked_div(total).unwrap_or(WIDTH).min(WIDTH);
    let drawn: String = (0..WIDTH).map(|at| if at < filled { '█' } else { '·' }).collect();
    let per_second = u128::from(done) / started.elapsed().as_millis().max(1) / 1000;
    print!("\r{drawn} {:>3} %  {per_second} MB/s ", (done * 100).checked_div(total).unwrap_or(100));
    let _ = std::io::stdout().flush();
}
