//! An application on a node: connected, reconnected, and shared by any number of tasks.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use super::handle::SessionHandle;
use super::{AppBuilder, ConnectError, stopping};
use crate::endpoint::{Endpoint, SessionId};
use crate::error::SessionError;
use crate::exchange::CommandId;
use crate::identity::SharedSecret;
use crate::message::{Credentials, Now};
use crate::name::Name;
use crate::reliable::{Delivery, PublishId};
use crate::session::{Event, Item, SessionConfig, SessionKind};

/// How long the node may take to acknowledge a subscription.
const SUBSCRIBE_WAIT: Duration = Duration::from_secs(10);
/// The longest shut-down: what waits is flushed, the writer ends, the node ends its side.
const SHUT_DOWN_WAIT: Duration = Duration::from_secs(8);
const _: () =
    assert!(SHUT_DOWN_WAIT.as_secs() > stopping::FLUSH_WAIT.as_secs() + 2, "the driver ends before we stop waiting");
/// Sessions others brought us into, not yet listened for.
pub(super) const ARRIVALS_MAX: usize = 1024;
/// Octets handed to the connection at once.
pub(super) const BATCH_OCTETS: usize = 64 * 1024;
/// Messages, and octets of payload, that may wait for the connection; publishers wait beyond it.
pub(super) const OUT_MAX: usize = 512;
pub(super) const OUT_OCTETS_MAX: usize = 16 << 20;
/// Events of membership kept per session for whoever asks.
pub(super) const EVENTS_MAX: usize = 1024;

/// What one session's handles wait for.
pub(super) struct Slot {
    pub(super) established: Option<oneshot::Sender<Result<(), SessionError>>>,
    pub(super) commands: HashMap<CommandId, oneshot::Sender<Result<(), SessionError>>>,
    /// Who waits for the outcome, and the span that ends with it.
    pub(super) publishes: HashMap<PublishId, (oneshot::Sender<Result<Delivery, SessionError>>, tracing::Span)>,
    pub(super) changed: Arc<Notify>,
    pub(super) closed: Option<SessionError>,
    /// What was not read when the session ended.
    pub(super) left_over: VecDeque<Item>,
    pub(super) events: VecDeque<Event>,
    pub(super) handles: usize,
}

impl Slot {
    pub(super) fn new() -> Self {
        Self {
            established: None,
            commands: HashMap::new(),
            publishes: HashMap::new(),
            changed: Arc::new(Notify::new()),
            closed: None,
            left_over: VecDeque::new(),
            events: VecDeque::new(),
            handles: 0,
        }
    }

    /// Nothing comes any more, for whoever waits.
    pub(super) fn end(&mut self, why: SessionError) {
        let why = self.closed.get_or_insert(why).clone();
        if let Some(sender) = self.established.take() {
            let _ = sender.send(Err(why.clone()));
        }
        for (_, sender) in self.commands.drain() {
            let _ = sender.send(Err(why.clone()));
        }
        for (_, (sender, _)) in self.publishes.drain() {
            let _ = sender.send(Err(why.clone()));
        }
        self.changed.notify_waiters();
    }
}

pub(super) struct State {
    pub(super) endpoint: Endpoint,
    pub(super) slots: BTreeMap<SessionId, Slot>,
    pub(super) arrivals: VecDeque<SessionId>,
    /// Sessions that came out of the store.
    resumed: Vec<SessionId>,
    pub(super) subscribing: HashMap<Name, Vec<oneshot::Sender<Result<(), String>>>>,
    pub(super) stopped: bool,
    pub(super) connected: bool,
    /// The driver is gone, and why; the store is closed.
    pub(super) ended: Option<SessionError>,
}

impl State {
    /// Whether a session goes on as far as its handles know.
    pub(super) fn open(&self, id: SessionId) -> Result<(), SessionError> {
        let closed = self.slots.get(&id).map_or(Some(SessionError::Closed), |slot| slot.closed.clone());
        closed.map_or(Ok(()), Err)
    }

    /// Whether anything new can begin: not when the application ended, or is about to.
    fn running(&self) -> Result<(), SessionError> {
        if !self.stopped {
            return Ok(());
        }
        Err(self.ended.clone().unwrap_or(SessionError::Closed))
    }

    /// How the application ended, for those who wait for something new.
    fn end(&self) -> ConnectError {
        match &self.ended {
            None | Some(SessionError::Closed) => ConnectError::ShutDown,
            Some(why) => ConnectError::GivenUp { why: why.to_string() },
        }
    }
}

/// Everything handles and the driver share. Locked for moments only, never across an await.
pub(super) struct Shared {
    state: Mutex<State>,
    /// The driver has something to do.
    pub(super) wake: Notify,
    /// Somebody arrived.
    pub(super) arrived: Notify,
    /// The connection took messages.
    pub(super) drained: Notify,
    /// The driver is gone.
    pub(super) gone: Notify,
}

impl Shared {
    pub(super) fn new(endpoint: Endpoint, slots: BTreeMap<SessionId, Slot>, resumed: Vec<SessionId>) -> Self {
        let state = State {
            endpoint,
            slots,
            arrivals: VecDeque::new(),
            resumed,
            subscribing: HashMap::new(),
            stopped: false,
            connected: false,
            ended: None,
        };
        Self {
            state: Mutex::new(state),
            wake: Notify::new(),
            arrived: Notify::new(),
            drained: Notify::new(),
            gone: Notify::new(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere must not take every session with it; the state is consistent between calls.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Monotonic time for timers, wall time for tokens.
pub(super) fn clock() -> Now {
    let unix_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Now { instant: Instant::now(), unix_s }
}

/// Dropped with the last handle: then the driver stops.
pub(super) struct Alive(pub(super) Arc<Shared>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.lock().stopped = true;
        self.0.wake.notify_one();
        self.0.arrived.notify_waiters();
    }
}

/// A program that holds a name: cheap to clone, usable from any task. The connection goes with the last clone and session.
#[derive(Clone)]
pub struct App {
    pub(super) alive: Arc<Alive>,
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("name", &self.name()).finish_non_exhaustive()
    }
}

impl App {
    /// An application with an identity of its own, made with a secret that all members share (at least 32 octets).
    ///
    /// Errors: [`ConnectError::Name`], [`ConnectError::Identity`] when the secret is too short.
    #[doc(alias = "create_app_with_secret")]
    pub fn with_secret(name: &str, secret: &str) -> Result<AppBuilder, ConnectError> {
        let name: Name = name.parse()?;
        let identity = SharedSecret::new(&name.to_string(), secret)?;
        Ok(Self::with_credentials(name, Credentials::new(identity)).made_with(secret))
    }

    /// An application with any identity.
    #[must_use]
    pub fn with_credentials(name: Name, credentials: Credentials) -> AppBuilder {
        AppBuilder::new(name, credentials)
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.alive.0
    }

    /// Our full name: what we were called, with the id that our identity derives.
    #[must_use]
    #[doc(alias = "id")]
    pub fn name(&self) -> Name {
        self.shared().lock().endpoint.name().clone()
    }

    /// Whether the node is reachable at this moment.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.shared().lock().connected
    }

    /// Listens on one more service name (our own is subscribed by [`AppBuilder::connect`]). Once is enough: after a reconnect
    /// all names are subscribed again.
    ///
    /// Dropped, or timed out after 10 s, it goes on in the background, as [`App::unsubscribe`] undoes.
    ///
    /// Errors: [`ConnectError::NotSubscribed`] with the node's reason, [`ConnectError::TimedOut`], the end of the application.
    pub async fn subscribe(&self, name: &Name) -> Result<(), ConnectError> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut state = self.shared().lock();
            state.running().map_err(|_| state.end())?;
            let now = clock();
            let full = name.with_id(state.endpoint.name().id());
            let waiting = state.subscribing.entry(full).or_default();
            waiting.retain(|gone| !gone.is_closed());
            waiting.push(sender);
            state.endpoint.subscribe(now, name);
        }
        self.shared().wake.notify_one();
        match timeout(SUBSCRIBE_WAIT, receiver).await {
            Err(_) => Err(ConnectError::TimedOut { step: "subscribing", waited: SUBSCRIBE_WAIT }),
            Ok(Err(_)) => Err(self.shared().lock().end()),
            Ok(Ok(Err(why))) => Err(ConnectError::NotSubscribed { name: name.to_string(), why }),
            Ok(Ok(Ok(()))) => Ok(()),
        }
    }

    /// Listens on a service name no more; unknown names change nothing.
    pub fn unsubscribe(&self, name: &Name) {
        let now = clock();
        self.shared().lock().endpoint.unsubscribe(now, name);
        self.shared().wake.notify_one();
    }

    /// An application has one connection, and everything goes there: this changes nothing, and is here for programs that are
    /// used to call it.
    #[doc(alias = "remove_route")]
    pub fn set_route(&self, name: &Name) {
        tracing::trace!(%name, "one connection: it is the route");
    }

    /// The one connection is the default gateway already: changes nothing, like [`App::set_route`].
    #[doc(alias = "clear_default_gateway")]
    pub fn set_default_gateway(&self) {
        tracing::trace!("one connection: it is the gateway");
    }

    /// Begins a session: with a peer (returns when it is in), or founds a group (returns at once).
    ///
    /// Three stages look for the peer, ask it in and welcome it; each takes at most the time that the session's retries last
    /// (six seconds by default; eleven in unreliable sessions). Dropped in between, the session is closed.
    ///
    /// Errors: [`SessionError::NoAnswer`] when nobody of that name answers, [`SessionError::Refused`] when its answer cannot be
    /// believed, [`SessionError::Identity`] for an identity that cannot sign, the end of the application.
    pub async fn create_session(
        &self,
        config: SessionConfig,
        destination: &Name,
    ) -> Result<SessionHandle, SessionError> {
        let kind = config.kind;
        let (sender, receiver) = oneshot::channel();
        let handle = {
            let mut state = self.shared().lock();
            state.running()?;
            let now = clock();
            let id = state.endpoint.create_session(now, config, destination)?;
            let mut slot = Slot::new();
            slot.established = Some(sender);
            state.slots.insert(id, slot);
            self.handle(&mut state, id)
        };
        self.shared().wake.notify_one();
        if kind == SessionKind::PointToPoint {
            receiver.await.map_err(|_| SessionError::Closed)??;
        }
        Ok(handle)
    }

    /// The next session somebody brings us into. Waits without limit; at most 1024 wait for us.
    ///
    /// Cancel-safe: no session is lost. Errors: the end of the application.
    #[doc(alias = "listen_for_session")]
    pub async fn listen(&self) -> Result<SessionHandle, ConnectError> {
        loop {
            let arrived = self.shared().arrived.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            {
                let mut state = self.shared().lock();
                while let Some(id) = state.arrivals.pop_front() {
                    if state.slots.contains_key(&id) {
                        return Ok(self.handle(&mut state, id));
                    }
                }
                if state.stopped {
                    return Err(state.end());
                }
            }
            arrived.await;
        }
    }

    /// The sessions that came out of the store, once. What became of messages that were on their way when the application
    /// went is told by [`SessionHandle::event`].
    #[must_use]
    #[doc(alias = "restore_sessions")]
    pub fn resumed(&self) -> Vec<SessionHandle> {
        let mut state = self.shared().lock();
        let ids = std::mem::take(&mut state.resumed);
        ids.into_iter().map(|id| self.handle(&mut state, id)).collect()
    }

    fn handle(&self, state: &mut State, id: SessionId) -> SessionHandle {
        let changed = state.slots.get_mut(&id).map(|slot| {
            slot.handles += 1;
            slot.changed.clone()
        });
        SessionHandle::new(self.alive.clone(), id, changed.unwrap_or_default(), state)
    }

    /// Ends everything, for all clones: what waits to be sent is sent, the peers of open sessions are told, then the node, then
    /// the connection goes. With a store peers are told nothing: sessions go on when the application is back.
    ///
    /// Peers have 2 s to answer. Takes at most 8 s, and that only when the node takes nothing any more. Dropped in between, it
    /// goes on in the background.
    pub async fn shut_down(self) {
        let shared = self.shared().clone();
        drop(self);
        shared.lock().stopped = true;
        shared.wake.notify_one();
        shared.arrived.notify_waiters();
        let ended = async {
            loop {
                let gone = shared.gone.notified();
                tokio::pin!(gone);
                gone.as_mut().enable();
                if shared.lock().ended.is_some() {
                    return;
                }
                gone.await;
            }
        };
        let _ = timeout(SHUT_DOWN_WAIT, ended).await;
    }
}
