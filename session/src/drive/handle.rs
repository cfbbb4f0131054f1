//! A session as an application holds it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use super::ReceiveError;
use super::app::{Alive, OUT_MAX, OUT_OCTETS_MAX, State, clock};
use crate::data::Publish;
use crate::endpoint::SessionId;
use crate::error::SessionError;
use crate::exchange::CommandId;
use crate::message::{Now, Received};
use crate::name::Name;
use crate::reliable::Delivery;
use crate::session::{Event, Item, Participant, Session, SessionConfig};

/// How long a publish waits for the connection at least, before it says that nothing leaves.
const PUBLISH_WAIT: Duration = Duration::from_secs(10);

/// One conversation: cheap to clone, usable from any task. Dropping the last handle closes it in the background (unless the
/// application was shut down); [`SessionHandle::close`] waits for the peers.
///
/// Of several tasks that read, each message goes to one.
pub struct SessionHandle {
    alive: Arc<Alive>,
    id: SessionId,
    changed: Arc<Notify>,
    local: Name,
    config: SessionConfig,
    moderator: bool,
}

impl Clone for SessionHandle {
    fn clone(&self) -> Self {
        if let Some(slot) = self.alive.0.lock().slots.get_mut(&self.id) {
            slot.handles += 1;
        }
        Self {
            alive: self.alive.clone(),
            id: self.id,
            changed: self.changed.clone(),
            local: self.local.clone(),
            config: self.config.clone(),
            moderator: self.moderator,
        }
    }
}

impl std::fmt::Debug for SessionHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("SessionHandle");
        shown
            .field("id", &self.id)
            .field("kind", &self.config.kind)
            .field("source", &self.local)
            .finish_non_exhaustive()
    }
}

/// A publish under way: await it for what became of it at each recipient, or drop it (the message is sent all the same).
#[derive(Debug)]
#[doc(alias = "CompletionHandle")]
pub struct Publication {
    outcome: oneshot::Receiver<Result<Delivery, SessionError>>,
}

impl Publication {
    /// What became of it. In sessions that are not reliable: sent, and nothing more is known.
    ///
    /// In reliable sessions it takes at most the time that the retries last, [`crate::Retries::give_up_after`]; whoever did not
    /// answer by then is told as such.
    ///
    /// Errors: the session ended before it was known.
    #[doc(alias = "wait")]
    pub async fn delivered(self) -> Result<Delivery, SessionError> {
        self.outcome.await.unwrap_or(Err(SessionError::Closed))
    }

    /// What became of it, if that is known in time; `None` says that it is not, and it can be asked again.
    ///
    /// Cancel-safe. Once it told the outcome, it knows no more: a further call says [`SessionError::Closed`].
    #[doc(alias = "wait_for")]
    pub async fn delivered_within(&mut self, limit: Duration) -> Option<Result<Delivery, SessionError>> {
        if self.outcome.is_terminated() {
            return Some(Err(SessionError::Closed));
        }
        let outcome = tokio::time::timeout(limit, &mut self.outcome).await.ok()?;
        Some(outcome.unwrap_or(Err(SessionError::Closed)))
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
        let now = clock();
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
    #[doc(alias = "participants_list")]
    pub fn participants(&self) -> Result<Vec<Participant>, SessionError> {
        self.with(|session, _| Ok(session.participants()))
    }

    /// Publishes to the peer or to the group. Waits while 512 messages of the session are under way, or 512 messages or 16 MiB
    /// of the application wait for the connection; returns when the message is on its way.
    ///
    /// It waits 10 s at most, or as long as the session's retries last if that is longer.
    ///
    /// Cancel-safe: a cancelled call published nothing, and neither did one that failed.
    ///
    /// Errors: [`SessionError::NotTaken`] or [`SessionError::WindowFull`] when the wait was in vain, and as
    /// [`Session::publish`].
    pub async fn publish(&self, publish: impl Into<Publish>) -> Result<Publication, SessionError> {
        let publish: Publish = publish.into();
        let shared = &self.alive.0;
        let waited = self.config.reliable.map_or(PUBLISH_WAIT, |retries| retries.give_up_after().max(PUBLISH_WAIT));
        let limit = tokio::time::sleep(waited);
        tokio::pin!(limit);
        loop {
            let mut full = SessionError::NotTaken { waited, connected: false };
            let (changed, drained) = (self.changed.notified(), shared.drained.notified());
            tokio::pin!(changed, drained);
            changed.as_mut().enable();
            drained.as_mut().enable();
            {
                let mut state = shared.lock();
                let now = clock();
                state.open(self.id)?;
                if state.connected {
                    full = SessionError::NotTaken { waited, connected: true };
                }
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
                        Err(error @ SessionError::WindowFull { .. }) => full = error,
                        Err(error) => return Err(error),
                    }
                }
            }
            tokio::select! {
                () = changed => {}
                () = drained => {}
                () = &mut limit => return Err(full),
            }
        }
    }

    /// Publishes to one member of the group, by the full name its messages carry as source. With the peer of two parties it is
    /// an ordinary publish.
    ///
    /// Waits and fails as [`SessionHandle::publish`]; [`SessionError::NotMember`] for whoever is not in the group.
    pub async fn publish_to(&self, member: &Name, publish: impl Into<Publish>) -> Result<Publication, SessionError> {
        self.publish(Publish { to: Some(member.clone()), ..publish.into() }).await
    }

    /// The next message. Waits without limit; what was received before the session ended is given before its end is told.
    ///
    /// Cancel-safe: no message is lost. Errors: messages that were lost (the stream goes on), the end of the session.
    #[doc(alias = "get_message")]
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
                if item.is_some() && state.endpoint.is_kept() {
                    shared.wake.notify_one(); // that it was read is to be written down, however quiet it is from now on
                }
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
    ///
    /// Cancel-safe. Errors: [`ReceiveError::TimedOut`], and as [`SessionHandle::recv`].
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
            let now = clock();
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

    /// Brings somebody into the group; returns when it is in. Only the moderator may.
    ///
    /// Commands (this, [`SessionHandle::remove`], going and coming back, closing) are done one after the other. Each has up to
    /// four stages, and a stage takes at most the time that the session's retries last. A call that is dropped goes on in the
    /// background.
    ///
    /// Errors: [`SessionError::NoAnswer`], [`SessionError::Refused`], [`SessionError::AlreadyMember`],
    /// [`SessionError::NotModerator`], [`SessionError::NotGroup`], the end of the session.
    pub async fn invite(&self, name: &Name) -> Result<(), SessionError> {
        self.command(|session, now| session.invite(now, name)).await
    }

    /// Takes somebody out of the group. Only the moderator may. Time and dropping: as [`SessionHandle::invite`].
    ///
    /// Errors: [`SessionError::NotMember`], [`SessionError::NotModerator`], [`SessionError::NotGroup`], the end of the session.
    pub async fn remove(&self, name: &Name) -> Result<(), SessionError> {
        self.command(|session, now| session.remove(now, name)).await
    }

    /// Says goodbye for now: the others keep our place, and we hear nothing until [`SessionHandle::rejoin`].
    /// Time and dropping: as [`SessionHandle::invite`].
    ///
    /// Errors: [`SessionError::StatusChangeInProgress`], the end of the session.
    #[doc(alias = "close_with_mode")]
    pub async fn go_offline(&self) -> Result<(), SessionError> {
        self.command(Session::go_offline).await
    }

    /// Comes back after [`SessionHandle::go_offline`]. Time and dropping: as [`SessionHandle::invite`].
    ///
    /// Errors: [`SessionError::StatusChangeInProgress`], [`SessionError::NoAnswer`], the end of the session.
    pub async fn rejoin(&self) -> Result<(), SessionError> {
        self.command(Session::rejoin).await
    }

    /// Ends the session: for everybody if we initiated it, else for us. Returns when the peers know, or the retries ended;
    /// what ended already is no error. Dropped, it goes on in the background.
    ///
    /// Errors: the application ended before the peers knew.
    #[doc(alias = "delete_session")]
    pub async fn close(&self) -> Result<(), SessionError> {
        match self.command(Session::close).await {
            // It ended meanwhile, which is what was wanted.
            Err(SessionError::Closed | SessionError::Removed) => Ok(()),
            other => other,
        }
    }

    /// Returns when the session has ended, for whatever reason. Cancel-safe.
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
        let now = clock();
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
