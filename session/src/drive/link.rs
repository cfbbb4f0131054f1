//! One connection to a node: an HTTP/2 stream, a negotiated link, MACs on every header.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use slimline_wire::grpc::OPEN_CHANNEL_PATH;
use slimline_wire::link::{self, HeaderMac, Initiator, KeyError, NegotiationError, Policy};
use slimline_wire::message::{LinkNegotiation, MessageView, build_link, parse};
use slimline_wire::name::ConnType;
use slimline_wire::pb;
use slimline_wire::pb::message::MessageType;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::Instrument as _;

use super::carrier::{Io, PREFIX_OCTETS, Probes, Receiver, Sender, http_error, upgrade};
use super::config::{Keepalive, authority_of};
use super::socket::Target;
use super::{ConnectConfig, ConnectError, GrpcStatus, tls};
use crate::message::VERSION;

/// Windows as SDKs announce them.
const STREAM_WINDOW: u32 = 2 << 20;
const TRANSPORT_WINDOW: u32 = 5 << 20;
const MAC_OCTETS: usize = 32;
/// How long a node may take to end its side after ours.
const GOODBYE_WAIT: Duration = Duration::from_millis(500);

/// What names us to nodes; the link id stays over reconnects, keys do not.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) link_id: String,
    pub(super) node_id: String,
}

/// The receiving half.
pub(super) struct Incoming {
    receiver: Receiver,
    mac: Option<HeaderMac>,
    transport: Option<Transport>,
}

/// The task that serves an HTTP/2 connection. It goes with the connection, whatever the peer does.
struct Transport {
    task: JoinHandle<()>,
    /// Why the connection ended, which its stream does not know.
    ended: Arc<Mutex<Option<ConnectError>>>,
}

impl Drop for Transport {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Transport {
    fn serve(mut connection: h2::client::Connection<Box<dyn Io>, Bytes>, keepalive: Option<Keepalive>) -> Self {
        let ended = Arc::new(Mutex::new(None));
        let told = ended.clone();
        let pings = connection.ping_pong().zip(keepalive);
        let task = tokio::spawn(async move {
            // Dropping the connection ends its stream: whoever reads from it is told.
            let why = tokio::select! {
                ended = connection => ended.err().map(http_error),
                waited = unanswered(pings) => Some(ConnectError::TimedOut { step: "the answer to a ping", waited }),
            };
            *told.lock().unwrap_or_else(PoisonError::into_inner) = why;
        });
        Self { task, ended }
    }

    fn why(&self) -> Option<ConnectError> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The sending half.
pub(super) struct Outgoing {
    sender: Sender,
    mac: Option<HeaderMac>,
}

/// Connects, opens the stream and agrees on a key.
pub(super) async fn connect(config: &ConnectConfig, identity: &Identity) -> Result<(Incoming, Outgoing), ConnectError> {
    let span = tracing::info_span!("connect", endpoint = config.endpoint, link = identity.link_id);
    connect_traced(config, identity).instrument(span).await
}

async fn connect_traced(config: &ConnectConfig, identity: &Identity) -> Result<(Incoming, Outgoing), ConnectError> {
    let target = Target::read(&config.endpoint)?;
    if !target.is_secure() && (config.tls.authorities_pem.is_some() || config.tls.client_pem.is_some()) {
        let why = format!("certificates are given, but {} is not secured: write https:// or wss://", config.endpoint);
        return Err(ConnectError::Tls(why));
    }
    let unreachable = |why: String| ConnectError::Unreachable { endpoint: config.endpoint.clone(), why };
    let socket = within(config, "connecting", target.connect(config.keepalive.map(|keepalive| keepalive.tcp)))
        .await?
        .map_err(|error| unreachable(error.to_string()))?;
    let socket: Box<dyn Io> = if target.is_secure() {
        let (connector, name) = (config.tls.connector(!target.is_web())?, config.tls.name(target.authority())?);
        let secured = within(config, "the TLS handshake", connector.connect(name, socket)).await?;
        Box::new(secured.map_err(|error| ConnectError::Tls(tls::advised(&error.to_string())))?)
    } else {
        Box::new(socket)
    };
    let opened = if target.is_web() {
        let upgraded = within(config, "the WebSocket upgrade", upgrade(config, &config.endpoint, socket)).await?;
        upgraded.map(|(receiver, sender)| (receiver, sender, None))
    } else {
        open(config, &target, socket).await
    };
    let (receiver, sender, transport) = opened.map_err(|error| match error {
        ConnectError::Http(why) if !target.is_secure() => ConnectError::Http(format!(
            "{why}; does a SLIM node listen at {}, and without TLS? With TLS the endpoint begins with https:// or wss://",
            config.endpoint
        )),
        error => error,
    })?;
    let mut incoming = Incoming { receiver, mac: None, transport };
    let mut outgoing = Outgoing { sender, mac: None };
    within(config, "link negotiation", negotiate(config, identity, &mut incoming, &mut outgoing)).await??;
    tracing::debug!(mac = incoming.mac.is_some(), "link agreed on");
    Ok((incoming, outgoing))
}

/// Opens the gRPC stream on a connected socket.
async fn open(
    config: &ConnectConfig,
    target: &Target,
    socket: Box<dyn Io>,
) -> Result<(Receiver, Sender, Option<Transport>), ConnectError> {
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(TRANSPORT_WINDOW)
        .max_header_list_size(16_384)
        .enable_push(false);
    let (requests, connection) =
        within(config, "the HTTP/2 preface", builder.handshake::<_, Bytes>(socket)).await?.map_err(http_error)?;
    let transport = Transport::serve(connection, config.keepalive);
    let authority = config.origin.as_deref().map_or(target.authority(), authority_of);
    let mut request = http::Request::post(format!("{}://{authority}{OPEN_CHANNEL_PATH}", target.scheme()))
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .header("user-agent", concat!("slimline/", env!("CARGO_PKG_VERSION")));
    for (name, value) in &config.headers {
        request = request.header(name, value);
    }
    let request = request.body(()).map_err(|error| ConnectError::Http(error.to_string()))?;
    let mut requests = within(config, "a free stream", requests.ready()).await?.map_err(http_error)?;
    let (response, stream) = requests.send_request(request, false).map_err(http_error)?;
    let response = within(config, "opening the stream", response).await?.map_err(http_error)?;
    if response.status() != 200 {
        return Err(ConnectError::Refused { status: response.status().as_u16() });
    }
    if let Some(status) = GrpcStatus::read(response.headers()) {
        return Err(ConnectError::Status(status));
    }
    Ok((Receiver::grpc(response.into_body()), Sender::Grpc(stream), Some(transport)))
}

/// Pings the peer from time to time; returns when one stays without answer, and how long that was waited for.
async fn unanswered(pings: Option<(h2::PingPong, Keepalive)>) -> Duration {
    let every = pings.as_ref().and_then(|(_, keepalive)| keepalive.ping_every());
    let (Some((mut pings, keepalive)), Some(every)) = (pings, every) else { return std::future::pending().await };
    loop {
        sleep(every).await;
        match timeout(keepalive.timeout, pings.ping(h2::Ping::opaque())).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return std::future::pending().await, // the connection ends by itself
            Err(_) => return keepalive.timeout,
        }
    }
}

async fn negotiate(
    config: &ConnectConfig,
    identity: &Identity,
    incoming: &mut Incoming,
    outgoing: &mut Outgoing,
) -> Result<(), ConnectError> {
    let failed = |why: &dyn std::fmt::Display| ConnectError::Negotiation(why.to_string());
    let policy = Policy { require_header_mac: config.require_header_mac, enforce_pqc: false };
    let initiator = Initiator::new(false).map_err(|error| failed(&error))?;
    let base = LinkNegotiation {
        link_id: &identity.link_id,
        slim_version: VERSION,
        is_reply: false,
        ecdh_public_key: &[],
        connection_type: ConnType::Edge,
        node_id: &identity.node_id,
        deployment_name: "",
        kem_payload: None,
    };
    let mut octets = vec![0; PREFIX_OCTETS];
    build_link(&link::request(&initiator, &base), &mut octets);
    outgoing.send(frame(octets)?).await?;
    let reply = incoming.octets().await?.ok_or(ConnectError::Ended)?;
    let MessageView::Link(reply) = parse(&reply).map_err(|error| failed(&error))? else {
        return Err(failed(&"the node's first message is not a link negotiation"));
    };
    let key = link::complete(&initiator, &identity.link_id, &reply, policy).map_err(|error| match error {
        NegotiationError::Key(KeyError::PublicKeyLength { .. }) => failed(&format!(
            "{error}: the node uses no header MAC; let it, or allow that with `require_header_mac: false` (ConnectConfig::lax)"
        )),
        NegotiationError::Version => failed(&format!("{error}: the node speaks another version of the protocol")),
        error => failed(&error),
    })?;
    incoming.mac = key.as_ref().map(|key| HeaderMac::new(key, &identity.link_id));
    outgoing.mac = key.as_ref().map(|key| HeaderMac::new(key, &identity.link_id));
    Ok(())
}

async fn within<F: Future>(config: &ConnectConfig, step: &'static str, future: F) -> Result<F::Output, ConnectError> {
    let waited = config.step_timeout;
    timeout(waited, future).await.map_err(|_| ConnectError::TimedOut { step, waited })
}

/// Fills in the five octets kept free in front.
fn frame(mut octets: Vec<u8>) -> Result<Bytes, ConnectError> {
    let length = u32::try_from(octets.len() - PREFIX_OCTETS).map_err(|_| ConnectError::Http("too large".into()))?;
    octets[1..PREFIX_OCTETS].copy_from_slice(&length.to_be_bytes());
    Ok(octets.into())
}

impl Incoming {
    /// The next message as it came. When the connection ended under the stream, its reason counts.
    async fn octets(&mut self) -> Result<Option<Vec<u8>>, ConnectError> {
        let next = self.receiver.next().await;
        match next {
            Err(ConnectError::Status(_)) | Ok(Some(_)) => next,
            Err(_) | Ok(None) => self.transport.as_ref().and_then(Transport::why).map_or(next, Err),
        }
    }

    /// The next message that is whole and carries the MAC it should; `None` at the end of the stream.
    pub(super) async fn next(&mut self) -> Result<Option<pb::Message>, ConnectError> {
        while let Some(octets) = self.octets().await? {
            if let Some(mac) = &mut self.mac {
                let genuine = match parse(&octets) {
                    Ok(view) => view.header().is_none_or(|header| mac.verify(header)),
                    Err(error) => {
                        tracing::warn!(%error, "malformed message from the node dropped");
                        continue;
                    }
                };
                if !genuine {
                    tracing::warn!("message from the node without a valid header MAC dropped");
                    continue;
                }
            }
            match pb::Message::decode(&*octets) {
                Ok(message) => return Ok(Some(message)),
                Err(error) => tracing::warn!(%error, "undecodable message from the node dropped"),
            }
        }
        Ok(None)
    }

    /// After our side ended: waits, for a moment, until the node has everything and ended its side too.
    pub(super) async fn goodbye(mut self) {
        let ended = async { while let Ok(Some(_)) = self.receiver.next().await {} };
        let _ = timeout(GOODBYE_WAIT, ended).await;
        drop(self.receiver);
        if let Some(transport) = &mut self.transport {
            let _ = timeout(GOODBYE_WAIT, &mut transport.task).await;
        }
    }
}

impl Outgoing {
    /// Writes a message as it leaves: with its MAC, in its gRPC frame.
    pub(super) fn write(&mut self, mut message: pb::Message, out: &mut Vec<u8>) {
        let header = match &mut message.message_type {
            Some(MessageType::Publish(publish)) => publish.header.as_mut(),
            Some(MessageType::Subscribe(subscribe)) => subscribe.header.as_mut(),
            Some(MessageType::Unsubscribe(unsubscribe)) => unsubscribe.header.as_mut(),
            _ => None,
        };
        if let (Some(header), Some(_)) = (header, &self.mac) {
            header.header_mac = Some(vec![0; MAC_OCTETS]);
        }
        let start = out.len();
        out.extend_from_slice(&[0; PREFIX_OCTETS]);
        message.encode_raw(out);
        let (prefix, message) = out[start..].split_at_mut(PREFIX_OCTETS);
        if let Ok(length) = u32::try_from(message.len()) {
            prefix[1..].copy_from_slice(&length.to_be_bytes());
        }
        if let Some(mac) = &mut self.mac
            && let Err(error) = link::sign(message, mac)
        {
            // Our own message did not parse: a bug to be seen, not a reason to stop.
            tracing::error!(%error, "message left without a valid MAC");
        }
    }

    /// Sends what was written.
    pub(super) async fn send(&mut self, octets: Bytes) -> Result<(), ConnectError> {
        self.sender.send(octets).await
    }

    /// How often [`Outgoing::ping`] is to be called; `None`: never.
    pub(super) fn ping_every(&self) -> Option<Duration> {
        self.sender.ping_every()
    }

    /// What remembers that an answer is due, where pings are ours to send.
    pub(super) fn probes(&self) -> Option<Probes> {
        self.sender.probes()
    }

    /// Pings the node.
    pub(super) async fn ping(&mut self) -> Result<(), ConnectError> {
        self.sender.ping().await
    }

    /// Ends the stream.
    pub(super) async fn finish(&mut self) {
        self.sender.finish().await;
    }
}
