//! Saying goodbye: no message accepted is lost while its reader reads (architecture §6).

use super::core::Core;
use crate::conn::transport::Closing;
use slimline_wire::grpc::Status;
use slimline_wire::h2::{Code, StreamId};
use std::time::Instant;

/// The highest stream id there is: a GOAWAY that refuses nothing yet (RFC 9113 §6.8).
pub(super) const LAST_STREAM: StreamId = StreamId::new((1 << 31) - 1);

impl Core {
    /// Announces the end on every transport, and ends each connection once its queue is empty.
    pub(crate) fn drain(&mut self, now: Instant) {
        self.draining = true;
        let transports: Vec<(u32, u32)> =
            self.transports.iter().map(|transport| (transport.slot, transport.generation)).collect();
        for (slot, generation) in transports {
            self.with_tx(slot, generation, |tx| {
                tx.h2.goaway(LAST_STREAM, Code::NO_ERROR, b"draining", &mut tx.fill);
            });
            if let Some(transport) = self.transports.get_mut(slot, generation) {
                transport.goaway_sent = true;
            }
        }
        self.drain_progress(now);
    }

    /// Whether nothing that was read waits for anything any more.
    pub(crate) fn has_forwarded_all(&self) -> bool {
        !self.mesh.has_input() && self.connections.iter().all(|connection| connection.parked.is_none())
    }

    /// Ends the connections that have nothing left to send, forward or acknowledge, and the transports that carry none.
    pub(crate) fn drain_progress(&mut self, now: Instant) {
        if !self.draining {
            return;
        }
        let finished: Vec<(u32, u32)> = self
            .connections
            .iter()
            .filter(|connection| connection.is_idle() && !self.mesh.has_input())
            .map(|connection| (connection.id.slot, connection.id.generation))
            .collect();
        for (slot, generation) in finished {
            self.end_connection(slot, generation, Status::OK, "");
        }
        self.reap_streams();
        let empty: Vec<(u32, u32)> = self
            .transports
            .iter()
            .filter(|transport| transport.connections.is_empty() && transport.closing == Closing::No)
            .map(|transport| (transport.slot, transport.generation))
            .collect();
        for (slot, generation) in empty {
            let Some(transport) = self.transports.get_mut(slot, generation) else { continue };
            let last = transport.rx.as_mut().map_or(StreamId::TRANSPORT, |rx| {
                rx.h2.stop_accepting();
                rx.h2.last_stream()
            });
            transport.closing = Closing::AfterSend;
            transport.closing_since = Some(now);
            self.with_tx(slot, generation, |tx| tx.h2.goaway(last, Code::NO_ERROR, b"", &mut tx.fill));
        }
    }

    /// Closes everything at once: the time for a goodbye is over.
    pub(crate) fn abandon_all(&mut self) {
        let transports: Vec<(u32, u32)> =
            self.transports.iter().map(|transport| (transport.slot, transport.generation)).collect();
        for (slot, generation) in transports {
            self.abandon_transport(slot, generation);
        }
    }

    /// The peer closed its half of the socket: its connections go, what is already written for it still leaves.
    pub(crate) fn peer_ended(&mut self, slot: u32, generation: u32, now: Instant) {
        let Some(transport) = self.transports.get_mut(slot, generation) else { return };
        transport.peer_ended = true;
        match transport.closing {
            Closing::Closed => return,
            Closing::Finishing => {
                transport.closing = Closing::Closed;
                self.actions.push(super::core::Action::Close(slot, generation));
                return;
            }
            Closing::No => {
                transport.closing = Closing::AfterSend;
                transport.closing_since = Some(now);
            }
            Closing::AfterSend => {}
        }
        self.drop_connections(slot, generation);
        self.look_at(slot, generation, now + crate::limits::LINGER);
        self.touch(slot, generation);
    }
}
