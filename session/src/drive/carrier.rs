//! What carries messages: a gRPC stream over HTTP/2, or a WebSocket with one message per binary frame.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use h2::{Reason, RecvStream, SendStream};
use slimline_wire::grpc::{Deframer, Item};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::sleep_until;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};

use super::{ConnectConfig, ConnectError, GrpcStatus, Keepalive, tls};
use crate::data::MESSAGE_OCTETS_MAX;

/// Octets per gRPC message before the message itself: a flag, and its length.
pub(super) const PREFIX_OCTETS: usize = 5;

/// A connected socket of any kind.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

type Web = WebSocketStream<Box<dyn Io>>;

/// The receiving half.
pub(super) enum Receiver {
    Grpc { stream: RecvStream, deframer: Deframer, chunk: Bytes },
    Web { stream: SplitStream<Web>, alive: Option<Probes> },
}

/// The sending half.
pub(super) enum Sender {
    Grpc(SendStream<Bytes>),
    Web { sink: SplitSink<Web, Message>, alive: Option<Probes> },
}

/// Pings over a WebSocket, which the writing half sends and the reading half expects an answer to.
#[derive(Clone)]
pub(super) struct Probes {
    keepalive: Keepalive,
    /// When the ping left that nothing has come after yet.
    waiting_since: Arc<Mutex<Option<Instant>>>,
}

impl Probes {
    fn waiting_since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.waiting_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node has reason to send something from now on.
    pub(super) fn expect_answer(&self) {
        self.waiting_since().get_or_insert_with(Instant::now);
    }

    /// Returns when a ping stayed without answer.
    async fn unanswered(&self) {
        loop {
            let since = *self.waiting_since();
            if since.is_some_and(|since| since.elapsed() >= self.keepalive.timeout) {
                return;
            }
            // Nothing to wait for yet: none that leaves from now on is late before that.
            sleep_until((since.unwrap_or_else(Instant::now) + self.keepalive.timeout).into()).await;
        }
    }
}

#[allow(clippy::needless_pass_by_value)] // as map_err gives it
pub(super) fn http_error(error: h2::Error) -> ConnectError {
    // Once a client has shaken hands, TLS 1.3 tells it only here that its certificate is wanted.
    let text = error.to_string();
    match error.reason() {
        _ if text.contains("received fatal alert") => ConnectError::Tls(tls::advised(&text)),
        Some(reason) if error.is_reset() && error.is_remote() => {
            ConnectError::Http(format!("the node reset the stream: {reason:?}"))
        }
        Some(reason) if error.is_go_away() && error.is_remote() => {
            ConnectError::Http(format!("the node closed the connection: {reason:?}"))
        }
        _ => ConnectError::Http(format!("HTTP/2: {text}")),
    }
}

#[allow(clippy::needless_pass_by_value)] // as map_err gives it
fn web_error(error: tungstenite::Error) -> ConnectError {
    match error {
        tungstenite::Error::Http(response) => ConnectError::Refused { status: response.status().as_u16() },
        error if error.to_string().contains("received fatal alert") => {
            ConnectError::Tls(tls::advised(&error.to_string()))
        }
        error => ConnectError::Http(format!("WebSocket: {error}")),
    }
}

impl Receiver {
    pub(super) fn grpc(stream: RecvStream) -> Self {
        let deframer = Deframer::new(u32::try_from(MESSAGE_OCTETS_MAX).unwrap_or(u32::MAX));
        Self::Grpc { stream, deframer, chunk: Bytes::new() }
    }

    /// The next message's octets; `None` at the end. Cancel-safe: what was read is kept in `self`.
    ///
    /// Errors: [`ConnectError::Status`] when the node gave a reason with the end.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<u8>>, ConnectError> {
        match self {
            Self::Grpc { stream, deframer, chunk } => next_of_grpc(stream, deframer, chunk).await,
            Self::Web { stream, alive } => loop {
                let frame = match alive {
                    None => stream.next().await,
                    Some(probes) => tokio::select! {
                        frame = stream.next() => {
                            *probes.waiting_since() = None;
                            frame
                        }
                        () = probes.unanswered() => {
                            let waited = probes.keepalive.timeout;
                            return Err(ConnectError::TimedOut { step: "the answer to a ping", waited });
                        }
                    },
                };
                match frame {
                    Some(Ok(Message::Binary(octets))) => return Ok(Some(octets.into())),
                    // Pings are answered by the library; text is nothing a node says.
                    Some(Ok(Message::Close(_))) | None => return Ok(None),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(web_error(error)),
                }
            },
        }
    }
}

async fn next_of_grpc(
    stream: &mut RecvStream,
    deframer: &mut Deframer,
    chunk: &mut Bytes,
) -> Result<Option<Vec<u8>>, ConnectError> {
    loop {
        let mut input = &chunk[..];
        let item = deframer.next(&mut input).map_err(|error| ConnectError::Http(format!("gRPC: {error}")))?;
        let message = match item {
            Some(Item::Message(message)) => Some(message.to_vec()),
            Some(Item::Oversize { length }) => {
                tracing::warn!(length, "message over the limit skipped");
                None
            }
            None => None,
        };
        let taken = chunk.len() - input.len();
        drop(chunk.split_to(taken));
        if message.is_some() {
            return Ok(message);
        }
        if !chunk.is_empty() {
            continue;
        }
        match stream.data().await {
            Some(Ok(next)) => {
                // Read is taken: messages wait in bounded inboxes, not in the transport.
                stream.flow_control().release_capacity(next.len()).map_err(http_error)?;
                *chunk = next;
            }
            Some(Err(error)) if error.reason() == Some(Reason::NO_ERROR) => return Ok(None),
            Some(Err(error)) => return Err(http_error(error)),
            None => {
                let trailers = stream.trailers().await.map_err(http_error)?;
                return trailers
                    .as_ref()
                    .and_then(GrpcStatus::read)
                    .map_or(Ok(None), |why| Err(ConnectError::Status(why)));
            }
        }
    }
}

impl Sender {
    /// Sends messages, each behind its gRPC prefix, as windows and buffers allow.
    pub(super) async fn send(&mut self, mut octets: Bytes) -> Result<(), ConnectError> {
        match self {
            Self::Grpc(stream) => {
                while !octets.is_empty() {
                    stream.reserve_capacity(octets.len());
                    let granted = poll_fn(|cx| stream.poll_capacity(cx)).await;
                    let granted =
                        granted.ok_or_else(|| ConnectError::Http("the stream ended".into()))?.map_err(http_error)?;
                    let piece = octets.split_to(granted.min(octets.len()));
                    stream.send_data(piece, false).map_err(http_error)?;
                }
            }
            Self::Web { sink, .. } => {
                // The same buffer, but a frame of its own for each message, without the prefix.
                while let Some(&[_, l0, l1, l2, l3]) = octets.first_chunk::<PREFIX_OCTETS>() {
                    let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
                    drop(octets.split_to(PREFIX_OCTETS));
                    let message = octets.split_to(length.min(octets.len()));
                    sink.feed(Message::Binary(message)).await.map_err(web_error)?;
                }
                sink.flush().await.map_err(web_error)?;
            }
        }
        Ok(())
    }

    /// When the next ping is due: never, unless a WebSocket is to be kept alive. Over HTTP/2 the connection sees to it.
    pub(super) fn ping_every(&self) -> Option<Duration> {
        match self {
            Self::Grpc(_) => None,
            Self::Web { alive, .. } => alive.as_ref().and_then(|probes| probes.keepalive.ping_every()),
        }
    }

    /// Pings the node.
    pub(super) async fn ping(&mut self) -> Result<(), ConnectError> {
        let Self::Web { sink, alive: Some(probes) } = self else { return Ok(()) };
        probes.expect_answer();
        sink.send(Message::Ping(Bytes::new())).await.map_err(web_error)
    }

    pub(super) fn probes(&self) -> Option<Probes> {
        match self {
            Self::Grpc(_) => None,
            Self::Web { alive, .. } => alive.clone(),
        }
    }

    /// Ends the stream.
    pub(super) async fn finish(&mut self) {
        match self {
            Self::Grpc(stream) => drop(stream.send_data(Bytes::new(), true)),
            Self::Web { sink, .. } => drop(sink.close().await),
        }
    }
}

/// Upgrades a socket to a WebSocket.
///
/// Source: slim-wire §1.3: path as configured, no sub-protocol, no extensions.
pub(super) async fn upgrade(
    config: &ConnectConfig,
    url: &str,
    socket: Box<dyn Io>,
) -> Result<(Receiver, Sender), ConnectError> {
    let mut request = url.into_client_request().map_err(web_error)?;
    let origin = config.origin.iter().map(|origin| ("origin".to_owned(), origin.clone()));
    for (name, value) in config.headers.iter().cloned().chain(origin) {
        let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) else {
            return Err(ConnectError::Http(format!("header {name:?} cannot be sent")));
        };
        request.headers_mut().insert(name, value);
    }
    let limits =
        WebSocketConfig::default().max_message_size(Some(MESSAGE_OCTETS_MAX)).max_frame_size(Some(MESSAGE_OCTETS_MAX));
    let upgraded = tokio_tungstenite::client_async_with_config(request, socket, Some(limits)).await;
    let (sink, stream) = upgraded.map_err(web_error)?.0.split();
    let alive = config.keepalive.map(|keepalive| Probes { keepalive, waiting_since: Arc::default() });
    Ok((Receiver::Web { stream, alive: alive.clone() }, Sender::Web { sink, alive }))
}
