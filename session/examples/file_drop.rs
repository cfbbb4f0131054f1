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
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PIECE_OCTETS: usize = 256 * 1024;
/// How long the other side may be silent.
const PATIENCE: Duration = Duration::from_secs(30);

/// What `--help` shows.
const USAGE: &str = "\
usage: file_drop receive FOLDER   puts there what is sent; Ctrl-C ends it
       file_drop send FILE        sends it; the receiver compares digests";

#[tokio::main]
async fn main() -> ExitCode {
    common::exit(run().await)
}

async fn run() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::read(USAGE)?;
    match arguments.words()[..] {
        ["receive", folder] => {
            let app = arguments.app("slimline/demo/drop").await?;
            common::until_stopped(&app, receive(&app, Path::new(folder))).await
        }
        ["send", file] => {
            let path = Path::new(file);
            let opened = File::open(path).await.map_err(|error| format!("{file}: {error}"))?;
            if !opened.metadata().await?.is_file() {
                return Err(format!("{file} is not a file").into());
            }
            let app = arguments.app("slimline/demo/dropper").await?;
            common::until_stopped(&app, send(&app, path, opened)).await
        }
        _ => Err(arguments.misused()),
    }
}

fn said(kind: &str, payload: Vec<u8>) -> Publish {
    Publish { payload_type: Some(kind.to_owned()), ..Publish::from(payload) }
}

async fn send(app: &App, path: &Path, mut file: File) -> Result<(), Box<dyn Error>> {
    let name = path.file_name().ok_or("not a file")?.to_string_lossy().into_owned();
    let total = file.metadata().await?.len();
    let config =
        SessionConfig::point_to_point().with_metadata("file", &name).with_metadata("octets", &total.to_string());
    let session = app.create_session(config, &"slimline/demo/drop".parse()?).await?;
    let (mut digest, mut bar) = (Context::new(&SHA256), Bar::new(total));
    loop {
        let mut piece = vec![0; PIECE_OCTETS];
        let read = file.read(&mut piece).await?;
        if read == 0 {
            break;
        }
        piece.truncate(read);
        digest.update(&piece);
        session.publish(said("piece", piece)).await?;
        bar.advance(read);
    }
    session.publish(said("digest", digest.finish().as_ref().to_vec())).await?;
    let answer = session.recv_within(PATIENCE).await?;
    println!("\n{}", String::from_utf8_lossy(&answer.payload));
    session.close().await?;
    Ok(())
}

async fn receive(app: &App, folder: &Path) -> Result<(), Box<dyn Error>> {
    tokio::fs::create_dir_all(folder).await.map_err(|error| format!("{}: {error}", folder.display()))?;
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

/// What is not whole does not get the file's name.
async fn take(session: &SessionHandle, path: &Path) -> Result<(), Box<dyn Error>> {
    let total = session.metadata().get("octets").and_then(|octets| octets.parse().ok()).unwrap_or(0);
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let mut file = File::create(&part).await?;
    let (mut digest, mut bar) = (Context::new(&SHA256), Bar::new(total));
    loop {
        let message = session.recv_within(PATIENCE).await?;
        if message.payload_type == "digest" {
            file.flush().await?;
            let whole = digest.finish().as_ref() == &message.payload[..];
            if whole {
                tokio::fs::rename(&part, path).await?;
            }
            let verdict = if whole { "arrived whole" } else { "arrived damaged" };
            println!("\n{}: {verdict}", path.display());
            session.publish(format!("{} octets {verdict}", bar.done)).await?.delivered().await?;
            session.closed().await;
            return Ok(());
        }
        digest.update(&message.payload);
        file.write_all(&message.payload).await?;
        bar.advance(message.payload.len());
    }
}

/// How far it got, drawn anew with each hundredth.
struct Bar {
    total: u64,
    done: u64,
    drawn: Option<u64>,
    started: Instant,
}

impl Bar {
    fn new(total: u64) -> Self {
        Self { total, done: 0, drawn: None, started: Instant::now() }
    }

    fn advance(&mut self, octets: usize) {
        const WIDTH: u64 = 40;
        self.done += octets as u64;
        let hundredths = (self.done * 100).checked_div(self.total).unwrap_or(100).min(100);
        if self.drawn.replace(hundredths) == Some(hundredths) {
            return;
        }
        let bar: String = (0..WIDTH).map(|at| if (at + 1) * 100 <= hundredths * WIDTH { '█' } else { '·' }).collect();
        let per_second = u128::from(self.done) / self.started.elapsed().as_millis().max(1) / 1000;
        print!("\r{bar} {hundredths:>3} %  {per_second} MB/s ");
        let _ = std::io::stdout().flush();
    }
}
