//! Names: three hashed components and a 128-bit id.

use std::fmt;
use std::str::FromStr;
use xxhash_rust::xxh64::Xxh64;

/// The three component hashes of a name, `organisation/namespace/service`: what a route is looked up by.
///
/// Source: slim-wire §3 (routing key).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix(pub [u64; 3]);

/// The fourth component: one instance of a service, or [`NameId::ANY`].
///
/// Shape: `id_0` is the high half, `id_1` the low half. Source: slim-wire §3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NameId(pub u128);

impl NameId {
    /// Stands for every id of a prefix; on the wire all ones, or absent (`NULL_COMPONENT`).
    pub const ANY: Self = Self(u128::MAX);

    /// From `id_0`, the high half, and `id_1`.
    #[must_use]
    pub const fn from_halves([high, low]: [u64; 2]) -> Self {
        Self((high as u128) << 64 | low as u128)
    }

    /// `id_0`, the high half, and `id_1`.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
    pub const fn halves(self) -> [u64; 2] {
        [(self.0 >> 64) as u64, self.0 as u64]
    }

    /// Whether this is [`NameId::ANY`].
    #[must_use]
    pub const fn is_any(self) -> bool {
        self.0 == u128::MAX
    }
}

/// A name as it routes: prefix and id, no text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    /// `organisation/namespace/service`, hashed.
    pub prefix: Prefix,
    /// The instance, or any.
    pub id: NameId,
}

/// Hash of one name component: XXH64, seed 0, over its UTF-8 octets followed by one octet 0xFF.
///
/// Source: slim-wire §3; vectors in `tests/vectors/golden_vectors.json`.
#[must_use]
pub fn component_hash(component: &str) -> u64 {
    let mut hash = Xxh64::new(0);
    hash.update(component.as_bytes());
    hash.update(&[0xff]);
    hash.digest()
}

impl Prefix {
    /// Hashes three components.
    #[must_use]
    pub fn of(organisation: &str, namespace: &str, service: &str) -> Self {
        Self([component_hash(organisation), component_hash(namespace), component_hash(service)])
    }
}

/// What a connection is to this node; the order is the match priority for fanout 1.
///
/// Source: slim-wire §4.1; wire numbers §2.3 (`LinkConnectionType`; Local never travels).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum ConnType {
    /// In-process application.
    Local = 0,
    /// Node-to-node link between deployments.
    Remote = 1,
    /// Replica of the same deployment.
    Peer = 2,
    /// Application to its first node.
    Edge = 3,
}

/// How [`NameId::ANY`] is written.
const ANY_TEXT: &str = "NULL_COMPONENT";

impl fmt::Display for NameId {
    /// As a UUID, or `NULL_COMPONENT`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_any() {
            return formatter.write_str(ANY_TEXT);
        }
        let digits = self.0;
        let group = |from: u32, count: u32| digits >> (128 - 4 * (from + count)) & ((1 << (4 * count)) - 1);
        let [a, b, c, d, e] = [group(0, 8), group(8, 4), group(12, 4), group(16, 4), group(20, 12)];
        write!(formatter, "{a:08x}-{b:04x}-{c:04x}-{d:04x}-{e:012x}")
    }
}

impl fmt::Display for Prefix {
    /// The three hashes: the text cannot be got back from them.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [organisation, namespace, service] = self.0;
        write!(formatter, "{organisation:016x}/{namespace:016x}/{service:016x}")
    }
}

impl fmt::Display for Name {
    /// The three hashes and the id.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.prefix, self.id)
    }
}

/// Why a text is not a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Not `organisation/namespace/service`, with or without an id behind.
    #[error("name of {count} components, expected organisation/namespace/service and perhaps an id")]
    ComponentCount {
        /// What came.
        count: usize,
    },
    /// Nothing, or only blanks, between two slashes.
    #[error("component {number} of the name is empty")]
    EmptyComponent {
        /// The first component is number 1.
        number: usize,
    },
    /// Neither a UUID nor `NULL_COMPONENT`.
    #[error("the name's id is neither a UUID nor {ANY_TEXT}")]
    Id,
}

/// Splits `organisation/namespace/service`, trimming each component.
///
/// Errors: anything but three components, or an empty one. Source: slim-wire §3.
pub fn split_components(text: &str) -> Result<[&str; 3], NameError> {
    let mut components = [""; 3];
    let count = text.split('/').count();
    if count != components.len() {
        return Err(NameError::ComponentCount { count });
    }
    for (index, component) in text.split('/').map(str::trim).enumerate() {
        if component.is_empty() {
            return Err(NameError::EmptyComponent { number: index + 1 });
        }
        components[index] = component;
    }
    Ok(components)
}

impl FromStr for Name {
    type Err = NameError;

    /// From `organisation/namespace/service`, which stands for any id, or with an id behind.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let (components, id) = match text.rsplit_once('/') {
            Some((components, id)) if text.split('/').count() == 4 => (components, id.trim().parse()?),
            _ => (text, NameId::ANY),
        };
        let [organisation, namespace, service] = split_components(components)?;
        Ok(Self { prefix: Prefix::of(organisation, namespace, service), id })
    }
}

impl FromStr for NameId {
    type Err = NameError;

    /// From a UUID in its hyphenated form, or `NULL_COMPONENT`.
    fn from_str(text: &str) -> Result<Self, NameError> {
        if text == ANY_TEXT {
            return Ok(Self::ANY);
        }
        let is_form = text.len() == 36
            && text.bytes().enumerate().all(|(index, octet)| match index {
                8 | 13 | 18 | 23 => octet == b'-',
                _ => octet.is_ascii_hexdigit(),
            });
        if !is_form {
            return Err(NameError::Id);
        }
        let digits = text.bytes().filter(u8::is_ascii_hexdigit);
        let value = digits.fold(0, |value, digit| value << 4 | u128::from((digit as char).to_digit(16).unwrap_or(0)));
        Ok(Self(value))
    }
}

impl ConnType {
    /// The kind behind a `LinkConnectionType`; unknown numbers are Remote.
    #[must_use]
    pub const fn from_wire(number: u32) -> Self {
        match number {
            1 => Self::Peer,
            2 => Self::Edge,
            _ => Self::Remote,
        }
    }

    /// As a `LinkConnectionType`; Local never travels and would be written as Remote.
    #[must_use]
    pub const fn to_wire(self) -> u32 {
        match self {
            Self::Local | Self::Remote => 0,
            Self::Peer => 1,
            Self::Edge => 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn component_hashes_are_upstreams() {
        assert_eq!(component_hash("org"), 0x873e_5803_76ea_963b);
        assert_eq!(component_hash("ns"), 0xeef9_769a_4c69_90d1);
        assert_eq!(component_hash("alice"), 0x7b90_bc8f_a5b6_b182);
        assert_eq!(component_hash(""), 0x9563_4172_a60b_7544);
        assert_eq!(component_hash("é"), 0x5cba_9507_552b_5626);
    }

    #[test]
    fn ids_are_written_as_uuids() {
        let id = NameId(0x0123_4567_89ab_cdef_0011_2233_4455_6677);
        assert_eq!(id.to_string(), "01234567-89ab-cdef-0011-223344556677");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(NameId::ANY.to_string(), "NULL_COMPONENT");
        assert_eq!("NULL_COMPONENT".parse(), Ok(NameId::ANY));
        assert_eq!("ffffffff-ffff-ffff-ffff-ffffffffffff".parse(), Ok(NameId::ANY));
        for bad in
            ["", "7", "0123456789abcdef0011223344556677", "01234567-89ab-cdef-0011-22334455667g", "null_component"]
        {
            assert_eq!(bad.parse::<NameId>(), Err(NameError::Id), "{bad}");
        }
    }

    #[test]
    fn names_are_read_with_and_without_an_id() {
        let any = Name { prefix: Prefix::of("org", "ns", "alice"), id: NameId::ANY };
        assert_eq!("org/ns/alice".parse(), Ok(any));
        assert_eq!(" org /ns/ alice/NULL_COMPONENT".parse(), Ok(any));
        let one = Name { id: NameId(1), ..any };
        assert_eq!("org/ns/alice/00000000-0000-0000-0000-000000000001".parse(), Ok(one));
        assert_eq!(
            one.to_string(),
            "873e580376ea963b/eef9769a4c6990d1/7b90bc8fa5b6b182/00000000-0000-0000-0000-000000000001"
        );
        for (bad, error) in [
            ("", NameError::ComponentCount { count: 1 }),
            ("org/ns", NameError::ComponentCount { count: 2 }),
            ("a/b/c/d", NameError::Id),
            ("a/b/c/d/e", NameError::ComponentCount { count: 5 }),
            ("org//alice", NameError::EmptyComponent { number: 2 }),
            ("org/ns/ ", NameError::EmptyComponent { number: 3 }),
        ] {
            assert_eq!(bad.parse::<Name>(), Err(error), "{bad}");
        }
    }

    #[test]
    fn halves_make_a_whole() {
        let id = NameId::from_halves([1, 2]);
        assert_eq!(id, NameId(1 << 64 | 2));
        assert_eq!(id.halves(), [1, 2]);
    }

    #[test]
    fn kinds_travel_by_number() {
        for kind in [ConnType::Remote, ConnType::Peer, ConnType::Edge] {
            assert_eq!(ConnType::from_wire(kind.to_wire()), kind);
        }
        assert_eq!(ConnType::from_wire(77), ConnType::Remote);
        assert_eq!(ConnType::Local.to_wire(), 0);
    }
}
