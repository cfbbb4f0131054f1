//! Header blocks out.

use super::{TABLE_OCTETS, integer, static_table};

/// Writes header blocks from the static table and literals; the dynamic table stays empty.
#[derive(Clone, Copy, Debug)]
pub struct Encoder {
    /// The peer cut its table below the size our (empty) one formally has, and has not been told that we follow.
    owes_size_update: bool,
    /// What the peer's decoder believes our table may hold.
    table_octets: u32,
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// An encoder as both ends agree on it at the start.
    #[must_use]
    pub const fn new() -> Self {
        Self { owes_size_update: false, table_octets: TABLE_OCTETS }
    }

    /// The peer's SETTINGS_HEADER_TABLE_SIZE. Source: RFC 7541 §4.2, RFC 9113 §4.3.1.
    pub fn table_size(&mut self, octets: u32) {
        if octets < self.table_octets {
            self.owes_size_update = true;
        }
    }

    /// Appends one block.
    ///
    /// Names must be lower-case already and pseudo-headers come first. Values of `authorization` and its kin are
    /// marked never to be indexed. Values are not Huffman-coded: a node sends few, and short ones.
    pub fn encode<'a>(&mut self, fields: impl IntoIterator<Item = (&'a [u8], &'a [u8])>, out: &mut Vec<u8>) {
        if self.owes_size_update {
            self.owes_size_update = false;
            self.table_octets = 0; // and no later setting can be below it
            integer::encode(0, 5, 0x20, out);
        }
        for (name, value) in fields {
            debug_assert!(!name.iter().any(u8::is_ascii_uppercase), "field names are lower-case in HTTP/2");
            match static_table::find(name, value) {
                (_, Some(index)) => integer::encode(index, 7, 0x80, out),
                (by_name, None) => {
                    let pattern = if is_secret(name) { 0x10 } else { 0x00 };
                    integer::encode(by_name.unwrap_or(0), 4, pattern, out);
                    if by_name.is_none() {
                        string(name, out);
                    }
                    string(value, out);
                }
            }
        }
    }
}

/// Fields an intermediary must not put into a compression context. Source: RFC 7541 §7.1.3.
pub(in crate::h2) fn is_secret(name: &[u8]) -> bool {
    matches!(name, b"authorization" | b"proxy-authorization" | b"cookie" | b"set-cookie")
}

fn string(octets: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(octets.len()).expect("a field value is far below 4 GiB");
    integer::encode(length, 7, 0, out);
    out.extend_from_slice(octets);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(encoder: &mut Encoder, fields: &[(&str, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        encoder.encode(fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())), &mut out);
        out
    }

    #[test]
    fn whole_fields_names_and_literals() {
        let mut encoder = Encoder::new();
        assert_eq!(encoded(&mut encoder, &[(":status", "200")]), [0x88]);
        assert_eq!(encoded(&mut encoder, &[(":status", "401")]), [0x08, 3, b'4', b'0', b'1']);
        assert_eq!(encoded(&mut encoder, &[("date", "x")]), [0x0f, 18, 1, b'x']);
        assert_eq!(encoded(&mut encoder, &[("a", "")]), [0x00, 1, b'a', 0]);
        assert_eq!(encoded(&mut encoder, &[("authorization", "s")]), [0x1f, 8, 1, b's']);
    }

    #[test]
    fn a_smaller_table_is_acknowledged_once() {
        let mut encoder = Encoder::new();
        encoder.table_size(8192);
        assert_eq!(encoded(&mut encoder, &[(":status", "200")]), [0x88]);
        encoder.table_size(100);
        encoder.table_size(4096);
        assert_eq!(encoded(&mut encoder, &[(":status", "200")]), [0x20, 0x88]);
        encoder.table_size(0);
        assert_eq!(encoded(&mut encoder, &[(":status", "200")]), [0x88]);
    }
}
