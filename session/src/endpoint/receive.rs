//! Messages from the node: to the session they are for, or the beginning of one.

use std::time::Duration;

use slimline_wire::pb;
use slimline_wire::pb::command_payload::CommandPayloadType as Command;

use super::{Endpoint, INVITED_BY_ONE_MAX, INVITED_MAX, SESSIONS_MAX, SessionId};
use crate::error::SessionError;
use crate::integrity::{Verified, is_control};
use crate::message::{Draft, Frame, Incoming, Kind, Now};
use crate::name::{Name, channel_names};
use crate::random;
use crate::reliable::Retries;
use crate::session::{New, Phase, Refused, Session, SessionConfig, SessionKind, WELCOME_WAIT};

/// What intervals a peer may ask us to keep.
const INTERVAL_MIN: Duration = Duration::from_millis(10);
const INTERVAL_MAX: Duration = Duration::from_secs(3600);
const RETRIES_MAX: u32 = 10_000;

impl Endpoint {
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

    pub(super) fn handle_publish(&mut self, now: Now, incoming: &Incoming) {
        if incoming.source == self.local {
            return;
        }
        if self.is_full() && calls_for_answer(incoming.kind) {
            self.counters.overloaded += 1; // whoever wants the answer asks again
            return;
        }
        let concerned = self.concerned(incoming);
        let id = concerned.unwrap_or(SessionId { number: incoming.session_id, round: 0 });
        // A closed session answers latecomers; an invite that it did not see before is for a new one.
        let ended = self.sessions.get(&id).is_some_and(|session| {
            session.is_closed() && session.answered.get(&incoming.source, incoming.message_id).is_none()
        });
        let away = self.sessions.get(&id).is_some_and(|session| session.is_away_for(incoming));
        let known = concerned.is_some() && !((ended || away) && incoming.kind == Kind::JoinRequest);
        if !known && !matches!(incoming.kind, Kind::DiscoveryRequest | Kind::JoinRequest) {
            self.counters.unknown_session += 1;
            return;
        }
        let sender = if is_control(incoming.kind) {
            match incoming.verify(&self.credentials, now.unix_s) {
                Ok(sender) => Some(sender),
                Err(error) => {
                    self.counters.unverified += 1;
                    if let Some(session) = self.sessions.get_mut(&id)
                        && matches!(incoming.kind, Kind::DiscoveryReply | Kind::JoinReply)
                    {
                        session.disbelieved = Some((incoming.source.clone(), error.to_string()));
                    }
                    let (source, kind, unverified) = (&incoming.source, incoming.kind, self.counters.unverified);
                    // Whoever sends such does not fill a log with them.
                    if unverified.is_power_of_two() {
                        tracing::warn!(%error, ?source, ?kind, unverified, "control message dropped");
                    } else {
                        tracing::debug!(%error, ?source, ?kind, unverified, "control message dropped");
                    }
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
            self.counters.postponed += u64::from(matches!(reason, Refused::InboxFull | Refused::NoRoom));
            tracing::debug!(%reason, source = ?incoming.source, kind = ?incoming.kind, session = id.number, "message dropped");
        }
        self.collect(now, id);
        if let Some(latest) = self.latest(id.number).filter(|latest| *latest != id) {
            self.collect(now, latest); // it has just begun
        }
    }

    /// The session that a message is for. A number may stand for several: whoever invites us chooses it, and nobody should be
    /// able to take one from somebody else by being first.
    fn concerned(&self, incoming: &Incoming) -> Option<SessionId> {
        if incoming.kind == Kind::JoinRequest {
            return self.last_by(incoming.session_id, &incoming.source);
        }
        let mut of_number = self.of_number(incoming.session_id);
        let with_sender = of_number.find(|(_, session)| session.concerns(incoming)).map(|(id, _)| *id);
        with_sender.or_else(|| self.latest(incoming.session_id))
    }

    /// All sessions of that number, the last one first.
    fn of_number(&self, number: u32) -> impl Iterator<Item = (&SessionId, &Session)> {
        self.sessions.range(SessionId { number, round: 0 }..=SessionId { number, round: u32::MAX }).rev()
    }

    /// The last session of that number that this moderator invited us to.
    fn last_by(&self, number: u32, moderator: &Name) -> Option<SessionId> {
        let mut of_number = self.of_number(number);
        let by = |session: &Session| session.moderator.as_ref().is_some_and(|(name, _)| name == moderator);
        of_number.find(|(_, session)| by(session)).map(|(id, _)| *id)
    }

    /// An id that no session here has or had.
    pub(super) fn new_id(&self, number: u32) -> SessionId {
        let beside = self.latest(number).map_or(0, |before| before.round.wrapping_add(1));
        SessionId { number, round: self.rounds.max(beside) }
    }

    /// The session of that number, or the last of them.
    pub(super) fn latest(&self, number: u32) -> Option<SessionId> {
        self.of_number(number).next().map(|(id, _)| *id)
    }

    /// Somebody looks for our service: we are one instance of it.
    pub(super) fn handle_discovery(&mut self, now: Now, incoming: &Incoming) -> Result<(), Refused> {
        let full = incoming.destination.with_id(self.local.id());
        let ours = self.subscriptions.get(&full).is_some_and(|subscription| subscription.own);
        if !ours || !(incoming.destination.id().is_any() || incoming.destination == full) {
            return Err(Refused::Unexpected);
        }
        let frame = Frame {
            credentials: self.credentials.clone(),
            session_type: incoming.session_type,
            session_id: incoming.session_id,
            mls: false,
        };
        let reply = Command::DiscoveryReply(pb::DiscoveryReplyPayload {});
        let draft = Draft::command(Kind::DiscoveryReply, &full, &incoming.source, incoming.message_id, reply);
        self.out.push_back(draft.write(&frame, None, now.unix_s)?);
        Ok(())
    }

    /// The moderator took us out while we were away, which we could not hear, and invites us anew.
    pub(super) fn handle_new_join(
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
    pub(super) fn handle_join(&mut self, now: Now, incoming: &Incoming, sender: &Verified) -> Result<(), Refused> {
        let Command::JoinRequest(request) = incoming.command()? else { return Err(Refused::Unexpected) };
        let full = incoming.destination.with_id(self.local.id());
        if incoming.destination != full || !self.subscriptions.get(&full).is_some_and(|known| known.own) {
            return Err(Refused::Unexpected);
        }
        let invited = self.unannounced.iter().filter_map(|id| self.sessions.get(id)?.moderator.as_ref());
        let by_sender = invited.filter(|(_, subject)| *subject == sender.claims.subject).count();
        let many = self.unannounced.len() >= INVITED_MAX || by_sender >= INVITED_BY_ONE_MAX;
        if many || self.sessions.len() >= SESSIONS_MAX {
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
        let reliable = request.timer_settings.map(|timer| {
            bounded(Retries { interval: Duration::from_millis(timer.timeout.into()), max: timer.max_retries })
        });
        let config =
            SessionConfig { kind, reliable, mls: request.mls_settings.is_some(), metadata: incoming.metadata() };
        config.check()?;
        let number = incoming.session_id;
        let id = self.new_id(number);
        let former = self.last_by(number, &incoming.source).and_then(|before| self.sessions.get(&before));
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
        session.enter(former);
        session.reply_to_join(now, incoming)?;
        self.sessions.insert(id, session);
        self.unannounced.insert(id);
        self.touch(id);
        Ok(())
    }
}

/// Retries as sessions keep them: neither a flood nor longer than anybody waits.
pub(super) fn bounded(retries: Retries) -> Retries {
    Retries { interval: retries.interval.clamp(INTERVAL_MIN, INTERVAL_MAX), max: retries.max.min(RETRIES_MAX) }
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
