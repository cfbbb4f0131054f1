//! What a session is to be like, and what an application wants to do in it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::error::SessionError;
use crate::message::{check_metadata, metadata_octets};
use crate::reliable::Retries;

/// Octets of metadata a session may have: they are kept as long as it lives.
pub const SESSION_METADATA_OCTETS_MAX: usize = 64 * 1024;

/// Two parties, or many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionKind {
    /// One application to one instance of another.
    PointToPoint,
    /// A channel with a moderator and participants.
    Group,
}

/// What a session is to be like; the initiator decides.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Two parties, or many.
    pub kind: SessionKind,
    /// Acknowledgements, retransmission and order; `None` for none of them.
    pub reliable: Option<Retries>,
    /// End-to-end encryption.
    pub mls: bool,
    /// What invited applications are told.
    pub metadata: BTreeMap<String, String>,
}

impl SessionConfig {
    /// A reliable, encrypted session: five retries, a second apart.
    #[must_use]
    pub fn new(kind: SessionKind) -> Self {
        let reliable = Some(Retries { interval: Duration::from_secs(1), max: 5 });
        Self { kind, reliable, mls: true, metadata: BTreeMap::new() }
    }

    /// Errors: metadata that is too large, or would be taken for a word between sessions.
    pub(crate) fn check(&self) -> Result<(), SessionError> {
        check_metadata(&self.metadata)?;
        let (octets, limit) = (metadata_octets(&self.metadata), SESSION_METADATA_OCTETS_MAX);
        if octets > limit { Err(SessionError::MetadataTooLarge { octets, limit }) } else { Ok(()) }
    }

    /// Two parties, reliable and encrypted.
    #[must_use]
    pub fn point_to_point() -> Self {
        Self::new(SessionKind::PointToPoint)
    }

    /// Many parties, reliable and encrypted.
    #[must_use]
    pub fn group() -> Self {
        Self::new(SessionKind::Group)
    }

    /// Without encryption.
    #[must_use]
    pub fn without_mls(mut self) -> Self {
        self.mls = false;
        self
    }

    /// With other retries.
    #[must_use]
    pub fn with_retries(mut self, interval: Duration, max: u32) -> Self {
        self.reliable = Some(Retries { interval, max });
        self
    }

    /// Without acknowledgements, retransmission and order.
    #[must_use]
    pub fn unreliable(mut self) -> Self {
        self.reliable = None;
        self
    }

    /// With a word for those who are invited.
    #[must_use]
    pub fn with_metadata(mut self, key: &str, value: &str) -> Self {
        self.metadata.insert(key.to_owned(), value.to_owned());
        self
    }
}

/// What an application wants to do with data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Direction {
    /// It publishes.
    pub sends: bool,
    /// It receives.
    pub receives: bool,
}

impl Direction {
    /// Both.
    #[doc(alias = "BIDIRECTIONAL")]
    pub const BOTH: Self = Self { sends: true, receives: true };
    /// It publishes, and nobody expects it to receive.
    pub const SEND: Self = Self { sends: true, receives: false };
    /// It receives; publishing is refused.
    #[doc(alias = "RECV")]
    pub const RECEIVE: Self = Self { sends: false, receives: true };
    /// Neither: it takes part in membership only.
    pub const NONE: Self = Self { sends: false, receives: false };
}
