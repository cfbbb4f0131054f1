//! The Workload API of SPIFFE, as far as JWT-SVIDs go: gRPC over a Unix socket (or loopback TCP), in plain text.

use std::time::Duration;

use bytes::{Buf as _, Bytes};
use prost::Message;
use slimline_wire::grpc::{Deframer, Item, Status, prefix};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::error::IdentityError;

/// What a reply may hold.
const REPLY_OCTETS_MAX: u32 = 4 << 20;
/// How long the agent may take to answer.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// What is asked for: an identity for these audiences.
#[derive(Clone, PartialEq, Message)]
pub struct JwtSvidRequest {
    /// For whom the token is.
    #[prost(string, repeated, tag = "1")]
    pub audience: Vec<String>,
    /// Which of our identities, where we have several.
    #[prost(string, tag = "2")]
    pub spiffe_id: String,
}

/// What is issued.
#[derive(Clone, PartialEq, Message)]
pub struct JwtSvidResponse {
    /// One per identity.
    #[prost(message, repeated, tag = "1")]
    pub svids: Vec<JwtSvid>,
}

/// One identity's token.
#[derive(Clone, PartialEq, Message)]
pub struct JwtSvid {
    /// Whose.
    #[prost(string, tag = "1")]
    pub spiffe_id: String,
    /// The token.
    #[prost(string, tag = "2")]
    pub svid: String,
}

/// Asks for all trust bundles, now and whenever they change.
#[derive(Clone, PartialEq, Message)]
pub struct JwtBundlesRequest {}

/// Trust domain → JWKS document.
#[derive(Clone, PartialEq, Message)]
pub struct JwtBundlesResponse {
    /// By the id of the trust domain, `spiffe://example.org`.
    #[prost(btree_map = "string, bytes", tag = "1")]
    pub bundles: std::collections::BTreeMap<String, Vec<u8>>,
}

/// A byte stream to the agent.
trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

fn failed(why: impl std::fmt::Display) -> IdentityError {
    IdentityError::Unavailable(why.to_string())
}

/// Opens a connection; `endpoint` is `unix:/path`, `unix:///path`, `tcp://IP:port` or a bare path.
async fn connect(endpoint: &str) -> Result<Box<dyn Io>, IdentityError> {
    let refused = |error: std::io::Error| failed(format_args!("{endpoint}: {error}"));
    if let Some(address) = endpoint.strip_prefix("tcp://") {
        return Ok(Box::new(TcpStream::connect(address).await.map_err(refused)?));
    }
    let path = endpoint.strip_prefix("unix://").or(endpoint.strip_prefix("unix:")).unwrap_or(endpoint);
    Ok(Box::new(UnixStream::connect(path).await.map_err(refused)?))
}

/// The replies to one request; the connection ends with them.
pub(super) struct Replies {
    body: h2::RecvStream,
    deframer: Deframer,
    chunk: Bytes,
    connection: JoinHandle<()>,
}

impl Drop for Replies {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Sends one request of one method.
pub(super) async fn call(endpoint: &str, method: &str, request: &impl Message) -> Result<Replies, IdentityError> {
    timeout(ANSWER_WAIT, open(endpoint, method, request))
        .await
        .map_err(|_| failed(format_args!("{endpoint} did not answer within {ANSWER_WAIT:?}")))?
}

async fn open(endpoint: &str, method: &str, request: &impl Message) -> Result<Replies, IdentityError> {
    let socket = connect(endpoint).await?;
    let (requests, connection) = h2::client::handshake(socket).await.map_err(failed)?;
    let connection = tokio::spawn(async move {
        let _ = connection.await;
    });
    let head = http::Request::post(format!("http://localhost/SpiffeWorkloadAPI/{method}"))
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .header("workload.spiffe.io", "true")
        .body(())
        .map_err(failed)?;
    let mut requests = requests.ready().await.map_err(failed)?;
    let (response, mut send) = requests.send_request(head, false).map_err(failed)?;
    let message = request.encode_to_vec();
    let mut framed = prefix(u32::try_from(message.len()).map_err(failed)?).to_vec();
    framed.extend_from_slice(&message);
    send.send_data(framed.into(), true).map_err(failed)?;
    let response = response.await.map_err(failed)?;
    if response.status() != http::StatusCode::OK {
        connection.abort();
        return Err(failed(format_args!("the Workload API answered HTTP {}", response.status())));
    }
    if let Err(error) = judge(response.headers()) {
        connection.abort();
        return Err(error);
    }
    Ok(Replies {
        body: response.into_body(),
        deframer: Deframer::new(REPLY_OCTETS_MAX),
        chunk: Bytes::new(),
        connection,
    })
}

/// What a status among headers or trailers says; none says nothing.
fn judge(headers: &http::HeaderMap) -> Result<(), IdentityError> {
    let Some(status) = headers.get("grpc-status") else { return Ok(()) };
    let code = status.to_str().ok().and_then(|text| text.parse().ok()).unwrap_or(Status::UNKNOWN.0);
    if code == Status::OK.0 {
        return Ok(());
    }
    if code == Status::PERMISSION_DENIED.0 {
        return Err(failed("no identity is issued to this workload (is it registered?)"));
    }
    let why = headers.get("grpc-message").and_then(|text| text.to_str().ok()).unwrap_or("no reason given");
    Err(failed(format_args!("status {code}: {why}")))
}

impl Replies {
    /// The one reply of a unary method.
    pub(super) async fn only<M: Message + Default>(mut self) -> Result<M, IdentityError> {
        let reply = timeout(ANSWER_WAIT, self.next()).await.map_err(|_| failed("no reply in time"))?;
        reply?.ok_or_else(|| failed("no reply"))
    }

    /// The next reply; `None` when the stream ended well.
    pub(super) async fn next<M: Message + Default>(&mut self) -> Result<Option<M>, IdentityError> {
        loop {
            let mut input = &self.chunk[..];
            let item = self.deframer.next(&mut input).map_err(|error| failed(format_args!("{error:?}")))?;
            let reply = match item {
                Some(Item::Message(octets)) => Some(M::decode(octets).map_err(failed)?),
                Some(_) => return Err(failed("a reply of more than 4 MiB")),
                None => None,
            };
            let taken = self.chunk.len() - input.len();
            self.chunk.advance(taken);
            if reply.is_some() {
                return Ok(reply);
            }
            match self.body.data().await {
                Some(chunk) => {
                    self.chunk = chunk.map_err(failed)?;
                    let _ = self.body.flow_control().release_capacity(self.chunk.len());
                }
                None => {
                    let trailers = self.body.trailers().await.map_err(failed)?;
                    return trailers.map_or(Ok(()), |trailers| judge(&trailers)).map(|()| None);
                }
            }
        }
    }
}
