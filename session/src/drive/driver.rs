//! The task behind an application: it serves the connection, writes down what is kept, and connects again.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, sleep_until, timeout};

use super::app::{ARRIVALS_MAX, BATCH_OCTETS, EVENTS_MAX, Shared, Slot, State, clock};
use super::link::{self, Identity, Incoming, Outgoing};
use super::stopping::Stopping;
use super::{ConnectConfig, ConnectError, writer};
use crate::endpoint::{AppEvent, SessionId};
use crate::error::SessionError;
use crate::message::Now;
use crate::name::Name;
use crate::random;
use crate::reliable::Outcome;
use crate::session::Event;
use crate::store::{Store, StoreError};

/// A connection that lasted so long was a good one: the next attempts begin anew with short waits.
const STEADY: Duration = Duration::from_secs(10);
/// How long the writing task, or the node's last word, may take when a connection ends.
const ENDING_WAIT: Duration = Duration::from_secs(1);

/// The task behind an application. However it ends, everybody who waits for it is told.
struct Driver {
    shared: Arc<Shared>,
    why: SessionError,
}

impl Drop for Driver {
    fn drop(&mut self) {
        let why = self.why.clone();
        let mut state = self.shared.lock();
        (state.stopped, state.connected) = (true, false);
        state.ended = Some(why.clone());
        state.subscribing.clear();
        for slot in state.slots.values_mut() {
            slot.end(why.clone());
        }
        drop(state);
        self.shared.gone.notify_waiters();
        self.shared.arrived.notify_waiters();
        self.shared.drained.notify_waiters();
    }
}

/// Keeps one application connected, until its last handle is gone.
pub(super) async fn drive(
    shared: Arc<Shared>,
    config: ConnectConfig,
    identity: Identity,
    connection: (Incoming, Outgoing),
    store: Option<Store>,
) {
    // What holds until the end comes in order: a runtime that is dropped ends its tasks in the middle.
    let mut driver = Driver { shared: shared.clone(), why: SessionError::RuntimeGone };
    let mut store = store; // declared after it, hence gone before it tells: whoever hears of the end may open the file
    let why = serve(&shared, &config, &identity, connection, &mut store).await;
    if let Err(error) = keep(&shared, &mut store).await {
        tracing::error!(%error, "what changed last is not in the store");
    }
    drop(store);
    driver.why = why;
}

/// Serves one connection after the other; returns why there is none any more.
async fn serve(
    shared: &Arc<Shared>,
    config: &ConnectConfig,
    identity: &Identity,
    mut connection: (Incoming, Outgoing),
    store: &mut Option<Store>,
) -> SessionError {
    let mut attempts = 0;
    loop {
        let since = Instant::now();
        {
            let mut state = shared.lock();
            state.connected = true;
            let now = clock();
            state.endpoint.connected(now);
        }
        let (incoming, outgoing) = connection;
        let ended = run(shared, incoming, outgoing, store).await;
        {
            let mut state = shared.lock();
            state.connected = false;
            state.endpoint.disconnected();
        }
        let why = match ended {
            Ok(why) => why,
            Err(error) => return SessionError::Store(error),
        };
        if shared.lock().stopped {
            return SessionError::Closed;
        }
        shared.drained.notify_waiters();
        tracing::warn!(endpoint = config.endpoint, %why, "connection lost, connecting again");
        if since.elapsed() >= STEADY {
            attempts = 0;
        }
        connection = match connect_again(shared, config, identity, store, &mut attempts, why).await {
            Ok(Some(connection)) => connection,
            Ok(None) => return SessionError::Closed,
            Err(error) => {
                tracing::error!(%error, "given up");
                return error;
            }
        };
        tracing::info!(endpoint = config.endpoint, "connected again");
    }
}

/// Tries until there is a connection; `None` when nobody wants it any more.
///
/// `attempts` were made since the last connection that lasted; `why` says how the latest ended.
///
/// Errors: no more attempts are to be made; the node will not have us; the store.
async fn connect_again(
    shared: &Arc<Shared>,
    config: &ConnectConfig,
    identity: &Identity,
    store: &mut Option<Store>,
    attempts: &mut u32,
    mut why: ConnectError,
) -> Result<Option<(Incoming, Outgoing)>, SessionError> {
    loop {
        let endpoint = config.endpoint.clone();
        if matches!(&why, ConnectError::Status(status) if status.is_final()) {
            return Err(SessionError::NodeRefuses { endpoint, why: why.to_string() });
        }
        let jitter = random::word().map_or(0.5, |word| f64::from((word >> 32) as u32) / f64::from(u32::MAX));
        let Some(backoff) = config.reconnect.delay(attempts.saturating_add(1), jitter) else {
            return Err(SessionError::NodeGone { endpoint, attempts: *attempts, why: why.to_string() });
        };
        *attempts = attempts.saturating_add(1);
        let attempt = async {
            sleep(backoff).await;
            link::connect(config, identity).await
        };
        tokio::pin!(attempt);
        // Time goes on without a connection: sessions give up what they have to, however slowly a node answers.
        why = loop {
            let due = tend(shared);
            keep(shared, store).await?;
            if shared.lock().stopped {
                return Ok(None);
            }
            tokio::select! {
                result = &mut attempt => match result {
                    Ok(connection) => return Ok(Some(connection)),
                    Err(error) => break error,
                },
                () = shared.wake.notified() => {}
                () = sleep_until(due.into()) => {}
            }
        };
        tracing::debug!(error = %why, attempts, "not yet");
    }
}

/// Writes down what changed; what was made of it may leave after that, and not before.
async fn keep(shared: &Arc<Shared>, store: &mut Option<Store>) -> Result<(), StoreError> {
    if store.is_none() {
        return Ok(());
    }
    let Some(changes) = shared.lock().endpoint.changes() else { return Ok(()) };
    let Some(mut open) = store.take() else { return Ok(()) };
    // The disk may take its time: not on a thread that serves others.
    let written = tokio::task::spawn_blocking(move || {
        let result = open.commit(changes);
        (open, result)
    });
    let Ok((open, result)) = written.await else { return Err(StoreError::Stopped { path: String::new() }) };
    *store = Some(open);
    result?;
    shared.lock().endpoint.written();
    Ok(())
}

/// Serves one connection until it ends; says why it did. An error is one of the store, and final.
async fn run(
    shared: &Arc<Shared>,
    mut incoming: Incoming,
    outgoing: Outgoing,
    store: &mut Option<Store>,
) -> Result<ConnectError, StoreError> {
    // Writing has a task of its own, so that a full window does not keep us from reading.
    let (sender, batches) = mpsc::channel::<Vec<slimline_wire::pb::Message>>(2);
    let mut writer = tokio::spawn(writer::write(outgoing, batches));
    let mut stopping: Option<Stopping> = None;
    let why = loop {
        let mut due = tend(shared);
        keep(shared, store).await?;
        let (waiting, stopped) = {
            let state = shared.lock();
            (state.endpoint.has_transmit(), state.stopped)
        };
        match &stopping {
            None if stopped => {
                stopping = Some(Stopping::begin(shared, store.is_none()));
                continue;
            }
            None => {}
            Some(stopping) => match stopping.until(shared, waiting) {
                None => break ConnectError::ShutDown,
                Some(until) => due = due.min(until),
            },
        }
        tokio::select! {
            permit = sender.reserve(), if waiting => match permit {
                Ok(permit) => permit.send(take_batch(shared)),
                Err(_) => break last_word(shared, &mut incoming, ConnectError::Ended).await,
            },
            message = incoming.next() => match message {
                Ok(Some(message)) => {
                    let now = clock();
                    shared.lock().endpoint.handle(now, message);
                }
                Ok(None) => break ConnectError::Ended,
                Err(error) => break error,
            },
            ended = &mut writer => {
                let error = ended.ok().and_then(Result::err).unwrap_or(ConnectError::Ended);
                break last_word(shared, &mut incoming, error).await;
            }
            () = shared.wake.notified() => {}
            () = sleep_until(due.into()) => {}
        }
    };
    drop(sender);
    // What the writer took already may be as large as what waited.
    let left = stopping.map_or(Duration::ZERO, |stopping| stopping.left());
    if !writer.is_finished() && timeout(left.max(ENDING_WAIT), &mut writer).await.is_err() {
        writer.abort();
    } else if why == ConnectError::ShutDown {
        incoming.goodbye().await;
    }
    Ok(why)
}

/// Writing failed because the stream ended: the node may have said why on its side.
async fn last_word(shared: &Shared, incoming: &mut Incoming, otherwise: ConnectError) -> ConnectError {
    let rest = async {
        loop {
            match incoming.next().await {
                Ok(Some(message)) => {
                    let now = clock();
                    shared.lock().endpoint.handle(now, message);
                }
                Ok(None) => return None,
                Err(why) => return Some(why),
            }
        }
    };
    timeout(ENDING_WAIT, rest).await.ok().flatten().unwrap_or(otherwise)
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
    let now = clock();
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
            match slot.publishes.remove(&publish) {
                Some((sender, span)) => {
                    let recipients = delivery.recipients.iter();
                    let delivered = recipients.filter(|(_, outcome)| *outcome == Outcome::Delivered).count();
                    span.record("delivered", delivered).record("missed", delivery.recipients.len() - delivered);
                    let _ = sender.send(Ok(delivery));
                }
                // Published before a restart: nobody awaits it any more.
                None => remember(&mut slot.events, Event::Published(publish, delivery)),
            }
        }
        Event::Closed(why) => {
            if let Some(sender) = slot.established.take() {
                let _ = sender.send(Err(why.clone()));
            }
            for (_, sender) in slot.commands.drain() {
                let _ = sender.send(Err(why.clone()));
            }
            slot.closed = Some(why);
            let left = state
                .endpoint
                .with_session(now, id, |session| std::iter::from_fn(|| session.recv()).collect::<Vec<_>>());
            slot.left_over.extend(left.into_iter().flatten());
        }
        Event::Readable | Event::Writable => {}
        other => remember(&mut slot.events, other),
    }
    slot.changed.notify_waiters();
    if slot.handles == 0 && slot.closed.is_some() && !state.arrivals.contains(&id) {
        state.slots.remove(&id);
    }
}

fn remember(events: &mut VecDeque<Event>, event: Event) {
    if events.len() == EVENTS_MAX {
        events.pop_front();
    }
    events.push_back(event);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use slimline_wire::pb;
    use slimline_wire::pb::message::MessageType;

    use super::*;
    use crate::endpoint::Endpoint;
    use crate::identity::SharedSecret;
    use crate::message::Credentials;
    use crate::session::{Direction, SessionConfig};

    fn endpoint(name: &str) -> Endpoint {
        let identity = SharedSecret::new(name, "0123456789abcdef0123456789abcdef").unwrap();
        let mut endpoint = Endpoint::new(&name.parse().unwrap(), Credentials::new(identity), Direction::BOTH).unwrap();
        endpoint.connected(clock());
        endpoint.subscribe(clock(), &name.parse().unwrap());
        endpoint
    }

    /// Carries messages between the two until there are none; subscriptions are acknowledged.
    fn carry(alice: &mut Endpoint, bobs: &Shared) {
        let ack = |subscribe: &pb::Subscribe| pb::Message {
            message_type: Some(MessageType::SubscriptionAck(pb::SubscriptionAck {
                subscription_id: subscribe.subscription_id,
                success: true,
                error: String::new(),
            })),
            ..Default::default()
        };
        loop {
            tend(bobs);
            let (theirs, ours) = (alice.poll_transmit(), bobs.lock().endpoint.poll_transmit());
            if theirs.is_none() && ours.is_none() {
                return;
            }
            for (message, from_alice) in [(theirs, true), (ours, false)] {
                let Some(message) = message else { continue };
                let (message, to_alice) = match &message.message_type {
                    Some(MessageType::Subscribe(subscribe)) => (ack(subscribe), from_alice),
                    _ => (message, !from_alice),
                };
                if to_alice { alice.handle(clock(), message) } else { bobs.lock().endpoint.handle(clock(), message) }
            }
        }
    }

    /// Whoever does not listen is asked into sessions up to a bound; the next one is closed at once, and its initiator knows.
    #[test]
    fn nobody_listens() {
        let mut alice = endpoint("acme/ns/alice");
        let bobs = Shared::new(endpoint("acme/ns/bob"), BTreeMap::new(), Vec::new());
        let mut call = || {
            let config = SessionConfig::point_to_point();
            let id = alice.create_session(clock(), config, &"acme/ns/bob".parse().unwrap()).unwrap();
            carry(&mut alice, &bobs);
            (id, alice.session(id).unwrap().is_closed())
        };
        let (first, closed) = call();
        assert!(!closed);
        // As if there were so many already.
        bobs.lock().arrivals.extend(std::iter::repeat_n(first, 1023));
        let (_, closed) = call();
        assert!(closed && bobs.lock().arrivals.len() == 1024);
        bobs.lock().arrivals.pop_front();
        let (next, closed) = call();
        let state = bobs.lock();
        assert!(!closed && state.arrivals.back() == Some(&next));
        assert_eq!(state.slots.len(), 2, "of one that was closed nothing stays");
    }
}
