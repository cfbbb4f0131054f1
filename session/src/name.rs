//! Names with their text: what applications write, and what rosters are keyed by.

use std::fmt;
use std::sync::Arc;

use slimline_wire::name::{NameId, Prefix};
use slimline_wire::pb;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::error::NameError;

/// Ids from here up are reserved; the last of them is [`NameId::ANY`].
const RESERVED_FROM: u128 = u128::MAX - 50;

/// Octets of text a name may have: names are remembered in many places.
const TEXT_OCTETS_MAX: usize = 1024;

/// `organisation/namespace/service` and, once known, the instance.
///
/// Cheap to clone. Two names are equal when text and id are.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    text: Arc<[String; 3]>,
    prefix: Prefix,
    id: NameId,
}

impl Name {
    /// A name for any instance of a service; each part is trimmed.
    ///
    /// Errors: an empty part, a part that holds `/`, or more than 1024 octets in all.
    pub fn new(organisation: &str, namespace: &str, service: &str) -> Result<Self, NameError> {
        let parts = [organisation, namespace, service].map(str::trim);
        if let Some(part) = parts.iter().find(|part| part.is_empty() || part.contains('/')) {
            return Err(NameError::Part((*part).to_owned()));
        }
        Self::check_length(parts)?;
        Ok(Self::from_parts(parts, NameId::ANY))
    }

    fn check_length(parts: [&str; 3]) -> Result<(), NameError> {
        let octets = parts.iter().map(|part| part.len()).sum();
        if octets > TEXT_OCTETS_MAX { Err(NameError::TooLong { octets, limit: TEXT_OCTETS_MAX }) } else { Ok(()) }
    }

    fn from_parts(parts: [&str; 3], id: NameId) -> Self {
        let [organisation, namespace, service] = parts;
        Self { text: Arc::new(parts.map(str::to_owned)), prefix: Prefix::of(organisation, namespace, service), id }
    }

    /// The same service, one instance of it.
    #[must_use]
    pub fn with_id(&self, id: NameId) -> Self {
        Self { id, ..self.clone() }
    }

    /// The same service, any instance.
    #[must_use]
    pub fn without_id(&self) -> Self {
        self.with_id(NameId::ANY)
    }

    /// The instance, or [`NameId::ANY`].
    #[must_use]
    pub fn id(&self) -> NameId {
        self.id
    }

    /// The three components as written.
    #[must_use]
    pub fn components(&self) -> [&str; 3] {
        [&self.text[0], &self.text[1], &self.text[2]]
    }

    /// The hashed components.
    #[must_use]
    pub fn prefix(&self) -> Prefix {
        self.prefix
    }

    /// Whether both name the same service, whatever the instance.
    #[must_use]
    pub fn same_service(&self, other: &Self) -> bool {
        self.text == other.text
    }

    /// The wire form: hashes, id and text, all three always present.
    ///
    /// Source: slim-session §1.1.
    #[must_use]
    pub fn to_wire(&self) -> pb::Name {
        let [c0, c1, c2] = self.prefix.0;
        let [s0, s1, s2] = self.components().map(str::to_owned);
        pb::Name {
            name: Some(pb::EncodedName {
                component_0: c0,
                component_1: c1,
                component_2: c2,
                name_id: Some(pb::NameId { id_0: high(self.id), id_1: low(self.id) }),
            }),
            str_name: Some(pb::StringName { str_component_0: s0, str_component_1: s1, str_component_2: s2 }),
        }
    }

    /// Reads a wire name; the text must hash to the components it came with, so that what is shown is what is routed.
    pub fn from_wire(name: &pb::Name) -> Result<Self, NameError> {
        let encoded = name.name.as_ref().ok_or(NameError::Missing)?;
        let text = name.str_name.as_ref().ok_or(NameError::Missing)?;
        let id = encoded.name_id.map_or(NameId::ANY, |id| join(id.id_0, id.id_1));
        let parts = [&*text.str_component_0, &*text.str_component_1, &*text.str_component_2];
        Self::check_length(parts)?;
        let read = Self::from_parts(parts, id);
        if read.prefix.0 != [encoded.component_0, encoded.component_1, encoded.component_2] {
            return Err(NameError::TextAndHash);
        }
        Ok(read)
    }
}

#[allow(clippy::cast_possible_truncation)] // the two halves, on purpose
fn high(id: NameId) -> u64 {
    (id.0 >> 64) as u64
}

#[allow(clippy::cast_possible_truncation)] // the two halves, on purpose
fn low(id: NameId) -> u64 {
    id.0 as u64
}

fn join(high: u64, low: u64) -> NameId {
    NameId((u128::from(high) << 64) | u128::from(low))
}

impl std::str::FromStr for Name {
    type Err = NameError;

    /// Reads `organisation/namespace/service`.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let mut parts = text.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(organisation), Some(namespace), Some(service), None) => Self::new(organisation, namespace, service),
            _ => Err(NameError::Shape(text.to_owned())),
        }
    }
}

impl fmt::Display for Name {
    /// `organisation/namespace/service`, without the instance.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.text[0], self.text[1], self.text[2])
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.id.is_any() { write!(f, "{self}#*") } else { write!(f, "{self}#{:04x}", self.id.0 >> 112) }
    }
}

/// The id of the application that `subject` names: a pure function of the identity.
///
/// Source: slim-session §1.1; vectors in Annex A.
#[must_use]
pub fn app_id(subject: &str) -> NameId {
    let id = xxh3_128_with_seed(subject.as_bytes(), 0);
    NameId(if id >= RESERVED_FROM { id % RESERVED_FROM } else { id })
}

/// The data and control names of `channel` when `moderator` (its identity's subject) moderates it.
///
/// Source: slim-session §1.1; vectors in Annex A.
#[must_use]
pub fn channel_names(moderator: &str, channel: &Name) -> (Name, Name) {
    let id_of = |leaf: &str, salt: u64| {
        let id = xxh3_128_with_seed(format!("{moderator}/{channel}/{leaf}").as_bytes(), salt);
        NameId(if id >= RESERVED_FROM { id % (RESERVED_FROM - 1) + 1 } else { id })
    };
    let ids = (0..=10).map(|salt| (id_of("data", salt), id_of("control", salt)));
    // Two equal 128-bit hashes do not happen; the reference counts the salt up if they do.
    let (data, control) = ids.clone().find(|(data, control)| data != control).unwrap_or((NameId(1), NameId(2)));
    (channel.with_id(data), channel.with_id(control))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_upstreams() {
        assert_eq!(app_id("acme/ns/alice_AbCdEfGh").0, 0xe9f5_7dc4_f0fc_a07a_c1b5_f316_ae7c_14a8);
        assert_eq!(app_id("acme/ns/bob_ZyXwVuTs").0, 0x1d4e_15ef_a7fe_39f5_a418_a78a_ca6c_096d);
        let did = "did:key:z6Mkfvtar6ATQYC5jXqVLBjCH8R6AUAuKjta6LsFcG4gUND1";
        assert_eq!(app_id(did).0, 0x48b1_da60_0caa_b75f_a73e_4fe3_34bf_1482);
        let (data, control) = channel_names("acme/ns/alice_AbCdEfGh", &"acme/ns/chan".parse().unwrap());
        assert_eq!(data.id().0, 0x3d32_89f0_15cb_49a6_fa91_1518_50a8_053e);
        assert_eq!(control.id().0, 0xba0c_db2a_faea_c5a6_8fc5_3e09_3af3_baed);
    }

    #[test]
    fn text_form() {
        let name: Name = " acme / ns/bob".parse().unwrap();
        assert_eq!(name.to_string(), "acme/ns/bob");
        assert!(name.id().is_any());
        for bad in ["a/b", "a/b/c/d", "a//c", "a/ /c", ""] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
        let long = |octets: usize| format!("a/b/{}", "c".repeat(octets - 2));
        assert_eq!(long(1025).parse::<Name>(), Err(NameError::TooLong { octets: 1025, limit: 1024 }));
        let longest: Name = long(1024).parse().unwrap();
        assert_eq!(Name::from_wire(&longest.to_wire()).as_ref(), Ok(&longest));
        let mut longer = longest.to_wire();
        longer.str_name.as_mut().unwrap().str_component_2.push('c');
        assert_eq!(Name::from_wire(&longer), Err(NameError::TooLong { octets: 1025, limit: 1024 }));
    }

    #[test]
    fn wire_form_returns_and_a_lying_text_is_refused() {
        let name = "acme/ns/bob".parse::<Name>().unwrap().with_id(NameId(7 << 64 | 9));
        assert_eq!(Name::from_wire(&name.to_wire()).unwrap(), name);
        let mut lying = name.to_wire();
        lying.str_name.as_mut().unwrap().str_component_2 = "eve".into();
        assert_eq!(Name::from_wire(&lying), Err(NameError::TextAndHash));
    }
}
