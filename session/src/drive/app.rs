//! An application on a node: connected, reconnected, and shared by any number of tasks.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{sleep, sleep_until, timeout};

use super::handle::SessionHandle;
use super::link::{self, Identity, Incoming, Outgoing};
use super::{ConnectConfig, ConnectError};
use crate::endpoint::{AppEvent, Endpoint, SessionId};
use crate::error::SessionError;
use crate::exchange::CommandId;
use crate::identity::SharedSecret;
use crate::message::{Credentials, Now};
use crate::name::Name;
use crate::random;
use crate::reliable::{Delivery, PublishId};
use crate::session::{Direction, Event, Item, SessionConfig, SessionKind};

/// How long the node may take to acknowledge a subscription.
const SUBSCRIBE_WAIT: Duration = Duration::from_secs(10);
/// Sessions others brought us into, not yet listened for.
const ARRIVALS_MAX: usize = 1024;
/// Octets handed to the connection at once.
const BATCH_OCTETS: usize = 64 * 1024;
/// Messages that may wait for the connection; publishers wait beyond it.
pub(super) const OUT_MAX: usize = 512;
/// Events of membership kept per session for whoever asks.
const EVENTS_MAX: usize = 1024;

/// What one session's handles wait for.
pub(super) struct Slot {
    pub(super) established: Option<oneshot::Sender<Result<(), SessionError>>>,
    pub(super) commands: HashMap<CommandId, oneshot::Sender<Result<(), SessionError>>>,
    pub(super) publishes: HashMap<PublishId, oneshot::Sender<Delivery>>,
    pub(super) changed: Arc<Notify>,
    pub(super) closed: Option<SessionError>,
    /// What was not read when the session ended.
    pub(super) left_over: VecDeque<Item>,
    pub(super) events: VecDeque<Event>,
    pub(super) handles: usize,
}

impl Slot {
    fn new() -> Self {
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
}

pub(super) struct State {
    pub(super) endpoint: Endpoint,
    pub(super) slots: BTreeMap<SessionId, Slot>,
    arrivals: VecDeque<SessionId>,
    subscribing: HashMap<Name, Vec<oneshot::Sender<Result<(), String>>>>,
    stopped: bool,
    connected: bool,
}

/// Everything handles and the driver share. Locked for moments only, never across an await.
pub(super) struct Shared {
    state: Mutex<State>,
    /// The driver has something to do.
    pub(super) wake: Notify,
    /// Somebody arrived.
    arrived: Notify,
    /// The connection took messages.
    pub(super) drained: Notify,
    clock: Clock,
}

/// Monotonic time for timers, wall time for tokens.
#[derive(Clone, Copy, Default)]
struct Clock;

impl Clock {
    fn now(self) -> Now {
        let unix_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Now { instant: Instant::now(), unix_s }
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere must not take every session with it; the state is consistent between calls.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Now {
        self.clock.now()
    }
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

/// A program that holds a name: cheap to clone, usable from any task.
#[derive(Clone)]
pub struct App {
    alive: Arc<Alive>,
}

/// What an application is to be, before it is connected.
#[derive(Clone)]
pub struct AppBuilder {
    name: Name,
    credentials: Credentials,
    direction: Direction,
}

impl AppBuilder {
    /// With other credentials' strictness or identity.
    #[must_use]
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = credentials;
        self
    }

    /// An application that only sends, or only receives.
    #[must_use]
    pub fn direction(mut self, direction: Direction) -> Self {
        self.direction = direction;
        self
    }

    /// Connects to a node and subscribes the application's name there.
    ///
    /// Errors: see [`ConnectError`]; later losses of the connection are healed in the background.
    pub async fn connect(self, config: ConnectConfig) -> Result<App, ConnectError> {
        let identity = Identity { link_id: random::uuid()?, node_id: format!("app-{}", random::uuid()?) };
        let (incoming, outgoing) = link::connect(&config, &identity).await?;
        let endpoint = Endpoint::new(&self.name, self.credentials, self.direction)?;
        let state = State {
            endpoint,
            slots: BTreeMap::new(),
            arrivals: VecDeque::new(),
            subscribing: HashMap::new(),
            stopped: false,
            connected: false,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            wake: Notify::new(),
            arrived: Notify::new(),
            drained: Notify::new(),
            clock: Clock,
        });
        tokio::spawn(drive(shared.clone(), config, identity, incoming, outgoing));
        let app = App { alive: Arc::new(Alive(shared)) };
        app.subscribe(&self.name).await?;
        Ok(app)
    }
}

impl App {
    /// An application with an identity of its own, made with a secret that all members share.
    pub fn with_secret(name: &str, secret: &str) -> Result<AppBuilder, ConnectError> {
        let name: Name = name.parse()?;
        let identity = SharedSecret::new(&name.to_string(), secret)?;
        Ok(Self::with_credentials(name, Credentials::new(identity)))
    }

    /// An application with any identity.
    #[must_use]
    pub fn with_credentials(name: Name, credentials: Credentials) -> AppBuilder {
        AppBuilder { name, credentials, direction: Direction::BOTH }
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.alive.0
    }

    /// Our full name.
    #[must_use]
    pub fn name(&self) -> Name {
        self.shared().lock().endpoint.name().clone()
    }

    /// Whether the node is reachable at this moment.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.shared().lock().connected
    }

    /// Listens on one more service name.
    pub async fn subscribe(&self, name: &Name) -> Result<(), ConnectError> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut state = self.shared().lock();
            let now = self.shared().now();
            let full = name.with_id(state.endpoint.name().id());
            state.subscribing.entry(full).or_default().push(sender);
            state.endpoint.subscribe(now, name);
        }
        self.shared().wake.notify_one();
        match timeout(SUBSCRIBE_WAIT, receiver).await {
            Err(_) => Err(ConnectError::TimedOut { step: "subscribing", waited: SUBSCRIBE_WAIT }),
            Ok(Err(_)) => Err(ConnectError::ShutDown),
            Ok(Ok(Err(why))) => Err(ConnectError::NotSubscribed { name: name.to_string(), why }),
            Ok(Ok(Ok(()))) => Ok(()),
        }
    }

    /// Listens on a service name no more.
    pub fn unsubscribe(&self, name: &Name) {
        let now = self.shared().now();
        self.shared().lock().endpoint.unsubscribe(now, name);
        self.shared().wake.notify_one();
    }

    /// There is one connection, and everything goes there: kept for programs that are used to call it.
    pub fn set_route(&self, name: &Name) {
        tracing::trace!(%name, "one connection: it is the route");
    }

    /// Begins a session: with a peer (returns when it is in), or founds a group (returns at once).
    ///
    /// Errors: [`SessionError::NoAnswer`] when nobody of that name answers.
    pub async fn create_session(
        &self,
        config: SessionConfig,
        destination: &Name,
    ) -> Result<SessionHandle, SessionError> {
        let kind = config.kind;
        let (sender, receiver) = oneshot::channel();
        let handle = {
            let mut state = self.shared().lock();
            let now = self.shared().now();
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

    /// The next session somebody brings us into.
    ///
    /// Cancel-safe. Errors: the application was shut down.
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
                    return Err(ConnectError::ShutDown);
                }
            }
            arrived.await;
        }
    }

    fn handle(&self, state: &mut State, id: SessionId) -> SessionHandle {
        let changed = state.slots.get_mut(&id).map(|slot| {
            slot.handles += 1;
            slot.changed.clone()
        });
        SessionHandle::new(self.alive.clone(), id, changed.unwrap_or_default(), state)
    }

    /// Ends everything: what waits to be sent is sent, then the connection goes. Sessions are not closed at the peers.
    pub async fn shut_down(self) {
        let shared = self.shared().clone();
        drop(self);
        shared.lock().stopped = true;
        shared.wake.notify_one();
        shared.arrived.notify_waiters();
        let flushed = async {
            while shared.lock().connected {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = timeout(Duration::from_secs(1), flushed).await;
    }
}

/// Keeps one application connected, until its last handle is gone.
async fn drive(
    shared: Arc<Shared>,
    config: ConnectConfig,
    identity: Identity,
    mut incoming: Incoming,
    mut outgoing: Outgoing,
) {
    loop {
        {
            let mut state = shared.lock();
            state.connected = true;
            let now = shared.now();
            state.endpoint.connected(now);
        }
        let why = run(&shared, &mut incoming, outgoing).await;
        {
            let mut state = shared.lock();
            state.connected = false;
            state.endpoint.disconnected();
            if state.stopped {
                for slot in state.slots.values_mut() {
                    slot.closed.get_or_insert(SessionError::Closed);
                    slot.changed.notify_waiters();
                }
                return;
            }
        }
        shared.drained.notify_waiters();
        tracing::warn!(endpoint = config.endpoint, why, "connection lost, connecting again");
        let mut backoff = config.backoff_min;
        (incoming, outgoing) = loop {
            // Time goes on without a connection: sessions give up what they have to.
            let pause = sleep(backoff);
            tokio::pin!(pause);
            loop {
                let due = tend(&shared);
                tokio::select! {
                    () = &mut pause => break,
                    () = shared.wake.notified() => {}
                    () = sleep_until(due.into()) => {}
                }
            }
            if shared.lock().stopped {
                return;
            }
            match link::connect(&config, &identity).await {
                Ok(halves) => break halves,
                Err(error) => tracing::debug!(%error, "not yet"),
            }
            backoff = (backoff * 2).min(config.backoff_max);
        };
        tracing::info!(endpoint = config.endpoint, "connected again");
    }
}

/// Serves one connection until it ends; says why it did.
async fn run(shared: &Arc<Shared>, incoming: &mut Incoming, outgoing: Outgoing) -> String {
    // Writing has a task of its own, so that a full window does not keep us from reading.
    let (sender, mut batches) = mpsc::channel::<Vec<slimline_wire::pb::Message>>(2);
    let mut writer = tokio::spawn(async move {
        let mut outgoing = outgoing;
        while let Some(batch) = batches.recv().await {
            let mut octets = Vec::with_capacity(BATCH_OCTETS);
            for message in batch {
                outgoing.write(message, &mut octets);
            }
            outgoing.send(Bytes::from(octets)).await?;
        }
        outgoing.finish().await;
        Ok::<(), ConnectError>(())
    });
    let why = loop {
        let due = tend(shared);
        let (waiting, stopped) = {
            let state = shared.lock();
            (state.endpoint.has_transmit(), state.stopped)
        };
        if stopped && !waiting {
            break "shut down".to_owned();
        }
        tokio::select! {
            permit = sender.reserve(), if waiting => match permit {
                Ok(permit) => permit.send(take_batch(shared)),
                Err(_) => break "writing failed".to_owned(),
            },
            message = incoming.next() => match message {
                Ok(Some(message)) => {
                    let now = shared.now();
                    shared.lock().endpoint.handle(now, message);
                }
                Ok(None) => break "the node ended the stream".to_owned(),
                Err(error) => break error.to_string(),
            },
            ended = &mut writer => break match ended {
                Ok(Err(error)) => error.to_string(),
                _ => "writing ended".to_owned(),
            },
            () = shared.wake.notified() => {}
            () = sleep_until(due.into()) => {}
        }
    };
    drop(sender);
    if !writer.is_finished() && timeout(Duration::from_secs(1), &mut writer).await.is_err() {
        writer.abort();
    }
    why
}

fn take_batch(shared: &Shared) -> Vec<slimline_wire::pb::Message> {
    use prost::Message as _;
    let mut batch = Vec::new();
    let mut octets = 0;
    let mut state = shared.lock();
    while octets < BATCH_OCTETS {
        let Some(message) = state.endpoint.poll_transmit() else { break };
        octets += message.encoded_len();
        batch.push(message);
    }
    drop(state);
    shared.drained.notify_waiters();
    batch
}

/// Lets time pass for the endpoint and tells handles what happened; returns when to come again.
fn tend(shared: &Shared) -> Instant {
    let now = shared.now();
    let mut state = shared.lock();
    let state = &mut *state;
    if state.endpoint.poll_timeout().is_some_and(|due| due <= now.instant) {
        state.endpoint.handle_timeout(now);
    }
    while let Some(event) = state.endpoint.poll_event() {
        match event {
            AppEvent::Subscribed(name) => settle(&mut state.subscribing, &name, &Ok(())),
            AppEvent::NotSubscribed(name, why) => settle(&mut state.subscribing, &name, &Err(why)),
            AppEvent::Arrived(id) => {
                state.slots.insert(id, Slot::new());
                if state.arrivals.len() < ARRIVALS_MAX {
                    state.arrivals.push_back(id);
                    shared.arrived.notify_waiters();
                } else {
                    tracing::warn!(session = id.number, "nobody listens: session closed");
                    let _ = state.endpoint.with_session(now, id, |session| session.close(now));
                }
            }
            AppEvent::Session(id, event) => tell(state, now, id, event),
        }
    }
    state.endpoint.poll_timeout().unwrap_or(now.instant + Duration::from_secs(3600))
}

fn settle(
    waiting: &mut HashMap<Name, Vec<oneshot::Sender<Result<(), String>>>>,
    name: &Name,
    result: &Result<(), String>,
) {
    for sender in waiting.remove(name).into_iter().flatten() {
        let _ = sender.send(result.clone());
    }
}

fn tell(state: &mut State, now: Now, id: SessionId, event: Event) {
    let Some(slot) = state.slots.get_mut(&id) else { return };
    match event {
        Event::Established => {
            if let Some(sender) = slot.established.take() {
                let _ = sender.send(Ok(()));
            }
        }
        Event::Done(command, result) => {
            if let Some(sender) = slot.commands.remove(&command) {
                let _ = sender.send(result);
            }
        }
        Event::Published(publish, delivery) => {
            if let Some(sender) = slot.publishes.remove(&publish) {
                let _ = sender.send(delivery);
            }
        }
        Event::Closed(why) => {
            if let Some(sender) = slot.established.take() {
                let _ = sender.send(Err(why.clone()));
            }
            slot.closed = Some(why);
            let left = state
                .endpoint
                .with_session(now, id, |session| std::iter::from_fn(|| session.recv()).collect::<Vec<_>>());
            slot.left_over.extend(left.into_iter().flatten());
            slot.commands.clear();
        }
        Event::Readable | Event::Writable => {}
        other => {
            if slot.events.len() == EVENTS_MAX {
                slot.events.pop_front();
            }
            slot.events.push_back(other);
        }
    }
    slot.changed.notify_waiters();
    if slot.handles == 0 && slot.closed.is_some() && !state.arrivals.contains(&id) {
        state.slots.remove(&id);
    }
}
