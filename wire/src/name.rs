//! Names: three hashed components and a 128-bit id.

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
}
