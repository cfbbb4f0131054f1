//! What time asks of a session, and its end.

use std::time::Instant;

use super::{Event, LINGER, Phase, Route, Session};
use crate::error::SessionError;
use crate::exchange::Exchange;
use crate::message::Now;
use crate::reliable::ReceiveWindow;

impl Session {
    /// When [`Session::handle_timeout`] wants to be called; `None` when the session can be forgotten.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let mut next = match self.phase {
            Phase::Closed(until) => return Some(until),
            Phase::Invited(until) => until,
            Phase::Subscribing { until, .. } => until,
            _ => self.tick,
        };
        let windows = self.receive.values().filter_map(ReceiveWindow::next_timeout);
        let task = self.active.as_ref().map(Exchange::next_timeout).or_else(|| self.next_start());
        let others = task.into_iter().chain(self.send.next_timeout());
        for other in windows.chain(others) {
            next = next.min(other);
        }
        Some(next)
    }

    /// Does what time asks for. Returns false when a closed session can be forgotten.
    pub(crate) fn handle_timeout(&mut self, now: Now) -> bool {
        match self.phase {
            Phase::Closed(until) => return now.instant < until,
            Phase::Invited(until) if now.instant >= until => {
                self.end(now, SessionError::Closed);
                return true;
            }
            Phase::Subscribing { until, .. } if now.instant >= until => self.welcomed(now),
            _ => {}
        }
        self.handle_data_timeout(now);
        if now.instant >= self.tick {
            self.handle_tick(now);
        }
        let retries = self.control_retries();
        match self.active.as_mut().and_then(|active| active.expire(retries, now.instant)) {
            Some(true) => self.ask(now),
            Some(false) => {
                if let Some(active) = self.active.take() {
                    self.give_up(active, now);
                }
            }
            None => {}
        }
        self.progress(now);
        true
    }

    /// Ends the session here: what waits is told, what was subscribed is not any more.
    pub(crate) fn end(&mut self, now: Now, why: SessionError) {
        if self.is_closed() {
            return;
        }
        self.send.end();
        self.collect_deliveries();
        self.finish_streams();
        if self.subscribed {
            self.subscribed = false;
            self.routes.push_back(Route::Remove(self.remote.clone()));
            self.routes.extend(self.control.clone().map(Route::Remove));
        }
        if let Some(active) = self.active.take() {
            self.done(active.command, Err(why.clone()));
        }
        for (command, _) in std::mem::take(&mut self.tasks) {
            self.done(command, Err(why.clone()));
        }
        self.mls = None; // its secrets are of no use any more
        self.early.clear();
        self.phase = Phase::Closed(now.instant + LINGER);
        self.events.push_back(Event::Closed(why));
    }
}
