//! One conversation as a state machine: messages and time go in, messages and events come out.
//!
//! What it does is split by direction and role: `data` (what applications say), `moderator` and `participant` (membership),
//! `presence` (heartbeats, offline and back). Nothing here does I/O; see [`crate::endpoint`] for who routes what to it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use slimline_wire::pb;

use crate::error::{IntegrityError, SessionError};
use crate::exchange::{Answered, CommandId, Exchange, Member, Task};
use crate::integrity::Verified;
use crate::message::{Credentials, Draft, Frame, Incoming, Kind, Now, Received};
use crate::mls;
use crate::name::Name;
use crate::random::Ids;
use crate::reliable::{Delivery, PublishId, ReceiveWindow, Retries, SendWindow};

/// Control messages of sessions that are not reliable are retried like this.
pub const CONTROL_RETRIES: Retries = Retries { interval: Duration::from_secs(1), max: 10 };
/// Heartbeats, unless something else was said.
pub const HEARTBEAT: Duration = Duration::from_secs(10);
/// Heartbeats missed until a member counts as offline.
pub const MISSED_MAX: u8 = 3;
/// Messages kept for an application that does not read; beyond it they are refused, and come again if reliable.
pub const INBOX_MAX: usize = 1024;
/// Commands that may wait.
pub const COMMANDS_MAX: usize = 256;
/// How long an invited application waits for its welcome.
pub const WELCOME_WAIT: Duration = Duration::from_secs(60);
/// How long a closed session still answers those who did not hear its answer.
pub const LINGER: Duration = Duration::from_secs(30);
/// Our own leaf is renewed this long before its token ends.
pub const RENEW_BEFORE_S: u64 = 600;

/// A member that has not renewed its leaf by then does not know how: the moderator invites it anew.
pub const REINVITE_BEFORE_S: u64 = 300;

/// Two parties, or many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionKind {
    /// One application to one instance of another.
    PointToPoint,
    /// A channel with a moderator and participants.
    Group,
}

/// What a session is to be like; the initiator decides.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Two parties, or many.
    pub kind: SessionKind,
    /// Acknowledgements, retransmission and order; `None` for none of them.
    pub reliable: Option<Retries>,
    /// End-to-end encryption.
    pub mls: bool,
    /// What invited applications are told.
    pub metadata: BTreeMap<String, String>,
}

impl SessionConfig {
    /// A reliable, encrypted session: five retries, a second apart.
    #[must_use]
    pub fn new(kind: SessionKind) -> Self {
        let reliable = Some(Retries { interval: Duration::from_secs(1), max: 5 });
        Self { kind, reliable, mls: true, metadata: BTreeMap::new() }
    }

    /// Two parties, reliable and encrypted.
    #[must_use]
    pub fn point_to_point() -> Self {
        Self::new(SessionKind::PointToPoint)
    }

    /// Many parties, reliable and encrypted.
    #[must_use]
    pub fn group() -> Self {
        Self::new(SessionKind::Group)
    }

    /// Without encryption.
    #[must_use]
    pub fn without_mls(mut self) -> Self {
        self.mls = false;
        self
    }

    /// With other retries.
    #[must_use]
    pub fn with_retries(mut self, interval: Duration, max: u32) -> Self {
        self.reliable = Some(Retries { interval, max });
        self
    }

    /// Without acknowledgements, retransmission and order.
    #[must_use]
    pub fn unreliable(mut self) -> Self {
        self.reliable = None;
        self
    }

    /// With a word for those who are invited.
    #[must_use]
    pub fn with_metadata(mut self, key: &str, value: &str) -> Self {
        self.metadata.insert(key.to_owned(), value.to_owned());
        self
    }
}

/// What an application wants to do with data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Direction {
    /// It publishes.
    pub sends: bool,
    /// It receives.
    pub receives: bool,
}

impl Direction {
    /// Both.
    pub const BOTH: Self = Self { sends: true, receives: true };
}

/// Who a member is and whether it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Participant {
    /// Its full name.
    pub name: Name,
    /// Whether it is online as far as we know.
    pub online: bool,
}

/// What an application is told.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The session can be used.
    Established,
    /// [`Session::recv`] has something.
    Readable,
    /// A publish is settled.
    Published(PublishId, Delivery),
    /// A command is settled.
    Done(CommandId, Result<(), SessionError>),
    /// Somebody is in the session now.
    Joined(Name),
    /// Somebody is not in the session any more.
    Left(Name),
    /// Nothing was heard of a member for a while, or it said goodbye for now.
    Offline(Name),
    /// It is back.
    Online(Name),
    /// The send window has room again.
    Writable,
    /// The session ended.
    Closed(SessionError),
}

/// One thing [`Session::recv`] yields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A message.
    Message(Received),
    /// Messages that will not come: the sender no longer has them, or does not answer.
    Lost {
        /// Whose.
        source: Name,
        /// How many.
        count: u32,
    },
}

/// A subscription a session needs at the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Add(Name),
    Remove(Name),
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Initiator of a point-to-point session before the peer is in.
    Opening,
    /// Invited: the welcome is awaited until then.
    Invited(Instant),
    /// Welcomed; the channels are being subscribed, then this welcome is acknowledged.
    Subscribing {
        message_id: u32,
        until: Instant,
        left: u8,
    },
    Active,
    /// We said goodbye for now.
    Offline,
    /// Closed, and answering latecomers until then.
    Closed(Instant),
}

/// Why a message changed nothing: for counters and logs, never an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("no task expects it")]
    Unexpected,
    #[error("only the moderator may say that")]
    NotModerator,
    #[error("not a member")]
    Stranger,
    #[error("the application does not read: inbox full")]
    InboxFull,
    #[error("asked too often")]
    TooOften,
    #[error("too far ahead")]
    TooFar,
    #[error(transparent)]
    Integrity(#[from] IntegrityError),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    Mls(#[from] crate::error::MlsError),
    #[error(transparent)]
    Name(#[from] crate::error::NameError),
}

/// One session, of either kind and in either role.
pub struct Session {
    pub(crate) frame: Frame,
    pub(crate) config: SessionConfig,
    pub(crate) local: Name,
    pub(crate) direction: Direction,
    /// The peer (its full name once known), or the data channel.
    pub(crate) remote: Name,
    /// The control channel, in groups.
    pub(crate) control: Option<Name>,
    /// Name and subject of the moderator; `None` when we are it.
    pub(crate) moderator: Option<(Name, String)>,
    pub(crate) phase: Phase,
    pub(crate) roster: BTreeMap<Name, Member>,
    pub(crate) mls: Option<mls::Group>,
    pub(crate) commit_id: u32,
    /// Commits that came before their predecessor.
    pub(crate) early: BTreeMap<u32, (pb::GroupUpdatePayload, Name, u32)>,
    /// Our key package for a repeated join request.
    pub(crate) package: Option<Vec<u8>>,
    pub(crate) send: SendWindow,
    pub(crate) receive: BTreeMap<Name, ReceiveWindow>,
    /// Ids of messages to us alone that were delivered.
    pub(crate) alone: VecDeque<(Name, u32)>,
    pub(crate) answered: Answered,
    pub(crate) tasks: VecDeque<(Option<CommandId>, Task)>,
    pub(crate) active: Option<Exchange>,
    pub(crate) ids: Ids,
    commands: u64,
    publishes: u64,
    pub(crate) subscribed: bool,
    pub(crate) tick: Instant,
    /// We spoke to everybody since the last tick.
    pub(crate) spoke: bool,
    /// Retransmissions that may still be served before the next tick.
    pub(crate) retransmissions: u32,
    pub(crate) starved: bool,
    pub(crate) inbox: VecDeque<Item>,
    pub(crate) out: VecDeque<pb::Message>,
    pub(crate) routes: VecDeque<Route>,
    pub(crate) events: VecDeque<Event>,
}

/// Retransmissions served per tick.
pub(crate) const RETRANSMISSIONS_MAX: u32 = 5 * 1024;

pub(crate) struct New {
    pub(crate) credentials: Credentials,
    pub(crate) session_id: u32,
    pub(crate) config: SessionConfig,
    pub(crate) local: Name,
    pub(crate) remote: Name,
    pub(crate) control: Option<Name>,
    pub(crate) moderator: Option<(Name, String)>,
    pub(crate) direction: Direction,
    pub(crate) phase: Phase,
    pub(crate) seed: u64,
}

impl Session {
    pub(crate) fn new(new: New, now: Now) -> Result<Self, SessionError> {
        let mls = if new.config.mls {
            Some(mls::Group::new(new.credentials.provider.clone(), new.credentials.verifier.clone())?)
        } else {
            None
        };
        let session_type = match new.config.kind {
            SessionKind::PointToPoint => pb::SessionType::PointToPoint,
            SessionKind::Group => pb::SessionType::Multicast,
        };
        Ok(Self {
            frame: Frame { credentials: new.credentials, session_type, session_id: new.session_id },
            send: SendWindow::new(new.config.reliable),
            config: new.config,
            local: new.local,
            direction: new.direction,
            remote: new.remote,
            control: new.control,
            moderator: new.moderator,
            phase: new.phase,
            roster: BTreeMap::new(),
            mls,
            commit_id: 0,
            early: BTreeMap::new(),
            package: None,
            receive: BTreeMap::new(),
            alone: VecDeque::new(),
            answered: Answered::default(),
            tasks: VecDeque::new(),
            active: None,
            ids: Ids::new(new.seed),
            commands: 0,
            publishes: 0,
            subscribed: false,
            tick: now.instant + HEARTBEAT,
            spoke: false,
            retransmissions: RETRANSMISSIONS_MAX,
            starved: false,
            inbox: VecDeque::new(),
            out: VecDeque::new(),
            routes: VecDeque::new(),
            events: VecDeque::new(),
        })
    }

    /// The id both sides know the session by.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.frame.session_id
    }

    /// Two parties, or many.
    #[must_use]
    pub fn kind(&self) -> SessionKind {
        self.config.kind
    }

    /// How it is configured.
    #[must_use]
    pub fn config(&self) -> &SessionConfig {
        &self.config
    }

    /// Whether we moderate (in point-to-point sessions: initiated) it.
    #[must_use]
    pub fn is_moderator(&self) -> bool {
        self.moderator.is_none()
    }

    /// The peer, or the channel.
    #[must_use]
    pub fn remote(&self) -> &Name {
        &self.remote
    }

    /// Our own full name.
    #[must_use]
    pub fn local(&self) -> &Name {
        &self.local
    }

    /// Everybody in it, ourselves included.
    #[must_use]
    pub fn participants(&self) -> Vec<Participant> {
        let us = Participant { name: self.local.clone(), online: self.phase != Phase::Offline };
        let others = self.roster.values().filter(|member| member.joined);
        let others = others.map(|member| Participant { name: member.name.clone(), online: member.online });
        std::iter::once(us).chain(others).collect()
    }

    /// The MLS epoch, where there is one.
    #[must_use]
    pub fn epoch(&self) -> Option<u64> {
        self.mls.as_ref().filter(|group| group.is_ready()).map(mls::Group::epoch)
    }

    /// Whether it ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed(_))
    }

    /// Takes the next message; `None` if there is none (an [`Event::Readable`] follows).
    pub fn recv(&mut self) -> Option<Item> {
        self.inbox.pop_front()
    }

    /// Takes the next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<pb::Message> {
        self.out.pop_front()
    }

    pub(crate) fn poll_route(&mut self) -> Option<Route> {
        self.routes.pop_front()
    }

    // --- commands -------------------------------------------------------------------------------------------------

    pub(crate) fn new_command(&mut self) -> CommandId {
        self.commands += 1;
        CommandId(self.commands)
    }

    pub(crate) fn new_publish(&mut self) -> PublishId {
        self.publishes += 1;
        PublishId(self.publishes)
    }

    fn enqueue(&mut self, now: Now, task: Task) -> Result<CommandId, SessionError> {
        if self.is_closed() {
            return Err(SessionError::Closed);
        }
        if self.tasks.len() >= COMMANDS_MAX {
            return Err(SessionError::TooManyCommands(self.tasks.len()));
        }
        let command = self.new_command();
        self.tasks.push_back((Some(command), task));
        self.work(now);
        Ok(command)
    }

    /// Brings somebody in (moderator of a group).
    pub fn invite(&mut self, now: Now, name: &Name) -> Result<CommandId, SessionError> {
        self.moderates("invite")?;
        self.enqueue(now, Task::Invite { name: name.clone() })
    }

    /// Point-to-point: looks for the peer and brings it in.
    pub(crate) fn call(&mut self, now: Now, peer: &Name) {
        self.tasks.push_back((None, Task::Invite { name: peer.clone() }));
        self.work(now);
    }

    /// Takes somebody out (moderator of a group). The name may be without id.
    pub fn remove(&mut self, now: Now, name: &Name) -> Result<CommandId, SessionError> {
        self.moderates("remove")?;
        self.enqueue(now, Task::Remove { victim: name.clone(), left: false })
    }

    /// Ends the session: for everybody if we moderate it, else for us.
    pub fn close(&mut self, now: Now) -> Result<CommandId, SessionError> {
        self.enqueue(now, if self.is_moderator() { Task::Close } else { Task::Leave })
    }

    /// Says goodbye for now: the others keep our place.
    pub fn go_offline(&mut self, now: Now) -> Result<CommandId, SessionError> {
        self.change_state(now, true)
    }

    /// Comes back.
    pub fn rejoin(&mut self, now: Now) -> Result<CommandId, SessionError> {
        self.change_state(now, false)
    }

    fn change_state(&mut self, now: Now, offline: bool) -> Result<CommandId, SessionError> {
        let under_way = self.active.iter().map(|active| &active.task).chain(self.tasks.iter().map(|(_, task)| task));
        if under_way.into_iter().any(|task| matches!(task, Task::State { .. })) {
            return Err(SessionError::StatusChangeInProgress);
        }
        self.enqueue(now, Task::State { offline })
    }

    fn moderates(&self, what: &'static str) -> Result<(), SessionError> {
        if self.config.kind != SessionKind::Group {
            return Err(SessionError::NotGroup(what));
        }
        if self.is_moderator() { Ok(()) } else { Err(SessionError::NotModerator(what)) }
    }

    // --- tasks ----------------------------------------------------------------------------------------------------

    /// Starts the next task when none is under way.
    pub(crate) fn work(&mut self, now: Now) {
        while self.active.is_none() && !self.is_closed() {
            let Some((command, task)) = self.tasks.pop_front() else { return };
            let mut exchange = Exchange::new(command, task, now.instant);
            match self.start(&mut exchange, now) {
                Ok(true) => {
                    self.active = Some(exchange);
                    self.ask(now);
                    self.progress(now);
                }
                Ok(false) => self.done(command, Ok(())),
                Err(error) => self.done(command, Err(error)),
            }
        }
    }

    /// Sends what the task under way has unanswered.
    pub(crate) fn ask(&mut self, now: Now) {
        let Some(active) = &mut self.active else { return };
        let ids = &mut self.ids;
        for draft in active.resend(|| ids.within(1, u32::MAX)) {
            self.transmit(now, draft);
        }
    }

    /// Goes on with the task under way while its stages are complete.
    pub(crate) fn progress(&mut self, now: Now) {
        while let Some(active) = self.active.take_if(|active| active.is_complete()) {
            self.advance(active, now);
        }
        self.work(now);
    }

    pub(crate) fn done(&mut self, command: Option<CommandId>, result: Result<(), SessionError>) {
        if let Some(command) = command {
            self.events.push_back(Event::Done(command, result));
        } else if let Err(error) = result {
            tracing::debug!(session = self.id(), %error, "a task of the session itself failed");
        }
    }

    pub(crate) fn control_retries(&self) -> Retries {
        self.config.reliable.unwrap_or(CONTROL_RETRIES)
    }

    /// To everybody: the control channel, or the peer.
    pub(crate) fn to_members(&self, draft: Draft) -> Draft {
        match &self.control {
            Some(control) => Draft { destination: control.clone(), ..draft }.for_all(),
            None => Draft { destination: self.remote.clone(), ..draft },
        }
    }

    pub(crate) fn online(&self) -> BTreeSet<Name> {
        self.roster.values().filter(|member| member.online && member.joined).map(|member| member.name.clone()).collect()
    }

    pub(crate) fn all_members(&self) -> Vec<pb::Participant> {
        let mut us = Member::new(self.local.clone(), self.direction.sends, self.direction.receives);
        us.online = self.phase != Phase::Offline;
        std::iter::once(us.to_wire()).chain(self.roster.values().map(Member::to_wire)).collect()
    }

    // --- in and out -----------------------------------------------------------------------------------------------

    pub(crate) fn transmit(&mut self, now: Now, draft: Draft) {
        match draft.write(&self.frame, self.mls.as_mut(), now.unix_s) {
            Ok(message) => self.out.push_back(message),
            Err(error) => tracing::warn!(session = self.id(), %error, "a message could not be written"),
        }
    }

    /// Answers a request, and remembers the answer for when the request comes again.
    pub(crate) fn answer(&mut self, now: Now, request: &Incoming, draft: Draft) {
        self.answered.answer(&request.source, request.message_id, draft.clone());
        self.transmit(now, draft);
    }

    /// Takes a message in. Control messages come verified.
    pub(crate) fn handle(&mut self, now: Now, incoming: &Incoming, sender: Option<&Verified>) -> Result<(), Refused> {
        if let Phase::Closed(_) = self.phase {
            return self.handle_closed(now, incoming, sender);
        }
        if self.phase == Phase::Offline && self.active.is_none() {
            return Err(Refused::Unexpected);
        }
        let Some(sender) = sender else { return self.handle_data(now, incoming) };
        if incoming.message_id == 0 {
            return Err(Refused::Unexpected);
        }
        match self.answered.get(&incoming.source, incoming.message_id) {
            Some(Some(answer)) => {
                let answer = answer.clone();
                self.transmit(now, answer);
                return Ok(());
            }
            Some(None) => return Err(Refused::Unexpected),
            None => {}
        }
        if matches!(incoming.kind, Kind::Heartbeat | Kind::UpdateParticipantState | Kind::RejoinRequest) {
            self.answered.note(&incoming.source, incoming.message_id);
        }
        self.hear(&incoming.source);
        let result = match incoming.kind {
            Kind::Heartbeat => self.handle_heartbeat(now, incoming),
            Kind::UpdateParticipantState => self.handle_state(now, incoming),
            Kind::GroupAck => self.handle_ack(incoming),
            Kind::GroupNack => self.handle_nack(now, incoming),
            Kind::DiscoveryReply | Kind::JoinReply | Kind::RejoinRequest if self.is_moderator() => {
                self.handle_as_moderator(now, incoming, sender)
            }
            Kind::LeaveRequest if self.is_moderator() => self.handle_leaving(now, incoming),
            Kind::LeaveReply => self.handle_leave_reply(incoming),
            Kind::JoinRequest
            | Kind::LeaveRequest
            | Kind::GroupUpdate
            | Kind::GroupWelcome
            | Kind::GroupClose
            | Kind::RejoinReply
                if !self.is_moderator() =>
            {
                self.handle_as_participant(now, incoming, sender)
            }
            _ => Err(Refused::Unexpected),
        };
        self.progress(now);
        result
    }

    fn handle_ack(&mut self, incoming: &Incoming) -> Result<(), Refused> {
        let active = self.active.as_mut().ok_or(Refused::Unexpected)?;
        if active.acknowledge(incoming) { Ok(()) } else { Err(Refused::Unexpected) }
    }

    fn handle_leave_reply(&mut self, incoming: &Incoming) -> Result<(), Refused> {
        let active = self.active.as_mut().ok_or(Refused::Unexpected)?;
        let asked = matches!(active.task, Task::Leave | Task::Remove { .. });
        if asked && active.acknowledge(incoming) { Ok(()) } else { Err(Refused::Unexpected) }
    }

    /// A closed session answers whoever did not hear its last answer, and nothing else.
    fn handle_closed(&mut self, now: Now, incoming: &Incoming, sender: Option<&Verified>) -> Result<(), Refused> {
        use slimline_wire::pb::command_payload::CommandPayloadType as Command;
        let sender = sender.ok_or(Refused::Unexpected)?;
        let (kind, command) = match incoming.kind {
            Kind::GroupClose => (Kind::GroupAck, Command::GroupAck(pb::GroupAckPayload {})),
            Kind::LeaveRequest => (Kind::LeaveReply, Command::LeaveReply(pb::LeaveReplyPayload {})),
            _ => return Err(Refused::Unexpected),
        };
        if incoming.kind == Kind::GroupClose && !self.is_from_moderator(incoming, sender) {
            return Err(Refused::NotModerator);
        }
        let answer = Draft::command(kind, &self.local, &incoming.source, incoming.message_id, command);
        self.transmit(now, answer);
        Ok(())
    }

    pub(crate) fn is_from_moderator(&self, incoming: &Incoming, sender: &Verified) -> bool {
        let moderator = self.moderator.as_ref();
        moderator.is_some_and(|(name, subject)| *name == incoming.source && *subject == sender.claims.subject)
    }

    // --- time -----------------------------------------------------------------------------------------------------

    /// When [`Session::handle_timeout`] wants to be called; `None` when the session can be forgotten.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let mut next = match self.phase {
            Phase::Closed(until) => return Some(until),
            Phase::Invited(until) => until,
            Phase::Subscribing { until, .. } => until,
            _ => self.tick,
        };
        let windows = self.receive.values().filter_map(ReceiveWindow::next_timeout);
        let others = self.active.as_ref().map(Exchange::next_timeout).into_iter().chain(self.send.next_timeout());
        for other in windows.chain(others) {
            next = next.min(other);
        }
        Some(next)
    }

    /// Does what time asks for. Returns false when a closed session can be forgotten.
    pub(crate) fn handle_timeout(&mut self, now: Now) -> bool {
        match self.phase {
            Phase::Closed(until) => return now.instant < until,
            Phase::Invited(until) if now.instant >= until => {
                self.end(now, SessionError::Closed);
                return true;
            }
            Phase::Subscribing { until, .. } if now.instant >= until => self.welcomed(now),
            _ => {}
        }
        self.handle_data_timeout(now);
        if now.instant >= self.tick {
            self.handle_tick(now);
        }
        let retries = self.control_retries();
        match self.active.as_mut().and_then(|active| active.expire(retries, now.instant)) {
            Some(true) => self.ask(now),
            Some(false) => {
                if let Some(active) = self.active.take() {
                    self.give_up(active, now);
                }
            }
            None => {}
        }
        self.progress(now);
        true
    }

    /// Ends the session here: what waits is told, what was subscribed is not any more.
    pub(crate) fn end(&mut self, now: Now, why: SessionError) {
        if self.is_closed() {
            return;
        }
        self.send.end();
        self.collect_deliveries();
        if self.subscribed {
            self.subscribed = false;
            self.routes.push_back(Route::Remove(self.remote.clone()));
            self.routes.extend(self.control.clone().map(Route::Remove));
        }
        if let Some(active) = self.active.take() {
            self.done(active.command, Err(why.clone()));
        }
        for (command, _) in std::mem::take(&mut self.tasks) {
            self.done(command, Err(why.clone()));
        }
        self.phase = Phase::Closed(now.instant + LINGER);
        self.events.push_back(Event::Closed(why));
    }
}
