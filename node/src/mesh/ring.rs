//! One direction between two shards: records in order, written in place by one thread and read in place by another.
//!
//! ```text
//!   head                    tail as published      tail
//!    │ records to be read    │ written this turn    │ free …           positions count octets for ever;
//!    ▼                       ▼                      ▼                  an octet lies at position mod size
//! ┌──────┬─────────────┬──────┬───────────┬─────────┬──────┐
//! │length│ octets, up  │length│ octets    │ …       │ pad  │   a record never wraps: what is left at the end is padded
//! │ mark │ to 8 · n    │ mark │           │         │      │
//! └──────┴─────────────┴──────┴───────────┴─────────┴──────┘
//! ```
//!
//! Invariants
//! - `head ≤ published tail ≤ tail ≤ head + size`; all are multiples of eight.
//! - The producer touches `tail .. head + size` only, the consumer `head .. published tail` only; so they never touch one octet.
//! - `tail` is published with Release after the records are written, and read with Acquire before they are; `head` goes
//!   the same way back, after the consumer has let go of the records.
//! - Data leaves `control_octets` free; so records that relieve congestion get through a ring that is full of data.
//! - A record with a body has its body in `bodies` before its tail is published; both are taken in the same order.

use super::sync::{Arc, ArrayQueue, AtomicU64, Octets, Ordering, WORD};
use crossbeam::utils::CachePadded;

/// How large a ring and what goes through it may be. Units: octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingOptions {
    /// The ring itself, a power of two.
    pub octets: usize,
    /// The longest record; larger things travel as bodies.
    pub record_octets_max: usize,
    /// Kept free of data, for control records. Each takes its length and [`RECORD_HEAD_OCTETS`], rounded up to eight.
    pub control_octets: usize,
    /// Bodies on the way at one time.
    pub bodies_max: usize,
}

impl Default for RingOptions {
    /// 1 MiB, records up to 64 KiB, room for 64 control records of 64 octets, and one more for the padding at the end.
    fn default() -> Self {
        Self {
            octets: 1 << 20,
            record_octets_max: 1 << 16,
            control_octets: 65 * (RECORD_HEAD_OCTETS + 64),
            bodies_max: 256,
        }
    }
}

/// What a record takes besides its own octets.
pub const RECORD_HEAD_OCTETS: usize = WORD;

/// Makes a ring.
///
/// Panics: when a record of the longest kind would not fit an empty ring.
#[must_use]
pub fn ring<B>(options: RingOptions) -> (Producer<B>, Consumer<B>) {
    assert!(options.octets.is_power_of_two() && options.octets >= WORD, "positions are masked");
    assert!(u32::try_from(options.record_octets_max).is_ok(), "lengths are 32 bits");
    // The padding before a record is shorter than the record.
    let needed = 2 * taken(options.record_octets_max) + options.control_octets;
    assert!(needed <= options.octets, "a ring of {} octets for what needs {needed}", options.octets);
    let shared = Arc::new(Shared {
        octets: Octets::new(options.octets),
        head: CachePadded::new(AtomicU64::new(0)),
        tail: CachePadded::new(AtomicU64::new(0)),
        bodies: ArrayQueue::new(options.bodies_max.max(1)),
    });
    let producer = Producer { shared: Arc::clone(&shared), options, tail: 0, published: 0, head: 0 };
    (producer, Consumer { shared, head: 0, released: 0, tail: 0 })
}

struct Shared<B> {
    octets: Octets,
    /// Up to here the consumer has let go.
    head: CachePadded<AtomicU64>,
    /// Up to here the producer has published.
    tail: CachePadded<AtomicU64>,
    bodies: ArrayQueue<B>,
}

/// Which part of the ring a record may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// All but the reserve.
    Data,
    /// The reserve too: what tells the other side about congestion, acknowledgements, ends.
    Control,
}

/// The ring has no room for this record now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ring full")]
pub struct Full;

/// The writing end; one thread's.
pub struct Producer<B> {
    shared: Arc<Shared<B>>,
    options: RingOptions,
    tail: u64,
    published: u64,
    /// The consumer's head when last looked at.
    head: u64,
}

impl<B> Producer<B> {
    /// Room for one record of `octets` octets, to be filled in by the caller. It is sent with the next [`Producer::publish`],
    /// filled in or not: what is not written is whatever lay there.
    ///
    /// Shape:  aligned to eight octets.
    /// Errors: [`Full`]; nothing has changed then.
    /// Panics: when `octets` is above `record_octets_max`.
    pub fn grant(&mut self, class: Class, octets: usize) -> Result<&mut [u8], Full> {
        let at = self.make_room(class, octets)?;
        Ok(self.write_head(at, octets, mark_of(class)))
    }

    /// One record, copied together from `parts`.
    ///
    /// Errors: as [`Producer::grant`].
    pub fn push(&mut self, class: Class, parts: &[&[u8]]) -> Result<(), Full> {
        let mut rest = self.grant(class, parts.iter().map(|part| part.len()).sum())?;
        for part in parts {
            let (there, after) = rest.split_at_mut(part.len());
            there.copy_from_slice(part);
            rest = after;
        }
        Ok(())
    }

    /// Room for one record, with something that is too large to be copied: it arrives with the record.
    ///
    /// Errors: the body, if there is no room for the record or for one more body.
    pub fn grant_with_body(&mut self, class: Class, octets: usize, body: B) -> Result<&mut [u8], B> {
        let Ok(at) = self.make_room(class, octets) else { return Err(body) };
        self.shared.bodies.push(body)?;
        Ok(self.write_head(at, octets, mark_of(class) | WITH_BODY))
    }

    /// Lets the consumer see all records so far; true if there were new ones, so that its doorbell may need ringing.
    pub fn publish(&mut self) -> bool {
        if self.published == self.tail {
            return false;
        }
        self.published = self.tail;
        self.shared.tail.store(self.tail, Ordering::Release);
        true
    }

    /// Whether a record of this size would find room.
    pub fn has_room(&mut self, class: Class, octets: usize) -> bool {
        self.find_room(class, octets).is_ok()
    }

    /// Whether one more body would find room; the record that goes with it is another question.
    #[must_use]
    pub fn has_room_for_body(&self) -> bool {
        !self.shared.bodies.is_full()
    }

    /// Octets the consumer has not let go of, as far as known.
    #[must_use]
    pub fn used_octets(&self) -> usize {
        usize::try_from(self.tail - self.head).expect("at most the size of the ring")
    }

    /// The padding that has to come before a record of `octets`.
    fn find_room(&mut self, class: Class, octets: usize) -> Result<usize, Full> {
        assert!(octets <= self.options.record_octets_max, "{octets} octets in one record");
        let to_the_end = self.shared.octets.len() - self.offset(self.tail);
        let padding = if taken(octets) <= to_the_end { 0 } else { to_the_end };
        let reserve = if class == Class::Data { self.options.control_octets } else { 0 };
        let needed = padding + taken(octets) + reserve;
        if self.shared.octets.len() - self.used_octets() < needed {
            self.head = self.shared.head.load(Ordering::Acquire);
            if self.shared.octets.len() - self.used_octets() < needed {
                return Err(Full);
            }
        }
        Ok(padding)
    }

    /// Pads up to the end where necessary. The position of the record: the caller may write `taken(octets)` from there on.
    ///
    /// Padding is written even if the caller then cannot send its record: it is valid by itself.
    fn make_room(&mut self, class: Class, octets: usize) -> Result<u64, Full> {
        let padding = self.find_room(class, octets)?;
        if padding > 0 {
            self.write_head(self.tail, padding - RECORD_HEAD_OCTETS, PAD);
        }
        Ok(self.tail)
    }

    /// Writes a record's head at the tail, and moves the tail behind the record.
    fn write_head(&mut self, at: u64, octets: usize, mark: u32) -> &mut [u8] {
        debug_assert_eq!(at, self.tail);
        let offset = self.offset(at);
        self.tail += taken(octets) as u64;
        let length = u32::try_from(octets).expect("`record_octets_max` is, and padding is shorter");
        // SAFETY: the producer's own part: `find_room` saw that `used_octets`, taken from a head that was loaded with Acquire,
        // leaves this range free; so the consumer is done with it, and does not look here again before `publish`. The
        // producer itself has no other slice of it: the one returned borrows `self` mutably.
        let record = unsafe { self.shared.octets.slice_mut(offset, RECORD_HEAD_OCTETS + octets) };
        let (head, octets) = record.split_at_mut(RECORD_HEAD_OCTETS);
        head[..4].copy_from_slice(&length.to_ne_bytes());
        head[4..].copy_from_slice(&mark.to_ne_bytes());
        octets
    }

    fn offset(&self, position: u64) -> usize {
        offset(position, self.shared.octets.len())
    }
}

/// One record, where it lies.
#[derive(Debug)]
pub struct Record<'a, B> {
    /// Which part of the ring it used.
    pub class: Class,
    /// Aligned to eight octets.
    pub octets: &'a [u8],
    /// What travelled with it.
    pub body: Option<B>,
}

/// The reading end; one thread's.
pub struct Consumer<B> {
    shared: Arc<Shared<B>>,
    head: u64,
    released: u64,
    /// The producer's tail when last looked at.
    tail: u64,
}

impl<B> Consumer<B> {
    /// The next record.
    #[expect(clippy::should_implement_trait, reason = "records borrow the consumer: it lends them, one at a time")]
    pub fn next(&mut self) -> Option<Record<'_, B>> {
        loop {
            if self.head == self.tail {
                self.tail = self.shared.tail.load(Ordering::Acquire);
                if self.head == self.tail {
                    return None;
                }
            }
            let at = offset(self.head, self.shared.octets.len());
            // SAFETY: the consumer's own part: `head < tail`, and the tail was loaded with Acquire, so a whole record was written
            // here and published. The producer comes here again only after `release` has moved the head past it, which needs
            // `self` mutably, as this slice's holder does not have it.
            let head = unsafe { self.shared.octets.slice(at, RECORD_HEAD_OCTETS) };
            let (length, mark) = head.split_at(4);
            let length = u32::from_ne_bytes(length.try_into().expect("four octets")) as usize;
            let mark = u32::from_ne_bytes(mark.try_into().expect("four octets"));
            self.head += taken(length) as u64;
            if mark == PAD {
                continue;
            }
            // SAFETY: as above: the head just read belongs to a record that was published as a whole.
            let octets = unsafe { self.shared.octets.slice(at + RECORD_HEAD_OCTETS, length) };
            let body = (mark & WITH_BODY != 0).then(|| self.shared.bodies.pop().expect("sent before its record"));
            let class = if mark & !WITH_BODY == CONTROL { Class::Control } else { Class::Data };
            return Some(Record { class, octets, body });
        }
    }

    /// Gives the room of all records taken so far back to the producer; true if there were any.
    ///
    /// Once a turn, not once a record: the producer's core pays for each.
    pub fn release(&mut self) -> bool {
        if self.released == self.head {
            return false;
        }
        self.released = self.head;
        self.shared.head.store(self.head, Ordering::Release);
        true
    }

    /// Whether something is waiting. After [`LogReader::park`](super::LogReader::park) this is the re-check.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.head != self.tail || self.head != self.shared.tail.load(Ordering::Acquire)
    }
}

/// What a record of `octets` takes of the ring.
const fn taken(octets: usize) -> usize {
    RECORD_HEAD_OCTETS + octets.next_multiple_of(WORD)
}

#[expect(clippy::cast_possible_truncation, reason = "masked to less than a size, which is a usize")]
const fn offset(position: u64, size: usize) -> usize {
    (position & (size as u64 - 1)) as usize
}

const fn mark_of(class: Class) -> u32 {
    match class {
        Class::Data => DATA,
        Class::Control => CONTROL,
    }
}

/// Marks in a record's head.
const PAD: u32 = 0;
const DATA: u32 = 1;
const CONTROL: u32 = 2;
const WITH_BODY: u32 = 4;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::Arc as StdArc;

    fn filler(n: u64) -> Vec<u8> {
        let [low, ..] = n.to_le_bytes();
        vec![low; usize::from(low) % 50]
    }

    const SMALL: RingOptions = RingOptions { octets: 256, record_octets_max: 64, control_octets: 48, bodies_max: 2 };

    #[test]
    fn records_arrive_whole_and_in_order_across_the_end() {
        let (mut producer, mut consumer) = ring::<()>(SMALL);
        for n in 0..500usize {
            let octets: Vec<u8> = (0..n % 65).map(|at| (n + at).to_le_bytes()[0]).collect();
            let (left, right) = octets.split_at(octets.len() / 3);
            producer.push(Class::Data, &[left, right]).expect("an emptied ring takes any record");
            assert!(!consumer.has_more(), "not published yet");
            assert!(consumer.next().is_none());
            assert!(producer.publish());
            assert!(!producer.publish(), "nothing new");
            assert!(consumer.has_more());
            let record = consumer.next().expect("published");
            assert_eq!((record.class, record.octets), (Class::Data, &octets[..]));
            assert_eq!(record.octets.as_ptr().align_offset(8), 0);
            assert!(consumer.next().is_none());
            assert!(consumer.release());
        }
    }

    #[test]
    fn control_gets_through_a_ring_full_of_data() {
        for start in 0..40 {
            let (mut producer, mut consumer) = ring::<()>(SMALL);
            for _ in 0..start {
                producer.push(Class::Control, &[&[7; 8]]).expect("room");
                producer.publish();
                consumer.next().expect("sent");
                consumer.release();
            }
            let mut data = 0;
            while producer.push(Class::Data, &[&[1; 24]]).is_ok() {
                data += 1;
            }
            assert!(data >= 4, "{data} records of 32 in 208 octets");
            assert!(!producer.has_room(Class::Data, 24) && producer.has_room(Class::Control, 8));
            for _ in 0..2 {
                producer.push(Class::Control, &[&[2; 8]]).expect("the reserve is two such records and padding");
            }
            producer.publish();
            let mut classes = Vec::new();
            while let Some(record) = consumer.next() {
                classes.push(record.class);
            }
            assert_eq!(classes, [vec![Class::Data; data], vec![Class::Control; 2]].concat());
            consumer.release();
            producer.push(Class::Data, &[&[1; 64]]).expect("emptied");
        }
    }

    #[test]
    fn bodies_arrive_with_their_records() {
        let (mut producer, mut consumer) = ring::<StdArc<[u8]>>(SMALL);
        let body: StdArc<[u8]> = vec![9; 100_000].into();
        producer.push(Class::Data, &[b"first"]).expect("room");
        for n in 0..2 {
            let head = producer.grant_with_body(Class::Data, 1, StdArc::clone(&body)).expect("room");
            head[0] = n;
        }
        producer.grant_with_body(Class::Data, 1, StdArc::clone(&body)).expect_err("two bodies at a time");
        producer.publish();
        assert!(consumer.next().expect("first").body.is_none());
        for n in 0..2 {
            let record = consumer.next().expect("sent");
            assert_eq!(record.octets, [n]);
            assert_eq!(record.body.expect("with a body").len(), 100_000);
        }
        assert!(consumer.next().is_none());
        drop((producer, consumer));
        assert_eq!(StdArc::strong_count(&body), 1);
    }

    #[test]
    fn two_threads() {
        let count = if cfg!(miri) { 200 } else { 200_000u64 };
        let (mut producer, mut consumer) = ring::<Box<u64>>(SMALL);
        let writer = std::thread::spawn(move || {
            for n in 0..count {
                loop {
                    let is_sent = if n % 7 == 0 {
                        producer.grant_with_body(Class::Control, 0, Box::new(n)).is_ok()
                    } else {
                        producer.push(Class::Data, &[&n.to_le_bytes()[..], &filler(n)]).is_ok()
                    };
                    if is_sent {
                        break;
                    }
                    producer.publish();
                    std::thread::yield_now();
                }
                if n % 3 == 0 {
                    producer.publish();
                }
            }
            producer.publish();
        });
        for n in 0..count {
            let record = loop {
                // Looked at twice, for the borrow checker's sake.
                if consumer.has_more() {
                    break consumer.next().expect("there is more");
                }
                std::thread::yield_now();
            };
            match record.body {
                Some(body) => assert_eq!((*body, record.octets.len()), (n, 0)),
                None => {
                    let (number, rest) = record.octets.split_first_chunk().expect("eight octets");
                    assert_eq!(u64::from_le_bytes(*number), n);
                    assert_eq!(rest, filler(n));
                }
            }
            if n % 2 == 0 {
                consumer.release();
            }
        }
        writer.join().expect("no panic");
        assert!(consumer.next().is_none());
    }
}
