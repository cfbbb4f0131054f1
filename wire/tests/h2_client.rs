//! The client role of the receiver: responses, and what a server may not do.

use std::time::Instant;

use slimline_wire::h2::{Code, Event, Head, Kind, Limits, Recv, Role, Send, StreamId, TransportError, flag};
use slimline_wire::testing::dialogue::{Field, block};

const STREAM: u32 = 1;

/// A client behind the server's SETTINGS, with stream 1 open.
fn client() -> Recv {
    let mut recv = Recv::new(Role::Client, &Limits::default());
    assert_eq!(hear(&mut recv, &frame(Kind::SETTINGS, 0, 0, &[])).unwrap(), ["settings"]);
    recv.open(StreamId::new(STREAM));
    recv
}

fn frame(kind: Kind, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    let head = Head { length, kind, flags, stream: StreamId::new(stream) };
    [&head.to_wire()[..], payload].concat()
}

fn headers(flags: u8, fields: &[Field<'_>]) -> Vec<u8> {
    frame(Kind::HEADERS, flags | flag::END_HEADERS, STREAM, &block(fields))
}

fn data(flags: u8, octets: &[u8]) -> Vec<u8> {
    frame(Kind::DATA, flags, STREAM, octets)
}

/// The events in a word each.
fn hear(recv: &mut Recv, mut input: &[u8]) -> Result<Vec<String>, TransportError> {
    let mut said = Vec::new();
    while let Some(event) = recv.next(Instant::now(), &mut input)? {
        said.push(match event {
            Event::Headers { fields, end_stream, .. } => {
                let status = fields.get(":status").unwrap().escape_ascii();
                format!("{status}{}", if end_stream { " end" } else { "" })
            }
            Event::Trailers { fields, .. } => format!("trailers {}", fields.len()),
            Event::Data { octets, end_stream, .. } => {
                format!("data {}{}", octets.len(), if end_stream { " end" } else { "" })
            }
            Event::Settings(_) => "settings".into(),
            Event::StreamError { code, .. } => format!("{code}"),
            Event::Reset { code, .. } => format!("reset {code}"),
            other => format!("{other:?}"),
        });
    }
    Ok(said)
}

/// Each row: what the server says on stream 1, and what the client makes of it. Source: RFC 9113 §8.1, §8.3.2, §8.6.
#[test]
fn responses() {
    let ok = headers(0, &[(":status", "200")]);
    let end = flag::END_STREAM;
    for (said, heard) in [
        (vec![ok.clone(), data(end, b"abc")], "200, data 3 end"),
        (vec![headers(end, &[(":status", "204")])], "204 end"),
        (vec![ok.clone(), data(0, b"a"), headers(end, &[("grpc-status", "0")])], "200, data 1, trailers 1"),
        (vec![headers(end, &[(":status", "200"), ("grpc-status", "12")])], "200 end"),
        (vec![headers(0, &[(":status", "100")]), headers(0, &[(":status", "103")]), ok.clone()], "200"),
        (vec![headers(end, &[(":status", "100")])], "PROTOCOL_ERROR"),
        (vec![headers(0, &[(":status", "101")])], "PROTOCOL_ERROR"),
        (vec![headers(0, &[])], "PROTOCOL_ERROR"),
        (vec![headers(0, &[(":status", "200"), (":path", "/")])], "PROTOCOL_ERROR"),
        (vec![headers(0, &[(":status", "200"), ("connection", "close")])], "PROTOCOL_ERROR"),
        (vec![data(0, b"early")], "PROTOCOL_ERROR, IgnoredData { flow_octets: 5 }"),
        (vec![ok.clone(), headers(0, &[("late", "yes")])], "200, PROTOCOL_ERROR"),
        (vec![ok.clone(), headers(end, &[(":status", "200")])], "200, PROTOCOL_ERROR"),
        (
            vec![headers(0, &[(":status", "200"), ("content-length", "4")]), data(end, b"abc")],
            "200, PROTOCOL_ERROR, IgnoredData { flow_octets: 3 }",
        ),
        (vec![headers(0, &[(":status", "200"), ("content-length", "3")]), data(end, b"abc")], "200, data 3 end"),
        (vec![headers(end, &[(":status", "304"), ("content-length", "9")])], "304 end"),
        (vec![ok.clone(), frame(Kind::RST_STREAM, 0, STREAM, &[0, 0, 0, 8])], "200, reset CANCEL"),
        (vec![ok, data(end, b"a"), data(end, b"bc")], "200, data 1 end, STREAM_CLOSED, IgnoredData { flow_octets: 2 }"),
    ] {
        assert_eq!(hear(&mut client(), &said.concat()).unwrap().join(", "), heard);
    }
}

/// Each row: what ends the transport.
#[test]
fn what_a_server_may_not_do() {
    let promise = [&[0, 0, 0, 2][..], &block(&[(":method", "GET")])].concat();
    for (said, code) in [
        (frame(Kind::PUSH_PROMISE, flag::END_HEADERS, STREAM, &promise), Code::PROTOCOL_ERROR),
        (frame(Kind::HEADERS, flag::END_HEADERS, 2, &[0x88]), Code::PROTOCOL_ERROR),
        (frame(Kind::HEADERS, flag::END_HEADERS, 3, &[0x88]), Code::PROTOCOL_ERROR),
        (frame(Kind::DATA, 0, 3, b"x"), Code::PROTOCOL_ERROR),
        (frame(Kind::SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 1]), Code::PROTOCOL_ERROR),
        (frame(Kind::HEADERS, flag::END_HEADERS, STREAM, &[0xff; 3]), Code::COMPRESSION_ERROR),
    ] {
        assert_eq!(hear(&mut client(), &said).unwrap_err().code, code);
    }
    let mut recv = Recv::new(Role::Client, &Limits::default());
    assert_eq!(hear(&mut recv, &frame(Kind::PING, 0, 0, &[0; 8])).unwrap_err().code, Code::PROTOCOL_ERROR);
}

/// After our reset the rest is ignored, and given back to the transport.
#[test]
fn what_follows_our_reset_is_ignored() {
    let mut recv = client();
    hear(&mut recv, &headers(0, &[(":status", "200")])).unwrap();
    let frame = data(flag::END_STREAM, b"abcdef");
    let (first, rest) = frame.split_at(12);
    assert_eq!(hear(&mut recv, first).unwrap(), ["data 3"]);
    recv.close(StreamId::new(STREAM));
    assert_eq!(hear(&mut recv, rest).unwrap(), ["IgnoredData { flow_octets: 3 }"]);
    assert_eq!(hear(&mut recv, &data(0, b"more")).unwrap(), ["IgnoredData { flow_octets: 4 }"]);
    assert_eq!(recv.credit_stream(StreamId::new(STREAM), 1 << 20), None);
}

/// Our own SETTINGS allow less than the protocol's start: the server may use what it was told, once it was told.
/// Source: RFC 9113 §6.9.2.
#[test]
fn a_small_window_holds_from_the_acknowledgement_on() {
    let limits = Limits { initial_window: 10, ..Limits::default() };
    let mut recv = Recv::new(Role::Client, &limits);
    hear(&mut recv, &frame(Kind::SETTINGS, 0, 0, &[])).unwrap();
    recv.open(StreamId::new(1));
    let response = headers(0, &[(":status", "200")]);
    assert_eq!(hear(&mut recv, &[response.clone(), data(0, &[0; 100])].concat()).unwrap(), ["200", "data 100"]);
    hear(&mut recv, &frame(Kind::SETTINGS, flag::ACK, 0, &[])).unwrap();
    assert_eq!(hear(&mut recv, &data(0, &[0])).unwrap()[0], "FLOW_CONTROL_ERROR");
    recv.open(StreamId::new(3));
    let response = frame(Kind::HEADERS, flag::END_HEADERS, 3, &[0x88]);
    assert_eq!(hear(&mut recv, &response).unwrap(), ["200"]);
    assert_eq!(hear(&mut recv, &frame(Kind::DATA, 0, 3, &[0; 10])).unwrap(), ["data 10"]);
    assert_eq!(recv.credit_stream(StreamId::new(3), 10), Some(10));
}

/// A client says hello and asks; header blocks over the frame size are continued. Source: RFC 9113 §3.4, §6.10.
#[test]
fn a_client_says_hello_and_asks() {
    let (mut send, mut out) = (Send::new(Role::Client, &Limits::default()), Vec::new());
    send.start(&mut out);
    let long = vec![b'x'; 40_000];
    let fields: [(&[u8], &[u8]); 4] = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b"long", &long)];
    send.headers(StreamId::new(1), fields, true, &mut out);
    let limits = Limits { header_list_octets_max: 50_000, ..Limits::default() };
    let mut server = Recv::new(Role::Server, &limits);
    let mut input = &out[..];
    let mut found = false;
    while let Some(event) = server.next(Instant::now(), &mut input).unwrap() {
        if let Event::Headers { fields, end_stream, .. } = event {
            found = end_stream && fields.get("long") == Some(&long[..]);
        }
    }
    assert!(found);
}
