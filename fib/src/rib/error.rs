//! Why a request was refused, in the words SDKs know.

use crate::ConnId;
use slimline_wire::NameId;
use std::fmt;

/// Why a request was refused; its text goes into the negative acknowledgement as it is.
///
/// Source: slim-wire §5.5 (exact texts); the last three are slimline's own.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RibError {
    /// Unsubscribe: nobody has a name with these three components.
    #[error("subscription not found")]
    PrefixUnknown,
    /// Unsubscribe: the prefix is known, this id is not.
    #[error("id not found: {}", IdText(*.id))]
    IdUnknown {
        /// The id asked for.
        id: NameId,
    },
    /// Unsubscribe: the name is known, but not by this subscription of this connection.
    #[error("subscription id not found: {subscription_id}")]
    SubscriptionUnknown {
        /// The subscription asked for.
        subscription_id: u64,
    },
    /// A request on behalf of a connection that has departed.
    #[error("connection not found: {conn}")]
    ConnGone {
        /// The connection it was for.
        conn: ConnId,
    },
    /// The slot was given to a new connection before [`Rib::sweep`](crate::Rib::sweep) was done with the last one.
    #[error("connection slot not swept: {conn}")]
    SlotNotSwept {
        /// The new connection.
        conn: ConnId,
    },
    /// The connection, or the node, holds as many as it may.
    #[error("too many names: limit {limit}")]
    TooManyNames {
        /// The limit that was reached.
        limit: usize,
    },
}

/// An id as people see it: a UUID, or `NULL_COMPONENT`.
///
/// Source: slim-wire §3.
pub(crate) struct IdText(pub(crate) NameId);

impl fmt::Display for IdText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_any() {
            return f.write_str("NULL_COMPONENT");
        }
        let id = self.0.0;
        let field = |shift: u32, bits: u32| id >> shift & ((1 << bits) - 1);
        write!(f, "{:08x}-{:04x}-{:04x}-", field(96, 32), field(80, 16), field(64, 16))?;
        write!(f, "{:04x}-{:012x}", field(48, 16), field(0, 48))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_upstreams() {
        let id = NameId(0x0123_4567_89ab_cdef_0011_2233_4455_6677);
        assert_eq!(RibError::PrefixUnknown.to_string(), "subscription not found");
        assert_eq!(RibError::IdUnknown { id }.to_string(), "id not found: 01234567-89ab-cdef-0011-223344556677");
        assert_eq!(RibError::IdUnknown { id: NameId::ANY }.to_string(), "id not found: NULL_COMPONENT");
        assert_eq!(RibError::SubscriptionUnknown { subscription_id: 7 }.to_string(), "subscription id not found: 7");
        assert_eq!(RibError::TooManyNames { limit: 2 }.to_string(), "too many names: limit 2");
    }
}
