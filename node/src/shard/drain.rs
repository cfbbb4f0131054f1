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
        let in_service: Vec<(u32, u32)> = self
            .transports
            .iter()
            .filter(|transport| transport.closing == Closing::No)
            .map(|transport| (transport.slot, transport.generation))
            .collect();
        for (slot, generation) in in_service {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hot::{client_head, connect, core, settings};
    use crate::shard::mesh::mesh;
    use std::sync::Arc;

    /// The last stream that each GOAWAY among these frames names.
    fn goaways(mut frames: &[u8]) -> Vec<u32> {
        let mut last = Vec::new();
        while let Some((head, rest)) = frames.split_first_chunk::<9>() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let (payload, rest) = rest.split_at(length);
            if head[3] == 7 {
                last.push(u32::from_be_bytes(payload[..4].try_into().expect("a stream")));
            }
            frames = rest;
        }
        last
    }

    #[test]
    fn a_transport_hears_that_it_is_to_end_and_then_how_far_it_came() {
        let now = Instant::now();
        let mut core = core(0, mesh(1).remove(0), &Arc::new(settings(false)), now);
        let ((slot, generation), _) = connect(&mut core, &client_head(), None, now);
        core.quiet = true;
        core.drain(now);
        core.drain_progress(now);
        let transport = core.transports.get(slot, generation).expect("it has not said goodbye yet");
        assert_eq!(goaways(&transport.tx.fill), [LAST_STREAM.get(), 1]);
        assert_eq!(transport.closing, Closing::AfterSend);
    }

    #[test]
    fn nothing_more_is_said_where_our_half_is_closed() {
        let now = Instant::now();
        let mut core = core(0, mesh(1).remove(0), &Arc::new(settings(false)), now);
        let ((slot, generation), _) = connect(&mut core, &client_head(), None, now);
        core.fail_transport(slot, generation, Code::PROTOCOL_ERROR, "the last words", now);
        let block = core.take_block(slot, generation, now).expect("the last words");
        let octets = block.len();
        assert!(core.sent(slot, generation, block, Ok(octets)).is_none());
        assert!(core.take_block(slot, generation, now).is_none());
        assert_eq!(core.transports.get(slot, generation).expect("it waits for the peer").closing, Closing::Finishing);
        core.drain(now);
        assert!(core.take_block(slot, generation, now).is_none(), "the kernel would answer EPIPE, and we with a reset");
    }
}
