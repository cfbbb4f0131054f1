//! A client of `slimload relay`: says once who it is, then the very octets a SLIM client would exchange.

use super::compose::{self, Envelope, Incoming, Lengths};
use super::{Happening, Publish};
use crate::payload::Stamp;

/// The first octets on a connection to a relay.
///
/// Shape: "slimload", role u8 (b'P' publishes, b'S' subscribes), three zero octets, group u32 little-endian.
pub(crate) const HELLO_OCTETS: usize = 16;

/// Writes the hello of a publisher or subscriber of `group`.
pub(crate) fn hello(publishes: bool, group: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(b"slimload");
    out.extend_from_slice(&[if publishes { b'P' } else { b'S' }, 0, 0, 0]);
    out.extend_from_slice(&group.to_le_bytes());
}

/// Reads a hello: whether it publishes, and its group.
pub(crate) fn read_hello(octets: &[u8; HELLO_OCTETS]) -> Option<(bool, u32)> {
    let (magic, rest) = octets.split_first_chunk::<8>()?;
    let (&[role, 0, 0, 0], group) = rest.split_first_chunk::<4>()? else { return None };
    let group = u32::from_le_bytes(group.try_into().ok()?);
    (magic == b"slimload" && matches!(role, b'P' | b'S')).then_some((role == b'P', group))
}

/// Heads of HTTP/2 DATA frames are written and skipped so that the octets per message are the same as through a node.
const FRAME_HEAD: [u8; 9] = [0, 0, 0, 0, 0, 0, 0, 0, 1];
/// gRPC's flag and length.
const PREFIX: usize = 5;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Relay {
    held: Vec<u8>,
}

impl Relay {
    /// Splits what arrived into messages.
    pub(crate) fn receive(&mut self, octets: &[u8], tell: &mut dyn FnMut(Happening<'_>)) -> Result<(), String> {
        let mut input = octets;
        // Finish the one that was cut, copying no more than it lacks.
        while !self.held.is_empty() {
            let wanted = message_octets(&self.held).unwrap_or(FRAME_HEAD.len() + PREFIX);
            let missing = wanted - self.held.len().min(wanted);
            let (head, rest) = input.split_at(missing.min(input.len()));
            self.held.extend_from_slice(head);
            input = rest;
            match message_octets(&self.held) {
                Some(octets) if self.held.len() >= octets => {
                    deliver(&self.held[FRAME_HEAD.len() + PREFIX..octets], tell);
                    self.held.clear();
                }
                _ if input.is_empty() => return Ok(()),
                _ => {}
            }
        }
        while let Some(octets) = message_octets(input)
            && let Some((message, rest)) = input.split_at_checked(octets)
        {
            deliver(&message[FRAME_HEAD.len() + PREFIX..], tell);
            input = rest;
        }
        self.held.extend_from_slice(input);
        Ok(())
    }

    /// Writes one message.
    pub(crate) fn publish(
        &mut self,
        header: &[u8],
        envelope: Envelope,
        octets: u32,
        stamp: &Stamp,
        out: &mut Vec<u8>,
    ) -> Publish {
        let lengths = Lengths::of(header.len(), envelope, octets as usize);
        let before = out.len();
        out.extend_from_slice(&FRAME_HEAD);
        out.push(0);
        out.extend_from_slice(&(lengths.message as u32).to_be_bytes());
        compose::publish_head(header, envelope, octets as usize, &lengths, out);
        stamp.write(octets as usize, out);
        Publish::Written(out.len() - before)
    }
}

/// Octets of the frame and message at the front of `input`, once its prefix is there.
fn message_octets(input: &[u8]) -> Option<usize> {
    let prefix = input.get(FRAME_HEAD.len() + 1..FRAME_HEAD.len() + PREFIX)?;
    let length = u32::from_be_bytes(prefix.try_into().ok()?);
    Some(FRAME_HEAD.len() + PREFIX + length as usize)
}

fn deliver(message: &[u8], tell: &mut dyn FnMut(Happening<'_>)) {
    match compose::read(message) {
        Some(Incoming::Publish { payload }) => tell(Happening::Delivery { payload }),
        _ => tell(Happening::Damaged),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::Kind;

    #[test]
    fn hellos_read_back() {
        let mut out = Vec::new();
        hello(true, 7, &mut out);
        let mut octets: [u8; HELLO_OCTETS] = out.try_into().unwrap();
        assert_eq!(read_hello(&octets), Some((true, 7)));
        octets[0] = b'S';
        assert_eq!(read_hello(&octets), None);
    }

    #[test]
    fn messages_survive_any_cut() {
        let mut relay = Relay::default();
        let mut out = Vec::new();
        let envelope = Envelope { session_id: 1, message_id: 2, session_type: 1 };
        for sequence in 0..3 {
            let stamp = Stamp { run: 1, publisher: 0, name: 0, kind: Kind::Data, sequence, intended_ns: 5 };
            assert!(matches!(relay.publish(&[0x20, 1], envelope, 64, &stamp, &mut out), Publish::Written(_)));
        }
        for cut in 0..out.len() {
            let mut receiver = Relay::default();
            let mut seen = Vec::new();
            for piece in [&out[..cut], &out[cut..]] {
                receiver
                    .receive(piece, &mut |happening| match happening {
                        Happening::Delivery { payload } => seen.push(Stamp::read(payload, 1, true).unwrap().sequence),
                        _ => panic!("cut at {cut}"),
                    })
                    .unwrap();
            }
            assert_eq!(seen, [0, 1, 2], "cut at {cut}");
        }
    }
}
