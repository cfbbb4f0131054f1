//! An application before it is connected: who it is, what it may do, whether it is kept.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::app::{Alive, App, Shared, Slot, clock};
use super::link::{self, Identity};
use super::{ConnectConfig, ConnectError, driver};
use crate::endpoint::{Endpoint, SessionId};
use crate::error::SessionError;
use crate::identity::SharedSecret;
use crate::message::{Credentials, Now};
use crate::name::Name;
use crate::random;
use crate::session::Direction;
use crate::store::{Store, StoreError, StoreKey};

/// What an application is to be, before it is connected.
pub struct AppBuilder {
    name: Name,
    credentials: Credentials,
    /// What the identity was made with, where it may be made anew for a store.
    secret: Option<Zeroizing<String>>,
    direction: Direction,
    store: Option<Store>,
}

impl std::fmt::Debug for AppBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Credentials and secret are nobody's business.
        f.debug_struct("AppBuilder").field("name", &self.name).finish_non_exhaustive()
    }
}

impl AppBuilder {
    pub(super) fn new(name: Name, credentials: Credentials) -> Self {
        Self { name, credentials, secret: None, direction: Direction::BOTH, store: None }
    }

    /// Remembers what the identity was made with.
    pub(super) fn made_with(mut self, secret: &str) -> Self {
        self.secret = Some(Zeroizing::new(secret.to_owned()));
        self
    }

    /// With other credentials' strictness or identity.
    #[must_use]
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = credentials;
        self.secret = None;
        self
    }

    /// An application that only sends, or only receives.
    #[must_use]
    pub fn direction(mut self, direction: Direction) -> Self {
        self.direction = direction;
        self
    }

    /// Keeps sessions and their MLS state in an encrypted file: what was not closed goes on after a restart, see
    /// [`App::resumed`]. A new file is made where there is none.
    ///
    /// The application comes back as the identity the store was begun with. With a shared secret that is seen to here; any
    /// other provider has to have the subject and key that [`Store::identity`] gives.
    ///
    /// Errors: [`crate::StoreError`]; a file that is refused stays as it was.
    pub fn store(mut self, path: impl AsRef<Path>, key: StoreKey) -> Result<Self, ConnectError> {
        let store = Store::open(path, key)?;
        if let (Some(secret), Some(known)) = (&self.secret, store.identity()?) {
            let ours = self.name.to_string();
            let same = known.subject.strip_prefix(&ours).is_some_and(|rest| rest.starts_with('_'));
            if !same {
                return Err(StoreError::OtherIdentity { found: known.subject, ours }.into());
            }
            self.credentials = Credentials {
                binding: self.credentials.binding,
                ..Credentials::new(SharedSecret::with_subject(known.subject, secret, known.key)?)
            };
        }
        self.store = Some(store);
        Ok(self)
    }

    fn endpoint(&self, now: Now) -> Result<Endpoint, ConnectError> {
        let (credentials, direction) = (self.credentials.clone(), self.direction);
        match &self.store {
            Some(store) => Ok(Endpoint::reopen(&self.name, credentials, direction, store, now)?),
            None => Ok(Endpoint::new(&self.name, credentials, direction)?),
        }
    }

    /// Connects to a node and subscribes the application's name there.
    ///
    /// Each step (name look-up and TCP, TLS, HTTP/2, stream, link) may take [`ConnectConfig::step_timeout`], the subscription
    /// 10 s. Tried once: later losses of the connection are healed in the background, the first failure is told at once.
    /// A call that is dropped leaves nothing behind.
    ///
    /// Errors: see [`ConnectError`]; [`ConnectError::Identity`] when our identity makes no token.
    pub async fn connect(self, config: ConnectConfig) -> Result<App, ConnectError> {
        let link_id = config.link_id.clone().map_or_else(random::uuid, Ok)?;
        let identity = Identity { link_id, node_id: format!("app-{}", random::uuid()?) };
        let mut endpoint = self.endpoint(clock())?;
        // Every message carries a token: without one there is nothing to connect for.
        self.credentials.provider.token(clock().unix_s)?;
        let connection = link::connect(&config, &identity).await?;
        let resumed: Vec<SessionId> = endpoint.sessions().collect();
        let mut slots = BTreeMap::new();
        for id in &resumed {
            let mut slot = Slot::new();
            if let Some(session) = endpoint.session(*id).filter(|session| session.is_closed()) {
                slot.closed = Some(SessionError::Closed);
                slot.left_over.extend(std::iter::from_fn(|| session.recv()));
            }
            slots.insert(*id, slot);
        }
        let shared = Arc::new(Shared::new(endpoint, slots, resumed));
        tokio::spawn(driver::drive(shared.clone(), config, identity, connection, self.store));
        let app = App { alive: Arc::new(Alive(shared)) };
        app.subscribe(&self.name).await?;
        Ok(app)
    }
}
