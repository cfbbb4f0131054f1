//! The text of name components, each kept once.

use crate::hash::Keyed;
use crate::index::Index;
use crate::slab::{Record, Slab};
use slimline_wire::name::component_hash;

/// Component hash → text, for people: dumps, logs, admin answers. Routing never asks.
#[derive(Debug)]
pub(crate) struct Texts {
    hash: Keyed,
    index: Index,
    texts: Slab<Text>,
}

#[derive(Debug)]
struct Text {
    /// Empty only in an empty place.
    text: Box<str>,
    /// Prefixes that use it; in an empty place, the next empty one.
    uses: u32,
}

impl Texts {
    pub(crate) fn new(seed: u64) -> Self {
        Self { hash: Keyed::new(seed), index: Index::new(), texts: Slab::new() }
    }

    /// Keeps `text` for one more use; false if it is not the text of this component, or not worth keeping.
    pub(crate) fn keep(&mut self, component: u64, text: &str) -> bool {
        if text.is_empty() || text.len() > TEXT_OCTETS_MAX || component_hash(text) != component {
            return false;
        }
        if let Some(index) = self.find(component) {
            self.texts.get_mut(index).uses += 1; // a prefix each, and there are fewer than 2³⁰
        } else {
            let index = self.texts.insert(Text { text: text.into(), uses: 1 });
            self.index.insert(self.hash.tag([component]), index);
        }
        true
    }

    /// One use less.
    pub(crate) fn release(&mut self, component: u64) {
        let index = self.find(component).expect("released as often as kept");
        let record = self.texts.get_mut(index);
        record.uses -= 1;
        if record.uses == 0 {
            self.texts.remove(index);
            self.index.remove(self.hash.tag([component]), index);
        }
    }

    pub(crate) fn get(&self, component: u64) -> Option<&str> {
        self.find(component).map(|index| &*self.texts.get(index).text)
    }

    /// Texts kept.
    pub(crate) fn len(&self) -> usize {
        self.texts.len()
    }

    fn find(&self, component: u64) -> Option<u32> {
        // A text is kept only under its own hash, so it is the hash that tells texts apart.
        self.index.find(self.hash.tag([component]), |index| component_hash(&self.texts.get(index).text) == component)
    }
}

impl Record for Text {
    fn vacant(next: u32) -> Self {
        Self { text: "".into(), uses: next }
    }

    fn next_vacant(&self) -> Option<u32> {
        self.text.is_empty().then_some(self.uses)
    }
}

/// Longer components are shown as hex; the wire's limit for a component is the same.
const TEXT_OCTETS_MAX: usize = 1024;
