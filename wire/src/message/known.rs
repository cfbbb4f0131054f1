//! Names that came before: what a stream says again is compared, not read again.
//!
//! Most streams carry one conversation, so both names of a message are octet for octet those of the one before. Reading
//! the two is two fifths of the work on a message, comparing them next to none.

use super::view::NameView;
use crate::name::{Name, NameId, Prefix};

/// The names of one stream's last publishes, for [`super::parse_into`]; holds no memory before the first.
///
/// Bounds: two names of [`KNOWN_OCTETS_MAX`] octets at most.
#[derive(Debug, Default)]
pub struct KnownNames(Option<Box<Pair>>);

#[derive(Debug, Default)]
struct Pair {
    source: KnownName,
    destination: KnownName,
}

impl KnownNames {
    /// What is known of source and destination.
    #[inline]
    pub(super) fn pair(&mut self) -> (&mut KnownName, &mut KnownName) {
        let Pair { source, destination } = &mut **self.0.get_or_insert_default();
        (source, destination)
    }
}

/// The longest encoded name that is remembered.
pub const KNOWN_OCTETS_MAX: usize = 256;

/// Of names that differ from message to message one in so many is remembered: where no name comes twice in a row,
/// remembering is waste.
const LEARN_EVERY: u32 = 8;

/// One name, as it was read.
#[derive(Debug)]
pub(super) struct KnownName {
    /// Empty: nothing is known.
    encoded: Vec<u8>,
    name: Name,
    has_id: bool,
    /// The three components, one behind the other, and where each ends; if there was text.
    text: Option<[usize; 3]>,
    components: String,
    /// Names since the last one that was known.
    strangers: u32,
}

impl KnownName {
    /// Whether this is the name that is known.
    #[inline]
    pub(super) fn is(&self, octets: &[u8]) -> bool {
        !octets.is_empty() && self.encoded == octets
    }

    /// What reading `octets`, which are those known, gave.
    #[inline]
    pub(super) fn again<'a>(&'a mut self, octets: &'a [u8], name: &mut NameView<'a>) {
        self.strangers = 0;
        let all = self.components.as_str();
        let text = self.text.map(|[first, second, third]| [&all[..first], &all[first..second], &all[second..third]]);
        *name = NameView { name: self.name, has_id: self.has_id, text, encoded: octets };
    }

    /// A name that was not the one known, read without a fault.
    #[inline]
    pub(super) fn met(&mut self, name: &NameView<'_>) {
        if self.strangers.is_multiple_of(LEARN_EVERY) && name.encoded.len() <= KNOWN_OCTETS_MAX {
            self.learn(name);
        }
        self.strangers = self.strangers.wrapping_add(1);
    }

    fn learn(&mut self, name: &NameView<'_>) {
        self.encoded.clear();
        self.encoded.extend_from_slice(name.encoded);
        (self.name, self.has_id) = (name.name, name.has_id);
        self.components.clear();
        self.text = name.text.map(|text| {
            text.map(|component| {
                self.components.push_str(component);
                self.components.len()
            })
        });
    }
}

impl Default for KnownName {
    fn default() -> Self {
        Self {
            encoded: Vec::new(),
            name: Name { prefix: Prefix([0; 3]), id: NameId::ANY },
            has_id: false,
            text: None,
            components: String::new(),
            strangers: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view<'a>(encoded: &'a [u8], text: Option<[&'a str; 3]>) -> NameView<'a> {
        let name = Name { prefix: Prefix([1, 2, 3]), id: NameId(u128::from(encoded[0])) };
        NameView { name, has_id: true, text, encoded }
    }

    #[test]
    fn a_name_that_comes_again_is_known_with_all_its_parts() {
        let mut known = KnownName::default();
        assert!(!known.is(b""), "nothing is known, not even nothing");
        for text in [None, Some(["", "é", "service"]), Some(["o", "", ""])] {
            known.learn(&view(b"a", text));
            assert!(known.is(b"a") && !known.is(b"ab") && !known.is(b"b"));
            let mut again = view(b"b", None);
            known.again(b"a", &mut again);
            assert_eq!(again, view(b"a", text));
        }
    }

    #[test]
    fn of_strangers_few_are_remembered_and_long_ones_never() {
        let mut known = KnownName::default();
        let learnt = (0..=u8::MAX).filter(|&octet| {
            known.met(&view(&[octet], None));
            known.is(&[octet])
        });
        assert_eq!(learnt.count(), 256 / 8);
        let mut known = KnownName::default();
        known.met(&view(&[7; KNOWN_OCTETS_MAX + 1], None));
        assert!(known.encoded.is_empty());
        known.strangers = 0;
        known.met(&view(&[7; KNOWN_OCTETS_MAX], None));
        assert!(known.is(&[7; KNOWN_OCTETS_MAX]));
    }
}
