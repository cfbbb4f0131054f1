//! The streams a receiver knows: those that live, and the manner in which the last ones ended.

use super::{StreamId, flow::RecvWindow};

/// What may still arrive on a living stream. Source: RFC 9113 §5.1, §8.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Client: no final response yet.
    Waiting,
    /// DATA, then perhaps trailers.
    Open,
    /// Nothing: the peer ended its half.
    Ended,
}

/// A message without content-length.
const NO_CONTENT_LENGTH: u64 = u64::MAX;

#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    pub(super) id: StreamId,
    pub(super) phase: Phase,
    pub(super) window: RecvWindow,
    /// Octets of DATA still to come according to content-length.
    content_left: u64,
}

impl Stream {
    pub(super) fn new(id: StreamId, phase: Phase, window: RecvWindow, content_length: Option<u64>) -> Self {
        Self { id, phase, window, content_left: content_length.unwrap_or(NO_CONTENT_LENGTH) }
    }

    #[inline]
    pub(super) fn has_content_length(&self) -> bool {
        self.content_left != NO_CONTENT_LENGTH
    }

    pub(super) fn set_content_length(&mut self, content_length: Option<u64>) {
        self.content_left = content_length.unwrap_or(NO_CONTENT_LENGTH);
    }

    /// Counts DATA against content-length; false when it is too much, or ends too early. Source: RFC 9113 §8.1.1.
    pub(super) fn content(&mut self, octets: u32, is_end: bool) -> bool {
        if !self.has_content_length() {
            return true;
        }
        match self.content_left.checked_sub(u64::from(octets)) {
            Some(left) => {
                self.content_left = left;
                !is_end || left == 0
            }
            None => false,
        }
    }
}

/// How a stream that is gone ended; decides what late frames mean. Source: RFC 9113 §5.1, "closed".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Both ends said END_STREAM: the peer has no business with it any more.
    Both,
    /// The peer reset it.
    PeerReset,
    /// We reset it, or ended it while the peer had not: frames under way are to be ignored.
    OurReset,
    /// Too long ago to be remembered.
    Forgotten,
    /// Never used, but a later one was.
    Skipped,
}

/// How many ended streams are remembered.
const ENDED_MAX: usize = 128;

/// Streams by id. One, mostly: a sorted vector and the place of the last one used beat a map.
#[derive(Debug, Default)]
pub(super) struct Streams {
    live: Vec<Stream>,
    hint: usize,
    /// The highest id ever used.
    highest: u32,
    /// A ring; `next_ended` is the oldest once it is full.
    ended: Vec<(StreamId, Ending)>,
    next_ended: usize,
    /// No id up to this one can be told from one that was forgotten.
    forgotten: u32,
}

impl Streams {
    /// Streams that live.
    pub(super) fn len(&self) -> usize {
        self.live.len()
    }

    pub(super) fn highest(&self) -> StreamId {
        StreamId::new(self.highest)
    }

    /// Whether nobody ever used this id.
    pub(super) fn is_idle(&self, id: StreamId) -> bool {
        !id.is_clients() || id.get() > self.highest
    }

    #[inline]
    pub(super) fn get(&mut self, id: StreamId) -> Option<&mut Stream> {
        match self.live.get(self.hint) {
            Some(stream) if stream.id == id => {}
            _ => self.hint = self.live.binary_search_by_key(&id, |stream| stream.id).ok()?,
        }
        self.live.get_mut(self.hint)
    }

    /// Uses an id for a stream that lives; it must be above all others.
    pub(super) fn insert(&mut self, stream: Stream) {
        self.use_up(stream.id);
        self.admit(stream);
    }

    /// Lets a stream live whose id was used up last.
    pub(super) fn admit(&mut self, stream: Stream) {
        debug_assert!(stream.id.get() == self.highest, "ids only grow, so the vector stays sorted");
        self.hint = self.live.len();
        self.live.push(stream);
    }

    /// Uses an id without a stream coming to life.
    pub(super) fn use_up(&mut self, id: StreamId) {
        debug_assert!(self.is_idle(id), "stream ids only grow");
        self.highest = id.get();
    }

    /// Ends a stream, or changes how an ended one ended.
    pub(super) fn end(&mut self, id: StreamId, ending: Ending) {
        if let Ok(index) = self.live.binary_search_by_key(&id, |stream| stream.id) {
            self.live.remove(index);
        }
        if let Some(known) = self.ended.iter_mut().find(|(known, _)| *known == id) {
            known.1 = ending;
        } else if self.ended.len() < ENDED_MAX {
            self.ended.push((id, ending));
        } else {
            let oldest = &mut self.ended[self.next_ended];
            self.forgotten = self.forgotten.max(oldest.0.get());
            *oldest = (id, ending);
            self.next_ended = (self.next_ended + 1) % ENDED_MAX;
        }
    }

    /// How a stream that neither lives nor is idle ended.
    pub(super) fn ending(&self, id: StreamId) -> Ending {
        match self.ended.iter().find(|(known, _)| *known == id) {
            Some(&(_, ending)) => ending,
            None if id.get() <= self.forgotten => Ending::Forgotten,
            None => Ending::Skipped,
        }
    }

    /// Every stream that lives.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.live.iter_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(id: u32) -> Stream {
        Stream::new(StreamId::new(id), Phase::Open, RecvWindow::new(10, 10), None)
    }

    #[test]
    fn lookups_survive_removal() {
        let mut streams = Streams::default();
        for id in [1, 3, 5, 9] {
            streams.insert(stream(id));
        }
        assert_eq!(streams.get(StreamId::new(5)).unwrap().id.get(), 5);
        streams.end(StreamId::new(3), Ending::Both);
        assert_eq!(streams.get(StreamId::new(5)).unwrap().id.get(), 5);
        assert_eq!(streams.get(StreamId::new(9)).unwrap().id.get(), 9);
        assert!(streams.get(StreamId::new(3)).is_none());
        assert_eq!(streams.ending(StreamId::new(3)), Ending::Both);
        assert_eq!(streams.ending(StreamId::new(7)), Ending::Skipped);
        assert!(streams.is_idle(StreamId::new(11)) && streams.is_idle(StreamId::new(2)));
    }

    #[test]
    fn old_endings_are_forgotten_and_said_to_be() {
        let mut streams = Streams::default();
        for index in 0..1000u32 {
            streams.insert(stream(2 * index + 1));
            streams.end(StreamId::new(2 * index + 1), Ending::PeerReset);
        }
        assert_eq!(streams.ending(StreamId::new(1)), Ending::Forgotten);
        assert_eq!(streams.ending(StreamId::new(1999)), Ending::PeerReset);
        assert!(streams.ended.len() == ENDED_MAX);
    }

    #[test]
    fn content_length_is_met_exactly() {
        let mut counted = stream(1);
        assert!(counted.content(99, true), "no content-length, nothing to meet");
        counted.set_content_length(Some(10));
        assert!(counted.content(4, false));
        assert!(!counted.clone().content(5, true));
        assert!(!counted.clone().content(7, false));
        assert!(counted.content(6, true));
    }
}
