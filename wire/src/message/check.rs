//! Checks the form of what a node passes on unread, content and metadata; and the checks all readers share.

use super::fields::{Kind, Schema};
use crate::error::WireError;
use crate::proto::{Walk, wire_type};

/// Walks `message` and everything inside it by its schema.
///
/// `depth` counts the messages around this one; it only matters to groups inside unknown fields, for the schemas
/// themselves nest a handful of levels.
pub(crate) fn check(message: &[u8], schema: &'static Schema, depth: u32) -> Result<(), WireError> {
    let mut walk = Walk::new(message, schema.name);
    let mut seen = 0_u32;
    while !walk.is_done() {
        let key = walk.key()?;
        let number = key >> 3;
        let Some(kind) = schema.fields.get(number as usize - 1) else {
            walk = unknown(walk, key, 0, schema.name, depth)?;
            continue;
        };
        let expected = if let Kind::Varint = kind { wire_type::VARINT } else { wire_type::LENGTH };
        if key & 7 != expected {
            return Err(WireError::WrongWireType { within: schema.name, field: number });
        }
        let bit = 1 << number;
        if schema.is_choice {
            if seen != 0 {
                return Err(WireError::SecondChoice { within: schema.name, field: number });
            }
        } else if seen & bit != 0 && !matches!(kind, Kind::Many(_)) {
            return Err(WireError::Repeated { within: schema.name, field: number });
        }
        seen |= bit;
        match kind {
            Kind::Varint => drop(walk.varint()?),
            Kind::Text => drop(walk.string(number)?),
            Kind::Bytes => drop(walk.octets()?),
            Kind::One(inner) | Kind::Many(inner) => check(walk.octets()?, inner, depth + 1)?,
        }
    }
    Ok(())
}

/// Steps over a field no arm knew, and gives the walk behind it: one above `last` is unknown, any other has the wrong wire
/// type.
#[cold]
pub(super) fn unknown<'a>(
    mut walk: Walk<'a>,
    key: u32,
    last: u32,
    within: &'static str,
    depth: u32,
) -> Result<Walk<'a>, WireError> {
    let field = key >> 3;
    if field <= last {
        return Err(WireError::WrongWireType { within, field });
    }
    walk.skip(key, depth)?;
    Ok(walk)
}

/// Which fields were there already.
pub(super) struct Seen {
    bits: u32,
    within: &'static str,
}

impl Seen {
    #[inline(always)]
    pub(super) fn new(within: &'static str) -> Self {
        Self { bits: 0, within }
    }

    #[inline(always)]
    pub(super) fn once(&mut self, field: u32) -> Result<(), WireError> {
        let bit = 1 << field;
        if self.bits & bit != 0 {
            return Err(WireError::Repeated { within: self.within, field });
        }
        self.bits |= bit;
        Ok(())
    }

    #[inline(always)]
    pub(super) fn has(&self, field: u32) -> bool {
        self.bits & 1 << field != 0
    }
}
