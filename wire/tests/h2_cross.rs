//! Our two halves against the `h2` crate, each as client and as server, over a pipe that cuts where it likes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use slimline_wire::h2::{Event, Limits, Recv, Role, Send, StreamId};
use slimline_wire::testing::server::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// Octets to send on each of several streams: nothing, one frame and less, windows and more.
const BODIES: [usize; 9] = [0, 1, 100, 16_384, 16_385, 65_535, 65_536, 300_000, 3_000_000];

fn body(octets: usize) -> Bytes {
    (0..octets).map(|at| at.to_le_bytes()[at % 3]).collect()
}

/// No exchange here takes longer; a deadlock of windows would.
async fn in_time<T>(exchange: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), exchange).await.expect("no deadlock")
}

/// Writes some of `out` or reads some into `input`, whichever can be done: a side that only writes while the pipe is
/// full, facing another that does, would wait for ever. Returns what was read, `None` at the end.
async fn pump(pipe: &mut DuplexStream, out: &mut Vec<u8>, input: &mut [u8]) -> Option<usize> {
    let (mut reader, mut writer) = tokio::io::split(pipe);
    tokio::select! {
        written = writer.write(out), if !out.is_empty() => {
            out.drain(..written.ok()?);
            Some(0)
        }
        read = reader.read(input) => read.ok().filter(|count| *count > 0),
    }
}

/// Runs our server on one end of a pipe, until the other end is closed.
async fn serve(mut pipe: DuplexStream, limits: Limits) -> Server {
    let (mut server, mut out, mut input) = (Server::new(&limits), Vec::new(), vec![0; 5000]);
    loop {
        out.extend(server.take_output());
        match pump(&mut pipe, &mut out, &mut input).await {
            Some(count) => server.receive(Instant::now(), &input[..count]),
            None => return server,
        }
    }
}

#[tokio::test]
async fn their_client_our_server() {
    for (pipe_octets, limits) in [
        (1 << 20, Limits::default()),
        (1000, Limits { initial_window: 70_000, ..Limits::default() }),
        (
            17,
            Limits { initial_window: 1 << 16, transport_window: 1 << 16, max_frame_size: 1 << 20, ..Limits::default() },
        ),
    ] {
        let (ours, theirs) = tokio::io::duplex(pipe_octets);
        let server = tokio::spawn(serve(ours, limits));
        let (mut client, transport) =
            h2::client::Builder::new().initial_window_size(40_000).handshake::<_, Bytes>(theirs).await.unwrap();
        let transport = tokio::spawn(transport);
        let mut streams = Vec::new();
        for octets in BODIES {
            let octets = if pipe_octets < 100 { octets / 10 } else { octets };
            client = client.ready().await.unwrap();
            let request = Request::post("http://localhost/echo").header("te", "trailers").body(()).unwrap();
            let (response, mut send) = client.send_request(request, false).unwrap();
            streams.push(tokio::spawn(async move {
                send.send_data(body(octets), false).unwrap();
                let trailers = HeaderMap::from_iter([("x-octets".parse().unwrap(), octets.into())]);
                send.send_trailers(trailers.clone()).unwrap();
                let response = response.await.unwrap();
                assert_eq!(response.status(), 200);
                let mut echo = response.into_body();
                let mut heard = Vec::new();
                while let Some(data) = echo.data().await {
                    let data = data.unwrap();
                    echo.flow_control().release_capacity(data.len()).unwrap();
                    heard.extend_from_slice(&data);
                }
                assert!(heard == body(octets), "{octets} octets come back as they were");
                assert_eq!(echo.trailers().await.unwrap(), Some(trailers));
            }));
        }
        for stream in streams {
            in_time(stream).await.unwrap();
        }
        drop(client);
        in_time(transport).await.unwrap().unwrap();
        let server = in_time(server).await.unwrap();
        assert_eq!(server.ended(), None);
        assert_eq!((server.streams(), server.resets), ((0, 0), Vec::new()));
    }
}

/// What their client does when a request is dropped half-way.
#[tokio::test]
async fn their_client_gives_up() {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let server = tokio::spawn(serve(ours, Limits::default()));
    let (mut client, transport) = h2::client::handshake(theirs).await.unwrap();
    let transport = tokio::spawn(transport);
    for round in 0..50usize {
        client = client.ready().await.unwrap();
        let (response, mut send) =
            client.send_request(Request::post("http://localhost/echo").body(()).unwrap(), false).unwrap();
        send.send_data(body(round * 1000), false).unwrap();
        if round % 2 == 0 {
            in_time(response).await.unwrap();
        }
    }
    drop(client);
    in_time(transport).await.unwrap().unwrap();
    let server = in_time(server).await.unwrap();
    assert_eq!((server.ended(), server.streams()), (None, (0, 0)));
}

/// Their server, echoing.
async fn echo(pipe: DuplexStream) {
    let mut transport = h2::server::Builder::new()
        .initial_window_size(50_000)
        .max_concurrent_streams(100)
        .handshake::<_, Bytes>(pipe)
        .await
        .unwrap();
    while let Some(request) = transport.accept().await {
        let (request, mut respond) = request.unwrap();
        tokio::spawn(async move {
            assert_eq!(request.uri().path(), "/echo");
            let mut body = request.into_body();
            let mut send = respond.send_response(Response::builder().status(200).body(()).unwrap(), false).unwrap();
            while let Some(data) = body.data().await {
                let data = data.unwrap();
                body.flow_control().release_capacity(data.len()).unwrap();
                send.send_data(data, false).unwrap();
            }
            send.send_trailers(HeaderMap::from_iter([("grpc-status".parse().unwrap(), 0.into())])).unwrap();
        });
    }
}

/// One stream of our client: what is still to be sent, what was heard, whether it ended with trailers.
#[derive(Default)]
struct Exchange {
    left: Bytes,
    is_sent: bool,
    heard: Vec<u8>,
    is_answered: bool,
    is_over: bool,
}

#[tokio::test]
async fn our_client_their_server() {
    for (pipe_octets, scale) in [(1 << 20, 1), (999, 1), (13, 20)] {
        let (mut ours, theirs) = tokio::io::duplex(pipe_octets);
        let server = tokio::spawn(echo(theirs));
        let limits = Limits { initial_window: 66_000, ..Limits::default() };
        let (mut recv, mut send) = (Recv::new(Role::Client, &limits), Send::new(Role::Client, &limits));
        let (mut out, mut exchanges) = (Vec::new(), BTreeMap::new());
        send.start(&mut out);
        for (index, octets) in (0..).zip(BODIES) {
            let stream = StreamId::new(2 * index + 1);
            recv.open(stream);
            send.open(stream);
            let fields: [(&[u8], &[u8]); 6] = [
                (b":method", b"POST"),
                (b":scheme", b"http"),
                (b":authority", b"localhost"),
                (b":path", b"/echo"),
                (b"te", b"trailers"),
                (b"authorization", b"Bearer x"),
            ];
            send.headers(stream, fields, false, &mut out);
            exchanges.insert(stream, Exchange { left: body(octets / scale), ..Exchange::default() });
        }
        let mut input = vec![0; 3000];
        while exchanges.values().any(|exchange| !exchange.is_over) {
            for (&stream, exchange) in exchanges.iter_mut().filter(|(_, exchange)| !exchange.is_sent) {
                let taken = send.data(stream, &exchange.left, true, &mut out);
                let _ = exchange.left.split_to(taken);
                exchange.is_sent = exchange.left.is_empty();
            }
            send.seal();
            recv.data_sent(send.take_data_sent());
            let count = in_time(pump(&mut ours, &mut out, &mut input)).await.expect("their server stays");
            let mut input = &input[..count];
            while let Some(event) = recv.next(Instant::now(), &mut input).unwrap() {
                match event {
                    Event::Settings(settings) => send.settings(&settings, &mut out).unwrap(),
                    Event::Ping(octets) => send.ping_ack(octets, &mut out),
                    Event::WindowUpdate { stream, increment } => send.window_update(stream, increment).unwrap(),
                    Event::Headers { stream, fields, .. } => {
                        assert_eq!(fields.get(":status"), Some(&b"200"[..]));
                        exchanges.get_mut(&stream).unwrap().is_answered = true;
                    }
                    Event::Data { stream, octets, flow_octets, end_stream } => {
                        assert!(!end_stream, "trailers are to come");
                        exchanges.get_mut(&stream).unwrap().heard.extend_from_slice(octets);
                        if let Some(increment) = recv.credit_stream(stream, flow_octets) {
                            send.write_window_update(stream, increment, &mut out);
                        }
                        if let Some(increment) = recv.credit_transport(flow_octets) {
                            send.write_window_update(StreamId::TRANSPORT, increment, &mut out);
                        }
                    }
                    Event::Trailers { stream, fields } => {
                        assert_eq!(fields.get("grpc-status"), Some(&b"0"[..]));
                        exchanges.get_mut(&stream).unwrap().is_over = true;
                        recv.close(stream);
                        send.close(stream);
                    }
                    Event::SettingsAck | Event::Pong(_) => {}
                    other => panic!("no reason for {other:?}"),
                }
            }
        }
        for (exchange, octets) in exchanges.values().zip(BODIES) {
            assert!(exchange.is_answered && exchange.heard == body(octets / scale), "{octets} octets come back");
        }
        assert_eq!((recv.streams(), send.streams()), (0, 0));
        drop(ours);
        in_time(server).await.unwrap();
    }
}
