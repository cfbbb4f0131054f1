//! A relay before a node that reads what it passes on, and loses what it is told to lose.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use slimline_session::message::Kind;
use slimline_wire::grpc::{Deframer, Item, prefix};
use slimline_wire::message::{MessageView, parse};
use tokio::net::{TcpListener, TcpStream};

use crate::nodes::Node;

/// Where a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Toward {
    Node,
    App,
}

/// For one application's connection to a node, over plain HTTP/2.
pub(crate) struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Session messages that went through, in order.
    carried: Mutex<Vec<(Toward, i32)>>,
    /// Data messages to be let through before one is lost, each way; beyond any number unless asked.
    before: [AtomicUsize; 2],
    lost: AtomicUsize,
}

const NEVER: usize = usize::MAX;

impl Relay {
    pub(crate) async fn before(node: &Node) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        shared.before.iter().for_each(|before| before.store(NEVER, Ordering::Relaxed));
        let (node, sharing) = (node.address().to_owned(), shared.clone());
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, node.clone(), sharing.clone()));
            }
        });
        Self { address, shared }
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// The data message after the next `skipped` in that direction will not arrive.
    pub(crate) fn lose_after(&self, toward: Toward, skipped: usize) {
        self.shared.before[toward as usize].store(skipped, Ordering::Relaxed);
    }

    pub(crate) fn lost(&self) -> usize {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// How often something was asked for again, and given again, that way.
    pub(crate) fn asked(&self, toward: Toward) -> (usize, usize) {
        let carried = self.shared.carried.lock().unwrap();
        let count = |kind: Kind| carried.iter().filter(|&&seen| seen == (toward, kind as i32)).count();
        (count(Kind::RtxRequest), count(Kind::RtxReply))
    }
}

impl Shared {
    fn passes(&self, toward: Toward, message: &[u8]) -> bool {
        let Ok(MessageView::Publish(publish)) = parse(message) else { return true };
        let number = publish.session_message_type;
        if number == Kind::Msg as i32 {
            let before = &self.before[toward as usize];
            match before.load(Ordering::Relaxed) {
                NEVER => {}
                0 => {
                    before.store(NEVER, Ordering::Relaxed);
                    self.lost.fetch_add(1, Ordering::Relaxed);
                    return false;
                }
                left => before.store(left - 1, Ordering::Relaxed),
            }
        }
        self.carried.lock().unwrap().push((toward, number));
        true
    }
}

async fn serve(socket: TcpStream, node: String, shared: Arc<Shared>) {
    socket.set_nodelay(true).unwrap();
    let mut builder = h2::server::Builder::new();
    builder.initial_window_size(4 << 20).initial_connection_window_size(4 << 20);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(socket).await else { return };
    let onward = TcpStream::connect(&node).await.unwrap();
    onward.set_nodelay(true).unwrap();
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(4 << 20).initial_connection_window_size(4 << 20);
    let (mut client, driver) = builder.handshake::<_, Bytes>(onward).await.unwrap();
    tokio::spawn(driver);
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let (head, body) = request.into_parts();
        let (response, up) = client.send_request(http::Request::from_parts(head, ()), false).unwrap();
        tokio::spawn(pass_on(body, up, Toward::Node, shared.clone()));
        let shared = shared.clone();
        tokio::spawn(async move {
            let (head, body) = response.await.unwrap().into_parts();
            let down = respond.send_response(http::Response::from_parts(head, ()), false).unwrap();
            pass_on(body, down, Toward::App, shared).await;
        });
    }
}

/// Message by message, until either side ends.
async fn pass_on(mut from: h2::RecvStream, mut to: h2::SendStream<Bytes>, toward: Toward, shared: Arc<Shared>) {
    let mut deframer = Deframer::new(4 << 20);
    while let Some(Ok(chunk)) = from.data().await {
        let _ = from.flow_control().release_capacity(chunk.len());
        let mut input = &chunk[..];
        while let Ok(Some(item)) = deframer.next(&mut input) {
            let Item::Message(message) = item else { continue };
            if !shared.passes(toward, message) {
                continue;
            }
            let mut framed = prefix(u32::try_from(message.len()).unwrap()).to_vec();
            framed.extend_from_slice(message);
            let mut framed = Bytes::from(framed);
            while !framed.is_empty() {
                to.reserve_capacity(framed.len());
                let Some(Ok(granted)) = poll_fn(|context| to.poll_capacity(context)).await else { return };
                if to.send_data(framed.split_to(granted.min(framed.len())), false).is_err() {
                    return;
                }
            }
        }
    }
    let _ = to.send_data(Bytes::new(), true);
}
