//! The delta log: one writer, the control thread; one reader per shard. And the truth of acknowledgements.
//!
//! A reader has a batch when it has applied it, or when it was seen parked after the batch was published: a reader that wakes
//! applies all that was published before it does anything else ([`LogReader::resume`] is the only way to wake). So once
//! [`LogWriter::have_all`] says yes, no shard handles anything any more without the batch; and an idle shard need not be
//! woken for it.

use super::sync::{Arc, ArrayQueue, AtomicU64, Ordering, fence};
use super::wake::{Doorbell, Parking};
use crossbeam::utils::CachePadded;
use slimline_fib::{Delta, Version};
use std::sync::Arc as Batch;

/// Batches a reader may be behind; then the writer waits.
pub const LOG_BATCHES_MAX: usize = 1024;

/// Deltas a sleeping reader may be behind before it is woken: what it applies at once when it wakes for something else.
const ASLEEP_DELTAS_MAX: usize = 4096;

/// Makes a log with one reader for each of `wakes`: what makes that shard return from its sleep.
///
/// `wake_writer` does the same for the control thread, which sleeps while shards have yet to apply what it waits for.
#[must_use]
pub fn delta_log<W: Fn() + Send + Sync + 'static>(
    wakes: impl IntoIterator<Item = W>,
    wake_writer: impl Fn() + Send + Sync + 'static,
    batches_max: usize,
) -> (LogWriter, Vec<LogReader>) {
    let parkings: Vec<Parking> = wakes.into_iter().map(Parking::new).collect();
    let place = |parking: &Parking| Place {
        batches: ArrayQueue::new(batches_max.max(1)),
        applied: CachePadded::new(AtomicU64::new(0)),
        doorbell: parking.doorbell(),
    };
    let shared = Arc::new(Shared {
        published: CachePadded::new(AtomicU64::new(0)),
        places: parkings.iter().map(place).collect(),
        batches_max: batches_max.max(1),
    });
    let writer_parking = Parking::new(wake_writer);
    let reader = |(index, parking)| LogReader {
        shared: Arc::clone(&shared),
        index,
        parking,
        writer: writer_parking.doorbell(),
        applied: 0,
        current: None,
    };
    let readers = parkings.into_iter().enumerate().map(reader).collect::<Vec<_>>();
    let (known, unread) = (vec![0; readers.len()], vec![0; readers.len()]);
    (LogWriter { shared, parking: writer_parking, published: 0, known, unread }, readers)
}

struct Shared {
    /// Batches published so far.
    published: CachePadded<AtomicU64>,
    places: Box<[Place]>,
    batches_max: usize,
}

/// One reader's.
struct Place {
    batches: ArrayQueue<Batch<[Delta]>>,
    /// Batches applied so far, or [`LEFT`].
    applied: CachePadded<AtomicU64>,
    doorbell: Doorbell,
}

/// A reader that was dropped has, and always will have, everything.
const LEFT: u64 = u64::MAX;

/// The control thread's end.
pub struct LogWriter {
    shared: Arc<Shared>,
    parking: Parking,
    published: u64,
    /// What each reader is known to have, applied or owed on waking.
    known: Vec<u64>,
    /// Deltas published since each reader was last rung, or found to have read all.
    unread: Vec<usize>,
}

impl LogWriter {
    /// Appends a batch for every shard.
    ///
    /// Errors: the batch, if a shard is [`LOG_BATCHES_MAX`] behind; that shard has been woken, and nobody got the batch.
    pub fn publish(&mut self, batch: Batch<[Delta]>) -> Result<Version, Batch<[Delta]>> {
        let places = &self.shared.places;
        let open = || places.iter().filter(|place| place.applied.load(Ordering::Relaxed) != LEFT);
        let mut is_full = false;
        for place in open().filter(|place| place.batches.is_full()) {
            place.doorbell.ring();
            is_full = true;
        }
        if is_full {
            return Err(batch);
        }
        for place in open() {
            // Only this thread pushes, so there still is room.
            let pushed = place.batches.push(Batch::clone(&batch));
            assert!(pushed.is_ok(), "a queue with room takes a batch");
        }
        self.published += 1;
        self.shared.published.store(self.published, Ordering::Release);
        // A shard that sleeps long need not be woken for each batch, but before it is much that it has to apply on waking.
        for (place, unread) in places.iter().zip(&mut self.unread) {
            let waiting = place.batches.len();
            *unread = if waiting > 1 { *unread + batch.len() } else { batch.len() };
            if *unread > ASLEEP_DELTAS_MAX || waiting * 2 >= self.shared.batches_max {
                *unread = 0;
                place.doorbell.ring();
            }
        }
        Ok(Version(self.published))
    }

    /// Whether every reader has applied all but the last `batches`, asleep or not; those that sleep over more are woken, and
    /// the writer is when the answer may have changed.
    pub fn is_applied_but(&self, batches: u64) -> bool {
        let mut all = true;
        for place in &*self.shared.places {
            if self.published.saturating_sub(place.applied.load(Ordering::Acquire)) > batches {
                place.doorbell.ring();
                all = false;
            }
        }
        all
    }

    /// Whether every shard has the log up to `version`: whatever a shard handles from now on, it handles with it.
    ///
    /// Shape:  once true it stays true. Where it is false, the writer is woken when the answer may have changed.
    /// Errors: none; it must not be asked about versions that are still to come.
    pub fn have_all(&mut self, version: Version) -> bool {
        assert!(version.0 <= self.published, "{version:?} of {}", self.published);
        fence(Ordering::SeqCst); // between publishing and looking whether a reader is parked
        let mut have_all = true;
        for (known, place) in self.known.iter_mut().zip(&*self.shared.places) {
            if *known < version.0 {
                *known = match place.doorbell.is_parked_after_fence() {
                    true => self.published,
                    false => place.applied.load(Ordering::Acquire),
                };
                have_all &= *known >= version.0;
            }
        }
        have_all
    }

    /// The latest version.
    #[must_use]
    pub fn version(&self) -> Version {
        Version(self.published)
    }

    /// What wakes shard `index`.
    #[must_use]
    pub fn doorbell_of(&self, index: usize) -> Doorbell {
        self.shared.places[index].doorbell.clone()
    }

    /// What wakes the control thread.
    #[must_use]
    pub fn doorbell(&self) -> Doorbell {
        self.parking.doorbell()
    }

    /// Says "about to sleep". After this the control thread looks at its queues, and at [`LogWriter::have_all`] for whatever
    /// it still waits for, and blocks only if there is nothing.
    pub fn park(&mut self) {
        self.parking.park();
    }

    /// Awake again, or not asleep after all.
    pub fn unpark(&mut self) {
        self.parking.unpark();
    }
}

/// A shard's end.
pub struct LogReader {
    shared: Arc<Shared>,
    index: usize,
    parking: Parking,
    writer: Doorbell,
    /// Batches applied whole.
    applied: u64,
    /// A batch begun, and where to go on in it.
    current: Option<(Batch<[Delta]>, usize)>,
}

impl LogReader {
    /// Applies up to `deltas_max` of what was published when called; how many there were.
    ///
    /// For the start of a turn. The turn after a sleep starts with [`LogReader::resume`] instead.
    pub fn drain(&mut self, deltas_max: usize, mut apply: impl FnMut(&Delta)) -> usize {
        let published = self.shared.published.load(Ordering::Acquire);
        let place = &self.shared.places[self.index];
        let before = self.applied;
        let mut count = 0;
        while self.applied < published {
            let (batch, at) =
                self.current.take().unwrap_or_else(|| (place.batches.pop().expect("queued before published"), 0));
            let end = batch.len().min(at + (deltas_max - count));
            batch[at..end].iter().for_each(&mut apply);
            count += end - at;
            if end < batch.len() {
                self.current = Some((batch, end));
                break;
            }
            self.applied += 1;
        }
        if self.applied > before {
            place.applied.store(self.applied, Ordering::Release);
            self.writer.ring();
        }
        count
    }

    /// Whether something waits to be applied. After [`LogReader::park`] this is part of the re-check.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.applied < self.shared.published.load(Ordering::Acquire)
    }

    /// Says "about to sleep". After this the shard looks at its rings and at [`LogReader::has_more`], and blocks only if there
    /// is nothing; in either case [`LogReader::resume`] comes before anything is handled.
    pub fn park(&mut self) {
        self.parking.park();
    }

    /// Awake again, or not asleep after all: applies everything published, however much; how many deltas that was.
    pub fn resume(&mut self, apply: impl FnMut(&Delta)) -> usize {
        self.parking.unpark();
        self.drain(usize::MAX, apply)
    }

    /// What wakes this shard.
    #[must_use]
    pub fn doorbell(&self) -> Doorbell {
        self.parking.doorbell()
    }

    /// The version this replica is at.
    #[must_use]
    pub fn applied(&self) -> Version {
        Version(self.applied)
    }
}

impl Drop for LogReader {
    fn drop(&mut self) {
        self.shared.places[self.index].applied.store(LEFT, Ordering::Release);
        self.writer.ring();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use slimline_fib::ConnId;

    fn gone(slot: u32) -> Delta {
        Delta::ConnGone { conn: ConnId { shard: 0, slot, generation: 0 } }
    }

    fn batch(slots: std::ops::Range<u32>) -> Batch<[Delta]> {
        slots.map(gone).collect()
    }

    #[test]
    fn a_shard_has_what_it_applied() {
        let (mut writer, mut readers) = delta_log([|| (), || ()], || (), 4);
        let mut seen = Vec::new();
        let first = writer.publish(batch(0..3)).expect("room");
        let second = writer.publish(batch(3..5)).expect("room");
        assert!(!writer.have_all(first));
        assert_eq!(readers[0].drain(4, |delta| seen.push(*delta)), 4);
        assert_eq!(readers[0].applied(), first);
        assert_eq!(readers[1].drain(100, |_| ()), 5);
        assert!(writer.have_all(first));
        assert!(!writer.have_all(second));
        assert!(readers[0].has_more());
        assert_eq!(readers[0].drain(100, |delta| seen.push(*delta)), 1);
        assert!(writer.have_all(second) && !readers[0].has_more());
        assert_eq!(seen, (0..5).map(gone).collect::<Vec<_>>());
        assert_eq!(writer.publish(batch(0..0)).expect("an empty batch is one too"), Version(3));
        assert_eq!(readers[0].drain(0, |_| unreachable!()), 0);
        assert_eq!(readers[0].applied(), Version(3));
    }

    #[test]
    fn a_sleeper_is_woken_before_it_has_much_to_apply() {
        let rung = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counter = std::sync::Arc::clone(&rung);
        let ring = move || {
            counter.fetch_add(1, Ordering::Relaxed);
        };
        let (mut writer, mut readers) = delta_log([ring], || (), 1000);
        let half = u32::try_from(ASLEEP_DELTAS_MAX / 2).expect("few");
        for round in 1..4 {
            readers[0].park();
            for _ in 0..2 {
                writer.publish(batch(0..half)).expect("room");
            }
            assert_eq!(rung.load(Ordering::Relaxed), round - 1);
            assert!(writer.is_applied_but(2) && rung.load(Ordering::Relaxed) == round - 1);
            writer.publish(batch(0..1)).expect("room");
            assert_eq!(rung.load(Ordering::Relaxed), round);
            assert!(!writer.is_applied_but(2));
            assert_eq!(readers[0].resume(|_| ()), ASLEEP_DELTAS_MAX + 1);
            assert!(writer.is_applied_but(0));
        }
        readers[0].park();
        writer.publish(batch(0..1)).expect("room");
        assert!(!writer.is_applied_but(0), "asked for");
        assert_eq!(rung.load(Ordering::Relaxed), 4);
        drop(readers);
        assert!(writer.is_applied_but(0), "nobody is left who could lack it");
    }

    #[test]
    fn a_parked_shard_counts_as_having_it_and_has_it_on_waking() {
        let (mut writer, mut readers) = delta_log([|| ()], || (), 4);
        readers[0].park();
        let version = writer.publish(batch(0..9)).expect("room");
        assert!(writer.have_all(version));
        assert_eq!(readers[0].resume(|_| ()), 9);
        let version = writer.publish(batch(0..1)).expect("room");
        assert!(!writer.have_all(version), "awake: it has to apply it");
    }

    #[test]
    fn a_shard_that_is_behind_stops_the_writer_and_is_woken() {
        let rung = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counter = std::sync::Arc::clone(&rung);
        let ring = move || {
            counter.fetch_add(1, Ordering::Relaxed);
        };
        let (mut writer, mut readers) = delta_log([ring], || (), 4);
        readers[0].park();
        writer.publish(batch(0..1)).expect("room");
        assert_eq!(rung.load(Ordering::Relaxed), 0, "not for one batch");
        for slot in 1..4 {
            writer.publish(batch(slot..slot + 1)).expect("room");
        }
        assert_eq!(rung.load(Ordering::Relaxed), 1, "half full");
        let refused = writer.publish(batch(4..5)).expect_err("full");
        assert_eq!(readers[0].resume(|_| ()), 4);
        assert_eq!(writer.publish(refused).expect("room again"), Version(5));
        drop(readers);
        let version = (0..9).map(|_| writer.publish(batch(0..1)).expect("nobody is behind")).last();
        assert!(writer.have_all(version.expect("nine")), "nobody is left who could lack it");
    }
}
