//! One application on the network, as a state machine: its names, its sessions, and who wants to talk to it.
//!
//! Feed it messages ([`Endpoint::handle`]) and time ([`Endpoint::handle_timeout`]); take what it wants sent
//! ([`Endpoint::poll_transmit`]) and what happened ([`Endpoint::poll_event`]). It does no I/O and reads no clock. `names` is what
//! the node routes to us, `receive` what arrives, `kept` what a store has of us.

mod kept;
mod names;
mod receive;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use slimline_wire::pb;

use self::kept::Kept;
use crate::error::{IdentityError, SessionError};
use crate::message::{Credentials, Now};
use crate::name::{Name, app_id, channel_names};
use crate::random::{self, Ids};
use crate::session::{Direction, Event, New, Phase, Route, Session, SessionConfig, SessionKind};

/// Ids are chosen below.
const SESSION_IDS_END: u32 = u32::MAX - 1000;
/// Invitations under way at once.
const INVITED_MAX: usize = 128;
/// Of these, by one identity: nobody keeps all others from inviting us.
const INVITED_BY_ONE_MAX: usize = 64;
/// Sessions of one application.
const SESSIONS_MAX: usize = 65_536;
/// A subscription that was not acknowledged is asked for again.
const SUBSCRIBE_RETRY: Duration = Duration::from_secs(3);
/// Messages that may wait for the connection. Beyond it sessions' messages are dropped (what is reliable comes again), and what
/// calls for an answer is not taken in.
pub const OUT_MAX: usize = 4096;
/// Octets of payload that may wait for the connection, likewise.
pub const OUT_OCTETS_MAX: usize = 64 << 20;

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
    /// Of these: for now, because too much waits to be read or to be put in order.
    pub postponed: u64,
    /// Not taken in, because answers could not leave.
    pub overloaded: u64,
    /// Ours, dropped because too much waited for the connection already.
    pub dropped: u64,
}

struct Subscription {
    id: u64,
    acked: bool,
    /// The node routed it to us once: a refusal after that is asked about again, one before is final.
    routed: bool,
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
    /// When each of them wants to be called: looking at all of them for every message would be slow.
    due: BTreeSet<(Instant, SessionId)>,
    /// Above the round of every session that was forgotten.
    rounds: u32,
    /// Sessions the application does not know of: invited, not welcomed.
    unannounced: BTreeSet<SessionId>,
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
            due: BTreeSet::new(),
            rounds: 0,
            unannounced: BTreeSet::new(),
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

    /// Begins a session with a peer, or founds a group on a channel. For two parties [`Event::Established`] tells when
    /// the peer is in, [`Event::Closed`] that it did not come; a group is ready at once.
    ///
    /// Retries outside 10 ms to an hour, or beyond 10 000, are brought inside, as peers would.
    ///
    /// Errors: an identity without key, too many sessions, metadata that is too large or not an application's.
    pub fn create_session(
        &mut self,
        now: Now,
        mut config: SessionConfig,
        destination: &Name,
    ) -> Result<SessionId, SessionError> {
        if self.sessions.len() >= SESSIONS_MAX {
            return Err(SessionError::TooManySessions(self.sessions.len()));
        }
        config.check()?;
        // Without a key no control message can be signed, and every peer would refuse them one by one.
        self.credentials.provider.signing_key().ok_or(IdentityError::NoKey)?;
        let id = loop {
            let number = self.ids.within(0, SESSION_IDS_END);
            if self.latest(number).is_none() {
                break self.new_id(number);
            }
        };
        config.reliable = config.reliable.map(receive::bounded);
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

    /// Moves what a session produced to where it is polled, and notes when it wants to be called.
    fn collect(&mut self, now: Now, id: SessionId) {
        self.touch(id);
        self.empty(now, id);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let next = session.poll_timeout();
        if let Some(before) = std::mem::replace(&mut session.scheduled, next).filter(|before| Some(*before) != next) {
            self.due.remove(&(before, id));
        }
        self.due.extend(next.map(|next| (next, id)));
    }

    fn empty(&mut self, now: Now, id: SessionId) {
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
        let session = self.due.first().map(|(due, _)| *due);
        debug_assert_eq!(session, self.sessions.values().filter_map(Session::poll_timeout).min(), "all are scheduled");
        let waiting = self.subscriptions.values().filter(|known| !known.acked && self.connected);
        session.into_iter().chain(waiting.map(|subscription| subscription.due)).min()
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
        if self.connected && !self.is_full() {
            for name in due {
                self.write_subscribe(now, &name);
            }
        }
        let due = self.due.iter().take_while(|(due, _)| *due <= now.instant);
        let due: Vec<SessionId> = due.map(|(_, id)| *id).collect();
        for id in due {
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            let keep = session.span.clone().in_scope(|| session.handle_timeout(now));
            self.collect(now, id);
            if !keep {
                if let Some(scheduled) = self.sessions.remove(&id).and_then(|session| session.scheduled) {
                    self.due.remove(&(scheduled, id));
                }
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
