//! Who is there: heartbeats, silence, goodbye for now and back again.

use std::time::Duration;

use slimline_wire::pb;
use slimline_wire::pb::command_payload::CommandPayloadType as Command;

use crate::exchange::{Member, Task};
use crate::message::{Draft, Incoming, Kind, Now};
use crate::name::Name;
use crate::roster::Numbered;
use crate::session::{Event, HEARTBEAT, MISSED_MAX, Phase, RETRANSMISSIONS_MAX, Refused, Session, SessionKind};

/// Longest wait until one member's word about epochs counts again.
const BELIEVED_AGAIN_MAX: Duration = Duration::from_secs(3600);

impl Session {
    /// Every ten seconds: say that we are there, and note who did not.
    pub(crate) fn handle_tick(&mut self, now: Now) {
        self.tick = now.instant + HEARTBEAT;
        self.retransmissions = RETRANSMISSIONS_MAX;
        if self.phase != Phase::Active {
            return;
        }
        let mut silent = Vec::new();
        for member in self.roster.values_mut().filter(|member| member.joined) {
            member.missed = if member.heard { 0 } else { member.missed.saturating_add(1) };
            member.heard = false;
            if member.online && member.missed >= MISSED_MAX {
                silent.push(member.name.clone());
            }
        }
        for member in silent {
            self.mark_offline(&member);
        }
        // Whoever missed a list hears of it by our heartbeats.
        if !self.roster.is_empty() && (!self.spoke || self.online().is_empty() || self.numbers_lists()) {
            let epoch = self.epoch_word();
            let beat = Command::Heartbeat(pb::HeartbeatPayload { epoch });
            let id = self.ids.within(1, u32::MAX);
            let draft = Draft::command(Kind::Heartbeat, &self.local, &self.remote, id, beat);
            let draft = self.with_number(self.to_members(draft));
            self.transmit(now, draft);
        }
        self.spoke = false;
        self.renew_if_due(now);
    }

    /// The epoch as heartbeats say it.
    pub(crate) fn epoch_word(&self) -> u64 {
        self.epoch().unwrap_or(u64::MAX)
    }

    /// Renews our leaf before its token ends: members that check its time on every message would drop us after that.
    fn renew_if_due(&mut self, now: Now) {
        let due = self.mls.as_ref().is_some_and(|group| group.is_to_be_renewed(now.unix_s));
        if due || self.lacks_list() {
            self.renew(now);
        }
        if self.is_moderator() && self.is_group() {
            self.reinvite_if_due(now);
        }
    }

    /// Members of the reference cannot renew their leaf, and stop hearing each other when it ends. So whoever has not renewed
    /// its own is taken out and invited anew, which its application sees as a new session on the same channel; unless all
    /// others renew theirs, and so are of the kind that hears it still.
    fn reinvite_if_due(&mut self, now: Now) {
        let Some(group) = &self.mls else { return };
        let ending = group.ending(now.unix_s);
        let ends = |member: &&Member| {
            member.online && ending.iter().any(|subject| member.subject.as_deref() == Some(&**subject))
        };
        let watched =
            |member: &&Member| self.roster.keys().any(|other| *other != member.name && !self.renewed.contains(other));
        let members: Vec<Name> =
            self.roster.values().filter(ends).filter(watched).map(|member| member.name.clone()).collect();
        if members.is_empty() || self.active.is_some() || !self.tasks.is_empty() {
            return;
        }
        for name in members {
            self.tasks.push_back((None, Task::Remove { victim: name.clone(), left: false }));
            self.tasks.push_back((None, Task::Invite { name }));
        }
        self.work(now);
    }

    pub(crate) fn renew(&mut self, now: Now) {
        let task = if self.is_moderator() { Task::Refresh } else { Task::Renew };
        let kind = std::mem::discriminant(&task);
        let mut under_way =
            self.active.iter().map(|active| &active.task).chain(self.tasks.iter().map(|(_, task)| task));
        if !under_way.any(|task| std::mem::discriminant(task) == kind) {
            self.tasks.push_back((None, task));
            self.work(now);
        }
    }

    /// Something came from a member.
    pub(crate) fn hear(&mut self, source: &Name) {
        if let Some(member) = self.roster.get_mut(source) {
            member.heard = true;
            member.missed = 0;
            if !member.online && member.joined {
                member.online = true;
                self.events.push_back(Event::Online(source.clone()));
            }
        }
    }

    pub(crate) fn mark_offline(&mut self, name: &Name) {
        if let Some(member) = self.roster.get_mut(name)
            && member.online
        {
            member.online = false;
            self.send.gone(name);
            self.collect_deliveries();
            self.events.push_back(Event::Offline(name.clone()));
        }
    }

    pub(crate) fn handle_heartbeat(&mut self, now: Now, incoming: &Incoming) -> Result<(), Refused> {
        let Command::Heartbeat(beat) = incoming.command()? else { return Err(Refused::Unexpected) };
        if let Some(numbered) = Numbered::of(incoming)
            && self.began.is_some()
            && !self.is_moderator()
        {
            self.compare_number(now, incoming, numbered.number);
            return Ok(());
        }
        let behind = self.epoch().is_some_and(|ours| beat.epoch != u64::MAX && beat.epoch > ours);
        if behind && !self.is_moderator() && self.phase == Phase::Active && self.believes(now, &incoming.source) {
            self.renew(now);
        }
        Ok(())
    }

    /// Whether a member's word that there is a later epoch counts now. A new leaf makes one more epoch for everybody, so one
    /// member's word brings us one at a time, with a wait that doubles while it goes on. The moderator knows.
    fn believes(&mut self, now: Now, source: &Name) -> bool {
        if self.moderator.as_ref().is_some_and(|(name, _)| name == source) {
            return true;
        }
        let Some(member) = self.roster.get_mut(source) else { return false };
        let wait = match member.believed {
            Some((from, _)) if now.instant < from => return false,
            Some((from, wait)) if now.instant < from + wait => (wait * 2).min(BELIEVED_AGAIN_MAX),
            _ => HEARTBEAT,
        };
        member.believed = Some((now.instant + wait, wait));
        true
    }

    /// The moderator says the number of its list. When ours is the same old one as the last time, the update is not just on its
    /// way.
    fn compare_number(&mut self, now: Now, incoming: &Incoming, number: u32) {
        let from_moderator = self.moderator.as_ref().is_some_and(|(name, _)| *name == incoming.source);
        if !from_moderator || number <= self.commit_id || self.phase != Phase::Active {
            self.behind = None;
        } else if self.behind.replace(self.commit_id) == Some(self.commit_id) {
            self.renew(now);
        }
    }

    /// A member says that it goes, or that it is back.
    pub(crate) fn handle_state(&mut self, now: Now, incoming: &Incoming) -> Result<(), Refused> {
        let Command::UpdateParticipantState(update) = incoming.command()? else { return Err(Refused::Unexpected) };
        let who = Name::from_wire(update.participant.as_ref().ok_or(Refused::Unexpected)?)?;
        let from_moderator = self.moderator.as_ref().is_some_and(|(name, _)| *name == incoming.source);
        if who != incoming.source && !from_moderator {
            return Err(Refused::NotModerator);
        }
        if !self.roster.contains_key(&who) || self.is_of_earlier_stay(incoming) {
            return Err(Refused::Stranger);
        }
        let ack = (Kind::GroupAck, Command::GroupAck(pb::GroupAckPayload {}));
        let nack = (Kind::GroupNack, Command::GroupNack(pb::GroupNackPayload {}));
        let (kind, command) = match update.new_state() {
            pb::ParticipantState::Offline => {
                self.mark_offline(&who);
                ack
            }
            pb::ParticipantState::Online => {
                let up_to_date = self.epoch().is_none_or(|ours| ours == update.epoch);
                if up_to_date { ack } else { nack }
            }
        };
        let answer = Draft::command(kind, &self.local, &incoming.source, incoming.message_id, command);
        self.answer(now, incoming, answer);
        // With encryption the epoch tells a member that it missed something; without, the moderator has to.
        let back = update.new_state() == pb::ParticipantState::Online;
        if back && self.mls.is_none() && self.is_group() && self.is_moderator() {
            let waits = |task: &Task| matches!(task, Task::Announce { member } if *member == who);
            if !self.tasks.iter().any(|(_, task)| waits(task)) {
                self.tasks.push_back((None, Task::Announce { member: who }));
            }
        }
        Ok(())
    }

    /// Somebody is further than we are: ask for a new leaf.
    pub(crate) fn handle_nack(&mut self, now: Now, incoming: &Incoming) -> Result<(), Refused> {
        let moderates = self.is_moderator();
        let active = self.active.as_mut().ok_or(Refused::Unexpected)?;
        if !matches!(active.task, Task::State { offline: false }) || !active.acknowledge(incoming) {
            return Err(Refused::Unexpected);
        }
        if moderates {
            return Ok(());
        }
        // Everybody else will say the same.
        active.waiting.clear();
        self.renew(now);
        Ok(())
    }

    pub(crate) fn state_draft(&self, offline: bool) -> Draft {
        let new_state = if offline { pb::ParticipantState::Offline } else { pb::ParticipantState::Online };
        let update = pb::UpdateParticipantStatePayload {
            participant: Some(self.local.to_wire()),
            new_state: new_state.into(),
            epoch: self.epoch_word(),
        };
        let command = Command::UpdateParticipantState(update);
        let draft = Draft::command(Kind::UpdateParticipantState, &self.local, &self.remote, 0, command);
        self.with_stream(self.to_members(draft))
    }

    /// We said goodbye for now, and this is nothing we answered before that.
    pub(crate) fn is_away_for(&self, incoming: &Incoming) -> bool {
        let fresh = self.answered.get(&incoming.source, incoming.message_id).is_none();
        fresh && self.phase == Phase::Offline && !self.is_moderator()
    }

    pub(crate) fn is_draining(&self) -> bool {
        let ends = |task: &Task| matches!(task, Task::Close | Task::Leave);
        self.active.iter().any(|active| ends(&active.task)) || self.tasks.iter().any(|(_, task)| ends(task))
    }

    pub(crate) fn is_group(&self) -> bool {
        self.config.kind == SessionKind::Group
    }
}
