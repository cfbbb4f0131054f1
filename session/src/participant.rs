//! Membership as a participant lives it: invited, welcomed, told of changes, leaving or being removed.

use slimline_wire::pb;
use slimline_wire::pb::command_payload::CommandPayloadType as Command;

use crate::error::SessionError;
use crate::exchange::{Exchange, Member, Stage, Task};
use crate::integrity::Verified;
use crate::message::{Draft, Incoming, Kind, LEAVING, Now};
use crate::name::Name;
use crate::roster::{About, Numbered, STREAM, Stay};
use crate::session::{Event, Phase, Refused, Route, Session};

/// Commits held until their predecessor comes.
const EARLY_MAX: usize = 16;
/// How long a subscription may take.
pub(crate) const SUBSCRIBE_WAIT: std::time::Duration = std::time::Duration::from_secs(10);

impl Session {
    /// Answers the moderator's join request: a key package with encryption, our flags in any case.
    pub(crate) fn reply_to_join(&mut self, now: Now, incoming: &Incoming) -> Result<(), SessionError> {
        let key_package = match (&mut self.mls, &self.package) {
            (Some(_), Some(package)) => Some(package.clone()),
            (Some(group), None) => {
                let package = group.key_package(now.unix_s)?;
                self.package = Some(package.clone());
                Some(package)
            }
            (None, _) => None,
        };
        let us = Member::new(self.local.clone(), self.direction.sends, self.direction.receives);
        let reply = Command::JoinReply(pb::JoinReplyPayload { key_package, participant: Some(us.to_wire()) });
        let mut answer = Draft::command(Kind::JoinReply, &self.local, &incoming.source, incoming.message_id, reply);
        if self.is_group() && self.mls.is_none() {
            // A moderator that took us out unheard goes on with us from here.
            answer = answer.with(STREAM, &self.send.upcoming().to_string());
        }
        self.answer(now, incoming, answer);
        Ok(())
    }

    pub(crate) fn start_as_participant(&mut self, exchange: &mut Exchange, now: Now) -> Result<bool, SessionError> {
        let Some((moderator, _)) = &self.moderator else { return Ok(false) };
        let draft = match exchange.task {
            Task::Leave => {
                let leave = Command::LeaveRequest(pb::LeaveRequestPayload {});
                let leave = Draft::command(Kind::LeaveRequest, &self.local, moderator, 0, leave);
                self.with_stream(leave.with(LEAVING, "TRUE"))
            }
            // To say that we are here brings the list.
            _ if self.began.is_some() => Draft { destination: moderator.clone(), fanout: 1, ..self.state_draft(false) },
            _ => {
                let Some(group) = &mut self.mls else { return Ok(false) };
                let key_package = group.key_package(now.unix_s)?;
                let participant = Some(self.local.to_wire());
                let rejoin = Command::RejoinRequest(pb::RejoinRequestPayload { participant, key_package });
                Draft::command(Kind::RejoinRequest, &self.local, moderator, 0, rejoin)
            }
        };
        exchange.begin(Stage::Only, self.control_retries(), now.instant);
        exchange.direct = Some(draft);
        Ok(true)
    }

    pub(crate) fn handle_as_participant(
        &mut self,
        now: Now,
        incoming: &Incoming,
        sender: &Verified,
    ) -> Result<(), Refused> {
        if !self.is_from_moderator(incoming, sender) {
            return Err(Refused::NotModerator);
        }
        match incoming.command()? {
            Command::JoinRequest(_) => Ok(self.reply_to_join(now, incoming)?),
            Command::GroupWelcome(welcome) => self.handle_welcome(now, incoming, welcome),
            Command::GroupUpdate(update) => self.handle_update(now, incoming, update),
            Command::RejoinReply(reply) => self.handle_rejoin_reply(now, incoming, reply),
            Command::LeaveRequest(_) => {
                // One of an earlier stay has a number from before we came; before the welcome there is nothing to leave.
                let number = Numbered::of(incoming).map(|numbered| numbered.number);
                let invited = matches!(self.phase, Phase::Invited(_));
                if number.is_some_and(|number| invited || number <= self.returned) {
                    return Err(Refused::Unexpected);
                }
                let reply = Command::LeaveReply(pb::LeaveReplyPayload {});
                let (to, id) = (&incoming.source, incoming.message_id);
                self.answer(now, incoming, Draft::command(Kind::LeaveReply, &self.local, to, id, reply));
                self.removed(now);
                Ok(())
            }
            Command::GroupClose(_) => {
                self.acknowledge(now, incoming);
                self.end(now, SessionError::Closed);
                Ok(())
            }
            _ => Err(Refused::Unexpected),
        }
    }

    /// We are out: as we asked, or because the moderator says so.
    fn removed(&mut self, now: Now) {
        let leaves = |task: &Task| matches!(task, Task::Leave);
        let asked = self.active.take_if(|active| leaves(&active.task)).map(|active| active.command);
        let queued = self.tasks.iter().position(|(_, task)| leaves(task)).and_then(|at| self.tasks.remove(at));
        let Some(command) = asked.or(queued.map(|(command, _)| command)) else {
            return self.end(now, SessionError::Removed);
        };
        self.done(command, Ok(()));
        self.end(now, SessionError::Closed);
    }

    fn acknowledge(&mut self, now: Now, incoming: &Incoming) {
        let ack = Command::GroupAck(pb::GroupAckPayload {});
        let draft = Draft::command(Kind::GroupAck, &self.local, &incoming.source, incoming.message_id, ack);
        self.answer(now, incoming, draft);
    }

    fn handle_welcome(
        &mut self,
        now: Now,
        incoming: &Incoming,
        welcome: &pb::GroupWelcomePayload,
    ) -> Result<(), Refused> {
        let numbered = self.numbered_list(incoming, &welcome.participants);
        if !matches!(self.phase, Phase::Invited(_)) {
            if let Some((number, listed)) = numbered.filter(|(number, _)| *number > self.commit_id) {
                (self.returned, self.listed) = (number, number); // we were taken out and invited anew, unheard
                self.take_numbered(number, listed, About::Welcome);
            }
            // A repeated welcome, under a new id: our acknowledgement was lost.
            if !matches!(self.phase, Phase::Subscribing { .. }) {
                self.acknowledge(now, incoming);
            }
            return Ok(());
        }
        if let Some(group) = &mut self.mls {
            let content = welcome.mls.as_ref().ok_or(Refused::Unexpected)?;
            group.join(&content.mls_content)?;
            self.commit_id = content.commit_id;
        }
        self.package = None;
        match numbered {
            Some((number, listed)) => {
                let ours = Stay::Numbered(self.send.upcoming());
                if !listed.iter().any(|member| member.name == self.local && member.stay == Some(ours)) {
                    return Err(Refused::Unexpected); // a welcome to an earlier stay
                }
                (self.returned, self.listed) = (number, number);
                self.take_numbered(number, listed, About::Welcome);
            }
            None => {
                self.send.begin(1);
                self.set_roster(&welcome.participants, false);
            }
        }
        if self.is_group() {
            self.subscribed = true;
            let until = now.instant + SUBSCRIBE_WAIT;
            self.phase = Phase::Subscribing { message_id: incoming.message_id, until, left: 2 };
            self.routes.push_back(Route::Add(self.remote.clone()));
            self.routes.extend(self.control.clone().map(Route::Add));
        } else {
            self.phase = Phase::Subscribing { message_id: incoming.message_id, until: now.instant, left: 0 };
            self.welcomed(now);
        }
        Ok(())
    }

    /// The node has one of our channels.
    pub(crate) fn route_added(&mut self, now: Now) {
        if let Phase::Subscribing { left, .. } = &mut self.phase {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.welcomed(now);
            }
        }
    }

    /// Everything is in place: acknowledge the welcome, and let the application in.
    pub(crate) fn welcomed(&mut self, now: Now) {
        let (Phase::Subscribing { message_id, .. }, Some((moderator, _))) = (&self.phase, &self.moderator) else {
            return;
        };
        let ack = Command::GroupAck(pb::GroupAckPayload {});
        let draft = Draft::command(Kind::GroupAck, &self.local, moderator, *message_id, ack);
        self.answered.answer(&moderator.clone(), *message_id, draft.clone());
        self.transmit(now, draft);
        self.phase = Phase::Active;
        self.events.push_back(Event::Established);
    }

    /// Takes the moderator's list for ours; members we knew keep what we know of them.
    fn set_roster(&mut self, participants: &[pb::Participant], from_start: bool) {
        let listed = participants.iter().filter_map(Member::from_wire).filter(|member| member.name != self.local);
        let mut roster = std::collections::BTreeMap::new();
        for mut member in listed {
            if let Some(known) = self.roster.remove(&member.name) {
                member = Member { online: member.online, ..known };
            } else {
                // In a conversation of two both begin with the first message.
                member.from_start = from_start || !self.is_group();
                member.since = self.send.upcoming();
            }
            roster.insert(member.name.clone(), member);
        }
        let gone: Vec<Name> = std::mem::replace(&mut self.roster, roster).into_keys().collect();
        for name in gone {
            self.send.gone(&name);
            self.finish_stream(&name);
            self.events.push_back(Event::Left(name));
        }
    }

    fn handle_update(&mut self, now: Now, incoming: &Incoming, update: &pb::GroupUpdatePayload) -> Result<(), Refused> {
        if !matches!(self.phase, Phase::Active | Phase::Subscribing { .. }) {
            return Err(Refused::Unexpected);
        }
        let who = update.participant.as_ref().and_then(Member::from_wire).ok_or(Refused::Unexpected)?;
        let about_us = who.name == self.local;
        if let Some((number, listed)) = self.numbered_list(incoming, &update.participants) {
            self.handle_numbered(now, incoming, update.op(), &who.name, number, listed);
            return Ok(());
        }
        let ours_again = about_us && update.op() == pb::GroupUpdateOp::Rejoin;
        if let (Some(group), Some(content), false) = (&mut self.mls, &update.mls, ours_again) {
            if content.commit_id <= self.commit_id {
                self.acknowledge(now, incoming); // applied before: our acknowledgement was lost
                return Ok(());
            }
            if content.commit_id > self.commit_id.saturating_add(1) {
                if self.early.len() < EARLY_MAX {
                    let early = (update.clone(), incoming.source.clone(), incoming.message_id);
                    self.early.insert(content.commit_id, early);
                }
                return Ok(());
            }
            match group.apply(&content.mls_content, now.unix_s) {
                Ok(true) => self.commit_id = content.commit_id,
                Ok(false) => {
                    self.acknowledge(now, incoming);
                    self.removed(now); // whatever the message says beside its commit
                    return Ok(());
                }
                Err(error) => {
                    self.renew(now); // we are out of step: ask for a new leaf
                    return Err(error.into());
                }
            }
        }
        self.acknowledge(now, incoming);
        if about_us && update.op() == pb::GroupUpdateOp::Remove {
            // The leave request that follows may be lost for good, and there is nothing to say to the group any more.
            self.removed(now);
            return Ok(());
        }
        self.change_roster(update, who);
        if let (true, Some(content)) = (ours_again, &update.mls) {
            self.take_list(content.commit_id);
        }
        self.take_early(now);
        Ok(())
    }

    /// A list in a group without encryption: complete, and of no use if it is not newer than ours.
    fn handle_numbered(
        &mut self,
        now: Now,
        incoming: &Incoming,
        op: pb::GroupUpdateOp,
        who: &Name,
        number: u32,
        listed: Vec<Member>,
    ) {
        self.acknowledge(now, incoming);
        if number <= self.commit_id {
            return;
        }
        let (about_us, removes) = (*who == self.local, op == pb::GroupUpdateOp::Remove);
        if about_us && removes || !listed.iter().any(|member| member.name == self.local) {
            return self.removed(now);
        }
        let about = match (about_us, removes) {
            (true, _) => About::Return,
            (false, true) => About::Gone(who),
            (false, false) => About::Other(who),
        };
        self.take_numbered(number, listed, about);
    }

    /// We came back, and do not know yet who else is here: that comes in a message of its own.
    pub(crate) fn lacks_list(&self) -> bool {
        self.listed < self.returned
    }

    /// The list of our return by that commit is ours now: a return that waited for it is complete.
    fn take_list(&mut self, commit_id: u32) {
        self.listed = self.listed.max(commit_id);
        let complete = !self.lacks_list();
        if let Some(active) = &mut self.active
            && matches!((&active.task, active.stage), (Task::Renew, Stage::Update))
            && complete
        {
            active.waiting.clear();
        }
    }

    /// Applies commits that came too early and are next now.
    fn take_early(&mut self, now: Now) {
        let next = |commit_id: u32| commit_id.checked_add(1);
        while let Some((update, source, message_id)) = next(self.commit_id).and_then(|next| self.early.remove(&next)) {
            let (Some(group), Some(content)) = (&mut self.mls, &update.mls) else { return };
            let Ok(ours) = group.apply(&content.mls_content, now.unix_s) else { return self.renew(now) };
            self.commit_id = content.commit_id;
            let ack = Command::GroupAck(pb::GroupAckPayload {});
            let draft = Draft::command(Kind::GroupAck, &self.local, &source, message_id, ack);
            self.answered.answer(&source, message_id, draft.clone());
            self.transmit(now, draft);
            if !ours {
                return self.removed(now);
            }
            let Some(who) = update.participant.as_ref().and_then(Member::from_wire) else { continue };
            self.change_roster(&update, who);
        }
    }

    fn change_roster(&mut self, update: &pb::GroupUpdatePayload, who: Member) {
        let name = who.name.clone();
        if name == self.local {
            if update.op() == pb::GroupUpdateOp::Rejoin {
                let listed = self.still_in(update);
                self.set_roster(&listed, true);
            }
            return;
        }
        match update.op() {
            pb::GroupUpdateOp::Remove => self.forget_member(&name),
            op @ (pb::GroupUpdateOp::Add | pb::GroupUpdateOp::Rejoin) => {
                let came_in = self.epoch().unwrap_or_default();
                if let Some(known) = self.roster.get_mut(&name) {
                    known.online = true;
                    known.heard = true;
                    if op == pb::GroupUpdateOp::Add {
                        known.came_in = came_in; // our list was old: it left before
                    }
                } else {
                    self.roster.insert(name.clone(), Member { since: self.send.upcoming(), came_in, ..who });
                    self.events.push_back(Event::Joined(name));
                }
            }
        }
    }

    /// The list that came with our return. When commits that came after it overtook it, the group itself knows better who
    /// left and who joined since.
    fn still_in(&self, update: &pb::GroupUpdatePayload) -> Vec<pb::Participant> {
        let mut listed = update.participants.clone();
        let (Some(group), Some(content)) = (&self.mls, &update.mls) else { return listed };
        if content.commit_id < self.commit_id {
            let tokens = group.tokens();
            let id =
                |participant: &pb::Participant| Name::from_wire(participant.name.as_ref()?).ok().map(|name| name.id());
            listed.retain(|participant| id(participant).is_some_and(|id| tokens.contains_key(&id)));
            let known: std::collections::BTreeSet<_> = listed.iter().filter_map(id).collect();
            let since = self
                .roster
                .values()
                .filter(|member| tokens.contains_key(&member.name.id()) && !known.contains(&member.name.id()));
            listed.extend(since.map(Member::to_wire));
        }
        listed
    }

    fn handle_rejoin_reply(
        &mut self,
        now: Now,
        incoming: &Incoming,
        reply: &pb::RejoinReplyPayload,
    ) -> Result<(), Refused> {
        let (retries, in_group) = (self.control_retries(), self.is_group());
        let active = self.active.as_mut().ok_or(Refused::Unexpected)?;
        if !matches!(active.task, Task::Renew) || !active.is_direct_answer(incoming) {
            return Err(Refused::Unexpected);
        }
        let group = self.mls.as_mut().ok_or(Refused::Unexpected)?;
        let before = group.tokens();
        group.join(&reply.mls_content)?;
        let after = group.tokens();
        self.commit_id = reply.commit_id;
        self.early.retain(|id, _| *id > reply.commit_id);
        active.direct = None;
        if in_group {
            self.returned = reply.commit_id;
            if self.listed < self.returned {
                // The group is ours again, the list of members is not: going away now would be to miss it, and whoever
                // comes back in everybody's epoch is told nothing.
                active.begin(Stage::Update, retries, now.instant);
                active.waiting.insert(incoming.source.clone());
            }
        }
        // Who has another leaf than before may have left and come again while we missed it. Then its stream begins anew,
        // and would look like repetitions of the old one.
        let restarted = |source: &&Name| before.get(&source.id()) != after.get(&source.id());
        let restarted: Vec<Name> = self.receive.keys().filter(restarted).cloned().collect();
        let streams = if self.is_group() { restarted } else { Vec::new() };
        for source in streams {
            if let Some(member) = self.roster.get_mut(&source) {
                member.from_start = false;
            }
            self.finish_stream(&source);
        }
        self.acknowledge(now, incoming);
        self.take_early(now);
        Ok(())
    }
}
