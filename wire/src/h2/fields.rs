//! A decoded header list, and the view of it that leaves this module.

use core::fmt;

use super::hpack::{self, FIELD_OVERHEAD};

/// One field's place in `FieldList::octets`.
#[derive(Clone, Copy, Debug)]
struct Span {
    name_at: u32,
    value_at: u32,
    end: u32,
}

/// A header list in one buffer, reused for every block, with a limit on what it collects.
#[derive(Debug)]
pub struct FieldList {
    octets: Vec<u8>,
    spans: Vec<Span>,
    /// Octets of all fields plus 32 for each, collected or not. Source: RFC 9113 §6.5.2.
    size: u32,
    octets_max: u32,
}

/// Room that is kept between header blocks; what a larger list took is given back.
const KEPT_OCTETS: usize = 2048;

impl FieldList {
    /// An empty list that collects at most `octets_max`, counted as the RFC counts.
    #[must_use]
    pub const fn new(octets_max: u32) -> Self {
        Self { octets: Vec::new(), spans: Vec::new(), size: 0, octets_max }
    }

    /// The fields, pseudo-headers first as they came.
    #[inline]
    #[must_use]
    pub fn fields(&self) -> Fields<'_> {
        Fields { octets: &self.octets, spans: &self.spans }
    }

    /// Whether fields were left out because the list is over its limit.
    #[must_use]
    pub fn is_too_long(&self) -> bool {
        self.size > self.octets_max
    }

    pub(super) fn size(&self) -> u32 {
        self.size
    }

    pub(super) fn octets_max(&self) -> u32 {
        self.octets_max
    }

    pub(super) fn clear(&mut self) {
        self.octets.clear();
        self.spans.clear();
        self.size = 0;
        self.release();
    }

    /// Gives back the room of a list that was large, and the list with it; small ones stay.
    pub(super) fn release(&mut self) {
        if self.octets.capacity() > KEPT_OCTETS {
            self.octets = Vec::new();
            self.spans.clear();
        }
        if self.spans.capacity() > KEPT_OCTETS / FIELD_OVERHEAD as usize {
            self.spans = Vec::new();
        }
    }

    pub(super) fn push(&mut self, name: &[u8], value: &[u8]) {
        let start = self.octets.len();
        self.octets.extend_from_slice(name);
        let name_end = self.octets.len();
        self.octets.extend_from_slice(value);
        self.commit(start, name_end);
    }

    /// The buffer, to append a field to; followed by `commit`.
    pub(super) fn begin(&mut self) -> &mut Vec<u8> {
        &mut self.octets
    }

    /// The octets from `start` on are one field, its value from `name_end` on.
    pub(super) fn commit(&mut self, start: usize, name_end: usize) {
        let position = |at: usize| u32::try_from(at).expect("a header block has a bound far below 4 GiB");
        let span = Span { name_at: position(start), value_at: position(name_end), end: position(self.octets.len()) };
        self.size = self.size.saturating_add(span.end - span.name_at).saturating_add(FIELD_OVERHEAD);
        if self.is_too_long() {
            self.octets.truncate(start);
        } else {
            self.spans.push(span);
        }
    }
}

/// The fields of one header section, borrowed from the receiver.
#[derive(Clone, Copy, Default)]
pub struct Fields<'r> {
    octets: &'r [u8],
    spans: &'r [Span],
}

impl<'r> Fields<'r> {
    /// The first value of a name; names are lower-case, pseudo-headers begin with a colon.
    #[must_use]
    pub fn get(&self, name: impl AsRef<[u8]>) -> Option<&'r [u8]> {
        let name = name.as_ref();
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// Names and values in the order they came.
    pub fn iter(&self) -> impl Iterator<Item = (&'r [u8], &'r [u8])> + use<'r> {
        let octets = self.octets;
        self.spans.iter().map(move |span| {
            let name = &octets[span.name_at as usize..span.value_at as usize];
            (name, &octets[span.value_at as usize..span.end as usize])
        })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }
}

impl fmt::Debug for Fields<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for (name, value) in self.iter() {
            let shown = if hpack::is_secret(name) { b"(hidden)" } else { value };
            map.entry(&name.escape_ascii(), &shown.escape_ascii());
        }
        map.finish()
    }
}

impl PartialEq for Fields<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Fields<'_> {}
