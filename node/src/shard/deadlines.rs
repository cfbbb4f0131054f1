//! What is due on a transport: preface, first request, negotiation, keepalive, the end of lingering.

use super::core::{Action, Core};
use super::drain::LAST_STREAM;
use crate::conn::connection::Phase;
use crate::conn::transport::{Closing, Transport};
use crate::limits::LINGER;
use crate::settings::Settings;
use slimline_wire::grpc::Status;
use slimline_wire::h2::{Code, StreamId};
use std::time::Instant;

/// What has to happen on a transport now.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    Nothing,
    /// It lingered long enough.
    LingerOver,
    /// No HTTP/2 preface and SETTINGS in time.
    Preface,
    /// No request in time.
    Request,
    /// A header block did not end in time.
    Headers,
    /// Time for a PING.
    Ping,
    /// Our PING went unanswered.
    Silent,
    /// Old enough to be asked to reconnect.
    Old,
}

impl Core {
    /// Makes sure a transport is looked at no later than `at`.
    pub(crate) fn look_at(&mut self, slot: u32, generation: u32, at: Instant) {
        let Some(transport) = self.transports.get_mut(slot, generation) else { return };
        if transport.look_at.is_none_or(|planned| at < planned) {
            transport.look_at = Some(at);
            self.timers.arm(at, slot, generation);
        }
    }

    /// A header block is open: it has to end in time, whatever comes in between.
    pub(crate) fn await_headers(&mut self, slot: u32, generation: u32, before: StreamId, now: Instant) {
        let Some(transport) = self.transports.get_mut(slot, generation) else { return };
        if transport.headers_since.is_none_or(|(_, known)| known != before) {
            transport.headers_since = Some((now, before));
            self.look_at(slot, generation, now + self.settings.request_timeout);
        }
    }

    /// Handles every deadline that has come.
    pub(crate) fn deadlines(&mut self, now: Instant) {
        while let Some((slot, generation, at)) = self.timers.due(now) {
            let Some(transport) = self.transports.get_mut(slot, generation) else { continue };
            if transport.look_at == Some(at) {
                transport.look_at = None;
                self.look(slot, generation, now);
            }
        }
    }

    fn look(&mut self, slot: u32, generation: u32, now: Instant) {
        self.end_silent_negotiations(slot, generation, now);
        let Some(transport) = self.transports.get_mut(slot, generation) else { return };
        match due(transport, &self.settings, now) {
            Due::Nothing => {}
            Due::LingerOver => self.abandon_transport(slot, generation),
            Due::Preface => {
                self.counters.deadlines_missed += 1;
                transport.closing = Closing::Closed;
                self.actions.push(Action::Close(slot, generation));
            }
            Due::Request => {
                self.counters.deadlines_missed += 1;
                self.fail_transport(slot, generation, Code::NO_ERROR, "no request within the deadline", now);
            }
            Due::Headers => {
                self.counters.deadlines_missed += 1;
                let reason = "headers_deadline: header block not finished in time";
                self.fail_transport(slot, generation, Code::ENHANCE_YOUR_CALM, reason, now);
            }
            Due::Ping => {
                transport.ping_sent = Some(now);
                self.with_tx(slot, generation, |tx| tx.h2.ping(*b"slimline", &mut tx.fill));
            }
            Due::Silent => {
                self.counters.keepalive_failures += 1;
                tracing::info!(transport = slot, "keepalive: PING unanswered, transport closed");
                self.abandon_transport(slot, generation);
            }
            Due::Old => {
                transport.goaway_sent = true;
                self.with_tx(slot, generation, |tx| {
                    tx.h2.goaway(LAST_STREAM, Code::NO_ERROR, b"max_connection_age", &mut tx.fill);
                });
            }
        }
        let Some(transport) = self.transports.get(slot, generation) else { return };
        if let Some(next) = next_look(transport, &self.settings, now) {
            let negotiating = transport
                .connections
                .iter()
                .filter_map(|&(slot, generation)| self.connections.get(slot, generation))
                .filter(|connection| matches!(connection.phase, Phase::Negotiating))
                .map(|connection| connection.since + self.settings.negotiation_timeout)
                .min();
            self.look_at(slot, generation, negotiating.map_or(next, |negotiating| negotiating.min(next)));
        }
    }

    fn end_silent_negotiations(&mut self, slot: u32, generation: u32, now: Instant) {
        let limit = self.settings.negotiation_timeout;
        let Some(transport) = self.transports.get(slot, generation) else { return };
        let late: Vec<(u32, u32)> = transport
            .connections
            .iter()
            .copied()
            .filter(|&(slot, generation)| {
                self.connections.get(slot, generation).is_some_and(|connection| {
                    matches!(connection.phase, Phase::Negotiating) && connection.since + limit <= now
                })
            })
            .collect();
        for (slot, generation) in late {
            self.counters.deadlines_missed += 1;
            self.counters.links_refused += 1;
            let text = "link negotiation: timed out waiting for the first message";
            self.end_connection(slot, generation, Status::DEADLINE_EXCEEDED, text);
        }
    }
}

fn due(transport: &Transport, settings: &Settings, now: Instant) -> Due {
    let listener = &settings.listeners[usize::from(transport.listener)];
    let reached = |at: Instant| at <= now;
    match transport.closing {
        Closing::AfterSend | Closing::Finishing => {
            let over = transport.closing_since.is_some_and(|since| reached(since + LINGER));
            return if over { Due::LingerOver } else { Due::Nothing };
        }
        Closing::Closed => return Due::Nothing,
        Closing::No => {}
    }
    let (settled, requested) = transport.rx.as_ref().map_or((true, true), |rx| (rx.settled, rx.requested));
    if !settled && reached(transport.since + settings.preface_timeout) {
        return Due::Preface;
    }
    if settled && !requested && reached(transport.since + settings.preface_timeout + settings.request_timeout) {
        return Due::Request;
    }
    if transport.headers_since.is_some_and(|(since, _)| reached(since + settings.request_timeout)) {
        return Due::Headers;
    }
    // What was heard after our PING may have left before it: that proves a little more time, not an answer.
    if transport.ping_sent.is_some_and(|sent| reached(sent.max(transport.heard) + listener.ping_timeout)) {
        return Due::Silent;
    }
    if settled && transport.ping_sent.is_none() && reached(transport.heard + listener.ping_interval) {
        return Due::Ping;
    }
    if !transport.goaway_sent && reached(transport.since + listener.connection_age_max) {
        return Due::Old;
    }
    Due::Nothing
}

/// When this transport should be looked at next, negotiations aside.
fn next_look(transport: &Transport, settings: &Settings, now: Instant) -> Option<Instant> {
    let listener = &settings.listeners[usize::from(transport.listener)];
    match transport.closing {
        Closing::AfterSend | Closing::Finishing => return Some(transport.closing_since.unwrap_or(now) + LINGER),
        Closing::Closed => return None,
        Closing::No => {}
    }
    let (settled, requested) = transport.rx.as_ref().map_or((true, true), |rx| (rx.settled, rx.requested));
    let mut next = match transport.ping_sent {
        Some(sent) => sent.max(transport.heard) + listener.ping_timeout,
        None => transport.heard + listener.ping_interval,
    };
    if !settled {
        next = next.min(transport.since + settings.preface_timeout);
    } else if !requested {
        next = next.min(transport.since + settings.preface_timeout + settings.request_timeout);
    }
    if let Some((since, _)) = transport.headers_since {
        next = next.min(since + settings.request_timeout);
    }
    if !transport.goaway_sent {
        next = next.min(transport.since + listener.connection_age_max);
    }
    Some(next.max(now + crate::limits::TICK))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hot::{client_head, connect, core, settings};
    use crate::shard::mesh::mesh;
    use std::sync::Arc;
    use std::time::Duration;

    /// An acknowledgement of our SETTINGS.
    const SIGN_OF_LIFE: &[u8] = &[0, 0, 0, 4, 1, 0, 0, 0, 0];

    #[test]
    fn a_peer_that_vanishes_after_a_word_that_crossed_our_ping_is_found_out() {
        let start = Instant::now();
        let settings = Arc::new(settings(false));
        let (interval, timeout) = (settings.listeners[0].ping_interval, settings.listeners[0].ping_timeout);
        let mut core = core(0, mesh(1).remove(0), &settings, start);
        let ((slot, generation), _) = connect(&mut core, &client_head(), None, start);
        let ping = start + interval;
        core.deadlines(ping);
        assert_eq!(core.transports.get(slot, generation).expect("open").ping_sent, Some(ping));
        let word = ping + Duration::from_millis(1);
        core.received(slot, generation, SIGN_OF_LIFE, word);
        core.deadlines(word + timeout - Duration::from_millis(1));
        assert_eq!(core.counters.keepalive_failures, 0, "whoever says something is there");
        core.deadlines(word + timeout + crate::limits::TICK);
        assert_eq!(core.counters.keepalive_failures, 1);
    }
}
