//! What waits for the application: bounded by number and by octets.

use std::collections::VecDeque;

use super::Item;

/// Messages kept for an application that does not read; beyond it they are refused, and come again if reliable.
pub const INBOX_MAX: usize = 1024;
/// Octets kept for it, likewise. One message may lie across the bound, and what was acknowledged while it waited for its turn
/// comes in whatever is there: that has a bound of its own ([`crate::reliable::HELD_OCTETS_MAX`]).
pub const INBOX_OCTETS_MAX: usize = 64 << 20;

/// Items in the order they are read.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    items: VecDeque<Item>,
    octets: usize,
    /// Items taken out so far.
    pub(crate) read: u64,
}

impl Inbox {
    /// As it was: so many were read, these were not.
    pub(crate) fn restored(read: u64, items: VecDeque<Item>) -> Self {
        let octets = items.iter().map(octets).sum();
        Self { items, octets, read }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Nothing more is to be acknowledged until something is read.
    pub(crate) fn is_full(&self) -> bool {
        self.items.len() >= INBOX_MAX || self.octets >= INBOX_OCTETS_MAX
    }

    pub(crate) fn push(&mut self, item: Item) {
        self.octets += octets(&item);
        self.items.push_back(item);
    }

    pub(crate) fn pop(&mut self) -> Option<Item> {
        let item = self.items.pop_front()?;
        self.octets -= octets(&item);
        self.read += 1;
        Some(item)
    }

    pub(crate) fn items(&self) -> impl Iterator<Item = &Item> {
        self.items.iter()
    }
}

fn octets(item: &Item) -> usize {
    match item {
        Item::Message(message) => message.octets(),
        Item::Lost { .. } => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Received;

    #[test]
    fn full_by_number_or_by_octets() {
        let item = |octets: usize| {
            let name: crate::name::Name = "a/b/c".parse().unwrap();
            Item::Message(Received {
                source: name.clone(),
                destination: name,
                subject: None,
                payload_type: String::new(),
                payload: vec![0; octets].into(),
                metadata: [("key".to_owned(), "value".to_owned())].into(),
                to_us_alone: false,
            })
        };
        let mut inbox = Inbox::default();
        for _ in 0..INBOX_MAX {
            assert!(!inbox.is_full());
            inbox.push(item(1));
        }
        assert!(inbox.is_full());
        inbox.pop();
        assert!(!inbox.is_full());
        while inbox.pop().is_some() {}
        assert_eq!((inbox.octets, inbox.read), (0, INBOX_MAX as u64));
        inbox.push(item(INBOX_OCTETS_MAX - 9));
        assert!(!inbox.is_full());
        inbox.push(item(0));
        assert!(inbox.is_full());
        let again = Inbox::restored(1, inbox.items().cloned().collect());
        assert!(again.is_full());
        inbox.pop();
        assert!(!inbox.is_full());
    }
}
