//! Messages out with their seals, messages in to whoever handles their kind.

use slimline_wire::pb;
use slimline_wire::pb::command_payload::CommandPayloadType as Command;

use super::{Phase, Refused, Session};
use crate::exchange::Task;
use crate::integrity::Verified;
use crate::message::{Draft, Incoming, Kind, Now};

impl Session {
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
        // An acknowledgement may carry the id of its sender's own request: it ends the answer to that. It changes nothing
        // unless we wait for it, so it needs no memory of what came before.
        let before = match incoming.kind {
            Kind::GroupAck => None,
            _ => self.answered.get(&incoming.source, incoming.message_id),
        };
        match before {
            Some(Some(answer)) => {
                let answer = answer.clone();
                self.transmit(now, answer);
                return Ok(());
            }
            Some(None) => return Err(Refused::Unexpected),
            None => {}
        }
        if matches!(incoming.kind, Kind::Heartbeat | Kind::UpdateParticipantState | Kind::RejoinRequest) {
            if !self.roster.contains_key(&incoming.source) {
                return Err(Refused::Stranger); // and nothing is remembered of it, in the place of what members said
            }
            if incoming.kind != Kind::RejoinRequest {
                self.answered.note(&incoming.source, incoming.message_id);
            }
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

    /// Whether its sender has to do with this session.
    pub(crate) fn concerns(&self, incoming: &Incoming) -> bool {
        let moderates = self.moderator.as_ref().is_some_and(|(name, _)| *name == incoming.source);
        let answers = self.active.as_ref().is_some_and(|active| active.is_direct_answer(incoming));
        moderates || answers || self.roster.contains_key(&incoming.source)
    }

    pub(crate) fn is_from_moderator(&self, incoming: &Incoming, sender: &Verified) -> bool {
        let moderator = self.moderator.as_ref();
        moderator.is_some_and(|(name, subject)| *name == incoming.source && *subject == sender.claims.subject)
    }
}
