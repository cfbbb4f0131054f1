//! Header blocks in.

use super::{TABLE_OCTETS, dynamic::Dynamic, huffman, integer, static_table};
use crate::h2::FieldList;

/// Why a header block cannot be decoded: the compression state is lost, and with it the transport.
///
/// Source: RFC 7541; RFC 9113 §4.3 makes each of them COMPRESSION_ERROR, except `Bomb`, which is our own limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.reason())]
pub enum HpackError {
    /// The block ends inside a field.
    Truncated,
    /// An integer of more than 32 bits.
    IntegerTooLarge,
    /// Not a Huffman code: EOS, or wrong padding.
    Huffman,
    /// An index that neither table holds.
    Index,
    /// A table size above what we allow, or in the middle of a block.
    SizeUpdate,
    /// A block that unfolds to many times what we are willing to take.
    Bomb,
}

impl HpackError {
    /// The same text as `Display`, without formatting.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Truncated => "HPACK: block ends inside a field",
            Self::IntegerTooLarge => "HPACK: integer too large",
            Self::Huffman => "HPACK: invalid Huffman code",
            Self::Index => "HPACK: index out of range",
            Self::SizeUpdate => "HPACK: invalid table size update",
            Self::Bomb => "header_list_octets_max: header list many times too long",
        }
    }
}

/// How many times the limit a list may unfold to before the transport ends; in between, only its stream does.
const BOMB_FACTOR: u32 = 8;

/// Most table size updates at the start of a block: the smallest size in between, and the last. Source: RFC 7541 §4.2.
const SIZE_UPDATES_MAX: u32 = 2;

/// What we remember of the header blocks one peer sent.
#[derive(Debug)]
pub struct Decoder {
    table: Dynamic,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// A decoder with an empty table of the protocol's first size.
    #[must_use]
    pub fn new() -> Self {
        Self { table: Dynamic::new() }
    }

    /// Decodes one whole block into `list`, which is emptied first.
    ///
    /// A list that passes its limit is marked and no longer collected, while decoding goes on so that the next block
    /// can be read. Errors: see [`HpackError`]; after one, nothing can be decoded any more.
    pub fn decode(&mut self, mut block: &[u8], list: &mut FieldList) -> Result<(), HpackError> {
        list.clear();
        let mut size_updates = 0;
        let mut between_fields = false;
        while let Some(&first) = block.first() {
            if first & 0x80 != 0 {
                let index = integer::decode(&mut block, 7)?;
                let (name, value) = Self::field(&self.table, index)?;
                list.push(name, value);
            } else if first & 0xc0 == 0x40 {
                self.literal(&mut block, 6, list, true)?;
            } else if first & 0xe0 == 0x20 {
                let size = integer::decode(&mut block, 5)?;
                size_updates += 1;
                if between_fields || size_updates > SIZE_UPDATES_MAX || size > TABLE_OCTETS {
                    return Err(HpackError::SizeUpdate);
                }
                self.table.resize(size);
                continue;
            } else {
                self.literal(&mut block, 4, list, false)?; // without indexing, and never indexed
            }
            between_fields = true;
            if list.size() > list.octets_max().saturating_mul(BOMB_FACTOR) {
                return Err(HpackError::Bomb);
            }
        }
        Ok(())
    }

    /// A literal field, its name a literal or an index of `prefix` bits.
    fn literal(
        &mut self,
        block: &mut &[u8],
        prefix: u32,
        list: &mut FieldList,
        remember: bool,
    ) -> Result<(), HpackError> {
        let index = integer::decode(block, prefix)?;
        let out = list.begin();
        let start = out.len();
        if index == 0 {
            string(block, out)?;
        } else {
            out.extend_from_slice(Self::field(&self.table, index)?.0);
        }
        let name_end = out.len();
        string(block, out)?;
        if remember {
            let (name, value) = out[start..].split_at(name_end - start);
            self.table.insert(name, value);
        }
        list.commit(start, name_end);
        Ok(())
    }

    /// The field at a 1-based index: the static table first, the dynamic one behind it. Source: RFC 7541 §2.3.3.
    fn field(table: &Dynamic, index: u32) -> Result<(&[u8], &[u8]), HpackError> {
        let index = (index as usize).checked_sub(1).ok_or(HpackError::Index)?;
        match static_table::FIELDS.get(index) {
            Some((name, value)) => Ok((name.as_bytes(), value.as_bytes())),
            None => table.get(index - static_table::FIELDS.len()).ok_or(HpackError::Index),
        }
    }
}

/// Appends a string literal. Source: RFC 7541 §5.2.
fn string(block: &mut &[u8], out: &mut Vec<u8>) -> Result<(), HpackError> {
    let is_huffman = block.first().ok_or(HpackError::Truncated)? & 0x80 != 0;
    let length = integer::decode(block, 7)? as usize;
    let (octets, rest) = block.split_at_checked(length).ok_or(HpackError::Truncated)?;
    *block = rest;
    if is_huffman {
        huffman::decode(octets, out)
    } else {
        out.extend_from_slice(octets);
        Ok(())
    }
}
