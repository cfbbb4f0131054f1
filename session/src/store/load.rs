//! A session from what was kept of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use slimline_wire::pb;
use slimline_wire::pb::content::ContentType;

use super::StoreError;
use super::record::{self, decode};
use super::save::{ANSWERED, HEAD, HELD, INBOX, MLS, NOTED, SENT, STAGES, source_key};
use crate::exchange::{Answered, CommandId, Exchange, Member, Task};
use crate::message::{Credentials, Draft, Kind, Now, Received};
use crate::name::Name;
use crate::participant::SUBSCRIBE_WAIT;
use crate::reliable::{Outcome, PublishId, ReceiveWindow, Retries, SendWindow, Stored};
use crate::roster::Stay;
use crate::session::{Direction, Inbox, Item, LINGER, New, Phase, Session, SessionConfig, SessionKind, WELCOME_WAIT};

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
                came_in: member.came_in,
                since: member.since.unwrap_or(known.since),
                stay: member.stream.map(Stay::Numbered).or(member.came_by.map(Stay::Plain)),
                heard_to: member.heard_to,
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
        (session.returned, session.listed) = (head.returned, head.listed);
        session.began = head.began;
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
        session.inbox = inbox(records)?;
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

fn inbox(records: &BTreeMap<&[u8], &[u8]>) -> Result<Inbox, StoreError> {
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
    Ok(Inbox::restored(first, items))
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
        window.hold(*id, Some(received_of(decode(said, "a message")?)?));
    }
    record.lost.iter().for_each(|id| window.hold(*id, None));
    for missing in &record.missing {
        window.restore_missing(now.instant, missing.id, missing.left);
    }
    window.far = record.far;
    window.before = record.before.iter().copied().collect();
    window.first = record.first;
    Ok(window)
}
