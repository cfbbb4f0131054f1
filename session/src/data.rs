//! What applications say to each other: publish, acknowledge, retransmit, deliver.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message as _;

use crate::error::SessionError;
use crate::message::{Draft, Incoming, Kind, Now, PAYLOAD_TYPE, PUBLISH_TO, Received, check_metadata, metadata_octets};
use crate::name::{Name, app_id};
use crate::reliable::{
    Arrival, Expired, HELD_OCTETS_MAX, Outcome, PublishId, ReceiveWindow, Released, SEND_WINDOW_OCTETS, SEQUENCED,
};
use crate::roster::Stay;
use crate::session::{Event, Item, Phase, Refused, Session, SessionKind};

/// Octets of a whole message that nodes take.
pub const MESSAGE_OCTETS_MAX: usize = 4 * 1024 * 1024;
/// What names, token, signatures and encryption may add to a payload.
const OVERHEAD_OCTETS: usize = 8 * 1024;
/// What the header MAC adds to a message that is written.
const HEADER_MAC_OCTETS: usize = 64;
/// A window that is empty has room for any message.
const _: () = assert!(SEND_WINDOW_OCTETS >= MESSAGE_OCTETS_MAX);
/// Messages to us alone whose repetition is recognised.
const ALONE_MAX: usize = 1024;

/// What is published.
#[derive(Clone, Debug, Default)]
pub struct Publish {
    /// What is said.
    pub payload: Vec<u8>,
    /// What it is; `msg` if not given.
    pub payload_type: Option<String>,
    /// What is said beside it, unencrypted.
    pub metadata: BTreeMap<String, String>,
    /// For one member alone (by full name).
    pub to: Option<Name>,
}

impl From<Vec<u8>> for Publish {
    fn from(payload: Vec<u8>) -> Self {
        Self { payload, ..Self::default() }
    }
}

impl From<&[u8]> for Publish {
    fn from(payload: &[u8]) -> Self {
        payload.to_vec().into()
    }
}

impl<const N: usize> From<&[u8; N]> for Publish {
    fn from(payload: &[u8; N]) -> Self {
        payload.to_vec().into()
    }
}

impl From<Bytes> for Publish {
    fn from(payload: Bytes) -> Self {
        Vec::from(payload).into()
    }
}

impl From<String> for Publish {
    fn from(text: String) -> Self {
        text.into_bytes().into()
    }
}

impl From<&str> for Publish {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl Session {
    /// Publishes to the peer, to the group, or to one member of it. [`Event::Published`] tells what became of it.
    ///
    /// Errors: [`SessionError::WindowFull`] until a delivery completes, [`SessionError::NobodyOnline`],
    /// [`SessionError::TooLarge`], [`SessionError::ReservedMetadata`], [`SessionError::Closed`], [`SessionError::Offline`],
    /// [`SessionError::Draining`].
    pub fn publish(&mut self, now: Now, publish: Publish) -> Result<PublishId, SessionError> {
        if self.is_closed() {
            return Err(SessionError::Closed);
        }
        if self.phase == Phase::Offline {
            return Err(SessionError::Offline);
        }
        if !self.direction.sends {
            return Err(SessionError::ReceiveOnly);
        }
        if self.is_draining() {
            return Err(SessionError::Draining);
        }
        check_metadata(&publish.metadata)?;
        let metadata: usize = publish.metadata.iter().map(|(key, value)| key.len() + value.len() + 16).sum();
        let octets = publish.payload.len() + metadata + OVERHEAD_OCTETS;
        if octets > MESSAGE_OCTETS_MAX {
            return Err(SessionError::TooLarge { octets, limit: MESSAGE_OCTETS_MAX });
        }
        let recipients = self.recipients(publish.to.as_ref())?;
        let kept = publish.payload.len() + metadata_octets(&publish.metadata);
        if !self.send.has_room(kept) {
            self.starved = Some(self.starved.map_or(kept, |least| least.min(kept)));
            return Err(SessionError::WindowFull { in_flight: self.send.in_flight() });
        }
        // In a point-to-point session everybody is one: publish_to is an ordinary publish.
        let to = publish.to.filter(|_| self.config.kind == SessionKind::Group);
        let id = if to.is_some() { self.take_alone_id() } else { self.send.take_id() };
        let payload_type = publish.payload_type.unwrap_or_else(|| PAYLOAD_TYPE.to_owned());
        let mut draft = Draft::data(Kind::Msg, &self.local, &self.remote, id, &payload_type, publish.payload.clone());
        draft.metadata.clone_from(&publish.metadata);
        match &to {
            Some(member) => draft = Draft { destination: member.clone(), ..draft }.with(PUBLISH_TO, "TRUE"),
            None if self.config.kind == SessionKind::Group => draft = draft.for_all(),
            None => {}
        }
        let written = draft.write(&self.frame, self.mls.as_mut(), now.unix_s).and_then(|message| {
            // A token may be larger than what was allowed for; the node adds nothing but its MAC.
            let octets = message.encoded_len() + HEADER_MAC_OCTETS;
            let fits = octets <= MESSAGE_OCTETS_MAX;
            if fits { Ok(message) } else { Err(SessionError::TooLarge { octets, limit: MESSAGE_OCTETS_MAX }) }
        });
        let message = match written {
            Ok(message) => message,
            Err(error) => {
                if to.is_none() {
                    self.send.give_back(id);
                }
                return Err(error);
            }
        };
        self.out.push_back(message);
        self.spoke |= to.is_none();
        let handle = self.new_publish();
        self.send.store(now.instant, handle, id, payload_type, publish.payload, publish.metadata, to, recipients);
        self.collect_deliveries();
        Ok(handle)
    }

    /// The id of the next message to one member alone: from somewhere on in order, so that none of those that are remembered,
    /// here or there, has the same.
    fn take_alone_id(&mut self) -> u32 {
        let next = self.last_alone.map_or_else(|| self.ids.within(SEQUENCED, u32::MAX - 1), |last| last + 1);
        let id = if next < u32::MAX - 1 { next } else { SEQUENCED };
        self.last_alone = Some(id);
        id
    }

    fn recipients(&self, to: Option<&Name>) -> Result<BTreeSet<Name>, SessionError> {
        if let Some(to) = to {
            let member = self.roster.get(to).ok_or_else(|| SessionError::NotMember(to.clone()))?;
            return if member.online { Ok(BTreeSet::from([to.clone()])) } else { Err(SessionError::NobodyOnline) };
        }
        let online = self.roster.values().filter(|member| member.online && member.joined && member.receives);
        let online: BTreeSet<Name> = online.map(|member| member.name.clone()).collect();
        if online.is_empty() { Err(SessionError::NobodyOnline) } else { Ok(online) }
    }

    pub(crate) fn handle_data(&mut self, now: Now, incoming: &Incoming) -> Result<(), Refused> {
        if !self.roster.contains_key(&incoming.source) {
            return Err(Refused::Stranger);
        }
        let to_all = incoming.kind == Kind::Msg && incoming.destination == self.remote;
        if !to_all && incoming.destination != self.local {
            return Err(Refused::Unexpected);
        }
        let result = match incoming.kind {
            Kind::Msg | Kind::RtxReply => self.take_message(now, incoming),
            Kind::MsgAck => {
                self.hear(&incoming.source);
                self.send.acknowledged(now.instant, incoming.message_id, &incoming.source);
                Ok(())
            }
            Kind::RtxRequest => self.retransmit(now, incoming),
            _ => Err(Refused::Unexpected),
        };
        self.collect_deliveries();
        result
    }

    /// Opens a message and checks that header, sender and seal belong together.
    fn open(&mut self, incoming: &Incoming) -> Result<Received, Refused> {
        let payload = incoming.payload()?;
        // Secrets of past epochs are kept for late messages. One from a stay that ended would be taken for a part of the
        // stream that began with the present stay.
        let came_in = self.roster.get(&incoming.source).map_or(0, |member| member.came_in);
        let (octets, subject) = match &mut self.mls {
            Some(group) => {
                let opened = group.open_since(&payload.blob, came_in)?;
                if opened.aad != incoming.aad()? {
                    return Err(crate::error::IntegrityError::HeaderSignature.into());
                }
                if app_id(&opened.subject) != incoming.source.id() {
                    return Err(crate::error::IntegrityError::NameAndIdentity(opened.subject.to_string()).into());
                }
                (opened.plaintext, Some(opened.subject))
            }
            None => (payload.blob.clone(), None),
        };
        Ok(Received {
            source: incoming.source.clone(),
            destination: incoming.destination.clone(),
            subject,
            payload_type: payload.payload_type.clone(),
            payload: Bytes::from(octets),
            metadata: incoming.metadata(),
            to_us_alone: incoming.message_id >= SEQUENCED,
        })
    }

    fn take_message(&mut self, now: Now, incoming: &Incoming) -> Result<(), Refused> {
        if self.inbox.is_full() {
            return Err(Refused::InboxFull); // not acknowledged: it comes again, if the session is reliable
        }
        let id = incoming.message_id;
        if self.is_of_another_stream(&incoming.source, id) {
            return Err(Refused::BeforeUs);
        }
        let message = self.open(incoming)?;
        self.hear(&incoming.source);
        let Some(retries) = self.config.reliable else {
            self.deliver(Item::Message(message));
            return Ok(());
        };
        if incoming.kind == Kind::RtxReply && incoming.error {
            if let Some(window) = self.receive.get_mut(&incoming.source) {
                window.lost(id);
            }
            self.release(now, &incoming.source);
            return Ok(());
        }
        let arrival = if id >= SEQUENCED {
            self.take_alone(message, id)
        } else {
            let member = self.roster.get(&incoming.source);
            let start = member.filter(|member| member.from_start).map(|member| member.stay.map_or(1, Stay::first));
            let held = self.receive.values().map(ReceiveWindow::held_octets).sum::<usize>();
            let window = self.receive.entry(incoming.source.clone());
            let window = window.or_insert_with(|| ReceiveWindow::new(retries, start));
            let room = HELD_OCTETS_MAX.saturating_sub(held);
            // Whoever counts us among its recipients sends it again, to us alone. We ask for nothing that early: a reply
            // answers a request that somebody repeated, for what another stream of this sender may have brought.
            let reply = incoming.kind == Kind::RtxReply;
            let again = incoming.destination == self.local && !reply;
            if self.mls.is_some() && (window.is_before(id) && !again || reply && window.next.is_none()) {
                return Err(Refused::BeforeUs);
            }
            window.receive(now.instant, id, message, room)
        };
        if matches!(arrival, Arrival::Taken | Arrival::Duplicate) {
            let mut ack = Draft::data(Kind::MsgAck, &self.local, &incoming.source, id, "", Vec::new());
            if incoming.says(PUBLISH_TO) {
                ack = ack.with(PUBLISH_TO, "TRUE");
            }
            self.transmit(now, ack);
        }
        self.release(now, &incoming.source);
        match arrival {
            Arrival::Taken | Arrival::Duplicate => Ok(()),
            Arrival::TooFar => Err(Refused::TooFar),
            Arrival::NoRoom => Err(Refused::NoRoom),
        }
    }

    fn take_alone(&mut self, message: Received, id: u32) -> Arrival {
        let key = (message.source.clone(), id);
        if self.alone.contains(&key) {
            return Arrival::Duplicate;
        }
        if self.alone.len() == ALONE_MAX {
            self.alone.pop_front();
        }
        self.alone.push_back(key);
        self.deliver(Item::Message(message));
        Arrival::Taken
    }

    /// Hands on what a window released, and asks for what it misses.
    fn release(&mut self, now: Now, source: &Name) {
        let Some(window) = self.receive.get_mut(source) else { return };
        let items = released(window, source);
        let mut requests = Vec::new();
        while let Some(id) = window.poll_request() {
            requests.push(id);
        }
        for item in items {
            self.deliver(item);
        }
        for id in requests {
            let request = Draft::data(Kind::RtxRequest, &self.local, source, id, "", Vec::new());
            self.transmit(now, request);
        }
    }

    /// A stream ends: what was acknowledged and waited for its turn is handed on, what it waited for counts as lost.
    /// Returns how far it got.
    pub(crate) fn finish_stream(&mut self, source: &Name) -> Option<u32> {
        let mut window = self.receive.remove(source)?;
        window.finish();
        for item in released(&mut window, source) {
            self.deliver(item);
        }
        window.next
    }

    pub(crate) fn finish_streams(&mut self) {
        for source in self.receive.keys().cloned().collect::<Vec<_>>() {
            let next = self.finish_stream(&source);
            if let (Some(next), Some(_), Some(member)) = (next, self.began, self.roster.get_mut(&source)) {
                member.heard_to = Some(next);
            }
        }
    }

    fn deliver(&mut self, item: Item) {
        if self.inbox.is_empty() {
            self.events.push_back(Event::Readable);
        }
        self.inbox.push(item);
    }

    fn retransmit(&mut self, now: Now, incoming: &Incoming) -> Result<(), Refused> {
        self.hear(&incoming.source);
        self.retransmissions = self.retransmissions.checked_sub(1).ok_or(Refused::TooOften)?;
        let id = incoming.message_id;
        if self.began.is_some_and(|first| id < SEQUENCED && ReceiveWindow::ahead(first, id).is_none()) {
            return Err(Refused::BeforeUs); // whoever asks has yet to hear that this is another stream
        }
        // What was encrypted before a member came was not for it, and must not become so by being sent again.
        let since = self.roster.get(&incoming.source).filter(|_| self.mls.is_some()).map(|member| member.since);
        let stored = self.send.get(id).filter(|stored| match &stored.to {
            Some(to) => *to == incoming.source,
            None => since.is_none_or(|since| ReceiveWindow::ahead(since, id).is_some()),
        });
        let reply = match stored {
            Some(stored) => {
                let (payload_type, payload) = (stored.payload_type.clone(), stored.payload.clone());
                let metadata = stored.metadata.clone();
                let draft = Draft::data(Kind::RtxReply, &self.local, &incoming.source, id, &payload_type, payload);
                Draft { metadata, ..draft }
            }
            None => {
                let draft = Draft::data(Kind::RtxReply, &self.local, &incoming.source, id, "", Vec::new());
                Draft { error: true, ..draft }
            }
        };
        self.transmit(now, reply);
        Ok(())
    }

    pub(crate) fn handle_data_timeout(&mut self, now: Now) {
        while let Some(expired) = self.send.expire(now.instant) {
            match expired {
                Expired::Resend(id, to) => {
                    for member in to {
                        self.resend(now, id, &member);
                    }
                }
                Expired::GaveUp(silent) => silent.iter().for_each(|member| self.mark_offline(member)),
            }
        }
        let sources: Vec<Name> = self.receive.keys().cloned().collect();
        for source in sources {
            if let Some(window) = self.receive.get_mut(&source) {
                window.handle_timeout(now.instant);
            }
            self.release(now, &source);
        }
        self.collect_deliveries();
    }

    /// The same message, encrypted anew, to one member's own name.
    fn resend(&mut self, now: Now, id: u32, member: &Name) {
        let Some(stored) = self.send.get(id) else { return };
        let (payload_type, payload) = (stored.payload_type.clone(), stored.payload.clone());
        let (metadata, alone) = (stored.metadata.clone(), stored.to.is_some());
        let mut draft = Draft::data(Kind::Msg, &self.local, member, id, &payload_type, payload);
        draft.metadata = metadata;
        if alone {
            draft = draft.with(PUBLISH_TO, "TRUE");
        }
        self.transmit(now, draft);
    }

    pub(crate) fn collect_deliveries(&mut self) {
        while let Some((publish, delivery)) = self.send.poll_done() {
            let missed = delivery.recipients.iter().filter(|(_, outcome)| *outcome != Outcome::Delivered).count();
            if missed > 0 {
                tracing::info!(publish = publish.0, missed, of = delivery.recipients.len(), "not delivered to all");
            }
            self.events.push_back(Event::Published(publish, delivery));
        }
        if self.starved.is_some_and(|octets| self.send.has_room(octets)) {
            self.starved = None;
            self.events.push_back(Event::Writable);
        }
    }
}

/// What a window gives out, as the application gets it.
fn released(window: &mut ReceiveWindow, source: &Name) -> Vec<Item> {
    let released = std::iter::from_fn(|| window.poll_released());
    let items = released.map(|released| match released {
        Released::Message(message) => Item::Message(message),
        Released::Lost(first, last) => {
            Item::Lost { source: source.clone(), count: last.wrapping_sub(first) % SEQUENCED + 1 }
        }
    });
    items.collect()
}
