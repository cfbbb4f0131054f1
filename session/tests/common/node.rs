//! A node as small as can be, on a real socket: enough to test the connection, its loss and its return.
#![allow(dead_code, unreachable_pub)] // each test file takes its part of this module

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use prost::Message as _;
use slimline_wire::grpc::{Deframer, Item};
use slimline_wire::link::{HeaderMac, Policy, accept, sign};
use slimline_wire::message::{MessageView, build_link, parse};
use slimline_wire::pb;
use slimline_wire::pb::message::MessageType;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::Message as Frame;

type Outgoing = mpsc::UnboundedSender<pb::Message>;
type Key = ([u64; 3], [u64; 2]);

#[derive(Default)]
struct Table {
    routes: BTreeMap<Key, BTreeMap<u64, Outgoing>>,
    bad_macs: u64,
    subscribes: Vec<u64>,
    octets: Vec<Vec<u8>>,
    refuses_channels: bool,
}

/// Listens until it is dropped.
pub struct TestNode {
    pub address: SocketAddr,
    table: Arc<Mutex<Table>>,
    tasks: tokio::task::JoinHandle<()>,
}

static CONNECTIONS: AtomicU64 = AtomicU64::new(0);

impl TestNode {
    pub async fn start(address: &str) -> Self {
        Self::start_with(address, None).await
    }

    /// With TLS, if an acceptor is given.
    pub async fn start_with(address: &str, tls: Option<TlsAcceptor>) -> Self {
        Self::start_as(address, tls, false).await
    }

    /// For WebSockets.
    pub async fn start_web(address: &str, tls: Option<TlsAcceptor>) -> Self {
        Self::start_as(address, tls, true).await
    }

    async fn start_as(address: &str, tls: Option<TlsAcceptor>, web: bool) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let table = Arc::new(Mutex::new(Table::default()));
        let shared = table.clone();
        let tasks = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                socket.set_nodelay(true).unwrap();
                let (tls, shared) = (tls.clone(), shared.clone());
                connections.spawn(async move {
                    match tls {
                        None => serve_as(web, socket, shared).await,
                        Some(tls) => {
                            if let Ok(socket) = tls.accept(socket).await {
                                serve_as(web, socket, shared).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, table, tasks }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every connection is cut, the port is free again.
    pub async fn stop(self) -> SocketAddr {
        self.tasks.abort();
        let _ = self.tasks.await;
        self.address
    }

    pub fn bad_macs(&self) -> u64 {
        self.table.lock().unwrap().bad_macs
    }

    /// Ids of all subscriptions that came in.
    pub fn subscribes(&self) -> Vec<u64> {
        self.table.lock().unwrap().subscribes.clone()
    }

    /// From now on channels are not routed to anybody who asks.
    pub fn refuse_channels(&self) {
        self.table.lock().unwrap().refuses_channels = true;
    }

    /// Everything that was published.
    pub fn published(&self) -> Vec<Vec<u8>> {
        self.table.lock().unwrap().octets.clone()
    }
}

async fn serve_as<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(web: bool, socket: S, table: Arc<Mutex<Table>>) {
    if web { serve_web(socket, table).await } else { serve(socket, table).await }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(socket: S, table: Arc<Mutex<Table>>) {
    let mut builder = h2::server::Builder::new();
    builder.initial_window_size(1 << 20).initial_connection_window_size(1 << 20);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(socket).await else { return };
    let mut streams = JoinSet::new();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let response = http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
        let Ok(send) = respond.send_response(response, false) else { continue };
        streams.spawn(stream(request.into_body(), send, table.clone()));
    }
}

/// One connection as the node sees it, whatever carries it.
struct Peer {
    me: u64,
    table: Arc<Mutex<Table>>,
    sender: Outgoing,
    outgoing: Option<mpsc::UnboundedReceiver<pb::Message>>,
    verifier: Option<HeaderMac>,
}

/// What is to be written to a peer once its link is agreed on.
struct Writing {
    reply: Option<Vec<u8>>,
    outgoing: mpsc::UnboundedReceiver<pb::Message>,
    mac: HeaderMac,
}

impl Peer {
    fn new(table: Arc<Mutex<Table>>) -> Self {
        let (sender, outgoing) = mpsc::unbounded_channel::<pb::Message>();
        let me = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
        Self { me, table, sender, outgoing: Some(outgoing), verifier: None }
    }

    fn take(&mut self, octets: &[u8]) -> Option<Writing> {
        let view = parse(octets).ok()?;
        if let MessageView::Link(request) = &view {
            let accepted = accept(request, Policy::default()).unwrap();
            let mut reply = Vec::new();
            build_link(&accepted.reply(request, "1.0.0", "test-node", ""), &mut reply);
            let key = accepted.key.as_ref().unwrap();
            self.verifier = Some(HeaderMac::new(key, request.link_id));
            let mac = HeaderMac::new(key, request.link_id);
            return Some(Writing { reply: Some(reply), outgoing: self.outgoing.take()?, mac });
        }
        let genuine = self.verifier.as_mut().is_some_and(|mac| view.header().is_none_or(|header| mac.verify(header)));
        let message = pb::Message::decode(octets).unwrap();
        let mut table = self.table.lock().unwrap();
        if genuine {
            route(&mut table, self.me, &self.sender, message, octets);
        } else {
            table.bad_macs += 1;
        }
        None
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        for routes in self.table.lock().unwrap().routes.values_mut() {
            routes.remove(&self.me);
        }
    }
}

impl Writing {
    async fn next(&mut self) -> Option<Vec<u8>> {
        if let Some(reply) = self.reply.take() {
            return Some(reply);
        }
        let mut octets = self.outgoing.recv().await?.encode_to_vec();
        sign(&mut octets, &mut self.mac).unwrap();
        Some(octets)
    }
}

async fn stream(mut body: h2::RecvStream, send: h2::SendStream<Bytes>, table: Arc<Mutex<Table>>) {
    let mut peer = Peer::new(table);
    let mut send = Some(send);
    let mut deframer = Deframer::new(4 << 20);
    let mut writers = JoinSet::new();
    while let Some(Ok(chunk)) = body.data().await {
        let _ = body.flow_control().release_capacity(chunk.len());
        let mut input = &chunk[..];
        while let Ok(Some(Item::Message(octets))) = deframer.next(&mut input) {
            if let Some(writing) = peer.take(octets)
                && let Some(send) = send.take()
            {
                writers.spawn(write(send, writing));
            }
        }
    }
}

async fn write(mut send: h2::SendStream<Bytes>, mut writing: Writing) {
    while let Some(octets) = writing.next().await {
        let mut framed = vec![0];
        framed.extend_from_slice(&u32::try_from(octets.len()).unwrap().to_be_bytes());
        framed.extend_from_slice(&octets);
        let mut framed = Bytes::from(framed);
        while !framed.is_empty() {
            send.reserve_capacity(framed.len());
            let Some(Ok(granted)) = poll_fn(|cx| send.poll_capacity(cx)).await else { return };
            if send.send_data(framed.split_to(granted.min(framed.len())), false).is_err() {
                return;
            }
        }
    }
}

/// The same over a WebSocket: a message per binary frame.
async fn serve_web<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(socket: S, table: Arc<Mutex<Table>>) {
    let Ok(web) = tokio_tungstenite::accept_async(socket).await else { return };
    let (sink, mut frames) = web.split();
    let mut sink = Some(sink);
    let mut peer = Peer::new(table);
    let mut writers = JoinSet::new();
    while let Some(Ok(frame)) = frames.next().await {
        let Frame::Binary(octets) = frame else { continue };
        if let Some(mut writing) = peer.take(&octets)
            && let Some(mut sink) = sink.take()
        {
            writers.spawn(async move {
                while let Some(octets) = writing.next().await {
                    if sink.send(Frame::Binary(octets.into())).await.is_err() {
                        return;
                    }
                }
            });
        }
    }
}

fn key(header: Option<&pb::SlimHeader>) -> Key {
    let name = header.unwrap().destination.as_ref().unwrap().name.as_ref().unwrap();
    let id = name.name_id.unwrap();
    ([name.component_0, name.component_1, name.component_2], [id.id_0, id.id_1])
}

fn route(table: &mut Table, me: u64, sender: &Outgoing, mut message: pb::Message, octets: &[u8]) {
    let ack = |subscription_id| pb::Message {
        message_type: Some(MessageType::SubscriptionAck(pb::SubscriptionAck {
            subscription_id,
            success: true,
            error: String::new(),
        })),
        ..Default::default()
    };
    match message.message_type.as_mut().unwrap() {
        MessageType::Subscribe(subscribe)
            if table.refuses_channels && subscribe.header.as_ref().unwrap().identity.is_empty() =>
        {
            let mut refusal = ack(subscribe.subscription_id);
            if let Some(MessageType::SubscriptionAck(ack)) = &mut refusal.message_type {
                (ack.success, ack.error) = (false, "no channels here".to_owned());
            }
            let _ = sender.send(refusal);
        }
        MessageType::Subscribe(subscribe) => {
            table.routes.entry(key(subscribe.header.as_ref())).or_default().insert(me, sender.clone());
            table.subscribes.push(subscribe.subscription_id);
            let _ = sender.send(ack(subscribe.subscription_id));
        }
        MessageType::Unsubscribe(unsubscribe) => {
            table.routes.entry(key(unsubscribe.header.as_ref())).or_default().remove(&me);
            let _ = sender.send(ack(unsubscribe.subscription_id));
        }
        MessageType::Publish(publish) => {
            table.octets.push(octets.to_vec());
            let header = publish.header.as_mut().unwrap();
            header.ttl -= 1;
            header.header_mac = Some(vec![0; 32]);
            let (one, (prefix, id)) = (header.fanout == 1, key(publish.header.as_ref()));
            let matches = table
                .routes
                .iter()
                .filter(|((known, known_id), _)| *known == prefix && (*known_id == id || id == [u64::MAX; 2]));
            let targets = matches.flat_map(|(_, routes)| routes).filter(|(to, _)| **to != me).map(|(_, sender)| sender);
            for target in targets.take(if one { 1 } else { usize::MAX }) {
                let _ = target.send(message.clone());
            }
        }
        _ => {}
    }
}
