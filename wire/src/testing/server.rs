//! A small HTTP/2 server made of the two halves and nothing else: the peer of dialogues and cross-checks.

use std::time::Instant;

use crate::h2::{Event, Limits, Recv, Role, Send, StreamId, TransportError, WindowError};

/// What a stream still has to say.
#[derive(Debug)]
struct Answer {
    stream: StreamId,
    is_echo: bool,
    body: Vec<u8>,
    /// What became of the request: nothing more will be added to `body`.
    is_complete: bool,
    trailers: Option<Vec<(Vec<u8>, Vec<u8>)>>,
}

/// A server without a socket: octets in, octets out.
///
/// `/echo` sends back data and trailers as they come, as fast as the windows allow; `/octets/N` answers with N octets;
/// anything else with `hello`, once the request is complete.
#[derive(Debug)]
pub struct Server {
    recv: Recv,
    send: Send,
    answers: Vec<Answer>,
    out: Vec<u8>,
    ended: Option<TransportError>,
    /// Streams reset for the peer's mistakes, and why.
    pub resets: Vec<(StreamId, &'static str)>,
}

impl Server {
    /// A server that has said hello.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        let (recv, mut send, mut out) = (Recv::new(Role::Server, limits), Send::new(Role::Server, limits), Vec::new());
        send.start(&mut out);
        Self { recv, send, answers: Vec::new(), out, ended: None, resets: Vec::new() }
    }

    /// What it has to say since the last call.
    pub fn take_output(&mut self) -> Vec<u8> {
        self.send.seal();
        self.recv.data_sent(self.send.take_data_sent());
        std::mem::take(&mut self.out)
    }

    /// Why it ended the transport, if it did.
    #[must_use]
    pub fn ended(&self) -> Option<TransportError> {
        self.ended
    }

    /// Streams that live, as the receive half sees it and as the send half does.
    #[must_use]
    pub fn streams(&self) -> (usize, usize) {
        (self.recv.streams(), self.send.streams())
    }

    /// Refuses streams from now on, and says so.
    pub fn go_away(&mut self) {
        self.recv.stop_accepting();
        self.send.goaway(self.recv.last_stream(), crate::h2::Code::NO_ERROR, b"draining", &mut self.out);
    }

    /// Takes what the peer says.
    pub fn receive(&mut self, now: Instant, mut input: &[u8]) {
        while self.ended.is_none() {
            match self.step(now, &mut input) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    let last = self.recv.last_stream();
                    self.send.goaway(last, error.code, error.reason.as_bytes(), &mut self.out);
                    self.ended = Some(error);
                }
            }
        }
        self.transmit();
    }

    /// Handles one event; false when there is none.
    fn step(&mut self, now: Instant, input: &mut &[u8]) -> Result<bool, TransportError> {
        let Some(event) = self.recv.next(now, input)? else { return Ok(false) };
        match event {
            Event::Headers { stream, fields, end_stream } => {
                let path = fields.get(":path").unwrap_or_default();
                let octets = path.strip_prefix(b"/octets/").and_then(|n| str::from_utf8(n).ok()?.parse().ok());
                let is_echo = path == b"/echo";
                let body = match octets {
                    _ if is_echo => Vec::new(),
                    Some(octets) => (0..=255).cycle().take(octets).collect(),
                    None => b"hello".to_vec(),
                };
                self.send.open(stream);
                self.send.headers(stream, [(&b":status"[..], &b"200"[..])], false, &mut self.out);
                self.answers.push(Answer { stream, is_echo, body, is_complete: end_stream, trailers: None });
            }
            Event::Trailers { stream, fields } => {
                let trailers = fields.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
                if let Some(answer) = self.answer(stream) {
                    answer.is_complete = true;
                    answer.trailers = answer.is_echo.then_some(trailers);
                }
            }
            Event::Data { stream, octets, flow_octets, end_stream } => {
                let mut release = flow_octets;
                if let Some(answer) = self.answer(stream) {
                    answer.is_complete = end_stream;
                    if answer.is_echo {
                        answer.body.extend_from_slice(octets);
                        release -= u32::try_from(octets.len()).expect("a part of the frame");
                    }
                }
                self.release(stream, release);
                self.release(StreamId::TRANSPORT, flow_octets);
            }
            Event::IgnoredData { flow_octets } => self.release(StreamId::TRANSPORT, flow_octets),
            Event::Reset { stream, .. } => self.forget(stream),
            Event::StreamError { stream, code, reason } => {
                self.resets.push((stream, reason));
                self.send.reset(stream, code, &mut self.out);
                self.forget(stream);
            }
            Event::Settings(settings) => self.send.settings(&settings, &mut self.out)?,
            Event::Ping(octets) => self.send.ping_ack(octets, &mut self.out),
            Event::WindowUpdate { stream, increment } => match self.send.window_update(stream, increment) {
                Ok(()) => {}
                Err(WindowError::Transport(error)) => return Err(error),
                Err(WindowError::Stream { stream, code, reason }) => {
                    self.resets.push((stream, reason));
                    self.send.reset(stream, code, &mut self.out);
                    self.recv.close(stream);
                    self.forget(stream);
                }
            },
            Event::SettingsAck | Event::Pong(_) | Event::GoAway { .. } => {}
        }
        Ok(true)
    }

    /// Sends what the windows allow.
    fn transmit(&mut self) {
        if self.ended.is_some() {
            return;
        }
        let mut answers = std::mem::take(&mut self.answers);
        answers.retain_mut(|answer| {
            let ends_with_data = answer.is_complete && answer.trailers.is_none();
            if !answer.is_complete && !answer.is_echo {
                return true;
            }
            let taken = self.send.data(answer.stream, &answer.body, ends_with_data, &mut self.out);
            answer.body.drain(..taken);
            if answer.is_echo {
                self.release(answer.stream, u32::try_from(taken).expect("within a window"));
            }
            if !answer.body.is_empty() || !answer.is_complete {
                return true;
            }
            if let Some(trailers) = &answer.trailers {
                let fields = trailers.iter().map(|(name, value)| (&name[..], &value[..]));
                self.send.headers(answer.stream, fields, true, &mut self.out);
            }
            self.send.close(answer.stream);
            self.recv.close(answer.stream);
            false
        });
        self.answers = answers;
    }

    fn answer(&mut self, stream: StreamId) -> Option<&mut Answer> {
        self.answers.iter_mut().find(|answer| answer.stream == stream)
    }

    fn release(&mut self, stream: StreamId, octets: u32) {
        let due = match stream {
            StreamId::TRANSPORT => self.recv.credit_transport(octets),
            stream => self.recv.credit_stream(stream, octets),
        };
        if let Some(increment) = due {
            self.send.write_window_update(stream, increment, &mut self.out);
        }
    }

    fn forget(&mut self, stream: StreamId) {
        self.send.close(stream);
        self.answers.retain(|answer| answer.stream != stream);
    }
}
