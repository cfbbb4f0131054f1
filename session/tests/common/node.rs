//! A node as small as can be, on a real socket: enough to test the connection, its loss and its return.
#![allow(dead_code, unreachable_pub)] // each test file takes its part of this module

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
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

type Outgoing = mpsc::UnboundedSender<pb::Message>;
type Key = ([u64; 3], [u64; 2]);

#[derive(Default)]
struct Table {
    routes: BTreeMap<Key, BTreeMap<u64, Outgoing>>,
    bad_macs: u64,
    subscribes: Vec<u64>,
    octets: Vec<Vec<u8>>,
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
                        None => serve(socket, shared).await,
                        Some(tls) => {
                            if let Ok(socket) = tls.accept(socket).await {
                                serve(socket, shared).await;
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

    /// Everything that was published.
    pub fn published(&self) -> Vec<Vec<u8>> {
        self.table.lock().unwrap().octets.clone()
    }
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

async fn stream(mut body: h2::RecvStream, send: h2::SendStream<Bytes>, table: Arc<Mutex<Table>>) {
    let me = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
    let (sender, outgoing) = mpsc::unbounded_channel::<pb::Message>();
    let mut halves = Some((send, outgoing));
    let mut deframer = Deframer::new(4 << 20);
    let mut verifier: Option<HeaderMac> = None;
    let mut writers = JoinSet::new();
    while let Some(Ok(chunk)) = body.data().await {
        let _ = body.flow_control().release_capacity(chunk.len());
        let mut input = &chunk[..];
        while let Ok(Some(Item::Message(octets))) = deframer.next(&mut input) {
            let Ok(view) = parse(octets) else { continue };
            if let MessageView::Link(request) = &view {
                let accepted = accept(request, Policy::default()).unwrap();
                let mut reply = Vec::new();
                build_link(&accepted.reply(request, "1.0.0", "test-node", ""), &mut reply);
                let key = accepted.key.as_ref().unwrap();
                verifier = Some(HeaderMac::new(key, request.link_id));
                if let Some((send, outgoing)) = halves.take() {
                    writers.spawn(write(send, outgoing, reply, HeaderMac::new(key, request.link_id)));
                }
            } else {
                let genuine =
                    verifier.as_mut().is_some_and(|mac| view.header().is_none_or(|header| mac.verify(header)));
                let message = pb::Message::decode(octets).unwrap();
                let mut table = table.lock().unwrap();
                if genuine {
                    route(&mut table, me, &sender, message, octets);
                } else {
                    table.bad_macs += 1;
                }
            }
        }
    }
    for routes in table.lock().unwrap().routes.values_mut() {
        routes.remove(&me);
    }
}

async fn write(
    mut send: h2::SendStream<Bytes>,
    mut outgoing: mpsc::UnboundedReceiver<pb::Message>,
    reply: Vec<u8>,
    mut mac: HeaderMac,
) {
    let mut next = Some(reply);
    while let Some(octets) = next {
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
        next = outgoing.recv().await.map(|message| {
            let mut octets = message.encode_to_vec();
            sign(&mut octets, &mut mac).unwrap();
            octets
        });
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
