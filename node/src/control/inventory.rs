//! The connections of the node, for people who ask; written when links come and go, never per message.

use crate::conn::connection::LinkFacts;
use dashmap::DashMap;
use slimline_fib::ConnId;
use std::sync::Arc;

/// Every connection with a negotiated link.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    links: DashMap<ConnId, Arc<LinkFacts>>,
}

impl Inventory {
    pub(crate) fn insert(&self, id: ConnId, facts: Arc<LinkFacts>) {
        self.links.insert(id, facts);
    }

    pub(crate) fn remove(&self, id: ConnId) {
        self.links.remove(&id);
    }

    pub(crate) fn len(&self) -> usize {
        self.links.len()
    }

    /// A copy of what is known now, by connection.
    pub(crate) fn snapshot(&self) -> Vec<(ConnId, Arc<LinkFacts>)> {
        let mut all: Vec<_> = self.links.iter().map(|entry| (*entry.key(), Arc::clone(entry.value()))).collect();
        all.sort_by_key(|(id, _)| *id);
        all
    }
}
