//! A node that plays one part on every connection it gets: silent, wrong, refusing, or going away at a bad moment.
#![allow(dead_code, unreachable_pub)] // each test file takes its part of this module

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Response};
use prost::Message as _;
use slimline_wire::grpc::{Deframer, Item, prefix};
use slimline_wire::link::{Accepted, Policy, accept};
use slimline_wire::message::{LinkNegotiation, MessageView, build_link, parse};
use slimline_wire::pb;
use slimline_wire::pb::message::MessageType;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};

/// What the node does.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    /// Takes the connection and says nothing.
    Mute,
    /// Closes it at once.
    Closes,
    /// Says these octets and closes.
    Says(&'static [u8]),
    /// Answers the stream with an HTTP status.
    Http(u16),
    /// Answers it with a gRPC status and nothing else.
    Refuses(&'static str, &'static str),
    /// Opens the stream and never negotiates.
    NeverNegotiates,
    /// Negotiates, but with this fault.
    Negotiates(Fault),
    /// Agrees on the link and acknowledges no subscription.
    NeverAcknowledges,
    /// Refuses every name, with this reason.
    RefusesNames(&'static str),
    /// Serves, and ends the stream so after a moment.
    Ends(End),
    /// Serves; after the first message of a session it reads nothing more.
    StopsReading,
}

#[derive(Clone, Copy, Debug)]
pub enum Fault {
    NoVersion,
    NoKey,
    OtherLink,
    NotALink,
    NotEvenAMessage,
    Compressed,
}

#[derive(Clone, Copy, Debug)]
pub enum End {
    /// With trailers: status and message.
    Status(&'static str, &'static str),
    Reset(Reason),
    /// GOAWAY: gracefully; the stream goes on.
    GoAway,
    /// GOAWAY with an error, at once.
    GoAwayNow(Reason),
    /// The TCP connection just ends.
    Cut,
    /// Messages that are none, then silence.
    Garbage,
}

/// Plays until it is dropped.
pub struct Script {
    pub address: SocketAddr,
    /// Connections so far.
    pub connections: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Script {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Script {
    pub async fn play(part: Part) -> Self {
        Self::play_each(move |_| part).await
    }

    /// The part depends on how many connections there were before.
    pub async fn play_each(part: impl Fn(usize) -> Part + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        let task = tokio::spawn(async move {
            let mut tasks = tokio::task::JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let part = part(counted.fetch_add(1, Ordering::Relaxed));
                tasks.spawn(connection(socket, part));
            }
        });
        Self { address, connections, task }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn connection(mut socket: TcpStream, part: Part) {
    match part {
        Part::Mute => std::future::pending().await,
        Part::Closes => return,
        Part::Says(octets) => {
            let _ = socket.write_all(octets).await;
            let _ = socket.shutdown().await;
            tokio::time::sleep(Duration::from_millis(200)).await;
            return;
        }
        _ => {}
    }
    let mut builder = h2::server::Builder::new();
    builder.initial_window_size(65_535);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(socket).await else { return };
    let Some(Ok((request, respond))) = connection.accept().await else { return };
    let (end, mut ended) = tokio::sync::mpsc::channel(1);
    let mut stream = tokio::spawn(stream(request.into_body(), respond, part, end));
    loop {
        tokio::select! {
            next = connection.accept() => match next {
                Some(Ok(_)) => {}
                _ => return,
            },
            Some(end) = ended.recv() => match end {
                End::Cut => return,
                End::GoAway => connection.graceful_shutdown(),
                End::GoAwayNow(reason) => connection.abrupt_shutdown(reason),
                _ => {}
            },
            _ = &mut stream => {
                // What was said still has to leave.
                let _ = tokio::time::timeout(Duration::from_secs(5), async { while connection.accept().await.is_some() {} }).await;
                return;
            }
        }
    }
}

async fn stream(
    mut body: RecvStream,
    mut respond: SendResponse<Bytes>,
    part: Part,
    end: tokio::sync::mpsc::Sender<End>,
) {
    let response = |status: u16| Response::builder().status(status).header("content-type", "application/grpc");
    match part {
        Part::Http(status) => drop(respond.send_response(response(status).body(()).unwrap(), true)),
        Part::Refuses(code, message) => {
            let response = response(200).header("grpc-status", code).header("grpc-message", message);
            let _ = respond.send_response(response.body(()).unwrap(), true);
        }
        _ => {
            let Ok(send) = respond.send_response(response(200).body(()).unwrap(), false) else { return };
            serve(&mut body, send, part, &end).await;
        }
    }
}

async fn serve(body: &mut RecvStream, mut send: SendStream<Bytes>, part: Part, end: &tokio::sync::mpsc::Sender<End>) {
    let mut deframer = Deframer::new(4 << 20);
    let mut ending = None::<Instant>;
    let mut deaf = false;
    loop {
        let due = ending.unwrap_or_else(|| Instant::now() + Duration::from_secs(60));
        let chunk = tokio::select! {
            chunk = body.data(), if !deaf => chunk,
            () = tokio::time::sleep_until(due.into()) => {
                if let Part::Ends(how) = part {
                    finish(&mut send, how, end).await;
                    if matches!(how, End::GoAway | End::Garbage) {
                        ending = None;
                        continue;
                    }
                }
                return;
            }
        };
        let Some(Ok(chunk)) = chunk else { return };
        let _ = body.flow_control().release_capacity(chunk.len());
        let mut input = &chunk[..];
        while let Ok(Some(Item::Message(octets))) = deframer.next(&mut input) {
            if let Ok(MessageView::Link(request)) = parse(octets) {
                negotiate(&mut send, part, &request);
                continue;
            }
            match pb::Message::decode(octets).unwrap().message_type.unwrap() {
                MessageType::Subscribe(subscribe) => {
                    if let Some(ack) = acknowledgement(part, subscribe.subscription_id) {
                        say(&mut send, &ack.encode_to_vec());
                    }
                    if matches!(part, Part::Ends(_)) && ending.is_none() {
                        ending = Some(Instant::now() + Duration::from_millis(150));
                    }
                }
                MessageType::Publish(_) => deaf = matches!(part, Part::StopsReading),
                _ => {}
            }
        }
    }
}

fn acknowledgement(part: Part, subscription_id: u64) -> Option<pb::Message> {
    let error = match part {
        Part::NeverAcknowledges => return None,
        Part::RefusesNames(why) => why,
        _ => "",
    };
    let ack = pb::SubscriptionAck { subscription_id, success: error.is_empty(), error: error.to_owned() };
    Some(pb::Message { message_type: Some(MessageType::SubscriptionAck(ack)), ..Default::default() })
}

fn negotiate(send: &mut SendStream<Bytes>, part: Part, request: &LinkNegotiation<'_>) {
    if matches!(part, Part::NeverNegotiates) {
        return;
    }
    let accepted: Accepted = accept(request, Policy::default()).unwrap();
    let mut reply = accepted.reply(request, "1.0.0", "script", "");
    if let Part::Negotiates(fault) = part {
        match fault {
            Fault::NoVersion => reply.slim_version = "",
            Fault::NoKey => reply.ecdh_public_key = &[],
            Fault::OtherLink => reply.link_id = "another",
            Fault::NotALink => return say(send, &acknowledgement(part, 1).unwrap().encode_to_vec()),
            Fault::NotEvenAMessage => return say(send, b"\xff\xff\xff\xff"),
            Fault::Compressed => return drop(send.send_data(Bytes::from_static(&[1, 0, 0, 0, 1, 9]), false)),
        }
    }
    let mut octets = Vec::new();
    build_link(&reply, &mut octets);
    say(send, &octets);
}

fn say(send: &mut SendStream<Bytes>, message: &[u8]) {
    let mut framed = prefix(u32::try_from(message.len()).unwrap()).to_vec();
    framed.extend_from_slice(message);
    let _ = send.send_data(framed.into(), false);
}

async fn finish(send: &mut SendStream<Bytes>, how: End, end: &tokio::sync::mpsc::Sender<End>) {
    match how {
        End::Status(code, message) => {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", code.parse().unwrap());
            trailers.insert("grpc-message", message.parse().unwrap());
            let _ = send.send_trailers(trailers);
        }
        End::Reset(reason) => send.send_reset(reason),
        End::Garbage => {
            for garbage in [&b"\xff\xff\xff"[..], b"", b"\x0a\x05hello", &[0x80; 700]] {
                say(send, garbage);
            }
        }
        End::GoAway | End::GoAwayNow(_) | End::Cut => {
            let _ = end.send(how).await;
        }
    }
    // Whoever is told has a moment to be told.
    tokio::time::sleep(Duration::from_millis(20)).await;
}
