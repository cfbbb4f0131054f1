//! An application that comes back: what has to be written before its messages leave, and the application from what was.
//!
//! After each call that may change something, [`Endpoint::changes`] tells what to write; [`Endpoint::written`] then lets out the
//! messages that were waiting for it. A crash at any point between is survived: what did not leave is sent again.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;

use super::{Endpoint, SessionId};
use crate::message::{Credentials, Now};
use crate::name::Name;
use crate::random;
use crate::session::{Direction, Route};
use crate::store::record::{self, APP, IDENTITY, SESSION};
use crate::store::save::{Saved, save};
use crate::store::{Change, SessionParts, Store, StoreError, identity_record};

/// What a store has of an application.
#[derive(Default)]
pub(super) struct Kept {
    saved: Saved,
    /// Sessions that may differ from what was saved.
    touched: BTreeSet<SessionId>,
    names_touched: bool,
    identity: Option<record::Identity>,
    /// Messages from the front of the queue that may leave.
    pub(super) released: usize,
    /// Messages that may leave when what was handed out is written.
    covered: usize,
}

fn prefix(id: SessionId) -> Vec<u8> {
    [&[SESSION][..], &id.number.to_be_bytes(), &id.round.to_be_bytes()].concat()
}

/// The octets of [`prefix`].
const PREFIX_OCTETS: usize = 9;

impl Endpoint {
    /// The application that `store` holds, or a new one that is to be kept there.
    ///
    /// Sessions go on where they stood, with what was waited for due at once; the application listens on the names it had.
    /// Call [`Endpoint::connected`] next.
    ///
    /// Errors: the store belongs to another identity, or holds what this release cannot read.
    pub fn reopen(
        name: &Name,
        credentials: Credentials,
        direction: Direction,
        store: &Store,
        now: Now,
    ) -> Result<Self, StoreError> {
        let ours = credentials.provider.subject().to_owned();
        let key = credentials.provider.signing_key().ok_or(crate::error::IdentityError::NoKey)?;
        let identity = identity_record(&ours, key)?;
        let mut kept = Kept::default();
        match store.get(IDENTITY) {
            None => kept.identity = Some(identity),
            Some(octets) => {
                let found: record::Identity = record::decode(octets, "an identity")?;
                if found != identity {
                    let same = found.subject == ours;
                    let found = if same { format!("{ours} with another key") } else { found.subject };
                    return Err(StoreError::OtherIdentity { found, ours });
                }
            }
        }
        let mut endpoint = Self::new(name, credentials, direction)?;
        let mut sessions: BTreeMap<&[u8], BTreeMap<&[u8], &[u8]>> = BTreeMap::new();
        for (key, value) in store.records().filter(|(key, _)| key.first() == Some(&SESSION)) {
            let (session, key) = key.split_at_checked(PREFIX_OCTETS).ok_or(StoreError::Record("a key"))?;
            sessions.entry(session).or_default().insert(key, value);
        }
        for (key, value) in store.records().filter(|(key, _)| *key != IDENTITY) {
            kept.saved.note(key, value);
        }
        endpoint.kept = Some(kept);
        if let Some(octets) = store.get(APP) {
            let app: record::App = record::decode(octets, "the application's names")?;
            for known in &app.names {
                let known = Name::from_wire(known).map_err(|_| StoreError::Record("a name"))?;
                endpoint.add_route(now, known, true, None);
            }
        }
        for (key, records) in &sessions {
            endpoint.restore(key, records, now)?;
        }
        Ok(endpoint)
    }

    fn restore(&mut self, key: &[u8], records: &BTreeMap<&[u8], &[u8]>, now: Now) -> Result<(), StoreError> {
        let word = |octets: &[u8]| octets.try_into().map(u32::from_be_bytes).map_err(|_| StoreError::Record("a key"));
        let id = SessionId { number: word(&key[1..5])?, round: word(&key[5..])? };
        let parts = SessionParts::read(id.number, records, &self.credentials, random::word()?, now)?;
        let mut session = parts.session;
        if session.subscribed {
            session.routes.push_back(Route::Add(session.remote.clone()));
            session.routes.extend(session.control.clone().map(Route::Add));
        }
        self.sessions.insert(id, session);
        if parts.unannounced {
            self.unannounced.insert(id);
        }
        self.collect(now, id);
        Ok(())
    }

    /// Every session the application knows of, open or just closed: after [`Endpoint::reopen`], those that came back.
    pub fn sessions(&self) -> impl Iterator<Item = SessionId> {
        self.sessions.keys().copied().filter(|id| !self.unannounced.contains(id))
    }

    /// Whether there is a store.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.kept.is_some()
    }

    pub(super) fn touch(&mut self, id: SessionId) {
        if let Some(kept) = &mut self.kept {
            kept.touched.insert(id);
        }
    }

    pub(super) fn touch_names(&mut self, own: bool) {
        if let Some(kept) = &mut self.kept {
            kept.names_touched |= own;
        }
    }

    pub(super) fn nothing_waits(&mut self) {
        if let Some(kept) = &mut self.kept {
            (kept.released, kept.covered) = (0, 0);
        }
    }

    pub(super) fn may_leave(&mut self) -> bool {
        let Some(kept) = &mut self.kept else { return true };
        let may = kept.released > 0 && !self.out.is_empty();
        kept.released -= usize::from(may);
        kept.covered -= usize::from(may);
        may
    }

    /// What has to be written now; `None` when there is no store, or nothing changed. Call [`Endpoint::written`] when it is.
    pub fn changes(&mut self) -> Option<Vec<Change>> {
        let kept = self.kept.as_mut()?;
        let mut changes = Vec::new();
        if let Some(identity) = kept.identity.take() {
            changes.push((IDENTITY.to_vec(), Some(identity.encode_to_vec())));
        }
        if std::mem::take(&mut kept.names_touched) {
            let own = self.subscriptions.iter().filter(|(_, subscription)| subscription.own);
            let app = record::App { names: own.map(|(name, _)| name.to_wire()).collect() };
            changes.push((APP.to_vec(), Some(app.encode_to_vec())));
        }
        for id in std::mem::take(&mut kept.touched) {
            let unannounced = self.unannounced.contains(&id);
            save(self.sessions.get(&id), unannounced, &prefix(id), &mut kept.saved, &mut changes);
        }
        kept.covered = self.out.len();
        if changes.is_empty() {
            kept.released = kept.covered;
            return None;
        }
        Some(changes)
    }

    /// What [`Endpoint::changes`] gave last is in the store: what was made of it may leave.
    pub fn written(&mut self) {
        if let Some(kept) = &mut self.kept {
            kept.released = kept.covered;
        }
    }
}
