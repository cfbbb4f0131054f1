//! What the node says, and waiting for it.

use super::{Client, Link, PATIENCE, payload_of};
use slimline_wire::h2::{Code, StreamId};
use slimline_wire::message::{Bounds, MessageView, parse_within};
use std::io::Read;
use std::time::{Duration, Instant};

/// Something the node said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    Headers {
        stream: u32,
        fields: Vec<(String, String)>,
        end: bool,
    },
    Trailers {
        stream: u32,
        fields: Vec<(String, String)>,
    },
    Message {
        stream: u32,
        octets: Vec<u8>,
    },
    Data {
        stream: u32,
        octets: Vec<u8>,
        end: bool,
    },
    Reset {
        stream: u32,
        code: Code,
    },
    GoAway {
        code: Code,
    },
    /// The socket ended.
    Closed,
}

impl Said {
    /// The stream it is about; `None` for the whole transport.
    pub fn stream(&self) -> Option<u32> {
        match *self {
            Self::Headers { stream, .. }
            | Self::Trailers { stream, .. }
            | Self::Message { stream, .. }
            | Self::Data { stream, .. }
            | Self::Reset { stream, .. } => Some(stream),
            Self::GoAway { .. } | Self::Closed => None,
        }
    }

    /// A field of headers or trailers.
    pub fn field(&self, name: &str) -> Option<&str> {
        let (Self::Headers { fields, .. } | Self::Trailers { fields, .. }) = self else { return None };
        fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

impl Client {
    /// The next thing the node says on any stream.
    pub fn next(&mut self) -> Said {
        self.next_within(PATIENCE).unwrap_or_else(|| panic!("the node said nothing for {PATIENCE:?}"))
    }

    /// As [`Client::next`], `None` after `patience`.
    pub fn next_within(&mut self, patience: Duration) -> Option<Said> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(said) = self.said.pop_front() {
                return Some(said);
            }
            if self.closed {
                return Some(Said::Closed);
            }
            let now = Instant::now();
            if now >= deadline {
                return None;
            }
            self.pump((deadline - now).min(Duration::from_millis(50)));
        }
    }

    /// The next thing the node says on `stream` or about the whole transport; what it says on others is kept.
    pub fn next_on(&mut self, stream: StreamId) -> Said {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let concerns = |said: &Said| said.stream().is_none_or(|on| on == stream.get());
            if let Some(at) = self.said.iter().position(concerns) {
                return self.said.remove(at).expect("just found");
            }
            if self.closed {
                return Said::Closed;
            }
            assert!(Instant::now() < deadline, "the node said nothing on {stream:?} for {PATIENCE:?}");
            self.pump(Duration::from_millis(50));
        }
    }

    /// The next message on `stream`; anything else on it fails the test.
    pub fn expect_message(&mut self, stream: StreamId) -> Vec<u8> {
        match self.next_on(stream) {
            Said::Message { octets, .. } => octets,
            other => panic!("expected a message on {stream:?}, got {other:?}"),
        }
    }

    /// Messages that have arrived on `stream` and were not asked for yet.
    pub fn waiting_on(&self, stream: StreamId) -> usize {
        self.said.iter().filter(|said| matches!(said, Said::Message { stream: on, .. } if *on == stream.get())).count()
    }

    /// The text of the last GOAWAY, or whatever else the node said last.
    pub fn last_words(&self) -> String {
        String::from_utf8_lossy(&self.tail).into_owned()
    }

    /// The payload of the next publish on `link`, its header MAC checked.
    pub fn expect_payload(&mut self, link: &mut Link) -> Vec<u8> {
        let octets = self.expect_message(link.stream);
        let MessageView::Publish(publish) = parse_within(&octets, &Bounds::NONE).expect("a readable publish") else {
            panic!("not a publish")
        };
        link.check(&publish.header);
        payload_of(&octets)
    }

    /// Nothing arrives for a while.
    pub fn expect_silence(&mut self, length: Duration) {
        if let Some(said) = self.next_within(length) {
            panic!("expected silence, got {said:?}");
        }
    }

    /// The trailers that end `stream`: (grpc-status, grpc-message). Messages before them are skipped.
    pub fn expect_end(&mut self, stream: StreamId) -> (u32, String) {
        loop {
            match self.next_on(stream) {
                said @ (Said::Trailers { .. } | Said::Headers { end: true, .. }) => {
                    let status = said.field("grpc-status").expect("a status").parse().expect("a number");
                    return (status, percent_decode(said.field("grpc-message").unwrap_or_default()));
                }
                Said::Message { .. } | Said::Data { .. } | Said::GoAway { code: Code::NO_ERROR } => {}
                other => panic!("expected the end of {stream:?}, got {other:?}"),
            }
        }
    }

    /// Reads frames without understanding them until a GOAWAY: its code and text. Then the node closes.
    pub fn read_goaway(&mut self) -> (Code, String) {
        self.flush();
        let mut octets = Vec::new();
        self.socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let _ = self.socket.read_to_end(&mut octets);
        self.closed = true;
        let mut rest = &octets[..];
        while let Some((head, behind)) = rest.split_first_chunk::<9>() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let Some((payload, behind)) = behind.split_at_checked(length) else { break };
            if head[3] == 7 {
                let code = u32::from_be_bytes(payload[4..8].try_into().expect("a code"));
                return (Code(code), String::from_utf8_lossy(&payload[8..]).into_owned());
            }
            rest = behind;
        }
        panic!("closed without GOAWAY after {} octets", octets.len());
    }

    /// The GOAWAY that ends the connection, then its end.
    pub fn expect_goaway(&mut self) -> Code {
        loop {
            match self.next() {
                Said::GoAway { code } => return code,
                Said::Closed => panic!("closed without GOAWAY"),
                _ => {}
            }
        }
    }

    /// Waits until the node has closed the socket.
    pub fn expect_closed(&mut self) {
        loop {
            if self.next() == Said::Closed {
                return;
            }
        }
    }
}

fn percent_decode(text: &str) -> String {
    let mut parts = text.split('%');
    let mut out = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        out.push(u8::from_str_radix(&part[..2], 16).expect("two hex digits"));
        out.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(out).expect("UTF-8")
}
