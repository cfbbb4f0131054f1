//! A session as an application holds it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use super::ReceiveError;
use super::app::{Alive, OUT_MAX, OUT_OCTETS_MAX, State};
use crate::data::Publish;
use crate::endpoint::SessionId;
use crate::error::SessionError;
use crate::exchange::CommandId;
use crate::message::{Now, Received};
use crate::name::Name;
use crate::reliable::Delivery;
use crate::session::{Event, Item, Participant, Session, SessionConfig};

/// One conversation. Dropping the last handle closes it in the background (unless the application was shut down);
/// [`SessionHandle::close`] waits for the peers.
pub struct SessionHandle {
    alive: Arc<Alive>,
    id: SessionId,
    changed: Arc<Notify>,
    local: Name,
    config: SessionConfig,
    moderator: bool,
}

/// A publish under way: await it for what became of it at each recipient, or drop it.
#[derive(Debug)]
pub struct Publication {
    outcome: oneshot::Receiver<Delivery>,
}

impl Publication {
    /// What became of it. In sessions that are not reliable: sent, and nothing more is known.
    pub async fn delivered(self) -> Result<Delivery, SessionError> {
        self.outcome.await.map_err(|_| SessionError::Closed)
    }
}

impl SessionHandle {
    pub(super) fn new(alive: Arc<Alive>, id: SessionId, changed: Arc<Notify>, state: &mut State) -> Self {
        let session = state.endpoint.session(id);
        let local = session.as_ref().map(|session| session.local().clone());
        let config = session.as_ref().map(|session| session.config().clone());
        let moderator = session.is_some_and(|session| session.is_moderator());
        Self {
            local: local.unwrap_or_else(|| state.endpoint.name().clone()),
            config: config.unwrap_or_else(SessionConfig::point_to_point),
            alive,
            id,
            changed,
            moderator,
        }
    }

    /// Runs something on the session under the lock, then lets the driver see to what follows.
    fn with<T>(&self, run: impl FnOnce(&mut Session, Now) -> Result<T, SessionError>) -> Result<T, SessionError> {
        let shared = &self.alive.0;
        let now = shared.now();
        let result = shared.lock().endpoint.with_session(now, self.id, |session| run(session, now));
        shared.wake.notify_one();
        result.unwrap_or(Err(SessionError::Closed))
    }

    /// The id both sides know the session by.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// How it is configured; the initiator decided.
    #[must_use]
    pub fn config(&self) -> &SessionConfig {
        &self.config
    }

    /// What the initiator said about it.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.config.metadata
    }

    /// Whether we initiated it.
    #[must_use]
    pub fn is_initiator(&self) -> bool {
        self.moderator
    }

    /// Our own full name.
    #[must_use]
    pub fn source(&self) -> &Name {
        &self.local
    }

    /// The peer, or the channel.
    pub fn destination(&self) -> Result<Name, SessionError> {
        self.with(|session, _| Ok(session.remote().clone()))
    }

    /// Everybody in it, ourselves included.
    pub fn participants(&self) -> Result<Vec<Participant>, SessionError> {
        self.with(|session, _| Ok(session.participants()))
    }

    /// Publishes to the peer or to the group. Waits while the window is full; returns when the message is on its way.
    ///
    /// Cancel-safe: a cancelled call published nothing.
    pub async fn publish(&self, publish: impl Into<Publish>) -> Result<Publication, SessionError> {
        let publish: Publish = publish.into();
        let shared = &self.alive.0;
        loop {
            let (changed, drained) = (self.changed.notified(), shared.drained.notified());
            tokio::pin!(changed, drained);
            changed.as_mut().enable();
            drained.as_mut().enable();
            {
                let mut state = shared.lock();
                let now = shared.now();
                state.open(self.id)?;
                let (messages, octets) = state.endpoint.transmits();
                if messages < OUT_MAX && octets < OUT_OCTETS_MAX {
                    let result =
                        state.endpoint.with_session(now, self.id, |session| session.publish(now, publish.clone()));
                    match result.unwrap_or(Err(SessionError::Closed)) {
                        Ok(id) => {
                            let (sender, outcome) = oneshot::channel();
                            let span = tracing::debug_span!(
                                "publish",
                                session = self.id.number,
                                publish = id.0,
                                delivered = tracing::field::Empty,
                                missed = tracing::field::Empty,
                            );
                            if let Some(slot) = state.slots.get_mut(&self.id) {
                                slot.publishes.insert(id, (sender, span));
                            }
                            drop(state);
                            shared.wake.notify_one();
                            return Ok(Publication { outcome });
                        }
                        Err(SessionError::WindowFull { .. }) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
            tokio::select! {
                () = changed => {}
                () = drained => {}
            }
        }
    }

    /// Publishes to one member of the group, by the full name its messages carry as source.
    pub async fn publish_to(&self, member: &Name, publish: impl Into<Publish>) -> Result<Publication, SessionError> {
        self.publish(Publish { to: Some(member.clone()), ..publish.into() }).await
    }

    /// The next message.
    ///
    /// Cancel-safe. Errors: messages that were lost (the stream goes on), the end of the session.
    pub async fn recv(&self) -> Result<Received, ReceiveError> {
        let shared = &self.alive.0;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut state = shared.lock();
                let item = state.endpoint.session(self.id).and_then(Session::recv);
                let slot = state.slots.get_mut(&self.id);
                let item = item.or_else(|| slot?.left_over.pop_front());
                match item {
                    Some(Item::Message(message)) => return Ok(message),
                    Some(Item::Lost { source, count }) => {
                        return Err(ReceiveError::Lost { source_name: source.to_string(), count });
                    }
                    None => state.open(self.id)?,
                }
            }
            changed.await;
        }
    }

    /// The next message, if it comes in time.
    pub async fn recv_within(&self, limit: Duration) -> Result<Received, ReceiveError> {
        tokio::time::timeout(limit, self.recv()).await.unwrap_or(Err(ReceiveError::TimedOut))
    }

    /// The next change of membership: joined, left, offline, online. In a session that came out of a store also what became of
    /// messages published before.
    ///
    /// Cancel-safe. Errors: the end of the session.
    pub async fn event(&self) -> Result<Event, SessionError> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut state = self.alive.0.lock();
                let slot = state.slots.get_mut(&self.id).ok_or(SessionError::Closed)?;
                if let Some(event) = slot.events.pop_front() {
                    return Ok(event);
                }
                if let Some(why) = &slot.closed {
                    return Err(why.clone());
                }
            }
            changed.await;
        }
    }

    async fn command(
        &self,
        run: impl FnOnce(&mut Session, Now) -> Result<CommandId, SessionError>,
    ) -> Result<(), SessionError> {
        let (sender, done) = oneshot::channel();
        {
            let shared = &self.alive.0;
            let now = shared.now();
            let mut state = shared.lock();
            state.open(self.id)?;
            let command = state.endpoint.with_session(now, self.id, |session| run(session, now));
            let command = command.unwrap_or(Err(SessionError::Closed))?;
            if let Some(slot) = state.slots.get_mut(&self.id) {
                slot.commands.insert(command, sender);
            }
        }
        self.alive.0.wake.notify_one();
        done.await.unwrap_or(Err(SessionError::Closed))
    }

    /// Brings somebody into the group; returns when it is in.
    pub async fn invite(&self, name: &Name) -> Result<(), SessionError> {
        self.command(|session, now| session.invite(now, name)).await
    }

    /// Takes somebody out of the group.
    pub async fn remove(&self, name: &Name) -> Result<(), SessionError> {
        self.command(|session, now| session.remove(now, name)).await
    }

    /// Says goodbye for now: the others keep our place, and we hear nothing until [`SessionHandle::rejoin`].
    pub async fn go_offline(&self) -> Result<(), SessionError> {
        self.command(Session::go_offline).await
    }

    /// Comes back.
    pub async fn rejoin(&self) -> Result<(), SessionError> {
        self.command(Session::rejoin).await
    }

    /// Ends the session: for everybody if we initiated it, else for us. Returns when the peers know.
    pub async fn close(&self) -> Result<(), SessionError> {
        match self.command(Session::close).await {
            // It ended meanwhile, which is what was wanted.
            Err(SessionError::Closed | SessionError::Removed) => Ok(()),
            other => other,
        }
    }

    /// Returns when the session has ended, for whatever reason.
    pub async fn closed(&self) -> SessionError {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match self.alive.0.lock().slots.get(&self.id).map(|slot| slot.closed.clone()) {
                None => return SessionError::Closed,
                Some(Some(why)) => return why,
                Some(None) => {}
            }
            changed.await;
        }
    }
}

impl Drop for SessionHandle {
    fn drop(&mut self) {
        let shared = &self.alive.0;
        let now = shared.now();
        let mut state = shared.lock();
        let Some(slot) = state.slots.get_mut(&self.id) else { return };
        slot.handles = slot.handles.saturating_sub(1);
        if slot.handles > 0 {
            return;
        }
        if slot.closed.is_some() {
            state.slots.remove(&self.id);
        } else if !state.stopped {
            let _ = state.endpoint.with_session(now, self.id, |session| session.close(now));
            drop(state);
            shared.wake.notify_one();
        }
    }
}
