//! Membership as the moderator makes it: invite, remove, readmit, refresh, close. One task at a time.

use slimline_wire::pb;
use slimline_wire::pb::command_payload::CommandPayloadType as Command;

use crate::error::SessionError;
use crate::exchange::{Exchange, Member, Stage, Task};
use crate::integrity::Verified;
use crate::message::{Draft, Incoming, Kind, LEAVING, Now};
use crate::name::Name;
use crate::roster::{Stay, stream_of};
use crate::session::{Event, Phase, REST, Refused, Route, Session};

impl Session {
    /// Prepares a task's first message. `Ok(false)`: nothing needs to be asked.
    pub(crate) fn start(&mut self, exchange: &mut Exchange, now: Now) -> Result<bool, SessionError> {
        let retries = self.control_retries();
        match exchange.task.clone() {
            Task::Invite { name } => {
                if self.roster.values().any(|member| member.name.same_service(&name)) {
                    return Err(SessionError::AlreadyMember(name));
                }
                exchange.begin(Stage::Discovery, retries, now.instant);
                let ask = Command::DiscoveryRequest(pb::DiscoveryRequestPayload {});
                exchange.direct = Some(Draft::command(Kind::DiscoveryRequest, &self.local, &name, 0, ask));
            }
            Task::Remove { victim, left } => return self.start_removal(exchange, &victim, left, now),
            Task::Readmit { member, request_id, package } => {
                return self.start_readmission(exchange, &member, request_id, &package, now);
            }
            Task::Announce { member } => {
                let Some(known) = self.roster.get(&member) else { return Ok(false) };
                let participant = known.to_wire();
                self.number_list();
                exchange.begin(Stage::Update, retries, now.instant);
                exchange.update = Some(self.update_draft(pb::GroupUpdateOp::Rejoin, participant, None));
                exchange.waiting = self.online();
            }
            Task::Refresh => {
                let Some(group) = &mut self.mls else { return Ok(false) };
                let commit = group.refresh(now.unix_s)?.commit;
                self.commit_id += 1;
                let us = Member::new(self.local.clone(), self.direction.sends, self.direction.receives);
                exchange.begin(Stage::Update, retries, now.instant);
                exchange.update = Some(self.update_draft(pb::GroupUpdateOp::Rejoin, us.to_wire(), Some(commit)));
                exchange.waiting = self.online();
            }
            Task::Close => {
                exchange.begin(Stage::Only, retries, now.instant);
                let participants = std::iter::once(&self.local).chain(self.roster.keys()).map(Name::to_wire).collect();
                let close = Command::GroupClose(pb::GroupClosePayload { participants });
                exchange.update =
                    Some(self.to_members(Draft::command(Kind::GroupClose, &self.local, &self.remote, 0, close)));
                exchange.waiting = self.online();
            }
            Task::Leave | Task::Renew => return self.start_as_participant(exchange, now),
            Task::State { offline } => {
                if offline == (self.phase == Phase::Offline) {
                    return Ok(false);
                }
                exchange.begin(Stage::Only, retries, now.instant);
                exchange.update = Some(self.state_draft(offline));
                exchange.waiting = self.online();
                if let (false, Some((moderator, _))) = (offline, &self.moderator) {
                    // Whatever we last heard of it: a return that is said to nobody brings nothing.
                    exchange.waiting.insert(moderator.clone());
                }
                self.phase = if offline { Phase::Offline } else { Phase::Active };
                if !offline && self.mls.is_none() && self.is_group() {
                    // Whoever left and came again meanwhile counts from the beginning: every stream is received from where
                    // it is now. With encryption the leaves tell whose that are (`handle_rejoin_reply`).
                    self.roster.values_mut().for_each(|member| member.from_start = false);
                    self.finish_streams();
                }
            }
        }
        Ok(true)
    }

    fn start_removal(
        &mut self,
        exchange: &mut Exchange,
        victim: &Name,
        left: bool,
        now: Now,
    ) -> Result<bool, SessionError> {
        let member = self.roster.values().find(|member| member.name == *victim || member.name.without_id() == *victim);
        let Some(member) = member.cloned() else { return Err(SessionError::NotMember(victim.clone())) };
        exchange.task = Task::Remove { victim: member.name.clone(), left };
        let commit = match (&mut self.mls, &member.subject) {
            (Some(group), Some(subject)) if group.is_ready() => Some(group.remove(subject)?.commit),
            _ => None,
        };
        if commit.is_some() {
            self.commit_id += 1;
        }
        self.number_list();
        let mut waiting = self.online();
        waiting.remove(&member.name);
        exchange.begin(Stage::Update, self.control_retries(), now.instant);
        if self.is_group() && self.roster.len() > 1 {
            exchange.update = Some(self.update_draft(pb::GroupUpdateOp::Remove, member.to_wire(), commit));
            exchange.waiting = waiting;
        }
        Ok(true)
    }

    fn start_readmission(
        &mut self,
        exchange: &mut Exchange,
        member: &Name,
        request_id: u32,
        package: &[u8],
        now: Now,
    ) -> Result<bool, SessionError> {
        let known = self.roster.get_mut(member).ok_or_else(|| SessionError::NotMember(member.clone()))?;
        let group = self.mls.as_mut().ok_or(SessionError::Mls(crate::error::MlsError::NoGroup))?;
        let owner = group.owner_of(package, now.unix_s)?;
        if known.subject.as_ref() != Some(&owner) {
            return Err(SessionError::Refused {
                name: member.clone(),
                why: "the key package is somebody else's".into(),
            });
        }
        known.online = true;
        known.readmitted_by = Some(package.to_vec());
        known.readmitted_at = Some(now.instant);
        let participant = known.to_wire();
        let before = group.ends(&owner);
        let changed = group.rejoin(package, now.unix_s)?;
        if group.ends(&owner) > before {
            self.renewed.insert(member.clone());
        }
        self.commit_id += 1;
        exchange.begin(Stage::Update, self.control_retries(), now.instant);
        let reply = Command::RejoinReply(pb::RejoinReplyPayload {
            commit_id: self.commit_id,
            mls_content: changed.welcome.unwrap_or_default(),
        });
        exchange.direct = Some(Draft::command(Kind::RejoinReply, &self.local, member, request_id, reply));
        exchange.answering(request_id);
        if self.is_group() {
            exchange.update = Some(self.update_draft(pb::GroupUpdateOp::Rejoin, participant, Some(changed.commit)));
            exchange.waiting = self.online();
        }
        Ok(true)
    }

    fn update_draft(&self, op: pb::GroupUpdateOp, participant: pb::Participant, commit: Option<Vec<u8>>) -> Draft {
        let update = Command::GroupUpdate(pb::GroupUpdatePayload {
            op: op.into(),
            participant: Some(participant),
            participants: self.all_members(),
            mls: commit.map(|mls_content| pb::MlsPayload { commit_id: self.commit_id, mls_content }),
        });
        let draft = Draft::command(Kind::GroupUpdate, &self.local, &self.remote, 0, update);
        self.with_list(self.to_members(draft))
    }

    pub(crate) fn handle_as_moderator(
        &mut self,
        now: Now,
        incoming: &Incoming,
        sender: &Verified,
    ) -> Result<(), Refused> {
        if incoming.kind == Kind::RejoinRequest {
            return self.handle_rejoin_request(now, incoming, sender);
        }
        let mut active = self.active.take().ok_or(Refused::Unexpected)?;
        if !matches!(active.task, Task::Invite { .. }) || !active.is_direct_answer(incoming) {
            self.active = Some(active);
            return Err(Refused::Unexpected);
        }
        let stage = active.stage;
        let result = match (incoming.kind, stage) {
            (Kind::DiscoveryReply, Stage::Discovery) => self.found(&mut active, incoming, now),
            (Kind::JoinReply, Stage::Join) => self.admit(&mut active, incoming, sender, now),
            _ => Err(Refused::Unexpected),
        };
        match result {
            Ok(()) => {
                self.active = Some(active);
                self.ask(now);
                Ok(())
            }
            // A reply that cannot be used ends the invite with its reason; one that was not ours changes nothing.
            Err(Refused::Mls(error)) => {
                let why = SessionError::Refused { name: incoming.source.clone(), why: error.to_string() };
                self.fail_invite(&active, why, now);
                Err(Refused::Mls(error))
            }
            Err(other) => {
                self.active = Some(active);
                Err(other)
            }
        }
    }

    /// Somebody answered to the name: from here on it is this instance.
    fn found(&mut self, active: &mut Exchange, incoming: &Incoming, now: Now) -> Result<(), Refused> {
        let Task::Invite { name } = &active.task else { return Err(Refused::Unexpected) };
        let full = &incoming.source;
        if !full.same_service(name) || full.id().is_any() || !(name.id().is_any() || name == full) {
            return Err(Refused::Unexpected);
        }
        if let Some(group) = &mut self.mls
            && !group.is_ready()
        {
            group.create(now.unix_s)?;
        }
        if self.is_group() && !self.subscribed {
            self.subscribed = true;
            self.routes.push_back(Route::Add(self.remote.clone()));
            self.routes.extend(self.control.clone().map(Route::Add));
        }
        if !self.is_group() {
            self.remote = full.clone();
        }
        let join = Command::JoinRequest(pb::JoinRequestPayload {
            timer_settings: self.config.reliable.map(|retries| pb::TimerSettings {
                timeout: u32::try_from(retries.interval.as_millis()).unwrap_or(u32::MAX),
                max_retries: retries.max,
            }),
            channel: self.control.as_ref().map(|_| self.remote.to_wire()),
            control: self.control.as_ref().map(Name::to_wire),
            mls_settings: self.config.mls.then_some(pb::MlsSettings { header_integrity_validation_percent: 100 }),
        });
        active.begin(Stage::Join, self.control_retries(), now.instant);
        let draft = Draft::command(Kind::JoinRequest, &self.local, full, 0, join);
        active.direct = Some(Draft { metadata: self.config.metadata.clone(), ..draft });
        Ok(())
    }

    /// It wants to join: into the group with it, and tell everybody.
    fn admit(
        &mut self,
        active: &mut Exchange,
        incoming: &Incoming,
        sender: &Verified,
        now: Now,
    ) -> Result<(), Refused> {
        let Command::JoinReply(reply) = incoming.command()? else { return Err(Refused::Unexpected) };
        let asked = active.direct.as_ref().is_some_and(|draft| draft.destination == incoming.source);
        let mut member = reply.participant.as_ref().and_then(Member::from_wire).ok_or(Refused::Unexpected)?;
        if !asked || member.name != incoming.source {
            return Err(Refused::Unexpected);
        }
        let changed = match &mut self.mls {
            Some(group) => {
                let package = reply.key_package.as_deref().unwrap_or_default();
                if group.owner_of(package, now.unix_s)? != sender.claims.subject {
                    return Err(crate::error::MlsError::KeyMismatch.into());
                }
                Some(group.add(package, now.unix_s)?)
            }
            None => None,
        };
        if changed.is_some() {
            self.commit_id += 1;
        }
        self.number_list();
        if self.numbers_lists() {
            member.stay = Some(stream_of(incoming).map_or(Stay::Plain(self.commit_id), Stay::Numbered));
        }
        member.subject = Some(sender.claims.subject.clone());
        member.online = true;
        member.joined = false;
        member.from_start = true;
        member.since = self.send.upcoming();
        member.came_in = self.epoch().unwrap_or_default();
        let others = self.online();
        let participant = member.to_wire();
        self.roster.insert(member.name.clone(), member);
        let (commit, welcome) = changed.map_or((None, None), |changed| (Some(changed.commit), changed.welcome));
        active.begin(Stage::Admit, self.control_retries(), now.instant);
        if self.is_group() && self.roster.len() > 1 {
            active.update = Some(self.update_draft(pb::GroupUpdateOp::Add, participant, commit));
            active.waiting = others;
        }
        let welcome = Command::GroupWelcome(pb::GroupWelcomePayload {
            participants: self.all_members(),
            mls: welcome.map(|mls_content| pb::MlsPayload { commit_id: self.commit_id, mls_content }),
        });
        let welcome = Draft::command(Kind::GroupWelcome, &self.local, &incoming.source, 0, welcome);
        active.direct = Some(self.with_list(welcome));
        Ok(())
    }

    fn handle_rejoin_request(&mut self, now: Now, incoming: &Incoming, sender: &Verified) -> Result<(), Refused> {
        let Command::RejoinRequest(request) = incoming.command()? else { return Err(Refused::Unexpected) };
        let who = Name::from_wire(request.participant.as_ref().ok_or(Refused::Unexpected)?)?;
        let member = self.roster.get(&who).ok_or(Refused::Stranger)?;
        if who != incoming.source || member.subject.as_ref() != Some(&sender.claims.subject) {
            return Err(Refused::Stranger);
        }
        if member.readmitted_by.as_ref() == Some(&request.key_package) {
            return Ok(()); // its key package is used up: a second leaf of it would lock its owner out
        }
        let rest = self.control_retries().interval.min(REST);
        if member.readmitted_at.is_some_and(|at| now.instant < at + rest) {
            return Err(Refused::TooOften); // each costs everybody a commit
        }
        self.answered.note(&incoming.source, incoming.message_id);
        // Whoever asks with another key package did not take the answer to the last, and will not: it does not keep us for
        // as long as the retries last. The others' acknowledgements are still waited for.
        let is_past = |active: &mut Exchange| {
            matches!(&active.task, Task::Readmit { member, package, .. } if *member == who && *package != request.key_package)
                && active.waiting.iter().all(|silent| *silent == who)
        };
        if let Some(mut active) = self.active.take_if(is_past) {
            active.waiting.clear();
            active.direct = None;
            self.advance(active, now);
        }
        // A newer request replaces an older one that still waits.
        self.tasks.retain(|(_, task)| !matches!(task, Task::Readmit { member, .. } if *member == who));
        let package = request.key_package.clone();
        self.tasks.push_back((None, Task::Readmit { member: who, request_id: incoming.message_id, package }));
        Ok(())
    }

    /// A participant leaves by itself.
    pub(crate) fn handle_leaving(&mut self, now: Now, incoming: &Incoming) -> Result<(), Refused> {
        if !incoming.says(LEAVING) {
            return Err(Refused::Unexpected);
        }
        let reply = Command::LeaveReply(pb::LeaveReplyPayload {});
        let answer = Draft::command(Kind::LeaveReply, &self.local, &incoming.source, incoming.message_id, reply);
        if !self.roster.contains_key(&incoming.source) {
            self.transmit(now, answer); // it may have left and not heard our answer
            return Ok(());
        }
        self.answer(now, incoming, answer);
        if !self.is_of_earlier_stay(incoming) {
            self.mark_offline(&incoming.source.clone());
            if self.is_group() {
                let removes =
                    |task: &Task| matches!(task, Task::Remove { victim, left: true } if *victim == incoming.source);
                let active = self.active.iter().map(|active| &active.task);
                if !active.chain(self.tasks.iter().map(|(_, task)| task)).any(removes) {
                    self.tasks.push_back((None, Task::Remove { victim: incoming.source.clone(), left: true }));
                }
            } else {
                self.roster.remove(&incoming.source);
                self.events.push_back(Event::Left(incoming.source.clone()));
                self.end(now, SessionError::Closed);
            }
        }
        Ok(())
    }

    /// Goes on after a stage to which everybody answered.
    pub(crate) fn advance(&mut self, mut active: Exchange, now: Now) {
        match (&active.task, active.stage) {
            (Task::Invite { .. }, Stage::Admit) => {
                // The welcome was the last direct message; its receiver is the member that has not joined yet.
                for member in self.roster.values_mut().filter(|member| !member.joined) {
                    member.joined = true;
                    member.heard = true;
                    self.events.push_back(Event::Joined(member.name.clone()));
                }
                if self.phase == Phase::Opening {
                    self.phase = Phase::Active;
                    self.events.push_back(Event::Established);
                }
                self.done(active.command, Ok(()));
            }
            (Task::Remove { victim, left }, Stage::Update) => {
                let (victim, left) = (victim.clone(), *left);
                self.forget_member(&victim);
                if left {
                    self.rest(victim, now);
                    self.done(active.command, Ok(()));
                    return;
                }
                active.begin(Stage::Leave, self.control_retries(), now.instant);
                let leave = Command::LeaveRequest(pb::LeaveRequestPayload {});
                let leave = Draft::command(Kind::LeaveRequest, &self.local, &victim, 0, leave);
                active.direct = Some(self.with_number(leave));
                self.active = Some(active);
                self.ask(now);
            }
            (Task::Remove { victim, .. }, _) => {
                self.rest(victim.clone(), now);
                self.done(active.command, Ok(()));
            }
            (Task::Close, _) => {
                self.done(active.command, Ok(()));
                self.end(now, SessionError::Closed);
            }
            (Task::Leave, _) => {
                self.done(active.command, Ok(()));
                self.end(now, SessionError::Closed);
            }
            (Task::State { offline: false }, _) if self.lacks_list() => {
                // The epoch told nobody that we are behind: it is theirs, only the list is not.
                self.done(active.command, Ok(()));
                self.renew(now);
            }
            _ => self.done(active.command, Ok(())),
        }
    }

    pub(crate) fn forget_member(&mut self, name: &Name) {
        if self.roster.remove(name).is_some() {
            self.renewed.remove(name);
            self.send.gone(name);
            self.finish_stream(name);
            self.collect_deliveries();
            self.events.push_back(Event::Left(name.clone()));
        }
    }

    /// The retries ended without an answer from everybody.
    pub(crate) fn give_up(&mut self, mut active: Exchange, now: Now) {
        for silent in std::mem::take(&mut active.waiting) {
            // Whoever readmitted us is there; without its list, the next tick asks again.
            if !matches!(active.task, Task::Renew) {
                self.mark_offline(&silent);
            }
        }
        let unanswered = active.direct.take();
        match (&active.task, unanswered) {
            (Task::Invite { .. }, Some(draft)) => {
                let name = draft.destination.clone();
                let disbelieved = self.disbelieved.take().filter(|(source, _)| source.same_service(&name));
                let error = match disbelieved {
                    Some((_, why)) => {
                        SessionError::Refused { name, why: format!("its answer is not to be believed: {why}") }
                    }
                    None => SessionError::NoAnswer {
                        name,
                        stage: active.stage.question(),
                        waited: self.control_retries().give_up_after(),
                    },
                };
                self.fail_invite(&active, error, now);
            }
            (Task::Readmit { member, .. }, Some(_)) => {
                if let Some(member) = self.roster.get_mut(member) {
                    member.readmitted_by = None; // it may not have heard: it may ask again
                }
                self.advance(active, now);
            }
            (Task::Renew, Some(draft)) => {
                let waited = self.control_retries().give_up_after();
                let error = SessionError::NoAnswer { name: draft.destination, stage: "the rejoin request", waited };
                self.done(active.command, Err(error));
            }
            // Everybody who could answer did; the silent count as offline, and what was to be done is done.
            _ => self.advance(active, now),
        }
    }

    fn fail_invite(&mut self, active: &Exchange, error: SessionError, now: Now) {
        self.done(active.command, Err(error.clone()));
        let half_in: Vec<Name> =
            self.roster.values().filter(|member| !member.joined).map(|member| member.name.clone()).collect();
        if !self.is_group() {
            self.end(now, error);
            return;
        }
        // It is in the group but does not know: take it out again before anything else.
        for victim in half_in {
            self.tasks.push_front((None, Task::Remove { victim, left: true }));
        }
    }
}
