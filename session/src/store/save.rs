//! What of a session is kept.
//!
//! One record says where the session stands and is written with every commit. Payloads (sent and not yet forgotten, held for
//! order, waiting to be read), answers and MLS values are records of their own, written once. Clocks are not kept: what was
//! waited for is due at once after a restart.

use std::collections::BTreeMap;

use prost::Message as _;
use slimline_wire::pb;
use xxhash_rust::xxh3::xxh3_128;

use super::{Change, record};
use crate::exchange::{CommandId, Exchange, Stage, Task};
use crate::message::{Draft, Received};
use crate::name::Name;
use crate::reliable::{Outcome, ReceiveWindow, Stored};
use crate::roster::Stay;
use crate::session::{Item, Phase, Session};

/// The session's own record.
pub(super) const HEAD: u8 = b'h';
/// A payload in the send window, by id.
pub(super) const SENT: u8 = b'p';
/// A payload in a receive window, by source and id.
pub(super) const HELD: u8 = b'r';
/// An item in the inbox, by number.
pub(super) const INBOX: u8 = b'b';
/// A request that was seen, by number.
pub(super) const NOTED: u8 = b'n';
/// A request that was answered, by number.
pub(super) const ANSWERED: u8 = b'q';
/// What openmls keeps, under its key.
pub(super) const MLS: u8 = b'm';

/// What is in the store already: by key, a hash of the value where the value may change.
#[derive(Default)]
pub(crate) struct Saved {
    records: BTreeMap<Vec<u8>, Seen>,
    round: u64,
}

struct Seen {
    hash: u128,
    /// The last [`save`] in which the session still had it.
    round: u64,
}

impl Saved {
    /// A record that was read from the store.
    pub(crate) fn note(&mut self, key: &[u8], value: &[u8]) {
        self.records.insert(key.to_vec(), Seen { hash: xxh3_128(value), round: self.round });
    }
}

/// Collects the changes of one session.
///
/// Everything the session has passes by, and most of it is in the store already: that costs a look-up and no allocation.
struct Writer<'a> {
    /// The key looked at; its front is the session's prefix.
    key: Vec<u8>,
    prefix_octets: usize,
    saved: &'a mut Saved,
    changes: &'a mut Vec<Change>,
}

impl<'a> Writer<'a> {
    fn new(prefix: &[u8], saved: &'a mut Saved, changes: &'a mut Vec<Change>) -> Self {
        saved.round += 1;
        Self { key: prefix.to_vec(), prefix_octets: prefix.len(), saved, changes }
    }

    /// Turns to a key, and says what the store has there.
    fn turn_to(&mut self, kind: u8, suffix: &[u8]) -> Option<&mut Seen> {
        self.key.truncate(self.prefix_octets);
        self.key.push(kind);
        self.key.extend_from_slice(suffix);
        let seen = self.saved.records.get_mut(&self.key)?;
        seen.round = self.saved.round;
        Some(seen)
    }

    /// Writes a value that the store does not have.
    fn put(&mut self, hash: u128, value: Vec<u8>) {
        self.saved.records.insert(self.key.clone(), Seen { hash, round: self.saved.round });
        self.changes.push((self.key.clone(), Some(value)));
    }

    /// A record that never changes while its key is in use.
    fn fixed(&mut self, kind: u8, suffix: &[u8], value: impl FnOnce() -> Vec<u8>) {
        if self.turn_to(kind, suffix).is_none() {
            self.put(0, value());
        }
    }

    fn changing(&mut self, kind: u8, suffix: &[u8], value: &[u8]) {
        let hash = xxh3_128(value);
        if self.turn_to(kind, suffix).is_none_or(|seen| seen.hash != hash) {
            self.put(hash, value.to_vec());
        }
    }

    /// Deletes what the session no longer has.
    fn finish(self) {
        let Self { mut key, prefix_octets, saved, changes } = self;
        key.truncate(prefix_octets);
        let all = saved.records.range(key.clone()..).take_while(|(known, _)| known.starts_with(&key));
        let gone = all.filter(|(_, seen)| seen.round != saved.round).map(|(known, _)| known.clone());
        for known in gone.collect::<Vec<_>>() {
            saved.records.remove(&known);
            changes.push((known, None));
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
    let mut writer = Writer::new(prefix, saved, changes);
    if let Some(session) = session {
        let head = head(session, unannounced);
        writer.changing(HEAD, &[], &head.encode_to_vec());
        for stored in session.send.stored() {
            writer.fixed(SENT, &stored.id.to_be_bytes(), || sent(stored).encode_to_vec());
        }
        for (source, window) in &session.receive {
            for (id, held) in window.held() {
                if let Some(message) = held {
                    let suffix = [&source_key(source)[..], &id.to_be_bytes()].concat();
                    writer.fixed(HELD, &suffix, || received(message).encode_to_vec());
                }
            }
        }
        for (number, item) in (session.inbox.read..).zip(session.inbox.items()) {
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
pub(super) fn source_key(source: &Name) -> [u8; 40] {
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
                came_in: member.came_in,
                since: Some(member.since),
                stream: member.stay.and_then(|stay| if let Stay::Numbered(first) = stay { Some(first) } else { None }),
                came_by: member.stay.and_then(|stay| if let Stay::Plain(list) = stay { Some(list) } else { None }),
                heard_to: member.heard_to,
            })
            .collect(),
        commit_id: session.commit_id,
        returned: session.returned,
        listed: session.listed,
        began: session.began,
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
        let held = window.held().filter(move |(_, held)| held.is_none() == of_lost);
        held.map(|(id, _)| id).collect()
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

/// Stages by the number they are kept under.
pub(super) const STAGES: [Stage; 6] =
    [Stage::Discovery, Stage::Join, Stage::Admit, Stage::Update, Stage::Leave, Stage::Only];

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
