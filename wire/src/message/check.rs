//! Checks the form of what a node passes on unread: content, session header, metadata.

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
            walk.skip(key, depth)?;
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
