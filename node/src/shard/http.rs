//! Requests: which stream becomes a connection, which gets a plain answer, and how streams end.

use super::core::Core;
use crate::conn::age::AgeLog;
use crate::conn::connection::{Connection, Ending, Phase, Pressure};
use crate::conn::transport::{Body, Closing, Rx, StreamRole, Tx};
use crate::limits::NEGOTIATION_OCTETS_MAX;
use slimline_fib::ConnId;
use slimline_wire::grpc::{Deframer, OPEN_CHANNEL_PATH, Status, percent_encode};
use slimline_wire::h2::{Code, Fields, StreamId};
use slimline_wire::message::KnownNames;
use std::time::Instant;

/// Everything under our gRPC service.
const SERVICE_PATH: &[u8] = b"/dataplane.proto.v1.DataPlaneService/";
const HEALTH_PATH: &[u8] = b"/healthz";
const HEALTH_CHECK_PATH: &[u8] = b"/grpc.health.v1.Health/Check";
/// `HealthCheckResponse { status: SERVING }`, gRPC-framed.
const SERVING: [u8; 7] = [0, 0, 0, 0, 2, 0x08, 0x01];
/// `HealthCheckResponse { status: NOT_SERVING }`, gRPC-framed.
const NOT_SERVING: [u8; 7] = [0, 0, 0, 0, 2, 0x08, 0x02];

impl Core {
    /// Decides what a new request is; an OpenChannel stream is answered with its response headers at once
    /// (slim-wire §0.1: an SDK says nothing before it has them).
    pub(crate) fn route(
        &mut self,
        slot: u32,
        generation: u32,
        stream: StreamId,
        fields: Fields<'_>,
        now: Instant,
    ) -> StreamRole {
        let field = |name: &[u8]| fields.get(name).unwrap_or_default();
        let (method, path, content_type) = (field(b":method"), field(b":path"), field(b"content-type"));
        self.with_tx(slot, generation, |tx| tx.h2.open(stream));
        let path_only = path.split(|&octet| octet == b'?').next().unwrap_or_default();
        if path_only == HEALTH_PATH && self.health_served(slot, generation) {
            return match method {
                b"GET" => StreamRole::Health { head: false },
                b"HEAD" => StreamRole::Health { head: true },
                _ => StreamRole::Refused { status: 405, grpc_status: None, reason: "use GET or HEAD" },
            };
        }
        let grpc = content_type == b"application/grpc"
            || content_type.starts_with(b"application/grpc+")
            || content_type.starts_with(b"application/grpc;");
        let unknown = Some(Status::UNKNOWN.0);
        if path.starts_with(SERVICE_PATH) {
            if method != b"POST" {
                return StreamRole::Refused {
                    status: 405,
                    grpc_status: unknown,
                    reason: "gRPC calls are POST requests",
                };
            }
            if !grpc {
                return StreamRole::Refused {
                    status: 415,
                    grpc_status: unknown,
                    reason: "content-type must be application/grpc",
                };
            }
        }
        if path == OPEN_CHANNEL_PATH.as_bytes() && self.quiet {
            return StreamRole::Refused {
                status: 200,
                grpc_status: Some(Status::UNAVAILABLE.0),
                reason: "node is draining: connect to another or retry",
            };
        }
        if path == OPEN_CHANNEL_PATH.as_bytes() && self.has_no_room_for_a_connection(slot, generation) {
            self.counters.streams_refused += 1;
            return StreamRole::Refused {
                status: 200,
                grpc_status: Some(Status::UNAVAILABLE.0),
                reason: "node is full: connect to another or retry later",
            };
        }
        if path == OPEN_CHANNEL_PATH.as_bytes() {
            return self.open_channel(slot, generation, stream, now);
        }
        if path == HEALTH_CHECK_PATH && method == b"POST" && grpc && self.health_served(slot, generation) {
            return StreamRole::HealthCheck;
        }
        if grpc {
            return StreamRole::Refused {
                status: 200,
                grpc_status: Some(Status::UNIMPLEMENTED.0),
                reason: "no such service or method",
            };
        }
        // A caller that does not speak gRPC, perhaps a person: answered as HTTP does, when it has said what it wanted.
        StreamRole::Refused { status: 404, grpc_status: None, reason: "not found: try /healthz, or gRPC\n" }
    }

    /// Whether one more stream would be too many: for the table, or for the memory budget. A transport's first is let in over
    /// the budget as well, because who was turned away after it got through may not come back (slim-wire §4.5).
    fn has_no_room_for_a_connection(&self, slot: u32, generation: u32) -> bool {
        let has_one = || self.transports.get(slot, generation).is_some_and(|entry| !entry.connections.is_empty());
        self.connections.is_full() || (self.memory.is_over() && has_one())
    }

    fn open_channel(&mut self, slot: u32, generation: u32, stream: StreamId, now: Instant) -> StreamRole {
        let shard = self.index;
        let (conn_slot, conn_generation) = self.connections.insert(|conn_slot, conn_generation| {
            let id = ConnId { shard, slot: conn_slot, generation: conn_generation };
            Connection::new(id, (slot, generation), stream, now)
        });
        if let Some(transport) = self.transports.get_mut(slot, generation) {
            transport.connections.push((conn_slot, conn_generation));
        }
        self.look_at(slot, generation, now + self.settings.negotiation_timeout);
        self.respond(slot, generation, stream, 200, b"application/grpc", false);
        StreamRole::Channel {
            slot: conn_slot,
            generation: conn_generation,
            deframer: Deframer::new(NEGOTIATION_OCTETS_MAX.min(self.settings.message_octets_max)),
            names: KnownNames::default(),
        }
    }

    fn health_served(&self, slot: u32, generation: u32) -> bool {
        self.transports
            .get(slot, generation)
            .is_some_and(|transport| self.settings.listeners[usize::from(transport.listener)].health)
    }

    fn respond(&mut self, slot: u32, generation: u32, stream: StreamId, status: u16, content_type: &[u8], end: bool) {
        let mut code = itoa::Buffer::new();
        let status = code.format(status).as_bytes();
        let mut date = std::mem::take(&mut self.date);
        let text = date.text().as_bytes();
        self.with_tx(slot, generation, |tx| {
            let fields = [(&b":status"[..], status), (b"content-type", content_type), (b"date", text)];
            tx.h2.headers(stream, fields, end, &mut tx.fill);
        });
        self.date = date;
    }

    /// The peer finished its half of a stream.
    pub(crate) fn request_ended(&mut self, slot: u32, generation: u32, rx: &mut Rx, stream: StreamId) {
        let Some(entry) = rx.stream(stream) else { return };
        match std::mem::replace(&mut entry.role, StreamRole::Answered) {
            StreamRole::Channel { slot: conn_slot, generation: conn_generation, deframer, names } => {
                let parked = self.connections.get_mut(conn_slot, conn_generation).is_some_and(|connection| {
                    connection.ended_by_peer = true;
                    connection.parked.is_some()
                });
                entry.role = StreamRole::Channel { slot: conn_slot, generation: conn_generation, deframer, names };
                if parked {
                    return; // what it already sent is still handled; then this is called again
                }
                let ending = Ending { status: Status::OK, text: "" };
                self.end_when_sent(conn_slot, conn_generation, ending);
                return;
            }
            StreamRole::Health { head } => {
                let (status, octets): (u16, &[u8]) = if self.quiet { (503, b"draining\n") } else { (200, b"ok\n") };
                self.respond(slot, generation, stream, status, b"text/plain; charset=utf-8", head);
                if !head {
                    self.answer(slot, generation, Body { stream, octets, has_trailers: false });
                    return;
                }
            }
            StreamRole::HealthCheck => {
                let octets = if self.quiet { &NOT_SERVING } else { &SERVING };
                self.respond(slot, generation, stream, 200, b"application/grpc", false);
                self.answer(slot, generation, Body { stream, octets, has_trailers: true });
                return;
            }
            StreamRole::Refused { status, grpc_status, reason } => {
                self.refuse(slot, generation, stream, status, grpc_status, reason);
                if grpc_status.is_none() {
                    return; // with a body
                }
            }
            StreamRole::Answered => return,
        }
        self.with_tx(slot, generation, |tx| tx.h2.close(stream));
        rx.h2.close(stream);
        self.held.give(rx.forget(stream));
    }

    fn refuse(
        &mut self,
        slot: u32,
        generation: u32,
        stream: StreamId,
        status: u16,
        grpc: Option<u32>,
        reason: &'static str,
    ) {
        let mut code = itoa::Buffer::new();
        let status = code.format(status).as_bytes();
        let mut grpc_code = itoa::Buffer::new();
        let mut message = Vec::new();
        percent_encode(reason, &mut message);
        self.with_tx(slot, generation, |tx| match grpc {
            Some(grpc) => {
                let grpc = grpc_code.format(grpc).as_bytes();
                let fields = [
                    (&b":status"[..], status),
                    (b"content-type", b"application/grpc"),
                    (b"grpc-status", grpc),
                    (b"grpc-message", &message),
                ];
                tx.h2.headers(stream, fields, true, &mut tx.fill);
            }
            None => {
                let fields = [(&b":status"[..], status), (b"content-type", b"text/plain; charset=utf-8")];
                tx.h2.headers(stream, fields, false, &mut tx.fill);
                tx.bodies.push(Body { stream, octets: reason.as_bytes(), has_trailers: false });
            }
        });
    }

    /// Queues the body of an answer whose headers are written.
    fn answer(&mut self, slot: u32, generation: u32, body: Body) {
        self.with_tx(slot, generation, |tx| tx.bodies.push(body));
    }

    /// Moves what windows allow of plain answers into the block; the streams of finished ones end.
    pub(crate) fn send_bodies(&mut self, slot: u32, generation: u32) {
        let Some(transport) = self.transports.get_mut(slot, generation) else { return };
        let tx = &mut transport.tx;
        if tx.bodies.is_empty() {
            return;
        }
        Self::lease_block(&mut self.spare_blocks, &mut tx.fill);
        for mut body in std::mem::take(&mut tx.bodies) {
            let taken = tx.h2.data(body.stream, body.octets, !body.has_trailers, &mut tx.fill);
            body.octets = &body.octets[taken..];
            if !body.octets.is_empty() {
                tx.bodies.push(body);
                continue;
            }
            if body.has_trailers {
                trailers(tx, body.stream, Status::OK, "");
            }
            tx.h2.close(body.stream);
            self.ended_streams.push((slot, generation, body.stream));
        }
    }

    /// A stream ended without an answer being possible: reset by the peer, or by us for its mistake.
    pub(crate) fn stream_gone(&mut self, slot: u32, generation: u32, rx: &mut Rx, stream: StreamId) {
        if let Some(entry) = rx.stream(stream)
            && let StreamRole::Channel { slot: conn_slot, generation: conn_generation, .. } = entry.role
        {
            self.forget_connection(conn_slot, conn_generation);
        }
        self.with_tx(slot, generation, |tx| {
            tx.bodies.retain(|body| body.stream != stream);
            tx.h2.close(stream);
        });
        self.held.give(rx.forget(stream));
    }

    /// Ends a connection once everything it has queued is sent: nothing new is queued, and its routes go now.
    pub(crate) fn end_when_sent(&mut self, slot: u32, generation: u32, ending: Ending) {
        let Some(connection) = self.connections.get_mut(slot, generation) else { return };
        if connection.out.is_empty() {
            return self.end_connection(slot, generation, ending.status, ending.text);
        }
        connection.ending = Some(ending);
        self.relieve(slot, generation);
        self.depart(slot, generation);
    }

    /// Nobody has to wait for this connection any more: it has left, or is about to.
    fn relieve(&mut self, slot: u32, generation: u32) {
        let Some(connection) = self.connections.get_mut(slot, generation) else { return };
        self.ready.append(&mut connection.waiters);
        if std::mem::replace(&mut connection.pressure, Pressure::Open) == Pressure::Congested {
            self.mesh.tell_congested(connection.id, false);
        }
    }

    /// Tells control that a connection has left, once.
    fn depart(&mut self, slot: u32, generation: u32) {
        let Some(connection) = self.connections.get_mut(slot, generation) else { return };
        if matches!(connection.phase, Phase::Up(_)) && !std::mem::replace(&mut connection.departed, true) {
            self.inventory.remove(connection.id);
            self.farewells.push(connection.id);
        }
    }

    /// Nothing names a departed connection any more: its slot may be used again.
    pub(crate) fn released(&mut self, id: ConnId) {
        match self.connections.get_mut(id.slot, id.generation) {
            Some(connection) => connection.released = true, // it is still sending
            None => self.connections.release(id.slot, id.generation),
        }
    }

    /// Ends a connection from our side with a gRPC status; what it still had queued goes out first where windows allow.
    pub(crate) fn end_connection(&mut self, slot: u32, generation: u32, status: Status, text: &str) {
        let connection = self.connections.get(slot, generation).filter(|connection| !connection.is_over);
        let Some(connection) = connection else { return };
        let (transport, life, stream) = (connection.transport.0, connection.transport.1, connection.stream);
        let ended_by_peer = connection.ended_by_peer;
        self.drain_queue(slot, generation);
        if let Some(connection) = self.connections.get_mut(slot, generation) {
            // What is in the block or on its way still arrives; only what no window allows is lost.
            self.counters.drop_disconnected += connection.age.messages_in_last(connection.out.octets().len());
            self.held.give(connection.age.waiting());
            connection.age = AgeLog::default();
        }
        self.forget_connection(slot, generation);
        if status != Status::OK {
            tracing::info!(connection = slot, status = status.0, text, "connection ended");
        }
        self.with_tx(transport, life, |tx| {
            trailers(tx, stream, status, text);
            if !ended_by_peer {
                tx.h2.reset(stream, Code::NO_ERROR, &mut tx.fill);
            }
            tx.h2.close(stream);
        });
        self.ended_streams.push((transport, life, stream));
    }

    /// A connection is over: its routes go with one delta, its queue is given up, whoever waits for it goes on.
    ///
    /// What it sent before and was parked is still delivered; only then its slot is free.
    pub(crate) fn forget_connection(&mut self, slot: u32, generation: u32) {
        self.depart(slot, generation);
        let Some(connection) = self.connections.get_mut(slot, generation) else { return };
        if std::mem::replace(&mut connection.is_over, true) {
            return;
        }
        self.counters.connections_ended += 1;
        self.counters.drop_disconnected += connection.age.messages_in_last(usize::MAX);
        self.held.give(connection.age.waiting());
        connection.age = AgeLog::default();
        connection.out.clear();
        let (transport, is_parked) = (connection.transport, connection.parked.is_some());
        if let Some(entry) = self.transports.get_mut(transport.0, transport.1) {
            entry.connections.retain(|&pair| pair != (slot, generation));
            entry.tx.backlogged.retain(|&pair| pair != (slot, generation));
        }
        self.relieve(slot, generation);
        if !is_parked {
            self.remove_connection(slot, generation);
        }
    }

    /// Takes a connection that is over, and has nothing parked any more, out of its table.
    pub(crate) fn remove_connection(&mut self, slot: u32, generation: u32) {
        let Some(connection) = self.connections.remove(slot, generation) else { return };
        let parked = connection.parked.as_ref().map_or(0, |parked| parked.message.len());
        self.held.give(connection.backlog.len() + parked);
        if !connection.departed || connection.released {
            self.connections.release(slot, generation);
        }
    }

    /// Closes streams whose connection ended while their transport's receive half was in use.
    pub(crate) fn reap_streams(&mut self) {
        for (slot, generation, stream) in std::mem::take(&mut self.ended_streams) {
            if let Some(transport) = self.transports.get_mut(slot, generation)
                && let Some(rx) = transport.rx.as_mut()
            {
                rx.h2.close(stream);
                self.held.give(rx.forget(stream));
            }
        }
    }

    /// Runs `write` on a transport's send half and notes that it has output.
    #[inline]
    pub(crate) fn with_tx(&mut self, slot: u32, generation: u32, write: impl FnOnce(&mut Tx)) {
        if let Some(transport) = self.transports.get_mut(slot, generation)
            && transport.closing != Closing::Closed
        {
            Self::lease_block(&mut self.spare_blocks, &mut transport.tx.fill);
            let before = transport.tx.fill.len();
            write(&mut transport.tx);
            transport.tx.control_octets += transport.tx.fill.len() - before;
            if !transport.touched {
                transport.touched = true;
                self.touched.push((slot, generation));
            }
        }
    }
}

fn trailers(tx: &mut Tx, stream: StreamId, status: Status, text: &str) {
    let mut code = itoa::Buffer::new();
    let code = code.format(status.0).as_bytes();
    if text.is_empty() {
        tx.h2.headers(stream, [(&b"grpc-status"[..], code)], true, &mut tx.fill);
    } else {
        let mut message = Vec::new();
        percent_encode(text, &mut message);
        let fields = [(&b"grpc-status"[..], code), (b"grpc-message", message.as_slice())];
        tx.h2.headers(stream, fields, true, &mut tx.fill);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conn::table::Table;
    use crate::hot::{client_head, client_request, connect, core, settings};
    use crate::memory::Memory;
    use crate::shard::mesh::mesh;
    use slimline_wire::h2::{Limits, Role, Send};
    use std::sync::Arc;

    /// The request of one more stream, as HEADERS.
    fn another_stream(stream: u32) -> Vec<u8> {
        let mut client = Send::new(Role::Client, &Limits::default());
        let mut out = Vec::new();
        client_request(&mut client, StreamId::new(stream), &mut out);
        out
    }

    #[test]
    fn a_shard_has_no_more_connections_than_routes_can_name() {
        let now = Instant::now();
        let mut core = core(0, mesh(1).remove(0), &Arc::new(settings(false)), now);
        core.connections = Table::new(u32::MAX, 2);
        let ((slot, generation), _) = connect(&mut core, &client_head(), None, now);
        core.received(slot, generation, &another_stream(3), now);
        assert_eq!((core.connections.len(), core.counters.streams_refused), (2, 0));
        core.received(slot, generation, &another_stream(5), now);
        assert_eq!((core.connections.len(), core.counters.streams_refused), (2, 1));
        let (slot, generation) = core.open_transport(0, now);
        core.received(slot, generation, &client_head(), now);
        assert_eq!((core.connections.len(), core.counters.streams_refused), (2, 2));
        assert_eq!(core.counters.transport_errors, 0);
    }

    #[test]
    fn over_the_memory_budget_a_transport_gets_its_first_stream_and_no_more() {
        let now = Instant::now();
        let mut core = core(0, mesh(1).remove(0), &Arc::new(settings(false)), now);
        let memory = Arc::new(Memory::new(1000, 1));
        core.memory = Arc::clone(&memory);
        memory.note(0, 1001);
        let ((slot, generation), _) = connect(&mut core, &client_head(), None, now);
        core.received(slot, generation, &another_stream(3), now);
        assert_eq!((core.connections.len(), core.counters.streams_refused), (1, 1));
        memory.note(0, 0);
        core.received(slot, generation, &another_stream(5), now);
        assert_eq!((core.connections.len(), core.counters.streams_refused), (2, 1));
    }
}
