//! The log of RIB changes: control writes, every shard reads at the start of its turn.
//!
//! Ack truth (architecture §4): [`DeltaWriter::have_all`] is true for a version once every shard has applied it, or was
//! seen parked after it was published, because a shard that wakes applies its whole log before anything else.

use crossbeam::queue::SegQueue;
use crossbeam::utils::CachePadded;
use slimline_fib::{Delta, Version};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

/// One shard's end, shared with the writer.
#[derive(Debug, Default)]
struct Lane {
    batches: SegQueue<(u64, Arc<[Delta]>)>,
    /// The newest version this shard has applied.
    applied: CachePadded<AtomicU64>,
    parked: CachePadded<AtomicBool>,
}

/// The writing end, owned by control.
#[derive(Debug)]
pub(crate) struct DeltaWriter {
    lanes: Vec<Arc<Lane>>,
    version: u64,
}

/// A shard's reading end.
#[derive(Debug)]
pub(crate) struct DeltaReader {
    lane: Arc<Lane>,
    /// The batch being applied, and how far.
    current: Option<(u64, Arc<[Delta]>, usize)>,
    applied: u64,
}

/// A log with one writer and `shards` readers.
pub(crate) fn delta_log(shards: usize) -> (DeltaWriter, Vec<DeltaReader>) {
    let lanes: Vec<Arc<Lane>> = (0..shards).map(|_| Arc::default()).collect();
    let readers = lanes.iter().map(|lane| DeltaReader { lane: Arc::clone(lane), current: None, applied: 0 }).collect();
    (DeltaWriter { lanes, version: 0 }, readers)
}

impl DeltaWriter {
    /// Appends a batch for every shard.
    pub(crate) fn publish(&mut self, batch: Arc<[Delta]>) -> Version {
        self.version += 1;
        for lane in &self.lanes {
            lane.batches.push((self.version, Arc::clone(&batch)));
        }
        Version(self.version)
    }

    /// The newest published version.
    pub(crate) const fn version(&self) -> Version {
        Version(self.version)
    }

    /// Whether every shard has applied `version`, or is parked and will before it does anything else.
    pub(crate) fn have_all(&self, version: Version) -> bool {
        fence(Ordering::SeqCst);
        self.lanes
            .iter()
            .all(|lane| lane.applied.load(Ordering::Acquire) >= version.0 || lane.parked.load(Ordering::SeqCst))
    }

    /// Shards whose unread log is long although they are parked: they should be rung.
    pub(crate) fn behind(&self) -> impl Iterator<Item = usize> {
        self.lanes
            .iter()
            .enumerate()
            .filter(|(_, lane)| lane.batches.len() > BATCHES_UNREAD_MAX)
            .map(|(shard, _)| shard)
    }
}

/// A parked shard with more unread batches than this is woken to take them.
const BATCHES_UNREAD_MAX: usize = 64;

impl DeltaReader {
    /// Applies at most `deltas_max` deltas; true when the log was emptied.
    pub(crate) fn drain(&mut self, deltas_max: usize, mut apply: impl FnMut(&Delta)) -> bool {
        let mut left = deltas_max;
        loop {
            let (version, batch, at) = match self.current.take() {
                Some(current) => current,
                None => match self.lane.batches.pop() {
                    Some((version, batch)) => (version, batch, 0),
                    None => return true,
                },
            };
            let end = batch.len().min(at + left);
            batch[at..end].iter().for_each(&mut apply);
            left -= end - at;
            if end < batch.len() {
                self.current = Some((version, batch, end));
                return false;
            }
            self.applied = version;
            self.lane.applied.store(version, Ordering::Release);
        }
    }

    /// Whether something is left to apply.
    pub(crate) fn is_empty(&self) -> bool {
        self.current.is_none() && self.lane.batches.is_empty()
    }

    /// Announces that the shard is about to block. The caller re-checks every queue afterwards, this log included.
    pub(crate) fn park(&self) {
        self.lane.parked.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// The shard is awake: it applies the log before anything else.
    pub(crate) fn unpark(&self) {
        self.lane.parked.store(false, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }
}
