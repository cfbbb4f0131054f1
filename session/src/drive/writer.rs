//! The task that writes to one connection.

use bytes::Bytes;
use slimline_wire::pb;
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, interval_at};

use super::ConnectError;
use super::app::BATCH_OCTETS;
use super::carrier::Probes;
use super::link::Outgoing;

/// Writes what comes, and pings in between where that is ours to do; ends the stream when nothing more can come.
pub(super) async fn write(
    mut outgoing: Outgoing,
    mut batches: mpsc::Receiver<Vec<pb::Message>>,
) -> Result<(), ConnectError> {
    let mut pings = outgoing.ping_every().map(|every| interval_at(Instant::now() + every, every));
    let probes = outgoing.probes();
    loop {
        let batch = tokio::select! {
            batch = batches.recv() => batch,
            () = tick(&mut pings) => {
                outgoing.ping().await?;
                continue;
            }
        };
        let Some(batch) = batch else { break };
        let mut octets = Vec::with_capacity(BATCH_OCTETS);
        for message in batch {
            outgoing.write(message, &mut octets);
        }
        let sending = outgoing.send(Bytes::from(octets));
        tokio::pin!(sending);
        loop {
            tokio::select! {
                sent = &mut sending => break sent?,
                // No ping gets past what is stuck here, and whoever takes nothing answers none.
                () = tick(&mut pings) => probes.iter().for_each(Probes::expect_answer),
            }
        }
    }
    outgoing.finish().await;
    Ok(())
}

/// When the next ping is due; never, if there are none.
async fn tick(pings: &mut Option<Interval>) {
    match pings {
        Some(pings) => drop(pings.tick().await),
        None => std::future::pending().await,
    }
}
