//! Protobuf written field by field, well or badly: what a builder would refuse to write.

use slimline_wire::{NameId, Prefix};

/// A varint in as few octets as it takes.
pub fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// The same value in `octets` octets: padded with continuation bits.
pub fn wide_varint(value: u64, octets: usize) -> Vec<u8> {
    (0..octets)
        .map(|index| {
            let bits = if index * 7 < 64 { (value >> (index * 7)) as u8 & 0x7f } else { 0 };
            if index + 1 < octets { bits | 0x80 } else { bits }
        })
        .collect()
}

/// A varint field.
pub fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

/// A varint field whose value takes ten octets.
pub fn wide_number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), wide_varint(value, 10)].concat()
}

/// A length-delimited field.
pub fn bytes(field: u64, octets: &[u8]) -> Vec<u8> {
    [varint(field << 3 | 2), varint(octets.len() as u64), octets.to_vec()].concat()
}

/// As [`bytes`], with key and length in more octets than needed.
pub fn wide_bytes(field: u64, octets: &[u8]) -> Vec<u8> {
    [wide_varint(field << 3 | 2, 3), wide_varint(octets.len() as u64, 5), octets.to_vec()].concat()
}

/// An `EncodedName`.
pub fn encoded_name(text: [&str; 3], id: NameId) -> Vec<u8> {
    let hashes = Prefix::of(text[0], text[1], text[2]).0;
    let [high, low] = [(id.0 >> 64) as u64, id.0 as u64];
    [
        number(1, hashes[0]),
        number(2, hashes[1]),
        number(3, hashes[2]),
        bytes(4, &[number(1, high), number(2, low)].concat()),
    ]
    .concat()
}

/// A `StringName`.
pub fn string_name(text: [&str; 3]) -> Vec<u8> {
    [bytes(1, text[0].as_bytes()), bytes(2, text[1].as_bytes()), bytes(3, text[2].as_bytes())].concat()
}

/// A `Name` in both forms.
pub fn name(text: [&str; 3], id: NameId) -> Vec<u8> {
    [bytes(1, &encoded_name(text, id)), bytes(2, &string_name(text))].concat()
}

/// The fields of a header that every message needs.
pub fn header(to: [&str; 3], id: NameId) -> Vec<u8> {
    [
        bytes(1, &name(["org", "ns", "sender"], NameId(7))),
        bytes(2, &name(to, id)),
        bytes(3, b"identity-token"),
        number(4, 1),
        bytes(5, b"3.4.6"),
        number(6, 8),
    ]
    .concat()
}

/// A `SessionHeader`.
pub fn session() -> Vec<u8> {
    [number(1, 1), number(2, 1), number(3, 9), number(4, 1)].concat()
}

/// A `Content` with an application's payload.
pub fn content(blob: &[u8]) -> Vec<u8> {
    bytes(1, &[bytes(1, b"msg"), bytes(2, blob)].concat())
}

/// A `Message` with this body as its oneof member `kind`.
pub fn message(kind: u64, body: &[u8]) -> Vec<u8> {
    bytes(kind, body)
}

pub const SUBSCRIBE: u64 = 1;
pub const UNSUBSCRIBE: u64 = 2;
pub const PUBLISH: u64 = 3;
pub const LINK: u64 = 5;
pub const ACK: u64 = 6;
