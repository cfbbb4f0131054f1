//! What an application keeps over a restart: its identity, its sessions and their MLS state, in one encrypted file.
//!
//! [`Store`] is the file: keys and values, changed by whole commits. What is written there is decided elsewhere: `record`
//! gives the shapes, `save` says what of a session is kept, `load` reads it back, and [`crate::Endpoint`] when. A message leaves only after the
//! commit that holds the state it was made with, so no generation of a ratchet is ever used twice.

mod file;
mod load;
pub(crate) mod record;
pub(crate) mod save;

pub use file::{Store, StoreKey};
pub(crate) use load::SessionParts;

use crate::error::IdentityError;
use crate::identity::SigningKey;
use crate::identity::key::KeyKind;

/// One change to a store: a key, and its new value or none.
pub type Change = (Vec<u8>, Option<Vec<u8>>);

/// Why a store cannot be used. The file is left as it was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The system refused.
    #[error("store {path}: {what}: {why}")]
    Io {
        /// The file.
        path: String,
        /// What was tried.
        what: &'static str,
        /// The system's reason.
        why: String,
    },
    /// Another kind of file.
    #[error("{path} is not a slimline store: give the path of one, or of a file that does not exist yet")]
    Foreign {
        /// The file.
        path: String,
    },
    /// Written by a release with another layout.
    #[error("store {path} has layout {found}, this release reads layout {ours}")]
    Layout {
        /// The file.
        path: String,
        /// Its layout.
        found: u8,
        /// Ours.
        ours: u8,
    },
    /// Another key.
    #[error("store {path} was not made with this key")]
    WrongKey {
        /// The file.
        path: String,
    },
    /// Cut off or changed.
    #[error("store {path} is damaged at octet {at}: what was committed there cannot be read")]
    Damaged {
        /// The file.
        path: String,
        /// Where what can be read ends.
        at: u64,
    },
    /// Another process has it open; two would use the same keys twice.
    #[error("store {path} is in use by another process")]
    InUse {
        /// The file.
        path: String,
    },
    /// A write failed before; what is in memory is not what is in the file.
    #[error("store {path}: a write failed, nothing more is written")]
    Stopped {
        /// The file.
        path: String,
    },
    /// The sessions in it belong to another identity.
    #[error("the store belongs to {found}, this application is {ours}")]
    OtherIdentity {
        /// Whose sessions are stored.
        found: String,
        /// Who we are.
        ours: String,
    },
    /// A record that authenticates, but does not say what it should.
    #[error("the store holds {0} that this release cannot read")]
    Record(&'static str),
    /// See [`IdentityError`].
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Who the stored sessions belong to.
pub struct StoredIdentity {
    /// The subject of its tokens.
    pub subject: String,
    /// The key of its leaves.
    pub key: SigningKey,
}

impl Store {
    /// The identity this store was begun with; `None` in a new one.
    ///
    /// An application has to come back as the same identity: [`crate::AppBuilder::store`] sees to it for shared secrets, other
    /// providers are built from this one's subject and key.
    pub fn identity(&self) -> Result<Option<StoredIdentity>, StoreError> {
        let Some(octets) = self.get(record::IDENTITY) else { return Ok(None) };
        let record: record::Identity = record::decode(octets, "an identity")?;
        let key = match record.ed25519 {
            true => SigningKey::from_ed25519_seed(&record.private_key)?,
            false => SigningKey::from_p256_scalar(&record.private_key)?,
        };
        Ok(Some(StoredIdentity { subject: record.subject, key }))
    }
}

/// The record of an identity.
pub(crate) fn identity_record(subject: &str, key: &SigningKey) -> Result<record::Identity, IdentityError> {
    Ok(record::Identity {
        subject: subject.to_owned(),
        private_key: key.private_key()?.to_vec(),
        ed25519: key.kind() == KeyKind::Ed25519,
    })
}
