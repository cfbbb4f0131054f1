//! One application on the network, as a state machine: its names, its sessions, and who wants to talk to it.
//!
//! Feed it messages ([`Endpoint::handle`]) and time ([`Endpoint::handle_timeout`]); take what it wants sent
//! ([`Endpoint::poll_transmit`]) and what happened ([`Endpoint::poll_event`]). It does no I/O and reads no clock.

mod kept;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use slimline_wire::pb;
use slimline_wire::pb::command_payload::CommandPayloadType as Command;

use self::kept::Kept;
use crate::error::{IdentityError, SessionError};
use crate::integrity::{Verified, is_control};
use crate::message::{Credentials, Draft, Frame, Incoming, Kind, Now, VERSION};
use crate::name::{Name, app_id, channel_names};
use crate::random::{self, Ids};
use crate::reliable::Retries;
use crate::session::{Direction, Event, New, Phase, Refused, Route, Session, SessionConfig, SessionKind, WELCOME_WAIT};

/// Ids are chosen below.
const SESSION_IDS_END: u32 = u32::MAX - 1000;
/// Invitations under way at once.
const INVITED_MAX: usize = 128;
/// Sessions of one application.
const SESSIONS_MAX: usize = 65_536;
/// A subscription that was not acknowledged is asked for again.
const SUBSCRIBE_RETRY: Duration = Duration::from_secs(3);
/// Messages that may wait for the connection. Beyond it sessions' messages are dropped (what is reliable comes again), and what
/// calls for an answer is not taken in.
pub const OUT_MAX: usize = 4096;
/// Octets of payload that may wait for the connection, likewise.
pub const OUT_OCTETS_MAX: usize = 64 << 20;
/// What intervals a peer may ask us to keep.
const INTERVAL_MIN: Duration = Duration::from_millis(10);
const INTERVAL_MAX: Duration = Duration::from_secs(3600);
const RETRIES_MAX: u32 = 10_000;

/// Names a session of this application.
///
/// A moderator that removes somebody and invites it again does so under the same number: `round` tells the two apart,
/// for good: whoever still holds the id of an ended session never means a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId {
    /// The number both sides know the session by.
    pub number: u32,
    round: u32,
}

/// What an application is told.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AppEvent {
    /// The node routes this name to us now.
    Subscribed(Name),
    /// The node will not; its reason.
    NotSubscribed(Name, String),
    /// Somebody brought us into a session.
    Arrived(SessionId),
    /// Something happened in a session.
    Session(SessionId, Event),
}

/// Why messages changed nothing, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages taken in.
    pub received: u64,
    /// Malformed, or of an unknown kind.
    pub malformed: u64,
    /// Token or signature refused.
    pub unverified: u64,
    /// For no session of ours.
    pub unknown_session: u64,
    /// Refused by the session they were for.
    pub refused: u64,
    /// Not taken in, because answers could not leave.
    pub overloaded: u64,
    /// Ours, dropped because too much waited for the connection already.
    pub dropped: u64,
}

struct Subscription {
    id: u64,
    acked: bool,
    due: Instant,
    /// Carries our token: our own names do, channels do not.
    own: bool,
    users: usize,
    waiting: Vec<SessionId>,
}

/// One application: its identity, its name and its sessions.
pub struct Endpoint {
    credentials: Credentials,
    local: Name,
    direction: Direction,
    sessions: BTreeMap<SessionId, Session>,
    /// Above the round of every session that was forgotten.
    rounds: u32,
    /// Sessions the application does not know of: invited, not welcomed.
    unannounced: std::collections::BTreeSet<SessionId>,
    subscriptions: BTreeMap<Name, Subscription>,
    next_subscription: u64,
    connected: bool,
    ids: Ids,
    out: VecDeque<pb::Message>,
    out_octets: usize,
    events: VecDeque<AppEvent>,
    counters: Counters,
    /// What a store has of us, where there is one.
    kept: Option<Kept>,
}

impl Endpoint {
    /// An application of that service name; its instance id follows from its identity.
    ///
    /// Errors: no randomness.
    pub fn new(name: &Name, credentials: Credentials, direction: Direction) -> Result<Self, IdentityError> {
        let local = name.with_id(app_id(credentials.provider.subject()));
        Ok(Self {
            credentials,
            local,
            direction,
            sessions: BTreeMap::new(),
            rounds: 0,
            unannounced: std::collections::BTreeSet::new(),
            subscriptions: BTreeMap::new(),
            next_subscription: random::word()?,
            connected: false,
            ids: Ids::new(random::word()?),
            out: VecDeque::new(),
            out_octets: 0,
            events: VecDeque::new(),
            counters: Counters::default(),
            kept: None,
        })
    }

    /// Our full name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.local
    }

    /// What was counted.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// A session, to talk to it.
    pub fn session(&mut self, id: SessionId) -> Option<&mut Session> {
        self.touch(id);
        self.sessions.get_mut(&id)
    }

    // --- names ----------------------------------------------------------------------------------------------------

    /// Asks the node for messages to a service name (with our id). [`AppEvent::Subscribed`] follows.
    pub fn subscribe(&mut self, now: Now, name: &Name) {
        let full = name.with_id(self.local.id());
        self.add_route(now, full, true, None);
    }

    /// Asks the node for no more of them.
    pub fn unsubscribe(&mut self, now: Now, name: &Name) {
        self.remove_route(now, &name.with_id(self.local.id()));
    }

    fn add_route(&mut self, now: Now, name: Name, own: bool, waiting: Option<SessionId>) {
        self.touch_names(own);
        let id = self.next_subscription;
        let known = self.subscriptions.entry(name.clone());
        let fresh = matches!(known, std::collections::btree_map::Entry::Vacant(_));
        let subscription = known.or_insert_with(|| Subscription {
            id,
            acked: false,
            due: now.instant + SUBSCRIBE_RETRY,
            own,
            users: 0,
            waiting: Vec::new(),
        });
        subscription.users += 1;
        if fresh {
            self.next_subscription = self.next_subscription.wrapping_add(1).max(1);
        }
        if subscription.acked {
            if let Some(session) = waiting {
                self.route_added(now, session);
            } else {
                self.events.push_back(AppEvent::Subscribed(name));
            }
        } else {
            subscription.waiting.extend(waiting);
            if fresh && self.connected {
                self.write_subscribe(now, &name);
            }
        }
    }

    fn write_subscribe(&mut self, now: Now, name: &Name) {
        let Some(subscription) = self.subscriptions.get(name) else { return };
        let subscription_id = subscription.id;
        let Some(header) = self.route_header(now, name, subscription.own) else { return };
        let subscribe = pb::Subscribe { header: Some(header), subscription_id };
        self.out.push_back(pb::Message {
            metadata: BTreeMap::new(),
            message_type: Some(pb::message::MessageType::Subscribe(subscribe)),
        });
    }

    fn route_header(&self, now: Now, name: &Name, own: bool) -> Option<pb::SlimHeader> {
        let identity = if own { self.credentials.provider.token(now.unix_s).ok()? } else { String::new() };
        Some(pb::SlimHeader {
            source: Some(self.local.to_wire()),
            destination: Some(name.to_wire()),
            identity,
            fanout: 1,
            version: VERSION.to_owned(),
            ttl: 8,
            ..Default::default()
        })
    }

    fn remove_route(&mut self, now: Now, name: &Name) {
        let Some(subscription) = self.subscriptions.get_mut(name) else { return };
        subscription.users -= 1;
        if subscription.users > 0 {
            return;
        }
        let (subscription_id, own) = (subscription.id, subscription.own);
        self.subscriptions.remove(name);
        self.touch_names(own);
        if let Some(header) = self.route_header(now, name, own).filter(|_| self.connected) {
            let unsubscribe = pb::Unsubscribe { header: Some(header), subscription_id };
            self.out.push_back(pb::Message {
                metadata: BTreeMap::new(),
                message_type: Some(pb::message::MessageType::Unsubscribe(unsubscribe)),
            });
        }
    }

    fn handle_subscription_ack(&mut self, now: Now, ack: &pb::SubscriptionAck) {
        let found = self.subscriptions.iter_mut().find(|(_, subscription)| subscription.id == ack.subscription_id);
        let Some((name, subscription)) = found else { return };
        if subscription.acked {
            return;
        }
        subscription.acked = true;
        let (name, own, waiting) = (name.clone(), subscription.own, std::mem::take(&mut subscription.waiting));
        if !ack.success {
            self.events.push_back(AppEvent::NotSubscribed(name, ack.error.clone()));
        } else if own {
            self.events.push_back(AppEvent::Subscribed(name));
        }
        for session in waiting {
            self.route_added(now, session);
        }
    }

    fn route_added(&mut self, now: Now, session: SessionId) {
        if let Some(session) = self.sessions.get_mut(&session) {
            session.route_added(now);
        }
        self.collect(now, session);
    }

    // --- the connection -------------------------------------------------------------------------------------------

    /// A node listens now: every name is subscribed (again), under the id it had.
    pub fn connected(&mut self, now: Now) {
        self.connected = true;
        let names: Vec<Name> = self.subscriptions.keys().cloned().collect();
        for name in names {
            if let Some(subscription) = self.subscriptions.get_mut(&name) {
                subscription.acked = false;
                subscription.due = now.instant + SUBSCRIBE_RETRY;
            }
            self.write_subscribe(now, &name);
        }
    }

    /// No node listens: what is not acknowledged is sent again later, by the sessions themselves.
    pub fn disconnected(&mut self) {
        self.connected = false;
        self.out.clear();
        self.out_octets = 0;
        self.nothing_waits();
    }

    // --- sessions -------------------------------------------------------------------------------------------------

    /// Begins a session with a peer, or founds a group on a channel. For two parties [`Event::Established`] tells when
    /// the peer is in, [`Event::Closed`] that it did not come; a group is ready at once.
    ///
    /// Errors: an identity without key, too many sessions.
    pub fn create_session(
        &mut self,
        now: Now,
        config: SessionConfig,
        destination: &Name,
    ) -> Result<SessionId, SessionError> {
        if self.sessions.len() >= SESSIONS_MAX {
            return Err(SessionError::TooManyCommands(self.sessions.len()));
        }
        // Without a key no control message can be signed, and every peer would refuse them one by one.
        self.credentials.provider.signing_key().ok_or(IdentityError::NoKey)?;
        let id = loop {
            let number = self.ids.within(0, SESSION_IDS_END);
            if self.latest(number).is_none() {
                break self.new_id(number);
            }
        };
        let kind = config.kind;
        let (remote, control, phase) = match kind {
            SessionKind::PointToPoint => (destination.clone(), None, Phase::Opening),
            SessionKind::Group => {
                let (data, control) = channel_names(self.credentials.provider.subject(), destination);
                (data, Some(control), Phase::Active)
            }
        };
        let session = Session::new(
            New {
                credentials: self.credentials.clone(),
                session_id: id.number,
                config,
                local: self.local.clone(),
                remote,
                control,
                moderator: None,
                direction: self.direction,
                phase,
                seed: random::word()?,
                kept: self.kept.is_some(),
            },
            now,
        )?;
        let session = self.sessions.entry(id).or_insert(session);
        match kind {
            SessionKind::PointToPoint => session.call(now, destination),
            SessionKind::Group => session.events.push_back(Event::Established),
        }
        self.collect(now, id);
        Ok(id)
    }

    /// Runs something on a session and collects what follows from it.
    pub fn with_session<T>(&mut self, now: Now, id: SessionId, run: impl FnOnce(&mut Session) -> T) -> Option<T> {
        let session = self.sessions.get_mut(&id)?;
        let result = session.span.clone().in_scope(|| run(session));
        self.collect(now, id);
        Some(result)
    }

    /// Moves what a session produced to where it is polled.
    fn collect(&mut self, now: Now, id: SessionId) {
        self.touch(id);
        loop {
            let Some(session) = self.sessions.get_mut(&id) else { return };
            while let Some(event) = session.poll_event() {
                if event == Event::Established && self.unannounced.remove(&id) {
                    self.events.push_back(AppEvent::Arrived(id));
                } else if !self.unannounced.contains(&id) {
                    self.events.push_back(AppEvent::Session(id, event));
                }
            }
            // Subscriptions before messages: who is told that we are in should find us subscribed.
            if let Some(route) = session.poll_route() {
                match route {
                    Route::Add(name) => self.add_route(now, name, false, Some(id)),
                    Route::Remove(name) => {
                        // The last messages of the session go out before the channels do.
                        if let Some(session) = self.sessions.get_mut(&id) {
                            let last: Vec<_> = std::iter::from_fn(|| session.poll_transmit()).collect();
                            last.into_iter().for_each(|message| self.send(message));
                        }
                        self.remove_route(now, &name);
                    }
                }
                continue;
            }
            let idle = session.events.is_empty();
            let messages: Vec<_> = std::iter::from_fn(|| session.poll_transmit()).collect();
            messages.into_iter().for_each(|message| self.send(message));
            if idle {
                return;
            }
        }
    }

    /// Queues a session's message for the connection.
    fn send(&mut self, message: pb::Message) {
        if self.is_full() {
            self.counters.dropped += 1;
            return;
        }
        self.out_octets += payload_octets(&message);
        self.out.push_back(message);
    }

    fn is_full(&self) -> bool {
        self.out.len() >= OUT_MAX || self.out_octets >= OUT_OCTETS_MAX
    }

    // --- in and out -----------------------------------------------------------------------------------------------

    /// Takes in one message from the node. Nothing a peer sends makes this fail: it is counted, logged and dropped.
    pub fn handle(&mut self, now: Now, message: pb::Message) {
        self.counters.received += 1;
        match message.message_type {
            Some(pb::message::MessageType::SubscriptionAck(ack)) => self.handle_subscription_ack(now, &ack),
            Some(pb::message::MessageType::Publish(_)) => match Incoming::read(message) {
                Ok(incoming) => self.handle_publish(now, &incoming),
                Err(error) => {
                    self.counters.malformed += 1;
                    tracing::debug!(%error, "malformed message dropped");
                }
            },
            _ => self.counters.malformed += 1,
        }
    }

    fn handle_publish(&mut self, now: Now, incoming: &Incoming) {
        if incoming.source == self.local {
            return;
        }
        if self.is_full() && calls_for_answer(incoming.kind) {
            self.counters.overloaded += 1; // whoever wants the answer asks again
            return;
        }
        let latest = self.latest(incoming.session_id);
        let id = latest.unwrap_or(SessionId { number: incoming.session_id, round: 0 });
        // A closed session answers latecomers; an invite that it did not see before is for a new one.
        let ended = self.sessions.get(&id).is_some_and(|session| {
            session.is_closed() && session.answered.get(&incoming.source, incoming.message_id).is_none()
        });
        let away = self.sessions.get(&id).is_some_and(|session| session.is_away_for(incoming));
        let known = latest.is_some() && !((ended || away) && incoming.kind == Kind::JoinRequest);
        if !known && !matches!(incoming.kind, Kind::DiscoveryRequest | Kind::JoinRequest) {
            self.counters.unknown_session += 1;
            return;
        }
        let sender = if is_control(incoming.kind) {
            match incoming.verify(&self.credentials, now.unix_s) {
                Ok(sender) => Some(sender),
                Err(error) => {
                    self.counters.unverified += 1;
                    tracing::warn!(%error, source = ?incoming.source, kind = ?incoming.kind, "control message dropped");
                    return;
                }
            }
        } else {
            None
        };
        let result = match (incoming.kind, &sender) {
            (Kind::DiscoveryRequest, _) => self.handle_discovery(now, incoming),
            (Kind::JoinRequest, Some(sender)) if away => self.handle_new_join(now, id, incoming, sender),
            (Kind::JoinRequest, Some(sender)) if !known => self.handle_join(now, incoming, sender),
            _ => match self.sessions.get_mut(&id) {
                Some(session) if session.frame.session_type == incoming.session_type => {
                    session.span.clone().in_scope(|| session.handle(now, incoming, sender.as_ref()))
                }
                _ => Err(Refused::Unexpected),
            },
        };
        if let Err(reason) = result {
            self.counters.refused += 1;
            tracing::debug!(%reason, source = ?incoming.source, kind = ?incoming.kind, session = id.number, "message dropped");
        }
        if let Some(latest) = self.latest(id.number) {
            self.collect(now, latest);
        }
    }

    /// An id that no session here has or had.
    fn new_id(&self, number: u32) -> SessionId {
        let beside = self.latest(number).map_or(0, |before| before.round.wrapping_add(1));
        SessionId { number, round: self.rounds.max(beside) }
    }

    /// The session of that number, or the last of them.
    fn latest(&self, number: u32) -> Option<SessionId> {
        let (first, last) = (SessionId { number, round: 0 }, SessionId { number, round: u32::MAX });
        self.sessions.range(first..=last).next_back().map(|(id, _)| *id)
    }

    /// Somebody looks for our service: we are one instance of it.
    fn handle_discovery(&mut self, now: Now, incoming: &Incoming) -> Result<(), Refused> {
        let full = incoming.destination.with_id(self.local.id());
        let ours = self.subscriptions.get(&full).is_some_and(|subscription| subscription.own);
        if !ours || !(incoming.destination.id().is_any() || incoming.destination == full) {
            return Err(Refused::Unexpected);
        }
        let frame = Frame {
            credentials: self.credentials.clone(),
            session_type: incoming.session_type,
            session_id: incoming.session_id,
        };
        let reply = Command::DiscoveryReply(pb::DiscoveryReplyPayload {});
        let draft = Draft::command(Kind::DiscoveryReply, &full, &incoming.source, incoming.message_id, reply);
        self.out.push_back(draft.write(&frame, None, now.unix_s)?);
        Ok(())
    }

    /// The moderator took us out while we were away, which we could not hear, and invites us anew.
    fn handle_new_join(
        &mut self,
        now: Now,
        before: SessionId,
        incoming: &Incoming,
        sender: &Verified,
    ) -> Result<(), Refused> {
        let session = self.sessions.get_mut(&before).ok_or(Refused::Unexpected)?;
        if !session.is_from_moderator(incoming, sender) {
            return Err(Refused::NotModerator);
        }
        session.end(now, SessionError::Removed);
        self.collect(now, before);
        self.handle_join(now, incoming, sender)
    }

    /// Somebody invites us: the session exists from here on, the application hears of it at the welcome.
    fn handle_join(&mut self, now: Now, incoming: &Incoming, sender: &Verified) -> Result<(), Refused> {
        let Command::JoinRequest(request) = incoming.command()? else { return Err(Refused::Unexpected) };
        let full = incoming.destination.with_id(self.local.id());
        if incoming.destination != full || !self.subscriptions.get(&full).is_some_and(|known| known.own) {
            return Err(Refused::Unexpected);
        }
        if self.unannounced.len() >= INVITED_MAX || self.sessions.len() >= SESSIONS_MAX {
            return Err(Refused::TooOften);
        }
        let (kind, remote, control) = match incoming.session_type {
            pb::SessionType::PointToPoint => (SessionKind::PointToPoint, incoming.source.clone(), None),
            _ => {
                let data = Name::from_wire(request.channel.as_ref().ok_or(Refused::Unexpected)?)?;
                let control = Name::from_wire(request.control.as_ref().ok_or(Refused::Unexpected)?)?;
                if (data.clone(), control.clone()) != channel_names(&sender.claims.subject, &data.without_id()) {
                    return Err(Refused::NotModerator);
                }
                (SessionKind::Group, data, Some(control))
            }
        };
        let reliable = request.timer_settings.map(|timer| Retries {
            interval: Duration::from_millis(timer.timeout.into()).clamp(INTERVAL_MIN, INTERVAL_MAX),
            max: timer.max_retries.min(RETRIES_MAX),
        });
        let config =
            SessionConfig { kind, reliable, mls: request.mls_settings.is_some(), metadata: incoming.metadata() };
        let number = incoming.session_id;
        let id = self.new_id(number);
        let mut session = Session::new(
            New {
                credentials: self.credentials.clone(),
                session_id: id.number,
                config,
                local: full,
                remote,
                control,
                moderator: Some((incoming.source.clone(), sender.claims.subject.clone())),
                direction: self.direction,
                phase: Phase::Invited(now.instant + WELCOME_WAIT),
                seed: random::word().map_err(SessionError::from)?,
                kept: self.kept.is_some(),
            },
            now,
        )?;
        session.reply_to_join(now, incoming)?;
        self.sessions.insert(id, session);
        self.unannounced.insert(id);
        self.touch(id);
        Ok(())
    }

    /// The next message for the node.
    ///
    /// Where the application is kept in a store, messages come out when [`Endpoint::written`] said that what they are made of
    /// is there.
    pub fn poll_transmit(&mut self) -> Option<pb::Message> {
        let message = if self.may_leave() { self.out.pop_front()? } else { return None };
        self.out_octets -= payload_octets(&message);
        Some(message)
    }

    /// Whether something waits to be sent, and may be.
    #[must_use]
    pub fn has_transmit(&self) -> bool {
        !self.out.is_empty() && self.kept.as_ref().is_none_or(|kept| kept.released > 0)
    }

    /// How many messages wait to be sent, and octets of payload in them.
    #[must_use]
    pub fn transmits(&self) -> (usize, usize) {
        (self.out.len(), self.out_octets)
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<AppEvent> {
        self.events.pop_front()
    }

    /// When [`Endpoint::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let sessions = self.sessions.values().filter_map(Session::poll_timeout);
        let waiting = self.subscriptions.values().filter(|known| !known.acked && self.connected);
        sessions.chain(waiting.map(|subscription| subscription.due)).min()
    }

    /// Does what time asks for.
    pub fn handle_timeout(&mut self, now: Now) {
        let due: Vec<Name> = self
            .subscriptions
            .iter_mut()
            .filter_map(|(name, known)| {
                let due = !known.acked && known.due <= now.instant;
                if due {
                    known.due = now.instant + SUBSCRIBE_RETRY;
                }
                due.then(|| name.clone())
            })
            .collect();
        if self.connected {
            for name in due {
                self.write_subscribe(now, &name);
            }
        }
        let due =
            self.sessions.iter().filter(|(_, session)| session.poll_timeout().is_some_and(|at| at <= now.instant));
        let due: Vec<SessionId> = due.map(|(id, _)| *id).collect();
        for id in due {
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            let keep = session.span.clone().in_scope(|| session.handle_timeout(now));
            self.collect(now, id);
            if !keep {
                self.touch(id);
                self.sessions.remove(&id);
                self.unannounced.remove(&id);
                self.rounds = self.rounds.max(id.round.wrapping_add(1));
            }
        }
    }
}

fn payload_octets(message: &pb::Message) -> usize {
    let Some(pb::message::MessageType::Publish(publish)) = &message.message_type else { return 0 };
    match publish.msg.as_ref().and_then(|content| content.content_type.as_ref()) {
        Some(pb::content::ContentType::AppPayload(payload)) => payload.blob.len(),
        _ => 0,
    }
}

fn calls_for_answer(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Msg
            | Kind::RtxReply
            | Kind::RtxRequest
            | Kind::DiscoveryRequest
            | Kind::JoinRequest
            | Kind::LeaveRequest
            | Kind::GroupUpdate
            | Kind::GroupWelcome
            | Kind::GroupClose
            | Kind::RejoinRequest
    )
}
