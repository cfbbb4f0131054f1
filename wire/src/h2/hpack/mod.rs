//! HPACK: header lists, compressed.
//!
//! We decode all of it, and encode with the static table and plain literals only: a node sends few headers, and a
//! dynamic table at the sender is memory and state for nothing. Source: RFC 7541.

mod decode;
mod dynamic;
mod encode;
mod huffman;
mod integer;
mod static_table;

pub use decode::{Decoder, HpackError};
pub use encode::Encoder;
pub(super) use encode::is_secret;
pub use huffman::{decode as huffman_decode, encode as huffman_encode};

/// Dynamic table size until SETTINGS_HEADER_TABLE_SIZE says otherwise; ours never does. Source: RFC 9113 §6.5.2.
pub const TABLE_OCTETS: u32 = 4096;

/// What a field costs a table or list beside its octets. Source: RFC 7541 §4.1.
pub const FIELD_OVERHEAD: u32 = 32;
