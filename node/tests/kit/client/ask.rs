//! What a client says: requests, octets, resets; on time and out of it.

use super::{Client, PATIENCE, Said};
use slimline_wire::grpc::{Deframer, OPEN_CHANNEL_PATH};
use slimline_wire::h2::{Code, StreamId};
use std::time::{Duration, Instant};

impl Client {
    /// Opens a stream with these request headers.
    pub fn request(&mut self, fields: &[(&str, &str)], end: bool) -> StreamId {
        let stream = StreamId::new(self.next_stream);
        self.next_stream += 2;
        self.send.open(stream);
        self.recv.open(stream);
        let fields = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        self.send.headers(stream, fields, end, &mut self.out);
        self.flush();
        stream
    }

    /// Opens an OpenChannel stream and waits for its response headers.
    pub fn open_channel(&mut self) -> StreamId {
        let stream = self.request(
            &[
                (":method", "POST"),
                (":scheme", "http"),
                (":authority", "node"),
                (":path", OPEN_CHANNEL_PATH),
                ("te", "trailers"),
                ("content-type", "application/grpc"),
            ],
            false,
        );
        self.deframers.insert(stream.get(), Deframer::new(64 << 20));
        match self.next_on(stream) {
            Said::Headers { fields, end: false, .. } => {
                assert!(fields.contains(&(":status".into(), "200".into())), "{fields:?}");
            }
            other => panic!("expected response headers at once, got {other:?}"),
        }
        stream
    }

    /// Sends one gRPC-framed message, in as many pieces as windows ask for.
    pub fn message(&mut self, stream: StreamId, message: &[u8]) {
        let mut framed = Vec::with_capacity(message.len() + 5);
        framed.push(0);
        framed.extend_from_slice(&u32::try_from(message.len()).expect("short").to_be_bytes());
        framed.extend_from_slice(message);
        self.octets(stream, &framed);
    }

    /// Sends DATA octets as they are, waiting for windows.
    pub fn octets(&mut self, stream: StreamId, octets: &[u8]) {
        let deadline = Instant::now() + PATIENCE;
        let mut left = octets;
        while !left.is_empty() {
            let taken = self.send.data(stream, left, false, &mut self.out);
            left = &left[taken..];
            self.flush();
            if !left.is_empty() {
                assert!(Instant::now() < deadline, "no window within {PATIENCE:?}");
                self.pump(Duration::from_millis(10));
                let over = |said: &Said| matches!(said, Said::Reset { stream: on, .. } | Said::Trailers { stream: on, .. } if *on == stream.get());
                if self.closed || self.said.iter().any(over) {
                    return;
                }
            }
        }
    }

    /// Sends as many octets as windows allow now; returns how many.
    pub fn try_octets(&mut self, stream: StreamId, octets: &[u8]) -> usize {
        let taken = self.send.data(stream, octets, false, &mut self.out);
        self.flush();
        taken
    }

    /// Ends our half of a stream.
    pub fn end(&mut self, stream: StreamId) {
        self.send.data(stream, &[], true, &mut self.out);
        self.flush();
    }

    /// Ends our half of a stream with trailers.
    pub fn end_with_trailers(&mut self, stream: StreamId, fields: &[(&str, &str)]) {
        let fields = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        self.send.headers(stream, fields, true, &mut self.out);
        self.flush();
    }

    /// Gives back what was withheld of a stream's window, and withholds no more of it.
    pub fn release(&mut self, stream: StreamId) {
        self.withheld.remove(&stream.get());
        if let Some(owed) = self.owed.remove(&stream.get())
            && let Some(increment) = self.recv.credit_stream(stream, owed)
        {
            self.send.write_window_update(stream, increment, &mut self.out);
        }
        self.flush();
    }

    /// Resets a stream.
    pub fn reset(&mut self, stream: StreamId, code: Code) {
        self.send.reset(stream, code, &mut self.out);
        self.recv.close(stream);
        self.flush();
    }
}
