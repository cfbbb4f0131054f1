//! Bytes in: octets of one transport → HTTP/2 events → SLIM messages.

use super::core::{Core, shared_room_max};
#[cfg(test)]
use super::reach::trap;
use crate::conn::connection::{Parked, Phase, Wait};
use crate::conn::transport::{Closing, Rx, StreamRole};
use crate::io::Shared;
use crate::limits;
use slimline_fib::FanoutCursor;
use slimline_wire::grpc::{Deframer, GrpcError, Item, Status};
use slimline_wire::h2::{Code, Event, StreamId};
use slimline_wire::message::{KnownNames, MessageView, parse_into};
use std::time::Instant;
use tracing::warn;

/// What became of one message.
pub(crate) enum Flow {
    /// Done with; the next may come.
    Next,
    /// It cannot be finished yet: the stream stands still. The cursor says how far a fan-out came.
    Park(Wait, FanoutCursor, Resumed),
    /// The connection has ended; what follows on its stream means nothing.
    Ended,
}

/// Whether a parked message has passed verification and counting already.
pub(crate) type Resumed = bool;

impl Core {
    /// Handles what one receive brought for a transport.
    pub(crate) fn received(&mut self, slot: u32, generation: u32, octets: &[u8], now: Instant) {
        let Some(transport) = self.transports.get_mut(slot, generation) else { return };
        self.counters.octets_in += octets.len() as u64;
        transport.heard = now;
        transport.unanswered += octets.len();
        if !transport.touched {
            transport.touched = true; // even if nothing leaves: the peer may wait for an acknowledgement
            self.touched.push((slot, generation));
        }
        if transport.closing != Closing::No {
            return;
        }
        let Some(mut rx) = transport.rx.take() else { return };
        rx.h2.data_sent(transport.tx.h2.take_data_sent());
        let outcome = self.contain(|core| core.events(slot, generation, &mut rx, octets, now));
        if rx.h2.is_in_header_block() {
            self.await_headers(slot, generation, rx.h2.last_stream(), now);
        }
        if let Some(transport) = self.transports.get_mut(slot, generation) {
            if transport.headers_since.is_some() && !rx.h2.is_in_header_block() {
                transport.headers_since = None;
            }
            transport.rx = Some(rx);
            if transport.tx.control_octets > limits::CONTROL_OCTETS_MAX && transport.tx.flight_octets > 0 {
                self.counters.unread_answers += 1;
                warn!(transport = slot, "peer does not read the answers it causes: transport closed");
                self.abandon_transport(slot, generation);
                return;
            }
        }
        match outcome {
            Some(Ok(())) => {}
            Some(Err((code, reason))) => {
                self.counters.transport_errors += 1;
                warn!(transport = slot, %code, reason, "peer broke HTTP/2: transport ends");
                self.fail_transport(slot, generation, code, reason, now);
            }
            None => self.close_after_panic(slot, generation, now),
        }
    }

    fn events(
        &mut self,
        slot: u32,
        generation: u32,
        rx: &mut Rx,
        octets: &[u8],
        now: Instant,
    ) -> Result<(), (Code, &'static str)> {
        let mut input = octets;
        loop {
            let event = self.reading.run(|| {
                let event = rx.h2.next(now, &mut input);
                #[cfg(test)]
                trap::spring(matches!(event, Ok(Some(Event::Ping(trap::IN_FRAMES)))));
                event
            });
            let event = match event {
                Ok(Some(event)) => event,
                Ok(None) => return Ok(()),
                Err(error) => return Err((error.code, error.reason)),
            };
            match event {
                Event::Data { stream, octets, flow_octets, end_stream } => {
                    self.credit_transport(slot, generation, rx, flow_octets);
                    if !self.quiet {
                        self.data(slot, generation, rx, stream, octets, flow_octets, now);
                    }
                    if end_stream {
                        self.request_ended(slot, generation, rx, stream);
                    }
                }
                Event::IgnoredData { flow_octets } => self.credit_transport(slot, generation, rx, flow_octets),
                Event::Headers { stream, fields, end_stream } => {
                    let role = self.route(slot, generation, stream, fields, now);
                    rx.requested = true;
                    let refused = matches!(role, StreamRole::Refused { grpc_status: Some(_), .. });
                    rx.streams.push(crate::conn::transport::RxStream { id: stream, role });
                    if end_stream || refused {
                        self.request_ended(slot, generation, rx, stream);
                    }
                    if refused && !end_stream {
                        // A call that streams its request waits for our answer before it ends (RFC 9113 §8.1).
                        self.with_tx(slot, generation, |tx| tx.h2.reset(stream, Code::NO_ERROR, &mut tx.fill));
                    }
                }
                Event::Trailers { stream, .. } => self.request_ended(slot, generation, rx, stream),
                Event::Reset { stream, .. } => self.stream_gone(slot, generation, rx, stream),
                Event::StreamError { stream, code, reason } => {
                    self.counters.stream_errors += 1;
                    tracing::debug!(transport = slot, stream = stream.get(), %code, reason, "stream refused");
                    self.stream_gone(slot, generation, rx, stream);
                    self.with_tx(slot, generation, |tx| tx.h2.reset(stream, code, &mut tx.fill));
                }
                Event::Settings(settings) => {
                    rx.settled = true;
                    let mut outcome = Ok(());
                    self.read_with_tx(slot, generation, |tx| outcome = tx.h2.settings(&settings, &mut tx.fill));
                    outcome.map_err(|error| (error.code, error.reason))?;
                }
                Event::WindowUpdate { stream, increment } => {
                    let mut outcome = Ok(());
                    self.read_with_tx(slot, generation, |tx| outcome = tx.h2.window_update(stream, increment));
                    match outcome {
                        Ok(()) => {}
                        Err(slimline_wire::h2::WindowError::Transport(error)) => {
                            return Err((error.code, error.reason));
                        }
                        Err(slimline_wire::h2::WindowError::Stream { stream, code, .. }) => {
                            self.counters.stream_errors += 1;
                            rx.h2.close(stream);
                            self.stream_gone(slot, generation, rx, stream);
                            self.with_tx(slot, generation, |tx| tx.h2.reset(stream, code, &mut tx.fill));
                        }
                    }
                }
                Event::Ping(payload) => self.with_tx(slot, generation, |tx| tx.h2.ping_ack(payload, &mut tx.fill)),
                Event::Pong(_) => {
                    if let Some(transport) = self.transports.get_mut(slot, generation) {
                        transport.ping_sent = None;
                    }
                }
                Event::SettingsAck | Event::GoAway { .. } => {}
            }
        }
    }

    /// Octets of one stream: to its connection, or nowhere.
    #[expect(clippy::too_many_arguments, reason = "the parts of one DATA event, borrowed apart")]
    fn data(
        &mut self,
        slot: u32,
        generation: u32,
        rx: &mut Rx,
        stream: StreamId,
        octets: &[u8],
        flow_octets: u32,
        now: Instant,
    ) {
        let Some(StreamRole::Channel { slot: conn_slot, generation: conn_generation, .. }) =
            rx.stream(stream).map(|stream| &stream.role)
        else {
            self.credit_stream(slot, generation, rx, stream, flow_octets);
            return;
        };
        let (conn_slot, conn_generation) = (*conn_slot, *conn_generation);
        #[expect(clippy::cast_possible_truncation, reason = "a DATA frame is shorter than 2^24")]
        let padding = flow_octets - octets.len() as u32;
        self.credit_stream(slot, generation, rx, stream, padding);
        if let Some(connection) = self.connections.get_mut(conn_slot, conn_generation)
            && connection.parked.is_some()
            && !connection.is_over
        {
            connection.backlog.extend_from_slice(octets);
            self.held.take(octets.len());
            return;
        }
        self.stream_octets(slot, generation, rx, stream, octets, now);
    }

    /// Splits a connection's octets into messages and handles each; credits what is finished with.
    pub(crate) fn stream_octets(
        &mut self,
        slot: u32,
        generation: u32,
        rx: &mut Rx,
        stream: StreamId,
        octets: &[u8],
        now: Instant,
    ) {
        let Some(entry) = rx.stream(stream) else { return };
        let StreamRole::Channel { slot: conn_slot, generation: conn_generation, deframer, names } = &mut entry.role
        else {
            return;
        };
        let (conn_slot, conn_generation) = (*conn_slot, *conn_generation);
        let connection = self.connections.get(conn_slot, conn_generation);
        let Some(connection) = connection.filter(|connection| !connection.is_over) else {
            return; // ended this turn; its stream is taken down when the turn ends
        };
        let mut is_first = matches!(connection.phase, Phase::Negotiating);
        // Moved out, so that the messages it lends do not hold the stream table.
        let mut own = std::mem::replace(deframer, Deframer::new(0));
        let mut own_names = std::mem::take(names);
        self.held.give(own.held_octets());
        let mut input = octets;
        let mut ended = None;
        loop {
            match self.reading.run(|| own.next(&mut input)) {
                Ok(None) => break,
                Ok(Some(Item::Message(message))) => {
                    let is_held = !octets.as_ptr_range().contains(&message.as_ptr());
                    let (flow, stopped) = if is_held && !is_first && message.len() >= limits::GATHER_OCTETS_MIN {
                        // Put together already: its next hops share that memory instead of copying it again.
                        let shared = self.lease_shared(message.len(), |memory| own.take_message(memory));
                        let is_snug = shared.capacity() <= shared_room_max(shared.len());
                        self.sharing = is_snug.then(|| Shared::clone(&shared));
                        let flow = self.message(conn_slot, conn_generation, &shared, &mut own_names, now);
                        self.sharing = None;
                        let stopped = matches!(flow, Flow::Park(..)).then(|| shared.to_vec());
                        self.return_shared(shared);
                        (flow, stopped)
                    } else {
                        let flow = self.message(conn_slot, conn_generation, message, &mut own_names, now);
                        let stopped = matches!(flow, Flow::Park(..)).then(|| message.to_vec());
                        (flow, stopped)
                    };
                    match flow {
                        Flow::Next => {
                            if std::mem::take(&mut is_first) {
                                own = Deframer::new(self.settings.message_octets_max); // the link is up
                            }
                        }
                        Flow::Park(wait, cursor, resumed) => {
                            let message = stopped.unwrap_or_default();
                            self.park(conn_slot, conn_generation, wait, cursor, resumed, message, input);
                            break;
                        }
                        Flow::Ended => return,
                    }
                }
                Ok(Some(Item::Oversize { length })) if is_first => {
                    self.counters.links_refused += 1;
                    let limit = limits::NEGOTIATION_OCTETS_MAX;
                    let text = format!("link negotiation: first message of {length} octets announced, limit {limit}");
                    ended = Some((Status::RESOURCE_EXHAUSTED, text));
                    break;
                }
                Ok(Some(Item::Oversize { length })) => {
                    self.oversize(conn_slot, conn_generation, length);
                    if length > limits::DISCARDED_OCTETS_MAX {
                        let limit = self.settings.message_octets_max;
                        let text = format!("gRPC message of {length} octets announced, limit {limit}");
                        ended = Some((Status::RESOURCE_EXHAUSTED, text));
                        break;
                    }
                }
                Err(error) => {
                    ended = Some(match error {
                        GrpcError::Compressed => {
                            (Status::UNIMPLEMENTED, "compressed gRPC messages are not supported: send flag 0".into())
                        }
                        GrpcError::BadFlag(flag) => {
                            let text = format!("gRPC message prefix: flag {flag} is neither 0 nor 1");
                            (Status::INVALID_ARGUMENT, text)
                        }
                    });
                    break;
                }
            }
        }
        if ended.is_none() && own.held_octets() > limits::REASSEMBLY_SPARED_OCTETS && self.memory.is_over() {
            self.counters.cut_memory += 1;
            ended = Some((Status::RESOURCE_EXHAUSTED, "node memory budget reached: message given up".into()));
        }
        if let Some((status, text)) = ended {
            self.end_connection(conn_slot, conn_generation, status, &text);
            return;
        }
        self.held.take(own.held_octets());
        let parked_octets =
            self.connections.get(conn_slot, conn_generation).map_or(0, |connection| connection.backlog.len());
        let consumed = octets.len() - parked_octets.min(input.len());
        if let Some(entry) = rx.stream(stream)
            && let StreamRole::Channel { deframer, names, .. } = &mut entry.role
        {
            (*deframer, *names) = (own, own_names);
        }
        #[expect(clippy::cast_possible_truncation, reason = "at most a stream window")]
        self.credit_stream(slot, generation, rx, stream, consumed as u32);
    }

    /// Counts a message over the limit; the first of a connection is logged.
    fn oversize(&mut self, slot: u32, generation: u32, length: u32) {
        self.counters.drop_oversize += 1;
        let Some(connection) = self.connections.get_mut(slot, generation) else { return };
        if !std::mem::replace(&mut connection.oversize_logged, true) {
            let limit = self.settings.message_octets_max;
            warn!(connection = %connection.id, length, limit, "oversize message discarded (said once per connection)");
        }
    }

    /// One whole SLIM message of a connection; `names` are those of the messages before it.
    fn message(&mut self, slot: u32, generation: u32, message: &[u8], names: &mut KnownNames, now: Instant) -> Flow {
        self.counters.messages_in += 1;
        let Some(connection) = self.connections.get(slot, generation) else { return Flow::Ended };
        let up = matches!(connection.phase, Phase::Up(_));
        let mut view = MessageView::blank();
        let outcome = self.reading.run(|| {
            #[cfg(test)]
            trap::spring(message == trap::IN_MESSAGES);
            parse_into(message, &self.settings.bounds, names, &mut view)
        });
        match outcome {
            Ok(()) => {}
            Err(error) if up => {
                self.counters.drop_malformed += 1;
                let Some(connection) = self.connections.get_mut(slot, generation) else { return Flow::Ended };
                if !std::mem::replace(&mut connection.malformed_logged, true) {
                    warn!(connection = %connection.id, %error, "malformed message skipped (said once per connection)");
                }
                return Flow::Next;
            }
            Err(error) => {
                self.counters.links_refused += 1;
                let text = format!("link negotiation: first message cannot be read: {error}");
                self.end_connection(slot, generation, Status::INVALID_ARGUMENT, &text);
                return Flow::Ended;
            }
        }
        if !up {
            return self.negotiate(slot, generation, &view, now);
        }
        #[cfg(test)]
        trap::spring(
            matches!(&view, MessageView::Publish(it) if it.header.destination.text.is_some_and(|text| text[2] == trap::IN_FORWARDING)),
        );
        match &view {
            MessageView::Publish(publish) => self.publish(slot, generation, message, &publish.header, now),
            MessageView::Subscribe(request) => self.subscription(slot, generation, request, true),
            MessageView::Unsubscribe(request) => self.subscription(slot, generation, request, false),
            MessageView::Link(_) | MessageView::SubscriptionAck(_) => {
                self.counters.ignored += 1;
                Flow::Next
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of a stopped message, borrowed apart")]
    fn park(
        &mut self,
        slot: u32,
        generation: u32,
        wait: Wait,
        cursor: FanoutCursor,
        resumed: Resumed,
        message: Vec<u8>,
        behind: &[u8],
    ) {
        let Some(connection) = self.connections.get_mut(slot, generation) else { return };
        debug_assert!(connection.parked.is_none() && connection.backlog.is_empty());
        self.held.take(behind.len() + message.len());
        connection.backlog.extend_from_slice(behind);
        connection.parked = Some(Box::new(Parked { wait, message, cursor, resumed }));
        let id = connection.id;
        if self.resuming {
            self.parked_again.push((id, wait));
        } else {
            self.wait_for(id, wait);
        }
    }

    /// Registers a parked connection where its wait will end.
    pub(crate) fn wait_for(&mut self, id: slimline_fib::ConnId, wait: Wait) {
        match wait {
            Wait::Target(target) if target.shard == self.index => {
                self.counters.parked_target += 1;
                match self.connections.get_mut(target.slot, target.generation) {
                    Some(target) => target.waiters.push(id),
                    None => self.ready.push(id),
                }
            }
            Wait::Target(_) => {
                self.counters.parked_target += 1;
                self.parked_elsewhere.push(id);
            }
            Wait::Shard(_) => {
                self.counters.parked_mesh += 1;
                self.parked_elsewhere.push(id);
            }
            Wait::Settle => self.counters.parked_settle += 1,
            Wait::Requests => self.counters.parked_requests += 1,
            Wait::Control => {
                self.counters.parked_control += 1;
                self.parked_elsewhere.push(id);
            }
            Wait::Turn => self.ready.push(id),
        }
    }

    /// Goes on with connections whose wait is over: the parked message first, then what came behind it.
    ///
    /// Those that come to a stand again after some progress queue up behind those that made none.
    pub(crate) fn resume(&mut self, now: Instant) {
        if self.ready.is_empty() {
            return;
        }
        let mut ready = std::mem::take(&mut self.ready);
        self.resuming = true;
        for id in ready.drain(..) {
            self.resume_one(id.slot, id.generation, now);
        }
        self.resuming = false;
        for (id, wait) in std::mem::take(&mut self.parked_again) {
            self.wait_for(id, wait);
        }
        if self.ready.is_empty() {
            self.ready = ready; // keeps the memory
        }
    }

    fn resume_one(&mut self, slot: u32, generation: u32, now: Instant) {
        let Some(connection) = self.connections.get_mut(slot, generation) else { return };
        let Some(parked) = connection.parked.take() else { return };
        self.held.give(parked.message.len());
        let (id, stream, (transport, life)) = (connection.id, connection.stream, connection.transport);
        let Parked { message, cursor, resumed, .. } = *parked;
        let outcome = self.contain(|core| {
            if resumed {
                core.publish_again(slot, generation, &message, cursor, now)
            } else {
                core.counters.messages_in -= 1; // counted when it was parked
                core.message(slot, generation, &message, &mut KnownNames::default(), now)
            }
        });
        match outcome {
            Some(Flow::Next) => {}
            Some(Flow::Park(wait, cursor, resumed)) => {
                if let Some(connection) = self.connections.get_mut(slot, generation) {
                    self.held.take(message.len());
                    connection.parked = Some(Box::new(Parked { wait, message, cursor, resumed }));
                    self.wait_for(id, wait);
                }
                return;
            }
            Some(Flow::Ended) => return,
            None => return self.close_parked(slot, generation, now),
        }
        let Some(connection) = self.connections.get_mut(slot, generation) else { return };
        let backlog = std::mem::take(&mut connection.backlog);
        self.held.give(backlog.len());
        let ended = connection.ended_by_peer;
        if connection.is_over {
            if self.contain(|core| core.last_octets(slot, generation, &backlog, now)).is_none() {
                self.remove_connection(slot, generation);
            }
            return;
        }
        let Some(entry) = self.transports.get_mut(transport, life) else { return };
        let Some(mut rx) = entry.rx.take() else { return };
        let outcome = self.contain(|core| {
            if !backlog.is_empty() {
                core.stream_octets(transport, life, &mut rx, stream, &backlog, now);
            }
            if ended && core.connections.get(slot, generation).is_some_and(|connection| connection.parked.is_none()) {
                core.request_ended(transport, life, &mut rx, stream);
            }
        });
        if let Some(entry) = self.transports.get_mut(transport, life) {
            entry.rx = Some(rx);
        }
        if outcome.is_none() {
            self.close_after_panic(transport, life, now);
        }
    }

    /// What came behind the parked message of a connection that is over: whole messages are still handled.
    fn last_octets(&mut self, slot: u32, generation: u32, mut octets: &[u8], now: Instant) {
        let mut deframer = Deframer::new(self.settings.message_octets_max); // a backlog starts with a message
        let mut names = KnownNames::default();
        while let Ok(Some(Item::Message(message))) = deframer.next(&mut octets) {
            match self.message(slot, generation, message, &mut names, now) {
                Flow::Next => {}
                Flow::Park(wait, cursor, resumed) => {
                    let message = message.to_vec();
                    self.park(slot, generation, wait, cursor, resumed, message, octets);
                    return;
                }
                Flow::Ended => break,
            }
        }
        self.remove_connection(slot, generation);
    }

    #[inline]
    fn credit_transport(&mut self, slot: u32, generation: u32, rx: &mut Rx, octets: u32) {
        if let Some(increment) = rx.h2.credit_transport(octets) {
            self.with_tx(slot, generation, |tx| {
                tx.h2.write_window_update(StreamId::TRANSPORT, increment, &mut tx.fill);
            });
        }
    }

    #[inline]
    fn credit_stream(&mut self, slot: u32, generation: u32, rx: &mut Rx, stream: StreamId, octets: u32) {
        if octets > 0
            && let Some(increment) = rx.h2.credit_stream(stream, octets)
        {
            self.with_tx(slot, generation, |tx| tx.h2.write_window_update(stream, increment, &mut tx.fill));
        }
    }
}
