//! Names, as they are read.

use super::check::{Seen, unknown};
use super::fields::{self, length, varint};
use super::known::KnownName;
use super::view::NameView;
use crate::error::WireError;
use crate::name::{Name, NameId, Prefix};
use crate::proto::{self, Walk, varint_of};

/// Reads a `Name`; `missing` is what its absence is called.
#[inline]
pub(super) fn name<'a>(
    octets: &'a [u8],
    missing: WireError,
    known: Option<&'a mut KnownName>,
    name: &mut NameView<'a>,
) -> Result<(), WireError> {
    let Some(known) = known else { return read_name(octets, missing, name) };
    if known.is(octets) {
        known.again(octets, name);
        return Ok(());
    }
    read_name(octets, missing, name)?;
    known.met(name);
    Ok(())
}

fn read_name<'a>(octets: &'a [u8], missing: WireError, name: &mut NameView<'a>) -> Result<(), WireError> {
    const WITHIN: &str = "Name";
    name.encoded = octets;
    if usual_name(octets, name).is_some() {
        return Ok(());
    }
    let mut seen = Seen::new(WITHIN);
    let mut walk = Walk::new(octets, WITHIN);
    while !walk.is_done() {
        let key = walk.key()?;
        match key {
            ENCODED => {
                seen.once(fields::name::ENCODED)?;
                encoded_name(walk.octets()?, name)?;
            }
            TEXT => {
                seen.once(fields::name::TEXT)?;
                name.text = Some(string_name(walk.octets()?)?);
            }
            _ => walk = unknown(walk, key, fields::name::TEXT, WITHIN, 3)?,
        }
    }
    if seen.has(fields::name::ENCODED) { Ok(()) } else { Err(missing) }
}

/// Reads a name laid out as every known encoder does: all fields there, in ascending order, one-octet lengths.
///
/// `None` leaves it to the general road, which may find nothing wrong with it.
#[inline]
fn usual_name<'a>(octets: &'a [u8], name: &mut NameView<'a>) -> Option<()> {
    let mut walk = Usual(octets);
    let mut encoded = walk.nested(ENCODED)?;
    let prefix = Prefix([encoded.hash(COMPONENT_0)?, encoded.hash(COMPONENT_1)?, encoded.hash(COMPONENT_2)?]);
    let mut id = encoded.nested(ID)?;
    let halves = [id.hash(ID_HIGH)?, id.hash(ID_LOW)?];
    let components = usual_text(walk.nested(TEXT)?.0)?;
    let is_all = walk.0.is_empty() && encoded.0.is_empty() && id.0.is_empty();
    is_all.then(|| {
        name.name = Name { prefix, id: NameId::from_halves(halves) };
        name.has_id = true;
        name.text = Some(components);
    })
}

/// The three components.
///
/// Keys and lengths below 0x80 are UTF-8 themselves, so all of it is checked at once: whole it is UTF-8 if and only if
/// each component is and begins and ends between characters, which `split_at_checked` sees to.
#[inline]
fn usual_text(octets: &[u8]) -> Option<[&str; 3]> {
    let mut rest = std::str::from_utf8(octets).ok()?;
    let mut components = [""; 3];
    for (component, number) in components.iter_mut().zip(1..) {
        let (&[key, count], _) = rest.as_bytes().split_first_chunk()?;
        if u32::from(key) != length(number) || count >= 0x80 {
            return None;
        }
        (*component, rest) = rest.split_at_checked(2)?.1.split_at_checked(count.into())?;
    }
    rest.is_empty().then_some(components)
}

/// A walk that knows what comes next, or gives up.
struct Usual<'a>(&'a [u8]);

impl<'a> Usual<'a> {
    #[inline(always)]
    fn nested(&mut self, key: u32) -> Option<Self> {
        let (&[first, length], rest) = self.0.split_first_chunk()?;
        let (inside, rest) = rest.split_at_checked(length.into())?;
        self.0 = rest;
        (u32::from(first) == key && length < 0x80).then_some(Self(inside))
    }

    #[inline(always)]
    fn hash(&mut self, key: u32) -> Option<u64> {
        let (&first, rest) = self.0.split_first()?;
        let (value, octets) = varint_of(rest);
        self.0 = rest.get(octets..)?;
        (u32::from(first) == key && octets > 0).then_some(value)
    }
}

const ENCODED: u32 = length(fields::name::ENCODED);
const TEXT: u32 = length(fields::name::TEXT);
const ID: u32 = length(fields::name::ID);

fn encoded_name(octets: &[u8], name: &mut NameView<'_>) -> Result<(), WireError> {
    const WITHIN: &str = "EncodedName";
    let mut seen = Seen::new(WITHIN);
    let mut walk = Walk::new(octets, WITHIN);
    while !walk.is_done() {
        let key = walk.key()?;
        match key {
            COMPONENT_0 => {
                seen.once(1)?;
                name.name.prefix.0[0] = walk.varint()?;
            }
            COMPONENT_1 => {
                seen.once(2)?;
                name.name.prefix.0[1] = walk.varint()?;
            }
            COMPONENT_2 => {
                seen.once(3)?;
                name.name.prefix.0[2] = walk.varint()?;
            }
            ID => {
                seen.once(fields::name::ID)?;
                name.has_id = true;
                name.name.id = name_id(walk.octets()?)?;
            }
            _ => walk = unknown(walk, key, fields::name::ID, WITHIN, 4)?,
        }
    }
    Ok(())
}

const COMPONENT_0: u32 = varint(1);
const COMPONENT_1: u32 = varint(2);
const COMPONENT_2: u32 = varint(3);

fn name_id(octets: &[u8]) -> Result<NameId, WireError> {
    const WITHIN: &str = "NameId";
    let (mut high, mut low) = (0, 0);
    let mut seen = Seen::new(WITHIN);
    let mut walk = Walk::new(octets, WITHIN);
    while !walk.is_done() {
        let key = walk.key()?;
        match key {
            ID_HIGH => {
                seen.once(fields::name::ID_HIGH)?;
                high = walk.varint()?;
            }
            ID_LOW => {
                seen.once(fields::name::ID_LOW)?;
                low = walk.varint()?;
            }
            _ => walk = unknown(walk, key, fields::name::ID_LOW, WITHIN, 5)?,
        }
    }
    Ok(NameId::from_halves([high, low]))
}

const ID_HIGH: u32 = varint(fields::name::ID_HIGH);
const ID_LOW: u32 = varint(fields::name::ID_LOW);

fn string_name(octets: &[u8]) -> Result<[&str; 3], WireError> {
    const WITHIN: &str = "StringName";
    let mut text = [""; 3];
    let mut seen = Seen::new(WITHIN);
    let mut walk = Walk::new(octets, WITHIN);
    while !walk.is_done() {
        let key = walk.key()?;
        let number = key >> 3;
        if key & 7 != proto::wire_type::LENGTH || number > 3 {
            walk = unknown(walk, key, 3, WITHIN, 4)?;
            continue;
        }
        seen.once(number)?;
        text[number as usize - 1] = walk.string(number)?;
    }
    Ok(text)
}

impl NameView<'_> {
    /// What a name reads as that is not there.
    pub(super) const EMPTY: Self =
        Self { name: Name { prefix: Prefix([0; 3]), id: NameId::ANY }, has_id: false, text: None, encoded: &[] };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whole characters, halves of them, and what merely looks like a key.
    const PIECES: [&[u8]; 8] = [b"", b"a", b"\x12", b"\xc3\xa9", b"\xc3", b"\xa9", b"a\xe2\x82\xac", b"\x82\xac"];

    #[test]
    fn text_is_checked_at_once_as_it_would_be_piece_by_piece() {
        // An interpreter takes minutes for all of them.
        let pieces = if cfg!(miri) { &PIECES[3..6] } else { &PIECES[..] };
        for &first in pieces {
            for &second in pieces {
                for &third in pieces {
                    let mut octets = Vec::new();
                    for (number, piece) in (1..).zip([first, second, third]) {
                        proto::put_octets_always(number, piece, &mut octets);
                    }
                    let pieces = [first, second, third].map(std::str::from_utf8);
                    let expected = pieces.iter().all(Result::is_ok).then(|| pieces.map(Result::unwrap));
                    assert_eq!(usual_text(&octets), expected, "{octets:x?}");
                    for at in 0..octets.len() {
                        // Lengths that end elsewhere, within a character too; keys that are none.
                        for octet in [0, 1, 2, 3, 0x0a, 0x12, 0x1a, 0x80, 0xff] {
                            let mut changed = octets.clone();
                            changed[at] = octet;
                            if let Some(text) = usual_text(&changed) {
                                assert_eq!(string_name(&changed), Ok(text), "{changed:x?}");
                            }
                        }
                    }
                }
            }
        }
    }
}
