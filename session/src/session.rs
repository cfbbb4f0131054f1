//! One conversation as a state machine: messages and time go in, messages and events come out.
//!
//! What it does is split by direction and role: `tasks` (what is commanded), `receive` (what arrives), `time`; beside this
//! folder `data` (what applications say), `moderator` and `participant` (membership), `presence` (heartbeats, offline and
//! back). Nothing here does I/O; see [`crate::endpoint`] for who routes what to it.

mod config;
mod event;
mod inbox;
mod receive;
mod tasks;
mod time;

pub use config::{Direction, SESSION_METADATA_OCTETS_MAX, SessionConfig, SessionKind};
pub use event::{Event, Item, Participant};
pub(crate) use inbox::Inbox;
pub use inbox::{INBOX_MAX, INBOX_OCTETS_MAX};

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use slimline_wire::pb;

use crate::error::{IntegrityError, SessionError};
use crate::exchange::{Answered, CommandId, Exchange, Member, Task};
use crate::message::{Credentials, Frame, Now};
use crate::mls;
use crate::name::Name;
use crate::random::Ids;
use crate::reliable::{ReceiveWindow, Retries, SendWindow};
use crate::roster::Stay;

/// Control messages of sessions that are not reliable are retried like this.
pub const CONTROL_RETRIES: Retries = Retries { interval: Duration::from_secs(1), max: 10 };
/// Heartbeats, unless something else was said.
pub const HEARTBEAT: Duration = Duration::from_secs(10);
/// Heartbeats missed until a member counts as offline.
pub const MISSED_MAX: u8 = 3;
/// Commands that may wait.
pub const COMMANDS_MAX: usize = 256;
/// How long an invited application waits for its welcome.
pub const WELCOME_WAIT: Duration = Duration::from_secs(60);
/// How long a closed session still answers those who did not hear its answer.
pub const LINGER: Duration = Duration::from_secs(30);
/// Whoever was taken out is not invited again before that: the reference forgets the session it was in by its id, some time
/// after it answered, and the session of an invitation has the same id.
pub const REST: Duration = Duration::from_secs(2);

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
    #[error("too much is held for order already")]
    NoRoom,
    #[error("asked too often")]
    TooOften,
    #[error("too far ahead")]
    TooFar,
    #[error("from before we came into its stream, or of another one")]
    BeforeUs,
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
    /// What happens in it is traced below this.
    pub(crate) span: tracing::Span,
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
    /// The last commit, or the number of the last list in a group without encryption whose moderator numbers them.
    pub(crate) commit_id: u32,
    /// Where our stream of this stay begins, in a group whose lists are numbered.
    pub(crate) began: Option<u32>,
    /// In what stay, and how far, we heard members when we were here before.
    pub(crate) former: BTreeMap<Name, (Stay, u32)>,
    /// We were behind the moderator's list when it said its number last: behind it with this one.
    pub(crate) behind: Option<u32>,
    /// The commit that brought us in or back last, in groups.
    pub(crate) returned: u32,
    /// The commit of our return whose list of members we have: one before `returned` means that ours is old.
    pub(crate) listed: u32,
    /// Commits that came before their predecessor.
    pub(crate) early: BTreeMap<u32, (pb::GroupUpdatePayload, Name, u32)>,
    /// Our key package for a repeated join request.
    pub(crate) package: Option<Vec<u8>>,
    pub(crate) send: SendWindow,
    pub(crate) receive: BTreeMap<Name, ReceiveWindow>,
    /// The id of our last message to one member alone.
    pub(crate) last_alone: Option<u32>,
    /// Ids of messages to us alone that were delivered.
    pub(crate) alone: VecDeque<(Name, u32)>,
    pub(crate) answered: Answered,
    pub(crate) tasks: VecDeque<(Option<CommandId>, Task)>,
    /// Members that were given a younger leaf at their own request: of those that renew themselves.
    pub(crate) renewed: BTreeSet<Name>,
    /// Whom we took out, and from when on it may be invited again.
    pub(crate) resting: Vec<(Name, Instant)>,
    pub(crate) active: Option<Exchange>,
    pub(crate) ids: Ids,
    pub(crate) commands: u64,
    pub(crate) publishes: u64,
    pub(crate) subscribed: bool,
    pub(crate) tick: Instant,
    /// When the endpoint will come for it: see [`crate::endpoint`].
    pub(crate) scheduled: Option<Instant>,
    /// We spoke to everybody since the last tick.
    pub(crate) spoke: bool,
    /// Retransmissions that may still be served before the next tick.
    pub(crate) retransmissions: u32,
    /// A publish found no room; the smallest such had so many octets.
    pub(crate) starved: Option<usize>,
    pub(crate) inbox: Inbox,
    /// Why an answer to our invitations was not believed, for the error if no other comes.
    pub(crate) disbelieved: Option<(Name, String)>,
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
    /// Its MLS state is to be kept in a store.
    pub(crate) kept: bool,
}

impl Session {
    pub(crate) fn new(new: New, now: Now) -> Result<Self, SessionError> {
        let mls = if new.config.mls {
            let (provider, verifier) = (new.credentials.provider.clone(), new.credentials.verifier.clone());
            Some(if new.kept { mls::Group::kept(provider, verifier)? } else { mls::Group::new(provider, verifier)? })
        } else {
            None
        };
        let session_type = match new.config.kind {
            SessionKind::PointToPoint => pb::SessionType::PointToPoint,
            SessionKind::Group => pb::SessionType::Multicast,
        };
        let (id, kind) = (new.session_id, new.config.kind);
        // Where we moderate a group without encryption, lists are numbered; our own stream lasts as long as the group.
        let began = (kind == SessionKind::Group && mls.is_none() && new.moderator.is_none()).then_some(1);
        let span = tracing::info_span!(parent: None, "session", id, ?kind, local = %new.local, remote = %new.remote);
        Ok(Self {
            span,
            frame: Frame {
                credentials: new.credentials,
                session_type,
                session_id: new.session_id,
                mls: new.config.mls,
            },
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
            began,
            former: BTreeMap::new(),
            behind: None,
            returned: 0,
            listed: 0,
            early: BTreeMap::new(),
            package: None,
            receive: BTreeMap::new(),
            last_alone: None,
            alone: VecDeque::new(),
            answered: Answered::default(),
            tasks: VecDeque::new(),
            renewed: BTreeSet::new(),
            resting: Vec::new(),
            active: None,
            ids: Ids::new(new.seed),
            commands: 0,
            publishes: 0,
            subscribed: false,
            tick: now.instant + HEARTBEAT,
            scheduled: None,
            spoke: false,
            retransmissions: RETRANSMISSIONS_MAX,
            starved: None,
            inbox: Inbox::default(),
            disbelieved: None,
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
        self.inbox.pop()
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
}
