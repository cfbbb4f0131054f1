//! What an application commands, and how the session works through it: one task at a time.

use std::collections::BTreeSet;
use std::time::Instant;

use slimline_wire::pb;

use super::{COMMANDS_MAX, CONTROL_RETRIES, Event, Phase, REST, Session, SessionKind};
use crate::error::SessionError;
use crate::exchange::{CommandId, Exchange, Member, Task};
use crate::message::{Draft, Now};
use crate::name::Name;
use crate::reliable::{PublishId, Retries};

impl Session {
    pub(crate) fn new_command(&mut self) -> CommandId {
        self.commands += 1;
        CommandId(self.commands)
    }

    pub(crate) fn new_publish(&mut self) -> PublishId {
        self.publishes += 1;
        PublishId(self.publishes)
    }

    fn enqueue(&mut self, now: Now, task: Task) -> Result<CommandId, SessionError> {
        if self.is_closed() {
            return Err(SessionError::Closed);
        }
        if self.tasks.len() >= COMMANDS_MAX {
            return Err(SessionError::TooManyCommands(self.tasks.len()));
        }
        let command = self.new_command();
        self.tasks.push_back((Some(command), task));
        self.work(now);
        Ok(command)
    }

    /// Brings somebody in (moderator of a group).
    pub fn invite(&mut self, now: Now, name: &Name) -> Result<CommandId, SessionError> {
        self.moderates("invite")?;
        self.enqueue(now, Task::Invite { name: name.clone() })
    }

    /// Point-to-point: looks for the peer and brings it in.
    pub(crate) fn call(&mut self, now: Now, peer: &Name) {
        self.tasks.push_back((None, Task::Invite { name: peer.clone() }));
        self.work(now);
    }

    /// Takes somebody out (moderator of a group). The name may be without id.
    pub fn remove(&mut self, now: Now, name: &Name) -> Result<CommandId, SessionError> {
        self.moderates("remove")?;
        self.enqueue(now, Task::Remove { victim: name.clone(), left: false })
    }

    /// Ends the session: for everybody if we moderate it, else for us.
    pub fn close(&mut self, now: Now) -> Result<CommandId, SessionError> {
        self.enqueue(now, if self.is_moderator() { Task::Close } else { Task::Leave })
    }

    /// Says goodbye for now: the others keep our place.
    pub fn go_offline(&mut self, now: Now) -> Result<CommandId, SessionError> {
        self.change_state(now, true)
    }

    /// Comes back.
    pub fn rejoin(&mut self, now: Now) -> Result<CommandId, SessionError> {
        self.change_state(now, false)
    }

    fn change_state(&mut self, now: Now, offline: bool) -> Result<CommandId, SessionError> {
        let under_way = self.active.iter().map(|active| &active.task).chain(self.tasks.iter().map(|(_, task)| task));
        if under_way.into_iter().any(|task| matches!(task, Task::State { .. })) {
            return Err(SessionError::StatusChangeInProgress);
        }
        self.enqueue(now, Task::State { offline })
    }

    fn moderates(&self, what: &'static str) -> Result<(), SessionError> {
        if self.config.kind != SessionKind::Group {
            return Err(SessionError::NotGroup(what));
        }
        if self.is_moderator() { Ok(()) } else { Err(SessionError::NotModerator(what)) }
    }

    /// Starts the next task when none is under way.
    pub(crate) fn work(&mut self, now: Now) {
        while self.active.is_none() && !self.is_closed() && self.next_start().is_none_or(|at| at <= now.instant) {
            let Some((command, task)) = self.tasks.pop_front() else { return };
            let mut exchange = Exchange::new(command, task, now.instant);
            match self.start(&mut exchange, now) {
                Ok(true) => {
                    self.active = Some(exchange);
                    self.ask(now);
                    self.progress(now);
                }
                Ok(false) => self.done(command, Ok(())),
                Err(error) => self.done(command, Err(error)),
            }
        }
    }

    /// When the next task may start, if it invites somebody who was taken out a moment ago.
    pub(crate) fn next_start(&self) -> Option<Instant> {
        let Some((_, Task::Invite { name })) = self.tasks.front() else { return None };
        let latest = self.resting.iter().rev().find(|(who, _)| who.same_service(name));
        latest.map(|(_, until)| *until)
    }

    /// It was in the session until now.
    pub(crate) fn rest(&mut self, name: Name, now: Now) {
        self.resting.retain(|(_, until)| *until > now.instant);
        self.resting.push((name, now.instant + REST));
    }

    /// Sends what the task under way has unanswered.
    pub(crate) fn ask(&mut self, now: Now) {
        let Some(active) = &mut self.active else { return };
        let ids = &mut self.ids;
        for draft in active.resend(|| ids.within(1, u32::MAX)) {
            self.transmit(now, draft);
        }
    }

    /// Goes on with the task under way while its stages are complete.
    pub(crate) fn progress(&mut self, now: Now) {
        while let Some(active) = self.active.take_if(|active| active.is_complete()) {
            self.advance(active, now);
        }
        self.work(now);
    }

    pub(crate) fn done(&mut self, command: Option<CommandId>, result: Result<(), SessionError>) {
        if let Some(command) = command {
            self.events.push_back(Event::Done(command, result));
        } else if let Err(error) = result {
            tracing::debug!(session = self.id(), %error, "a task of the session itself failed");
        }
    }

    pub(crate) fn control_retries(&self) -> Retries {
        self.config.reliable.unwrap_or(CONTROL_RETRIES)
    }

    /// To everybody: the control channel, or the peer.
    pub(crate) fn to_members(&self, draft: Draft) -> Draft {
        match &self.control {
            Some(control) => Draft { destination: control.clone(), ..draft }.for_all(),
            None => Draft { destination: self.remote.clone(), ..draft },
        }
    }

    pub(crate) fn online(&self) -> BTreeSet<Name> {
        self.roster.values().filter(|member| member.online && member.joined).map(|member| member.name.clone()).collect()
    }

    pub(crate) fn all_members(&self) -> Vec<pb::Participant> {
        let mut us = Member::new(self.local.clone(), self.direction.sends, self.direction.receives);
        us.online = self.phase != Phase::Offline;
        std::iter::once(us.to_wire()).chain(self.roster.values().map(Member::to_wire)).collect()
    }
}
