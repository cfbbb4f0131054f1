//! What a hop changes in a message: the ttl, the header MAC, and fields that were meant for one process.

use super::MAC_OCTETS;
use super::fields::{header, length, varint};
use super::view::{Header, Place};
use crate::proto::{self, Walk};

/// Where a forward may patch a copy of the message.
///
/// It exists when the ttl is a one-octet varint, the MAC is there with its 32 octets, and neither `recv_from` nor
/// `forward_to` is there. Then every length stays, and an `incoming_conn` stays as it came: receivers overwrite it.
///
/// Units:  octets from the start of the message.
/// Source: slim-wire §8.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patch {
    /// The ttl's one octet.
    pub ttl_at: u32,
    /// The first of the MAC's 32 octets.
    pub mac_at: u32,
}

impl Patch {
    /// Writes ttl and MAC into a copy of the message.
    ///
    /// # Panics
    /// If `message` is not as long as the one parsed, or `ttl` does not fit one octet as a varint (a decremented one
    /// does).
    #[inline]
    pub fn apply(self, message: &mut [u8], ttl: u32, mac: &[u8; MAC_OCTETS]) {
        self.apply_ttl(message, ttl);
        let mac_at = self.mac_at as usize;
        message[mac_at..mac_at + MAC_OCTETS].copy_from_slice(mac);
    }

    /// Writes the ttl alone: the MAC stays as it came.
    ///
    /// # Panics
    /// As [`Patch::apply`].
    #[inline]
    pub fn apply_ttl(self, message: &mut [u8], ttl: u32) {
        let ttl = u8::try_from(ttl).ok().filter(|ttl| *ttl < 0x80).expect("a patched ttl is one octet of varint");
        message[self.ttl_at as usize] = ttl;
    }
}

/// What becomes of the header MAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MacOut {
    /// As it came.
    Keep,
    /// Links without a key, and Peers.
    Remove,
    /// The next hop's tag.
    Set([u8; MAC_OCTETS]),
}

/// Re-encodes a message for one hop.
///
/// Shape:  appends to `out`: `ttl`, the MAC as `mac` says, no `recv_from`, `forward_to` or `incoming_conn`; the lengths
///         around the header fitted; every other octet as it came (unknown fields, order, padding).
/// Errors: none; `view` must be the header of this very `message`.
/// Source: slim-wire §6.5.
pub fn rewrite(message: &[u8], view: &Header<'_>, ttl: u32, mac: MacOut, out: &mut Vec<u8>) {
    let tail_at = rewrite_head(message, view, ttl, mac, out);
    out.extend_from_slice(&message[tail_at..]);
}

/// As [`rewrite`], up to the end of the header: what is left to send is `message` from the returned offset on.
pub fn rewrite_head(message: &[u8], view: &Header<'_>, ttl: u32, mac: MacOut, out: &mut Vec<u8>) -> usize {
    let place = view.place;
    let header = &message[place.at as usize..place.end as usize];
    let edits = Edits::of(header, mac);
    let header_length = edits.length(header, ttl);
    let body_length = body_length(place, header_length);
    out.extend_from_slice(&message[..place.body_length_at as usize]);
    proto::put_varint(body_length as u64, out);
    out.extend_from_slice(&message[place.body_at as usize..place.length_at as usize]);
    proto::put_varint(header_length as u64, out);
    let ends_at = out.len() + header_length;
    edits.apply(header, ttl, mac, out);
    debug_assert_eq!(out.len(), ends_at);
    place.end as usize
}

/// Octets of the body (Publish …) once its header has `header_length`.
fn body_length(place: Place, header_length: usize) -> usize {
    let before = (place.length_at - place.body_at) as usize;
    let behind = (place.body_end - place.end) as usize;
    before + proto::varint_len(header_length as u64) + header_length + behind
}

/// What a hop writes in the place of some octets of the header.
#[derive(Clone, Copy, PartialEq)]
enum Put {
    Nothing,
    Ttl,
    Mac,
}

/// Octets of the header that go (none of them where a field is put in), and what comes instead.
#[derive(Clone, Copy)]
struct Edit {
    at: usize,
    end: usize,
    put: Put,
}

/// ttl, `recv_from`, `forward_to`, `incoming_conn` and the MAC: a parsed header has each once at most.
const EDITS_MAX: usize = 5;

/// All that changes in a header, in order of place.
struct Edits {
    list: [Edit; EDITS_MAX],
    count: usize,
}

impl Edits {
    fn of(header: &[u8], mac: MacOut) -> Self {
        let mut edits = Self { list: [Edit { at: 0, end: 0, put: Put::Nothing }; EDITS_MAX], count: 0 };
        let mac_put = if let MacOut::Set(_) = mac { Put::Mac } else { Put::Nothing };
        let (mut has_ttl, mut has_mac) = (false, false);
        // Where an encoder that goes by number would put what is not there.
        let (mut ttl_at, mut mac_at) = (header.len(), header.len());
        let mut walk = Walk::new(header, "SLIMHeader");
        while !walk.is_done() {
            let at = header.len() - walk.left();
            let key = walk.key().expect("the header was parsed");
            walk.skip(key, 2).expect("the header was parsed");
            let end = header.len() - walk.left();
            let put = match key {
                TTL => Put::Ttl,
                HEADER_MAC => mac_put,
                _ => Put::Nothing,
            };
            has_ttl |= key == TTL;
            has_mac |= key == HEADER_MAC;
            match key >> 3 {
                header::RECV_FROM | header::FORWARD_TO | header::INCOMING_CONN | header::TTL => {
                    edits.push(Edit { at, end, put });
                }
                header::HEADER_MAC if mac != MacOut::Keep => edits.push(Edit { at, end, put }),
                _ => {}
            }
            if key >> 3 > header::TTL {
                ttl_at = ttl_at.min(at);
            }
            if key >> 3 > header::HEADER_MAC {
                mac_at = mac_at.min(at);
            }
        }
        if !has_ttl {
            edits.insert(Edit { at: ttl_at, end: ttl_at, put: Put::Ttl });
        }
        if !has_mac && mac_put == Put::Mac {
            edits.insert(Edit { at: mac_at, end: mac_at, put: Put::Mac });
        }
        edits
    }

    fn push(&mut self, edit: Edit) {
        self.list[self.count] = edit;
        self.count += 1;
    }

    /// In front of what goes at the same place, behind what was put in there before.
    fn insert(&mut self, edit: Edit) {
        let index = self.iter().take_while(|other| other.at < edit.at || other.end == edit.at).count();
        self.list.copy_within(index..self.count, index + 1);
        self.list[index] = edit;
        self.count += 1;
    }

    fn iter(&self) -> std::slice::Iter<'_, Edit> {
        self.list[..self.count].iter()
    }

    /// Octets of the header once edited.
    fn length(&self, header: &[u8], ttl: u32) -> usize {
        let put = |edit: &Edit| match edit.put {
            Put::Nothing => 0,
            Put::Ttl => proto::u64_len(header::TTL, ttl.into()),
            Put::Mac => proto::octets_always_len(header::HEADER_MAC, MAC_OCTETS),
        };
        let gone: usize = self.iter().map(|edit| edit.end - edit.at).sum();
        header.len() - gone + self.iter().map(put).sum::<usize>()
    }

    fn apply(&self, header: &[u8], ttl: u32, mac: MacOut, out: &mut Vec<u8>) {
        let mut from = 0;
        for edit in self.iter() {
            out.extend_from_slice(&header[from..edit.at]);
            from = edit.end;
            match (edit.put, &mac) {
                (Put::Ttl, _) => proto::put_u64(header::TTL, ttl.into(), out),
                (Put::Mac, MacOut::Set(mac)) => proto::put_octets_always(header::HEADER_MAC, mac, out),
                _ => {}
            }
        }
        out.extend_from_slice(&header[from..]);
    }
}

const TTL: u32 = varint(header::TTL);
const HEADER_MAC: u32 = length(header::HEADER_MAC);
