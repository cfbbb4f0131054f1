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
    let survey = Survey::of(header, ttl, mac);
    let body_length = body_length(place, survey.length);
    out.extend_from_slice(&message[..place.body_length_at as usize]);
    proto::put_varint(body_length as u64, out);
    out.extend_from_slice(&message[place.body_at as usize..place.length_at as usize]);
    proto::put_varint(survey.length as u64, out);
    let ends_at = out.len() + survey.length;
    rewrite_fields(header, &survey, ttl, mac, out);
    debug_assert_eq!(out.len(), ends_at);
    place.end as usize
}

/// Octets of the body (Publish …) once its header has `header_length`.
fn body_length(place: Place, header_length: usize) -> usize {
    let before = (place.length_at - place.body_at) as usize;
    let behind = (place.body_end - place.end) as usize;
    before + proto::varint_len(header_length as u64) + header_length + behind
}

/// What a hop does with one field of the header.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Copy,
    Drop,
    /// Here stands the new ttl.
    Ttl,
    /// Here stands the new MAC.
    Mac,
}

fn fate(key: u32, mac: MacOut) -> Fate {
    match key {
        TTL => Fate::Ttl,
        RECV_FROM | FORWARD_TO | INCOMING_CONN => Fate::Drop,
        HEADER_MAC => match mac {
            MacOut::Keep => Fate::Copy,
            MacOut::Remove => Fate::Drop,
            MacOut::Set(_) => Fate::Mac,
        },
        _ => Fate::Copy,
    }
}

const TTL: u32 = varint(header::TTL);
const RECV_FROM: u32 = varint(header::RECV_FROM);
const FORWARD_TO: u32 = varint(header::FORWARD_TO);
const INCOMING_CONN: u32 = varint(header::INCOMING_CONN);
const HEADER_MAC: u32 = length(header::HEADER_MAC);

/// What is known of the new header before it is written.
struct Survey {
    length: usize,
    has_ttl: bool,
    has_mac: bool,
}

impl Survey {
    fn of(header: &[u8], ttl: u32, mac: MacOut) -> Self {
        let mut length = proto::u64_len(header::TTL, u64::from(ttl));
        if let MacOut::Set(_) = mac {
            length += proto::octets_always_len(header::HEADER_MAC, MAC_OCTETS);
        }
        let (mut has_ttl, mut has_mac) = (false, false);
        for field in Fields::of(header) {
            has_ttl |= field.key == TTL;
            has_mac |= field.key == HEADER_MAC;
            if fate(field.key, mac) == Fate::Copy {
                length += field.octets.len();
            }
        }
        Self { length, has_ttl, has_mac }
    }
}

/// Fields that were not there are put where an encoder that goes by number would put them.
fn rewrite_fields(header: &[u8], survey: &Survey, ttl: u32, mac: MacOut, out: &mut Vec<u8>) {
    let (mut ttl_due, mut mac_due) = (true, true);
    for field in Fields::of(header) {
        let number = field.key >> 3;
        if number > header::TTL && !survey.has_ttl {
            put_ttl(ttl, &mut ttl_due, out);
        }
        if number > header::HEADER_MAC && !survey.has_mac {
            put_mac(mac, &mut mac_due, out);
        }
        match fate(field.key, mac) {
            Fate::Copy => out.extend_from_slice(field.octets),
            Fate::Drop => {}
            Fate::Ttl => put_ttl(ttl, &mut ttl_due, out),
            Fate::Mac => put_mac(mac, &mut mac_due, out),
        }
    }
    put_ttl(ttl, &mut ttl_due, out);
    put_mac(mac, &mut mac_due, out);
}

fn put_ttl(ttl: u32, due: &mut bool, out: &mut Vec<u8>) {
    if std::mem::take(due) {
        proto::put_u64(header::TTL, u64::from(ttl), out);
    }
}

fn put_mac(mac: MacOut, due: &mut bool, out: &mut Vec<u8>) {
    if std::mem::take(due)
        && let MacOut::Set(mac) = mac
    {
        proto::put_octets_always(header::HEADER_MAC, &mac, out);
    }
}

/// The fields of a header that was parsed before, each with all its octets.
struct Fields<'a> {
    walk: Walk<'a>,
    header: &'a [u8],
}

struct Field<'a> {
    key: u32,
    octets: &'a [u8],
}

impl<'a> Fields<'a> {
    fn of(header: &'a [u8]) -> Self {
        Self { walk: Walk::new(header, "SLIMHeader"), header }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        if self.walk.is_done() {
            return None;
        }
        let from = self.header.len() - self.walk.left();
        let key = self.walk.key().expect("the header was parsed");
        self.walk.skip(key, 2).expect("the header was parsed");
        Some(Field { key, octets: &self.header[from..self.header.len() - self.walk.left()] })
    }
}
