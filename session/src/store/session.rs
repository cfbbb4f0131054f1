//! What of a session is kept, and a session from what was kept.
//!
//! One record says where the session stands and is written with every commit. Payloads (sent and not yet forgotten, held for
//! order, waiting to be read), answers and MLS values are records of their own, written once. Clocks are not kept: what was
//! waited for is due at once after a restart.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use slimline_wire::pb;
use slimline_wire::pb::content::ContentType;
use xxhash_rust::xxh3::xxh3_128;

use super::record::{self, decode};
use super::{Change, StoreError};
use crate::exchange::{Answered, CommandId, Exchange, Member, Stage, Task};
use crate::message::{Credentials, Draft, Kind, Now, Received};
use crate::name::Name;
use crate::participant::SUBSCRIBE_WAIT;
use crate::reliable::{Outcome, PublishId, ReceiveWindow, Retries, SendWindow, Stored};
use crate::session::{Direction, Item, LINGER, New, Phase, Session, SessionConfig, SessionKind, WELCOME_WAIT};

/// The session's own record.
const HEAD: u8 = b'h';
/// A payload in the send window, by id.
const SENT: u8 = b'p';
/// A payload in a receive window, by source and id.
const HELD: u8 = b'r';
/// An item in the inbox, by number.
const INBOX: u8 = b'b';
/// A request that was seen, by number.
const NOTED: u8 = b'n';
/// A request that was answered, by number.
const ANSWERED: u8 = b'q';
/// What openmls keeps, under its key.
const MLS: u8 = b'm';

/// What is in the store already: key, and a hash of the value where the value may change.
pub(crate) type Saved = BTreeMap<Vec<u8>, u128>;

/// Collects the changes of one session.
struct Writer<'a> {
    prefix: &'a [u8],
    saved: &'a mut Saved,
    kept: BTreeSet<Vec<u8>>,
    changes: &'a mut Vec<Change>,
}

impl Writer<'_> {
    fn key(&self, kind: u8, suffix: &[u8]) -> Vec<u8> {
        [self.prefix, &[kind], suffix].concat()
    }

    /// A record that never changes while its key is in use.
    fn fixed(&mut self, kind: u8, suffix: &[u8], value: impl FnOnce() -> Vec<u8>) {
        let key = self.key(kind, suffix);
        if !self.saved.contains_key(&key) {
            self.saved.insert(key.clone(), 0);
            self.changes.push((key.clone(), Some(value())));
        }
        self.kept.insert(key);
    }

    fn changing(&mut self, kind: u8, suffix: &[u8], value: &[u8]) {
        let (key, hash) = (self.key(kind, suffix), xxh3_128(value));
        if self.saved.insert(key.clone(), hash) != Some(hash) {
            self.changes.push((key.clone(), Some(value.to_vec())));
        }
        self.kept.insert(key);
    }

    /// Deletes what the session no longer has.
    fn finish(self) {
        let all = self.saved.range(self.prefix.to_vec()..).take_while(|(key, _)| key.starts_with(self.prefix));
        let gone: Vec<Vec<u8>> = all.filter(|(key, _)| !self.kept.contains(*key)).map(|(key, _)| key.clone()).collect();
        for key in gone {
            self.saved.remove(&key);
            self.changes.push((key, None));
        }
    }
}

/// Notes what changed in a session since it was saved last; `None` for a session that is gone.
pub(crate) fn save(
    session: Option<&Session>,
    unannounced: bool,
    prefix: &[u8],
    saved: &mut Saved,
    changes: &mut Vec<Change>,
) {
    let mut writer = Writer { prefix, saved, kept: BTreeSet::new(), changes };
    if let Some(session) = session {
        let head = head(session, unannounced);
        writer.changing(HEAD, &[], &head.encode_to_vec());
        for stored in session.send.stored() {
            writer.fixed(SENT, &stored.id.to_be_bytes(), || sent(stored).encode_to_vec());
        }
        for (source, window) in &session.receive {
            for (id, held) in &window.held {
                if let Some(message) = held {
                    let suffix = [&source_key(source)[..], &id.to_be_bytes()].concat();
                    writer.fixed(HELD, &suffix, || received(message).encode_to_vec());
                }
            }
        }
        for (number, item) in (session.read..).zip(&session.inbox) {
            writer.fixed(INBOX, &number.to_be_bytes(), || self::item(item).encode_to_vec());
        }
        for (number, (source, id, draft)) in session.answered.entries() {
            let kind = if draft.is_some() { ANSWERED } else { NOTED };
            writer.fixed(kind, &number.to_be_bytes(), || {
                let request = Some(record::Heard { source: Some(source.to_wire()), id });
                record::Answer { request, draft: draft.map(self::draft) }.encode_to_vec()
            });
        }
        if let Some(group) = &session.mls {
            group.each_value(|key, value| writer.changing(MLS, key, value));
        }
    }
    writer.finish();
}

/// Names one source in a key.
fn source_key(source: &Name) -> [u8; 40] {
    let mut key = [0; 40];
    for (into, component) in key.chunks_exact_mut(8).zip(source.prefix().0) {
        into.copy_from_slice(&component.to_be_bytes());
    }
    key[24..].copy_from_slice(&source.id().0.to_be_bytes());
    key
}

fn head(session: &Session, unannounced: bool) -> record::Session {
    let (phase, welcome_id) = match session.phase {
        Phase::Opening => (0, 0),
        Phase::Invited(_) => (1, 0),
        Phase::Subscribing { message_id, .. } => (2, message_id),
        Phase::Active => (3, 0),
        Phase::Offline => (4, 0),
        Phase::Closed(_) => (5, 0),
    };
    let heard = |source: &Name, id| record::Heard { source: Some(source.to_wire()), id };
    record::Session {
        session_type: session.frame.session_type.into(),
        reliable: session.config.reliable.map(|retries| record::Retries {
            interval_us: u64::try_from(retries.interval.as_micros()).unwrap_or(u64::MAX),
            max: retries.max,
        }),
        mls: session.config.mls,
        metadata: session.config.metadata.clone(),
        local: Some(session.local.to_wire()),
        remote: Some(session.remote.to_wire()),
        control: session.control.as_ref().map(Name::to_wire),
        moderator: session
            .moderator
            .as_ref()
            .map(|(name, subject)| record::Moderator { name: Some(name.to_wire()), subject: subject.clone() }),
        sends: session.direction.sends,
        receives: session.direction.receives,
        phase,
        welcome_id,
        roster: session
            .roster
            .values()
            .map(|member| record::Member {
                participant: Some(member.to_wire()),
                joined: member.joined,
                subject: member.subject.clone(),
                from_start: member.from_start,
            })
            .collect(),
        commit_id: session.commit_id,
        early: session
            .early
            .iter()
            .map(|(commit_id, (update, source, id))| record::Early {
                commit_id: *commit_id,
                update: Some(update.clone()),
                heard: Some(heard(source, *id)),
            })
            .collect(),
        package: session.package.clone(),
        send: Some(record::SendWindow {
            next: session.send.next_id(),
            stored: session.send.stored().map(under_way).collect(),
        }),
        receive: session.receive.iter().map(|(source, window)| receive_window(source, window)).collect(),
        alone: session.alone.iter().map(|(source, id)| heard(source, *id)).collect(),
        tasks: session.tasks.iter().map(|(command, task)| self::task(*command, task)).collect(),
        active: session.active.as_ref().map(exchange),
        commands: session.commands,
        publishes: session.publishes,
        subscribed: session.subscribed,
        unannounced,
        group: session.mls.as_ref().map(crate::mls::Group::record),
    }
}

fn under_way(stored: &Stored) -> record::Sent {
    let outcome = |(recipient, outcome): &(Name, Outcome)| record::Outcome {
        recipient: Some(recipient.to_wire()),
        outcome: match outcome {
            Outcome::Delivered => 0,
            Outcome::TimedOut => 1,
            Outcome::Gone => 2,
        },
    };
    record::Sent {
        id: stored.id,
        publish: stored.publish.0,
        waiting: stored.waiting.iter().map(Name::to_wire).collect(),
        outcomes: stored.outcomes.iter().map(outcome).collect(),
        under_way: stored.due.is_some(),
        left: stored.left,
    }
}

fn sent(stored: &Stored) -> record::Said {
    record::Said {
        payload_type: stored.payload_type.clone(),
        payload: stored.payload.clone(),
        metadata: stored.metadata.clone(),
        to: stored.to.as_ref().map(Name::to_wire),
        ..Default::default()
    }
}

fn received(message: &Received) -> record::Said {
    record::Said {
        payload_type: message.payload_type.clone(),
        payload: message.payload.to_vec(),
        metadata: message.metadata.clone(),
        to: None,
        source: Some(message.source.to_wire()),
        destination: Some(message.destination.to_wire()),
        subject: message.subject.as_deref().map(str::to_owned),
        to_us_alone: message.to_us_alone,
        lost: 0,
    }
}

fn item(item: &Item) -> record::Said {
    match item {
        Item::Message(message) => received(message),
        Item::Lost { source, count } => {
            record::Said { source: Some(source.to_wire()), lost: *count, ..Default::default() }
        }
    }
}

fn receive_window(source: &Name, window: &ReceiveWindow) -> record::ReceiveWindow {
    let ids = |of_lost: bool| {
        let held = window.held.iter().filter(move |(_, held)| held.is_none() == of_lost);
        held.map(|(id, _)| *id).collect()
    };
    record::ReceiveWindow {
        source: Some(source.to_wire()),
        next: window.next,
        held: ids(false),
        lost: ids(true),
        missing: window.missing.iter().map(|(id, (_, left))| record::Missing { id: *id, left: *left }).collect(),
        far: window.far,
        before: window.before.iter().copied().collect(),
        first: window.first,
    }
}

fn draft(draft: &Draft) -> record::Draft {
    record::Draft {
        kind: draft.kind.into(),
        source: Some(draft.source.to_wire()),
        destination: Some(draft.destination.to_wire()),
        fanout: draft.fanout,
        message_id: draft.message_id,
        content: Some(pb::Content { content_type: Some(draft.content.clone()) }),
        metadata: draft.metadata.clone(),
        error: draft.error,
    }
}

fn task(command: Option<CommandId>, task: &Task) -> record::Task {
    let command = command.map(|command| command.0);
    let of = |kind| record::Task { command, kind, ..Default::default() };
    match task {
        Task::Invite { name } => record::Task { name: Some(name.to_wire()), ..of(1) },
        Task::Remove { victim, left } => record::Task { name: Some(victim.to_wire()), flag: *left, ..of(2) },
        Task::Readmit { member, request_id, package } => {
            record::Task { name: Some(member.to_wire()), request_id: *request_id, package: package.clone(), ..of(3) }
        }
        Task::Announce { member } => record::Task { name: Some(member.to_wire()), ..of(4) },
        Task::Refresh => of(5),
        Task::Close => of(6),
        Task::Leave => of(7),
        Task::State { offline } => record::Task { flag: *offline, ..of(8) },
        Task::Renew => of(9),
    }
}

const STAGES: [Stage; 6] = [Stage::Discovery, Stage::Join, Stage::Admit, Stage::Update, Stage::Leave, Stage::Only];

fn exchange(exchange: &Exchange) -> record::Exchange {
    let stage = STAGES.iter().position(|stage| *stage == exchange.stage).unwrap_or_default();
    record::Exchange {
        task: Some(task(exchange.command, &exchange.task)),
        stage: u32::try_from(stage).unwrap_or_default(),
        direct: exchange.direct.as_ref().map(draft),
        update: exchange.update.as_ref().map(draft),
        waiting: exchange.waiting.iter().map(Name::to_wire).collect(),
        direct_ids: exchange.direct_ids.clone(),
        update_ids: exchange.update_ids.clone(),
        answers: exchange.answers,
        left: exchange.left,
    }
}

// --- back -------------------------------------------------------------------------------------------------------------

/// A session as it comes out of a store.
pub(crate) struct SessionParts {
    pub(crate) session: Session,
    pub(crate) unannounced: bool,
}

const HEAD_TEXT: &str = "a session";

fn name(name: Option<&pb::Name>) -> Result<Name, StoreError> {
    name.and_then(|name| Name::from_wire(name).ok()).ok_or(StoreError::Record("a name"))
}

fn names(names: &[pb::Name]) -> Result<BTreeSet<Name>, StoreError> {
    names.iter().map(|known| name(Some(known))).collect()
}

impl SessionParts {
    /// Reads one session; the keys come without the prefix that names it.
    pub(crate) fn read(
        session_id: u32,
        records: &BTreeMap<&[u8], &[u8]>,
        credentials: &Credentials,
        seed: u64,
        now: Now,
    ) -> Result<Self, StoreError> {
        let head = records.get(&[HEAD][..]).ok_or(StoreError::Record(HEAD_TEXT))?;
        let head: record::Session = decode(head, HEAD_TEXT)?;
        let kind = match pb::SessionType::try_from(head.session_type) {
            Ok(pb::SessionType::PointToPoint) => SessionKind::PointToPoint,
            Ok(pb::SessionType::Multicast) => SessionKind::Group,
            _ => return Err(StoreError::Record(HEAD_TEXT)),
        };
        let reliable = head
            .reliable
            .map(|retries| Retries { interval: Duration::from_micros(retries.interval_us), max: retries.max });
        let moderator = match &head.moderator {
            Some(moderator) => Some((name(moderator.name.as_ref())?, moderator.subject.clone())),
            None => None,
        };
        let phase = match head.phase {
            0 => Phase::Opening,
            1 => Phase::Invited(now.instant + WELCOME_WAIT),
            2 => Phase::Subscribing { message_id: head.welcome_id, until: now.instant + SUBSCRIBE_WAIT, left: 2 },
            3 => Phase::Active,
            4 => Phase::Offline,
            5 => Phase::Closed(now.instant + LINGER),
            _ => return Err(StoreError::Record(HEAD_TEXT)),
        };
        let new = New {
            credentials: credentials.clone(),
            session_id,
            config: SessionConfig { kind, reliable, mls: head.mls, metadata: head.metadata.clone() },
            local: name(head.local.as_ref())?,
            remote: name(head.remote.as_ref())?,
            control: head.control.as_ref().map(|control| name(Some(control))).transpose()?,
            moderator,
            direction: Direction { sends: head.sends, receives: head.receives },
            phase,
            seed,
            kept: true,
        };
        let mut session = Session::new(new, now).map_err(|_| StoreError::Record("a session of another identity"))?;
        if let Some(group) = &head.group {
            let values = of_kind(records, MLS).map(|(key, value)| (key.to_vec(), value.to_vec()));
            let group = session.mls.as_mut().map(|ours| ours.restore(group, values.collect())).transpose();
            group.map_err(|_| StoreError::Record("MLS state"))?;
        }
        for member in &head.roster {
            let participant = member.participant.as_ref().and_then(Member::from_wire);
            let known = participant.ok_or(StoreError::Record("a member"))?;
            let known = Member {
                joined: member.joined,
                subject: member.subject.clone(),
                from_start: member.from_start,
                ..known
            };
            session.roster.insert(known.name.clone(), known);
        }
        for early in &head.early {
            let (Some(update), Some(heard)) = (&early.update, &early.heard) else {
                return Err(StoreError::Record("a commit that came early"));
            };
            let early_one = (update.clone(), name(heard.source.as_ref())?, heard.id);
            session.early.insert(early.commit_id, early_one);
        }
        session.commit_id = head.commit_id;
        session.package = head.package;
        session.commands = head.commands;
        session.publishes = head.publishes;
        session.subscribed = head.subscribed;
        for heard in &head.alone {
            session.alone.push_back((name(heard.source.as_ref())?, heard.id));
        }
        for task in &head.tasks {
            session.tasks.push_back((task.command.map(CommandId), task_of(task)?));
        }
        session.active = head.active.as_ref().map(|active| exchange_of(active, now)).transpose()?;
        session.answered = answered(records)?;
        (session.read, session.inbox) = inbox(records)?;
        session.send = send_window(head.send.unwrap_or_default(), records, reliable, now)?;
        for window in &head.receive {
            let source = name(window.source.as_ref())?;
            let retries = reliable.ok_or(StoreError::Record("a window"))?;
            let window = window_of(window, &source, records, retries, now)?;
            session.receive.insert(source, window);
        }
        session.tick = now.instant; // say at once that we are back
        Ok(Self { session, unannounced: head.unannounced })
    }
}

fn of_kind<'a>(records: &'a BTreeMap<&[u8], &[u8]>, kind: u8) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    let found = records.iter().filter(move |(key, _)| key.first() == Some(&kind));
    found.map(|(key, value)| (&key[1..], *value))
}

fn number(key: &[u8]) -> Result<u64, StoreError> {
    key.try_into().map(u64::from_be_bytes).map_err(|_| StoreError::Record("a number"))
}

fn inbox(records: &BTreeMap<&[u8], &[u8]>) -> Result<(u64, VecDeque<Item>), StoreError> {
    let (mut first, mut items) = (0, VecDeque::new());
    for (key, value) in of_kind(records, INBOX) {
        if items.is_empty() {
            first = number(key)?;
        }
        let said: record::Said = decode(value, "a message")?;
        items.push_back(match said.lost {
            0 => Item::Message(received_of(said)?),
            count => Item::Lost { source: name(said.source.as_ref())?, count },
        });
    }
    Ok((first, items))
}

fn received_of(said: record::Said) -> Result<Received, StoreError> {
    Ok(Received {
        source: name(said.source.as_ref())?,
        destination: name(said.destination.as_ref())?,
        subject: said.subject.map(Into::into),
        payload_type: said.payload_type,
        payload: Bytes::from(said.payload),
        metadata: said.metadata,
        to_us_alone: said.to_us_alone,
    })
}

fn answered(records: &BTreeMap<&[u8], &[u8]>) -> Result<Answered, StoreError> {
    let mut entries = BTreeMap::new();
    for (key, value) in of_kind(records, NOTED).chain(of_kind(records, ANSWERED)) {
        let answer: record::Answer = decode(value, "an answer")?;
        let request = answer.request.unwrap_or_default();
        let draft = answer.draft.as_ref().map(draft_of).transpose()?;
        entries.insert(number(key)?, (name(request.source.as_ref())?, request.id, draft));
    }
    Ok(Answered::from_entries(entries))
}

fn draft_of(draft: &record::Draft) -> Result<Draft, StoreError> {
    let wrong = StoreError::Record("a message to be sent");
    let content: Option<ContentType> = draft.content.as_ref().and_then(|content| content.content_type.clone());
    Ok(Draft {
        kind: Kind::try_from(draft.kind).map_err(|_| wrong.clone())?,
        source: name(draft.source.as_ref())?,
        destination: name(draft.destination.as_ref())?,
        fanout: draft.fanout,
        message_id: draft.message_id,
        content: content.ok_or(wrong)?,
        metadata: draft.metadata.clone(),
        error: draft.error,
    })
}

fn task_of(task: &record::Task) -> Result<Task, StoreError> {
    let named = || name(task.name.as_ref());
    Ok(match task.kind {
        1 => Task::Invite { name: named()? },
        2 => Task::Remove { victim: named()?, left: task.flag },
        3 => Task::Readmit { member: named()?, request_id: task.request_id, package: task.package.clone() },
        4 => Task::Announce { member: named()? },
        5 => Task::Refresh,
        6 => Task::Close,
        7 => Task::Leave,
        8 => Task::State { offline: task.flag },
        9 => Task::Renew,
        _ => return Err(StoreError::Record("a task")),
    })
}

fn exchange_of(record: &record::Exchange, now: Now) -> Result<Exchange, StoreError> {
    let task = record.task.as_ref().ok_or(StoreError::Record("a task"))?;
    let mut exchange = Exchange::new(task.command.map(CommandId), task_of(task)?, now.instant);
    let stage = usize::try_from(record.stage).ok().and_then(|stage| STAGES.get(stage));
    exchange.stage = *stage.ok_or(StoreError::Record("a task"))?;
    exchange.direct = record.direct.as_ref().map(draft_of).transpose()?;
    exchange.update = record.update.as_ref().map(draft_of).transpose()?;
    exchange.waiting = names(&record.waiting)?;
    exchange.direct_ids.clone_from(&record.direct_ids);
    exchange.update_ids.clone_from(&record.update_ids);
    exchange.answers = record.answers;
    exchange.left = record.left.max(1); // due now: ask once more, whatever was tried
    Ok(exchange)
}

fn send_window(
    record: record::SendWindow,
    records: &BTreeMap<&[u8], &[u8]>,
    retries: Option<Retries>,
    now: Now,
) -> Result<SendWindow, StoreError> {
    let mut stored = VecDeque::new();
    for sent in record.stored {
        let key = [&[SENT][..], &sent.id.to_be_bytes()].concat();
        let said = records.get(&key[..]).ok_or(StoreError::Record("a message without its text"))?;
        let said: record::Said = decode(said, "a message")?;
        let mut outcomes = Vec::new();
        for outcome in &sent.outcomes {
            let what = match outcome.outcome {
                0 => Outcome::Delivered,
                1 => Outcome::TimedOut,
                _ => Outcome::Gone,
            };
            outcomes.push((name(outcome.recipient.as_ref())?, what));
        }
        stored.push_back(Stored {
            id: sent.id,
            payload_type: said.payload_type,
            payload: said.payload,
            metadata: said.metadata,
            to: said.to.as_ref().map(|to| name(Some(to))).transpose()?,
            publish: PublishId(sent.publish),
            waiting: names(&sent.waiting)?,
            outcomes,
            due: sent.under_way.then_some(now.instant),
            left: sent.left.max(1),
        });
    }
    Ok(SendWindow::restored(retries, stored, record.next))
}

fn window_of(
    record: &record::ReceiveWindow,
    source: &Name,
    records: &BTreeMap<&[u8], &[u8]>,
    retries: Retries,
    now: Now,
) -> Result<ReceiveWindow, StoreError> {
    let mut window = ReceiveWindow::new(retries, record.next);
    for id in &record.held {
        let key = [&[HELD][..], &source_key(source), &id.to_be_bytes()].concat();
        let said = records.get(&key[..]).ok_or(StoreError::Record("a message without its text"))?;
        window.held.insert(*id, Some(received_of(decode(said, "a message")?)?));
    }
    window.held.extend(record.lost.iter().map(|id| (*id, None)));
    window.missing.extend(record.missing.iter().map(|missing| (missing.id, (now.instant, missing.left.max(1)))));
    window.far = record.far;
    window.before = record.before.iter().copied().collect();
    window.first = record.first;
    Ok(window)
}
