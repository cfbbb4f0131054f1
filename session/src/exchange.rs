//! One request and its answers: what is asked, who has yet to answer, when it is asked again.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use slimline_wire::pb;

use crate::message::{Draft, Incoming};
use crate::name::Name;
use crate::reliable::Retries;
use crate::roster::Stay;

/// Names one command of the application; its result comes as an event with the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommandId(pub u64);

/// What a session does one at a time.
#[derive(Clone, Debug)]
pub(crate) enum Task {
    /// Moderator: bring somebody in.
    Invite { name: Name },
    /// Moderator: take somebody out, who may have left already.
    Remove { victim: Name, left: bool },
    /// Moderator: give a member a new leaf.
    Readmit { member: Name, request_id: u32, package: Vec<u8> },
    /// Moderator, without encryption: tell a member that is back who is here now.
    Announce { member: Name },
    /// Moderator: renew our own leaf.
    Refresh,
    /// Moderator: end the session for all.
    Close,
    /// Participant: leave.
    Leave,
    /// Either: go offline, or come back.
    State { offline: bool },
    /// Participant: ask for a new leaf, because ours grows old or an epoch was missed.
    Renew,
}

/// Where a task of several steps stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Discovery,
    Join,
    Admit,
    Update,
    Leave,
    Only,
}

impl Stage {
    /// What went unanswered, for people.
    pub(crate) fn question(self) -> &'static str {
        match self {
            Self::Discovery => "the discovery request",
            Self::Join => "the join request",
            Self::Admit => "the welcome",
            Self::Update => "the group update",
            Self::Leave => "the leave request",
            Self::Only => "the request",
        }
    }
}

/// A task under way: at most one message to one peer, and one to all, until everybody answered or the retries end.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) command: Option<CommandId>,
    pub(crate) task: Task,
    pub(crate) stage: Stage,
    /// To one peer; taken away by its answer.
    pub(crate) direct: Option<Draft>,
    /// To all members, again while any of `waiting` is silent.
    pub(crate) update: Option<Draft>,
    pub(crate) waiting: BTreeSet<Name>,
    /// Ids under which `direct` went out: each send has its own, because peers drop a repeated id as a replay.
    pub(crate) direct_ids: Vec<u32>,
    pub(crate) update_ids: Vec<u32>,
    /// `direct` answers a request, so it carries that request's id.
    pub(crate) answers: Option<u32>,
    due: Instant,
    pub(crate) left: u32,
}

impl Exchange {
    pub(crate) fn new(command: Option<CommandId>, task: Task, now: Instant) -> Self {
        Self {
            command,
            task,
            stage: Stage::Only,
            direct: None,
            update: None,
            waiting: BTreeSet::new(),
            direct_ids: Vec::new(),
            update_ids: Vec::new(),
            answers: None,
            due: now,
            left: 0,
        }
    }

    /// Begins a stage; the caller sends what [`Exchange::resend`] returns.
    pub(crate) fn begin(&mut self, stage: Stage, retries: Retries, now: Instant) {
        self.stage = stage;
        self.direct_ids.clear();
        self.update_ids.clear();
        self.direct = None;
        self.update = None;
        self.waiting.clear();
        self.answers = None;
        self.left = retries.max;
        self.due = now + retries.interval;
    }

    pub(crate) fn answering(&mut self, id: u32) {
        self.answers = Some(id);
    }

    /// What is still unanswered, under new ids.
    pub(crate) fn resend(&mut self, mut new_id: impl FnMut() -> u32) -> Vec<Draft> {
        let mut out = Vec::new();
        // The update first: members should know the newcomer before it speaks.
        if !self.waiting.is_empty()
            && let Some(draft) = &self.update
        {
            let message_id = new_id();
            self.update_ids.push(message_id);
            out.push(Draft { message_id, ..draft.clone() });
        }
        if let Some(draft) = &self.direct {
            let message_id = self.answers.unwrap_or_else(&mut new_id);
            self.direct_ids.push(message_id);
            out.push(Draft { message_id, ..draft.clone() });
        }
        out
    }

    /// Whether `incoming` answers our direct message.
    pub(crate) fn is_direct_answer(&self, incoming: &Incoming) -> bool {
        self.direct.is_some() && self.direct_ids.contains(&incoming.message_id)
    }

    /// Notes an acknowledgement; false if nobody waited for it.
    pub(crate) fn acknowledge(&mut self, incoming: &Incoming) -> bool {
        let from_direct = self.direct.as_ref().is_some_and(|draft| draft.destination == incoming.source);
        if from_direct && self.direct_ids.contains(&incoming.message_id) {
            self.direct = None;
            return true;
        }
        self.update_ids.contains(&incoming.message_id) && self.waiting.remove(&incoming.source)
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.direct.is_none() && self.waiting.is_empty()
    }

    pub(crate) fn next_timeout(&self) -> Instant {
        self.due
    }

    /// Whether a retry is due (`Some(true)`), or it is time to give up (`Some(false)`).
    pub(crate) fn expire(&mut self, retries: Retries, now: Instant) -> Option<bool> {
        if now < self.due {
            return None;
        }
        if self.left == 0 {
            return Some(false);
        }
        self.left -= 1;
        self.due = now + retries.interval;
        Some(true)
    }
}

/// Requests we answered, and how: a peer whose answer was lost asks again.
#[derive(Debug, Default)]
pub(crate) struct Answered {
    /// How many were forgotten: the number of the oldest in `order`.
    forgotten: u64,
    order: VecDeque<(Name, u32)>,
    seen: std::collections::BTreeMap<(Name, u32), Option<Draft>>,
}

/// Requests remembered per session.
const ANSWERED_MAX: usize = 1000;

impl Answered {
    /// `None`: never seen. `Some(None)`: seen, and nothing was answered.
    pub(crate) fn get(&self, source: &Name, id: u32) -> Option<Option<&Draft>> {
        self.seen.get(&(source.clone(), id)).map(Option::as_ref)
    }

    pub(crate) fn note(&mut self, source: &Name, id: u32) {
        let key = (source.clone(), id);
        if self.seen.contains_key(&key) {
            return;
        }
        if self.order.len() == ANSWERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
            self.forgotten += 1;
        }
        self.order.push_back(key.clone());
        self.seen.insert(key, None);
    }

    /// Every request by its number, with its answer if there was one.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (u64, (&Name, u32, Option<&Draft>))> {
        (self.forgotten..).zip(&self.order).map(|(number, key)| {
            let draft = self.seen.get(key).and_then(Option::as_ref);
            (number, (&key.0, key.1, draft))
        })
    }

    /// What [`Answered::entries`] gave, back again.
    pub(crate) fn from_entries(entries: std::collections::BTreeMap<u64, (Name, u32, Option<Draft>)>) -> Self {
        let mut answered = Self { forgotten: entries.keys().next().copied().unwrap_or_default(), ..Self::default() };
        for (source, id, draft) in entries.into_values() {
            answered.order.push_back((source.clone(), id));
            answered.seen.insert((source, id), draft);
        }
        answered
    }

    pub(crate) fn answer(&mut self, source: &Name, id: u32, draft: Draft) {
        self.note(source, id);
        self.seen.insert((source.clone(), id), Some(draft));
    }
}

/// A member of a session, as others see it.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) name: Name,
    pub(crate) sends: bool,
    pub(crate) receives: bool,
    pub(crate) online: bool,
    /// It has its welcome.
    pub(crate) joined: bool,
    /// Its identity, once it proved it.
    pub(crate) subject: Option<String>,
    /// It joined after us, so its messages reach us from the first on.
    pub(crate) from_start: bool,
    /// The first of our sequenced messages that it may ask for: what was said before it came is not for it.
    pub(crate) since: u32,
    /// The epoch it came in by, if that was after us: its stream begins there. A new leaf for one who stayed changes nothing.
    pub(crate) came_in: u64,
    /// Which stay of its this is, in a group whose lists are numbered.
    pub(crate) stay: Option<Stay>,
    /// What it says before this id came to us in an earlier stay of ours, or was not for us.
    pub(crate) heard_to: Option<u32>,
    /// The key package it was readmitted by: whoever repeats that request was answered, or is being answered.
    pub(crate) readmitted_by: Option<Vec<u8>>,
    /// When it was readmitted.
    pub(crate) readmitted_at: Option<Instant>,
    /// From when on its word that there is a later epoch makes us ask for a new leaf, and how long that takes after the next.
    pub(crate) believed: Option<(Instant, Duration)>,
    /// Something came from it since the last tick.
    pub(crate) heard: bool,
    /// Ticks in a row without a word.
    pub(crate) missed: u8,
}

impl Member {
    pub(crate) fn new(name: Name, sends: bool, receives: bool) -> Self {
        Self {
            name,
            sends,
            receives,
            online: true,
            joined: true,
            subject: None,
            from_start: true,
            since: 1,
            came_in: 0,
            stay: None,
            heard_to: None,
            readmitted_by: None,
            readmitted_at: None,
            believed: None,
            heard: true,
            missed: 0,
        }
    }

    pub(crate) fn to_wire(&self) -> pb::Participant {
        let status = if self.online { pb::ParticipantState::Online } else { pb::ParticipantState::Offline };
        pb::Participant {
            name: Some(self.name.to_wire()),
            settings: Some(pb::ParticipantSettings { sends_data: self.sends, receives_data: self.receives }),
            status: status.into(),
        }
    }

    pub(crate) fn from_wire(participant: &pb::Participant) -> Option<Self> {
        let name = Name::from_wire(participant.name.as_ref()?).ok()?;
        let settings =
            participant.settings.unwrap_or(pb::ParticipantSettings { sends_data: true, receives_data: true });
        let mut member = Self::new(name, settings.sends_data, settings.receives_data);
        member.online = participant.status() == pb::ParticipantState::Online;
        Some(member)
    }
}
