//! Subscribe and Unsubscribe: verified here, decided by control, acknowledged when every shard knows (architecture §4).

use super::core::Core;
use super::receive::Flow;
use crate::conn::connection::{Pressure, Wait};
use crate::control::{Request, RequestKind};
use slimline_fib::{ConnId, FanoutCursor};
use slimline_wire::ConnType;
use slimline_wire::message::{Header, Subscription, build_ack};
use std::time::Instant;

impl Core {
    /// One Subscribe or Unsubscribe of a connection whose link is up.
    pub(crate) fn subscription(
        &mut self,
        slot: u32,
        generation: u32,
        request: &Subscription<'_>,
        subscribe: bool,
    ) -> Flow {
        let Some(connection) = self.connections.get(slot, generation) else { return Flow::Ended };
        if connection.departed {
            self.counters.ignored += 1;
            return Flow::Next; // it came before the end and was parked; there is nobody left to have a route
        }
        if connection.requests >= self.settings.unacknowledged_max {
            return Flow::Park(Wait::Requests, FanoutCursor::default(), false);
        }
        if connection.pressure != Pressure::Open {
            // It does not read its acks: no more of them until it does.
            return Flow::Park(Wait::Target(connection.id), FanoutCursor::default(), false);
        }
        if !self.verified(slot, generation, &request.header, Sort::Subscription) {
            return Flow::Next;
        }
        let Some(connection) = self.connections.get_mut(slot, generation) else { return Flow::Ended };
        let Some(kind) = connection.link().map(|link| link.kind) else { return Flow::Ended };
        if kind != ConnType::Local && request.header.ttl <= 1 {
            self.counters.drop_ttl += 1;
            return Flow::Next;
        }
        let name = request.header.destination.name;
        let wanted = Request {
            conn: connection.id,
            kind: if subscribe {
                let text = request.header.destination.text.map(|text| text.map(Box::<str>::from));
                RequestKind::Subscribe { conn_type: kind, name, text }
            } else {
                RequestKind::Unsubscribe { conn_type: kind, name }
            },
            subscription_id: request.subscription_id,
        };
        if self.requests.push(wanted).is_err() {
            return Flow::Park(Wait::Control, FanoutCursor::default(), false);
        }
        connection.requests += 1;
        self.control_bell = true;
        if subscribe {
            self.counters.subscribes += 1;
        } else {
            self.counters.unsubscribes += 1;
        }
        Flow::Next
    }

    /// Control decided a request and every shard knows: acknowledge it, and let the stream go on.
    pub(crate) fn settled(&mut self, conn: ConnId, subscription_id: u64, error: Option<&str>, now: Instant) {
        let unacknowledged_max = self.settings.unacknowledged_max;
        let Some(connection) = self.connections.get_mut(conn.slot, conn.generation) else { return };
        connection.requests -= 1;
        if let Some(parked) = &mut connection.parked
            && match parked.wait {
                Wait::Settle => connection.requests == 0,
                Wait::Requests => connection.requests < unacknowledged_max,
                _ => false,
            }
        {
            parked.wait = Wait::Turn; // once
            self.ready.push(conn);
        }
        if subscription_id != 0 {
            let mut ack = Vec::with_capacity(32);
            build_ack(subscription_id, error.is_none(), error.unwrap_or_default(), &mut ack);
            self.send_own(conn.slot, conn.generation, &ack, now);
        }
        if error.is_none() {
            self.counters.acks_success += 1;
        } else {
            self.counters.acks_failure += 1;
        }
    }

    /// Whether a message's header MAC lets it in (the table of slim-wire §4.4).
    pub(crate) fn verified(&mut self, slot: u32, generation: u32, header: &Header<'_>, sort: Sort) -> bool {
        let strict = self.settings.require_header_mac;
        let Some(connection) = self.connections.get_mut(slot, generation) else { return false };
        let crate::conn::connection::Phase::Up(link) = &mut connection.phase else { return false };
        let good = match (link.kind, &mut link.mac, header.header_mac) {
            (ConnType::Peer | ConnType::Local, ..) => true,
            (_, Some(mac), Some(_)) => self.reading.run(|| mac.verify(header)),
            (_, Some(_), None) => !strict && sort == Sort::Subscription,
            (_, None, Some(_)) => sort == Sort::Subscription,
            (_, None, None) => true,
        };
        if !good {
            self.counters.drop_mac += 1;
            if !connection.mac_failure_logged {
                connection.mac_failure_logged = true;
                tracing::warn!(connection = %connection.id, "header MAC missing or wrong: message skipped (said once per connection)");
            }
        }
        good
    }
}

/// Which row of the MAC table applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    Publish,
    Subscription,
}
