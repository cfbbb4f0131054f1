//! gRPC on top of HTTP/2: length-prefixed messages and status. Source: gRPC over HTTP/2; slim-wire §1.1.

use core::fmt;

/// The one method of a SLIM data plane.
pub const OPEN_CHANNEL_PATH: &str = "/dataplane.proto.v1.DataPlaneService/OpenChannel";

/// Compressed flag u8, length u32 big-endian: what precedes every message.
pub const PREFIX_OCTETS: usize = 5;

/// The prefix of an uncompressed message of `length` octets.
#[inline]
#[must_use]
pub const fn prefix(length: u32) -> [u8; PREFIX_OCTETS] {
    let [l0, l1, l2, l3] = length.to_be_bytes();
    [0, l0, l1, l2, l3]
}

/// What a stream's data holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// One whole message, without its prefix.
    Message(&'a [u8]),
    /// A message longer than allowed begins; said once, its octets are then discarded as they come.
    Oversize {
        /// Octets it announces.
        length: u32,
    },
}

/// Why a stream's data cannot be read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrpcError {
    /// A compressed message, while we announce no compression.
    #[error("compressed message, but no compression was agreed")]
    Compressed,
    /// A flag that is neither 0 nor 1.
    #[error("message flag {0}, expected 0")]
    BadFlag(u8),
}

/// Room that is kept between messages; what a larger one took is given back.
const KEPT_OCTETS: usize = 64 * 1024;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// At the first octet of a prefix, nothing held.
    Between,
    /// Inside a prefix; `held` has its first octets.
    Prefix,
    /// Inside a message of so many octets; `held` has the first of them.
    Message { length: usize },
    /// `held` is a message that was handed out.
    Taken,
    /// Inside a message nobody wants.
    Skip { left: usize },
    /// Out of step for ever.
    Broken(GrpcError),
}

/// Finds the messages in a stream's DATA, however it is cut.
///
/// A message that lies whole in the input is borrowed from it; one that does not is put together in a buffer that
/// grows with the octets received, never with the length announced.
#[derive(Debug)]
pub struct Deframer {
    step: Step,
    message_octets_max: u32,
    held: Vec<u8>,
}

impl Deframer {
    /// A deframer before its first octet. The limit is on the message, without its prefix.
    #[must_use]
    pub const fn new(message_octets_max: u32) -> Self {
        Self { step: Step::Between, message_octets_max, held: Vec::new() }
    }

    /// Pulls the next message off the front of `input`; `None` means that all of it was taken and more is needed.
    ///
    /// Errors: the stream has to end; every later call says the same again.
    #[inline]
    pub fn next<'r, 'i: 'r>(&'r mut self, input: &mut &'i [u8]) -> Result<Option<Item<'r>>, GrpcError> {
        if let Step::Between = self.step
            && let Some((&[0, l0, l1, l2, l3], rest)) = input.split_first_chunk()
        {
            let length = u32::from_be_bytes([l0, l1, l2, l3]);
            if length <= self.message_octets_max
                && let Some((message, rest)) = rest.split_at_checked(length as usize)
            {
                *input = rest;
                return Ok(Some(Item::Message(message)));
            }
        }
        self.next_in_pieces(input)
    }

    fn next_in_pieces<'r, 'i: 'r>(&'r mut self, input: &mut &'i [u8]) -> Result<Option<Item<'r>>, GrpcError> {
        loop {
            match self.step {
                Step::Broken(error) => return Err(error),
                Step::Taken => {
                    self.held.clear();
                    self.held.shrink_to(KEPT_OCTETS);
                    self.step = Step::Between;
                }
                Step::Message { length } if self.held.len() == length => {
                    self.step = Step::Taken;
                    return Ok(Some(Item::Message(&self.held)));
                }
                _ if input.is_empty() => return Ok(None),
                Step::Between | Step::Prefix => {
                    self.step = Step::Prefix;
                    self.hold(PREFIX_OCTETS, input);
                    if let Some(item) = self.prefix()? {
                        return Ok(Some(item));
                    }
                }
                Step::Message { length } => self.hold(length, input),
                Step::Skip { left } => {
                    let taken = left.min(input.len());
                    *input = &input[taken..];
                    self.step = if taken == left { Step::Between } else { Step::Skip { left: left - taken } };
                }
            }
        }
    }

    /// Puts the message just handed out, if it was put together here, into `memory`, and goes on with what that had
    /// room for. What it held is lost. The caller has no borrow of the message any more: it reads on in `memory`.
    pub fn take_message(&mut self, memory: &mut Vec<u8>) {
        debug_assert!(matches!(self.step, Step::Taken), "the last item was a message put together here");
        memory.clear();
        std::mem::swap(&mut self.held, memory);
        self.step = Step::Between;
    }

    /// Judges the prefix in `held`, as far as it is there.
    fn prefix(&mut self) -> Result<Option<Item<'static>>, GrpcError> {
        if let Some(&flag) = self.held.first()
            && flag != 0
        {
            let error = if flag == 1 { GrpcError::Compressed } else { GrpcError::BadFlag(flag) };
            self.held = Vec::new();
            self.step = Step::Broken(error);
            return Err(error);
        }
        let Ok([_, l0, l1, l2, l3]) = <[u8; PREFIX_OCTETS]>::try_from(&self.held[..]) else { return Ok(None) };
        self.held.clear();
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        let octets = length as usize;
        if length > self.message_octets_max {
            self.step = Step::Skip { left: octets };
            return Ok(Some(Item::Oversize { length }));
        }
        self.step = Step::Message { length: octets };
        Ok(None)
    }

    /// Moves octets from `input` to `held` until there are `wanted`.
    fn hold(&mut self, wanted: usize, input: &mut &[u8]) {
        let missing = wanted - self.held.len();
        let (octets, rest) = input.split_at(missing.min(input.len()));
        *input = rest;
        // Doubling, but not past the end of the message.
        if self.held.capacity() - self.held.len() < octets.len() {
            let room = (self.held.len() + octets.len()).max(2 * self.held.capacity()).max(64).min(wanted);
            self.held.reserve_exact(room - self.held.len());
        }
        self.held.extend_from_slice(octets);
    }

    /// Whether everything taken so far ended with a message: an end of stream here cuts nothing off.
    #[must_use]
    pub fn is_between_messages(&self) -> bool {
        matches!(self.step, Step::Between | Step::Taken)
    }

    /// Octets of a message that is not whole.
    #[must_use]
    pub fn held_octets(&self) -> usize {
        if matches!(self.step, Step::Taken) { 0 } else { self.held.len() }
    }

    /// Gives spare room back; worth calling when a stream falls idle.
    pub fn release(&mut self) {
        if self.is_between_messages() {
            self.held = Vec::new();
            self.step = Step::Between;
        }
    }
}

/// How a stream ended. Source: gRPC status codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Status(pub u32);

#[expect(missing_docs, reason = "the names are gRPC's own")]
impl Status {
    pub const OK: Self = Self(0);
    pub const CANCELLED: Self = Self(1);
    pub const UNKNOWN: Self = Self(2);
    pub const INVALID_ARGUMENT: Self = Self(3);
    pub const DEADLINE_EXCEEDED: Self = Self(4);
    pub const NOT_FOUND: Self = Self(5);
    pub const ALREADY_EXISTS: Self = Self(6);
    pub const PERMISSION_DENIED: Self = Self(7);
    pub const RESOURCE_EXHAUSTED: Self = Self(8);
    pub const FAILED_PRECONDITION: Self = Self(9);
    pub const ABORTED: Self = Self(10);
    pub const OUT_OF_RANGE: Self = Self(11);
    pub const UNIMPLEMENTED: Self = Self(12);
    pub const INTERNAL: Self = Self(13);
    pub const UNAVAILABLE: Self = Self(14);
    pub const DATA_LOSS: Self = Self(15);
    pub const UNAUTHENTICATED: Self = Self(16);
}

impl fmt::Display for Status {
    /// As `grpc-status` carries it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Appends `message` as `grpc-message` carries it.
///
/// Shape: visible ASCII and spaces as they are, `%` and all other octets of the UTF-8 form as `%XX`.
/// Source: gRPC over HTTP/2, "Percent-Encoded". A blank at either end is encoded too: HTTP/2 allows none there.
pub fn percent_encode(message: &str, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let last = message.len().wrapping_sub(1);
    for (at, octet) in message.bytes().enumerate() {
        match octet {
            b' ' if at != 0 && at != last => out.push(b' '),
            0x21..=0x7e if octet != b'%' => out.push(octet),
            _ => out.extend([b'%', DIGITS[usize::from(octet >> 4)], DIGITS[usize::from(octet & 0xf)]]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(messages: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        for message in messages {
            out.extend(prefix(u32::try_from(message.len()).unwrap()));
            out.extend_from_slice(message);
        }
        out
    }

    /// Everything the deframer says about `input` cut into pieces of `size`.
    fn items(input: &[u8], size: usize, max: u32) -> Vec<Result<Vec<u8>, String>> {
        let mut deframer = Deframer::new(max);
        let mut said = Vec::new();
        for mut piece in input.chunks(size) {
            loop {
                match deframer.next(&mut piece) {
                    Ok(Some(Item::Message(message))) => said.push(Ok(message.to_vec())),
                    Ok(Some(Item::Oversize { length })) => said.push(Err(format!("oversize {length}"))),
                    Ok(None) => break,
                    Err(error) => {
                        said.push(Err(error.to_string()));
                        return said;
                    }
                }
            }
        }
        said
    }

    #[test]
    fn any_cut_gives_the_same_messages() {
        let input = framed(&[b"one", b"", &[7; 300], b"four", &[9; 70]]);
        let whole = items(&input, input.len(), 100);
        assert_eq!(whole.len(), 5);
        assert_eq!(whole[2], Err("oversize 300".into()));
        for size in 1..input.len() {
            assert_eq!(items(&input, size, 100), whole, "pieces of {size}");
        }
    }

    #[test]
    fn a_whole_message_is_borrowed_and_a_cut_one_held() {
        let input = framed(&[b"message"]);
        let mut deframer = Deframer::new(100);
        let mut rest = &input[..];
        let Ok(Some(Item::Message(message))) = deframer.next(&mut rest) else { panic!("whole") };
        assert!(input.as_ptr_range().contains(&message.as_ptr()));
        assert_eq!(deframer.held.capacity(), 0);

        let (mut head, mut tail) = input.split_at(8);
        assert_eq!(deframer.next(&mut head), Ok(None));
        assert_eq!((deframer.held_octets(), deframer.is_between_messages()), (3, false));
        assert_eq!(deframer.next(&mut tail), Ok(Some(Item::Message(b"message"))));
        assert_eq!((deframer.held_octets(), deframer.is_between_messages()), (0, true));
    }

    #[test]
    fn a_message_put_together_can_be_taken_away() {
        let input = framed(&[b"one", b"second"]);
        let mut deframer = Deframer::new(100);
        let (mut head, mut tail) = input.split_at(6);
        assert_eq!(deframer.next(&mut head), Ok(None));
        assert_eq!(deframer.next(&mut tail), Ok(Some(Item::Message(b"one"))));
        let mut memory = Vec::with_capacity(1000);
        deframer.take_message(&mut memory);
        assert_eq!((&memory[..], deframer.held.capacity()), (&b"one"[..], 1000));
        assert_eq!(deframer.held_octets(), 0);
        assert_eq!(deframer.next(&mut tail), Ok(Some(Item::Message(b"second"))));
        assert_eq!(memory, b"one");
    }

    #[test]
    fn room_follows_octets_not_announcements() {
        let mut deframer = Deframer::new(u32::MAX);
        let mut input = &[0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3][..];
        assert_eq!(deframer.next(&mut input), Ok(None));
        assert!(deframer.held.capacity() <= 64);
    }

    #[test]
    fn flags_break_the_stream_for_good() {
        for (flag, error) in [(1, GrpcError::Compressed), (2, GrpcError::BadFlag(2))] {
            let mut deframer = Deframer::new(10);
            assert_eq!(deframer.next(&mut &[flag][..]), Err(error));
            assert_eq!(deframer.next(&mut &[0, 0, 0, 0, 0][..]), Err(error));
        }
    }

    #[test]
    fn messages_are_percent_encoded() {
        let mut out = Vec::new();
        percent_encode("too many names: limit 5%, é\n ", &mut out);
        assert_eq!(out, b"too many names: limit 5%25, %C3%A9%0A%20");
    }
}
