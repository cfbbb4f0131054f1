//! Properties of [`crate::h2`] and [`crate::grpc`].
//!
//! Each takes any octets and panics when the property does not hold. Where raw octets would rarely get past the first
//! frame, a *recipe* (again any octets) is cooked into frames that are mostly in order.

use std::collections::BTreeMap;
use std::time::Instant;

use super::dialogue::block;
use crate::grpc::{Deframer, GrpcError, Item};
use crate::h2::hpack::{self, Decoder, Encoder};
use crate::h2::{
    Code, Event, FieldList, Head, Kind, Limits, PREFACE, Recv, Role, Send, Settings, StreamId, TransportError,
    WindowError, flag,
};

/// An event without borrows, pieces of one DATA frame and their neighbours joined.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Section(StreamId, Vec<(Vec<u8>, Vec<u8>)>, bool),
    Data(StreamId, Vec<u8>, u32, bool),
    Ignored(u32),
    Other(Event<'static, 'static>),
    Ended(TransportError),
}

/// The receiver tells the same of the same octets, however they are cut, holds no more than its limits say, and
/// accounts for every octet that counts against a window.
pub fn recv_does_not_see_cuts(octets: &[u8], cuts: &[u8], role: Role) {
    let whole = told(octets, &[], role);
    let pieces = told(octets, cuts, role);
    assert_eq!(whole, pieces);
    let told_octets: u64 = whole
        .iter()
        .map(|told| match told {
            Told::Data(_, _, octets, _) | Told::Ignored(octets) => u64::from(*octets),
            _ => 0,
        })
        .sum();
    if !matches!(whole.last(), Some(Told::Ended(_))) {
        assert_eq!(told_octets, data_octets(octets, role));
    }
}

fn told(octets: &[u8], cuts: &[u8], role: Role) -> Vec<Told> {
    let limits = Limits { header_list_octets_max: 500, ..Limits::default() };
    let (mut recv, now) = (Recv::new(role, &limits), Instant::now());
    if role == Role::Client {
        for stream in [1, 3, 5, 7] {
            recv.open(StreamId::new(stream));
        }
    }
    let mut said: Vec<Told> = Vec::new();
    for mut piece in cut(octets, cuts) {
        loop {
            let event = match recv.next(now, &mut piece) {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(recv.next(now, &mut piece), Err(error), "an end is an end");
                    said.push(Told::Ended(error));
                    return said;
                }
            };
            let told = match event {
                Event::Headers { stream, fields, end_stream } => section(stream, fields, end_stream, &limits),
                Event::Trailers { stream, fields } => section(stream, fields, true, &limits),
                Event::Data { stream, octets, flow_octets, end_stream } => {
                    if let Some(Told::Data(last, held, flow, false)) = said.last_mut()
                        && *last == stream
                    {
                        held.extend_from_slice(octets);
                        *flow += flow_octets;
                        if end_stream {
                            let (held, flow) = (std::mem::take(held), *flow);
                            said.pop();
                            said.push(Told::Data(stream, held, flow, true));
                        }
                        continue;
                    }
                    Told::Data(stream, octets.to_vec(), flow_octets, end_stream)
                }
                Event::IgnoredData { flow_octets } => {
                    if let Some(Told::Ignored(octets)) = said.last_mut() {
                        *octets += flow_octets;
                        continue;
                    }
                    Told::Ignored(flow_octets)
                }
                Event::Reset { stream, code } => Told::Other(Event::Reset { stream, code }),
                Event::Settings(settings) => Told::Other(Event::Settings(settings)),
                Event::SettingsAck => Told::Other(Event::SettingsAck),
                Event::Ping(octets) => Told::Other(Event::Ping(octets)),
                Event::Pong(octets) => Told::Other(Event::Pong(octets)),
                Event::WindowUpdate { stream, increment } => {
                    assert!(increment != 0);
                    Told::Other(Event::WindowUpdate { stream, increment })
                }
                Event::GoAway { last, code } => Told::Other(Event::GoAway { last, code }),
                Event::StreamError { stream, code, reason } => Told::Other(Event::StreamError { stream, code, reason }),
            };
            said.push(told);
        }
        assert!(piece.is_empty(), "`None` means that all was taken");
        assert!(recv.held_octets() <= 4 * 16_384 + 16_384 + 261, "what is held has a bound");
    }
    said
}

fn section(stream: StreamId, fields: crate::h2::Fields<'_>, end_stream: bool, limits: &Limits) -> Told {
    let fields: Vec<_> = fields.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
    let size: usize = fields.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
    assert!(size <= limits.header_list_octets_max as usize);
    Told::Section(stream, fields, end_stream)
}

/// Payload octets of the DATA frames in `octets`, as far as they have arrived (a padding length that has arrived
/// counts with what comes behind it).
fn data_octets(octets: &[u8], role: Role) -> u64 {
    let mut rest = if role == Role::Server { octets.get(PREFACE.len()..).unwrap_or_default() } else { octets };
    let mut sum = 0;
    while let Some((head, behind)) = Head::split(rest) {
        let there = behind.len().min(head.length as usize);
        if head.kind == Kind::DATA {
            let waits = head.has(flag::PADDED) && there == 1 && head.length > 1;
            sum += if waits { 0 } else { there as u64 };
        }
        rest = &behind[there..];
    }
    sum
}

/// Splits `octets` at distances that `cuts` gives, over and over; no cuts, no split.
fn cut<'a>(mut octets: &'a [u8], cuts: &[u8]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    let mut cuts = cuts.iter().cycle();
    while let Some(&cut) = cuts.next()
        && !octets.is_empty()
    {
        let (piece, rest) = octets.split_at((usize::from(cut) + 1).min(octets.len()));
        pieces.push(piece);
        octets = rest;
    }
    pieces.push(octets);
    pieces
}

/// Frames a peer of `role` might hear: preface and SETTINGS, then what the recipe says. Most of it is in order, so that
/// later frames are reached; some is wrong in ways that cost a stream, and a little is anything at all.
#[must_use]
pub fn cook(recipe: &[u8], role: Role) -> Vec<u8> {
    let mut out = if role == Role::Server { PREFACE.to_vec() } else { Vec::new() };
    let frame = |kind: Kind, flags: u8, stream: u32, payload: &[u8], out: &mut Vec<u8>| {
        let length = u32::try_from(payload.len()).expect("short");
        out.extend(Head { length, kind, flags, stream: StreamId::new(stream) }.to_wire());
        out.extend_from_slice(payload);
    };
    frame(Kind::SETTINGS, 0, 0, &[], &mut out);
    // A server hears of streams as they are opened; a client has four.
    let mut highest = if role == Role::Server { 0 } else { 7 };
    let mut recipe = recipe.iter().copied();
    while let (Some(what), Some(how)) = (recipe.next(), recipe.next()) {
        let filler: Vec<u8> = (0..how & 0x1f).map(|_| recipe.next().unwrap_or(0)).collect();
        let kind = what & 0x1f;
        let end = if what & 0x80 != 0 { flag::END_STREAM } else { 0 };
        let opens = kind < 5 || highest == 0;
        let stream = match role {
            Role::Server if opens => {
                highest += 2 - u32::from(highest == 0);
                highest
            }
            _ => highest.saturating_sub(2 * u32::from(how >> 6)).max(1),
        };
        if opens {
            let mut fields = match role {
                Role::Server => vec![(":method", "POST"), (":scheme", "http"), (":path", "/")],
                Role::Client => vec![(":status", if kind == 1 { "100" } else { "200" })],
            };
            match how % 16 {
                0 => fields.push((":path", "/again")),
                1 => fields.push(("te", "gzip")),
                2 => fields.push(("content-length", "10")),
                _ => fields.push(("te", "trailers")),
            }
            let block = block(&fields);
            let (first, second) = block.split_at(usize::from(how) % block.len());
            if kind == 0 {
                frame(Kind::HEADERS, end, stream, first, &mut out);
                frame(Kind::CONTINUATION, flag::END_HEADERS, stream, second, &mut out);
            } else if kind == 2 {
                let padded = [&[2][..], &block, &[0; 2]].concat();
                frame(Kind::HEADERS, end | flag::END_HEADERS | flag::PADDED, stream, &padded, &mut out);
            } else {
                frame(Kind::HEADERS, end | flag::END_HEADERS, stream, &block, &mut out);
            }
            continue;
        }
        match kind {
            5..=12 => frame(Kind::DATA, end & (how << 5 >> 7), stream, &filler, &mut out),
            13..=15 => {
                let padding = (how >> 5).min(how & 0x1f);
                frame(Kind::DATA, end | flag::PADDED, stream, &[&[padding][..], &filler].concat(), &mut out);
            }
            16 | 17 => {
                let fields: &[_] = if how % 8 == 0 { &[(":path", "late")] } else { &[("a", "b")] };
                let flags = flag::END_HEADERS | if how % 8 == 1 { 0 } else { flag::END_STREAM };
                frame(Kind::HEADERS, flags, stream, &block(fields), &mut out);
            }
            18 => frame(Kind::RST_STREAM, 0, stream, &[0, 0, 0, how], &mut out),
            19 => frame(Kind::SETTINGS, what >> 7, 0, if what > 0x7f { &[] } else { &[0, 4, 0, 1, 0, 0] }, &mut out),
            20 => frame(Kind::PING, what >> 7, 0, &[how; 8], &mut out),
            21 | 22 => frame(Kind::WINDOW_UPDATE, 0, stream, &[0, 0, 0, how & 0x3f], &mut out),
            23 => frame(Kind::WINDOW_UPDATE, 0, 0, &[0, 0, how, 1], &mut out),
            24 | 25 => frame(Kind::PRIORITY, 0, stream, &[0, 0, 0, what >> 5, 9], &mut out),
            26 => frame(Kind::GOAWAY, 0, 0, &[&[0; 8][..], &filler].concat(), &mut out),
            27 => frame(Kind(0x20 | what >> 5), how, stream, &filler, &mut out),
            28 if how < 16 => out.extend(filler),
            29 if how < 16 => frame(Kind(what >> 5), how, stream + u32::from(how >> 2), &filler, &mut out),
            30 if how < 16 => frame(Kind::HEADERS, what >> 5 | flag::END_HEADERS, stream + 2, &filler, &mut out),
            _ => frame(Kind::DATA, 0, stream, &filler, &mut out),
        }
    }
    out
}

/// Whatever the block: decoding it is bounded, and a list never holds more than its limit.
pub fn hpack_decoding_is_bounded(blocks: &[u8], list_octets_max: u32) {
    let (mut decoder, mut list) = (Decoder::new(), FieldList::new(list_octets_max));
    for block in blocks.split(|octet| *octet == 0xfe) {
        if decoder.decode(block, &mut list).is_err() {
            return;
        }
        let size: usize = list.fields().iter().map(|(name, value)| name.len() + value.len() + 32).sum();
        assert!(size <= list_octets_max as usize);
    }
}

/// What the encoder writes, the decoder reads.
pub fn hpack_round_trips(fields: &[(Vec<u8>, Vec<u8>)], table_octets: u32) {
    let (mut encoder, mut decoder, mut list) = (Encoder::new(), Decoder::new(), FieldList::new(u32::MAX));
    let mut out = Vec::new();
    for round in 0..2 {
        if round == 1 {
            encoder.table_size(table_octets);
        }
        out.clear();
        encoder.encode(fields.iter().map(|(name, value)| (&name[..], &value[..])), &mut out);
        decoder.decode(&out, &mut list).expect("our own block");
        let read: Vec<_> = list.fields().iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        assert_eq!(read, fields);
    }
}

/// The Huffman code: what is encoded comes back, and what decodes is what its own encoding would be.
pub fn huffman_round_trips(octets: &[u8]) {
    let (mut code, mut back) = (Vec::new(), Vec::new());
    hpack::huffman_encode(octets, &mut code);
    hpack::huffman_decode(&code, &mut back).expect("our own code");
    assert_eq!(back, octets);
    back.clear();
    if hpack::huffman_decode(octets, &mut back).is_ok() {
        code.clear();
        hpack::huffman_encode(&back, &mut code);
        assert_eq!(code, octets, "a string has one code");
    }
}

/// The deframer finds the same messages, however the data is cut, and holds no more than it was given.
pub fn deframer_does_not_see_cuts(octets: &[u8], cuts: &[u8], message_octets_max: u32) {
    type Said = Vec<Result<(Vec<u8>, u32), GrpcError>>;
    let run = |pieces: Vec<&[u8]>| {
        let (mut deframer, mut said) = (Deframer::new(message_octets_max), Said::new());
        for mut piece in pieces {
            loop {
                match deframer.next(&mut piece) {
                    Ok(Some(Item::Message(message))) => {
                        assert!(message.len() <= message_octets_max as usize);
                        said.push(Ok((message.to_vec(), 0)));
                    }
                    Ok(Some(Item::Oversize { length })) => said.push(Ok((Vec::new(), length))),
                    Ok(None) => break,
                    Err(error) => {
                        said.push(Err(error));
                        return (said, 0);
                    }
                }
            }
            assert!(piece.is_empty(), "`None` means that all was taken");
            assert!(deframer.held_octets() <= octets.len());
        }
        (said, deframer.held_octets())
    };
    assert_eq!(run(vec![octets]), run(cut(octets, cuts)));
}

/// Two halves talking: whatever the recipe makes a client send, the server understands; no window and no frame size is
/// ever overstepped, and every octet arrives once and in order.
pub fn what_is_sent_is_received(recipe: &[u8], limits: &Limits) {
    let now = Instant::now();
    let (mut send, mut recv) = (Send::new(Role::Client, limits), Recv::new(Role::Server, limits));
    let mut wire = Vec::new();
    send.start(&mut wire);
    let mut settings_ack = Vec::new();
    send.settings(&Settings::announcing(limits, Role::Server), &mut settings_ack).expect("first settings");
    let extra = limits.transport_window.max(65_535) - 65_535;
    if extra > 0 {
        send.window_update(StreamId::TRANSPORT, extra).expect("one update");
    }
    let mut next_stream = 1;
    let mut sent: BTreeMap<StreamId, (Vec<u8>, bool)> = BTreeMap::new();
    let mut heard: BTreeMap<StreamId, (Vec<u8>, bool)> = BTreeMap::new();
    let mut fill = 0u8;
    let mut recipe = recipe.iter().copied();
    while let (Some(what), Some(how)) = (recipe.next(), recipe.next()) {
        let open: Vec<StreamId> = sent.iter().filter(|(_, (_, is_ended))| !is_ended).map(|(id, _)| *id).collect();
        let pick = open.get(usize::from(how) % open.len().max(1)).copied();
        match (what % 6, pick) {
            (0, _) if open.len() < 5 => {
                let stream = StreamId::new(next_stream);
                next_stream += 2 + 2 * u32::from(how & 1);
                send.open(stream);
                let long = vec![b'x'; usize::from(how) * 40];
                let fields: [(&[u8], &[u8]); 4] =
                    [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/"), (b"long", &long)];
                send.headers(stream, fields, false, &mut wire);
                sent.insert(stream, (Vec::new(), false));
            }
            (1 | 2, Some(stream)) => {
                let octets: Vec<u8> = (0..usize::from(what) * usize::from(how)).map(|_| next(&mut fill)).collect();
                let is_end = what % 6 == 2 && how & 3 == 0;
                let taken = send.data(stream, &octets, is_end, &mut wire);
                let entry = sent.get_mut(&stream).expect("open");
                entry.0.extend_from_slice(&octets[..taken]);
                entry.1 = is_end && taken == octets.len();
                assert!(taken == octets.len() || send.window(stream) == 0, "all that the windows allow");
            }
            (3, Some(stream)) if send.begin_data(stream, u32::from(how), &mut wire) => {
                let octets: Vec<u8> = (0..how).map(|_| next(&mut fill)).collect();
                wire.extend_from_slice(&octets);
                sent.get_mut(&stream).expect("open").0.extend_from_slice(&octets);
            }
            (4, _) => send.ping([how; 8], &mut wire),
            _ => {
                send.seal();
                deliver(now, &mut wire, &mut recv, &mut send, &mut heard, how & 1 == 0);
            }
        }
    }
    send.seal();
    deliver(now, &mut wire, &mut recv, &mut send, &mut heard, true);
    assert_eq!(sent, heard);
}

fn next(fill: &mut u8) -> u8 {
    *fill = fill.wrapping_add(1);
    *fill
}

/// Brings `wire` to the receiver and its window updates back.
fn deliver(
    now: Instant,
    wire: &mut Vec<u8>,
    recv: &mut Recv,
    send: &mut Send,
    heard: &mut BTreeMap<StreamId, (Vec<u8>, bool)>,
    credits: bool,
) {
    let mut input = &wire[..];
    let mut updates = Vec::new();
    while let Some(event) = recv.next(now, &mut input).expect("a correct peer is never cut off") {
        match event {
            Event::Headers { stream, .. } => {
                heard.insert(stream, (Vec::new(), false));
            }
            Event::Data { stream, octets, flow_octets, end_stream } => {
                let entry = heard.get_mut(&stream).expect("opened");
                entry.0.extend_from_slice(octets);
                entry.1 |= end_stream;
                if credits {
                    updates.extend(recv.credit_stream(stream, flow_octets).map(|increment| (stream, increment)));
                    let due = recv.credit_transport(flow_octets);
                    updates.extend(due.map(|increment| (StreamId::TRANSPORT, increment)));
                }
            }
            Event::Settings(_) | Event::SettingsAck | Event::Ping(_) | Event::WindowUpdate { .. } => {}
            other => panic!("nobody did that: {other:?}"),
        }
    }
    wire.clear();
    for (stream, increment) in updates {
        send.window_update(stream, increment).expect("what was credited fits");
    }
}

/// Window updates in any number and size: a window is never above its maximum, and an overflow costs what it should.
pub fn send_windows_stay_in_range(recipe: &[u8]) {
    let mut send = Send::new(Role::Server, &Limits::default());
    let mut out = Vec::new();
    let stream = StreamId::new(1);
    send.open(stream);
    for step in recipe.chunks_exact(5) {
        let value = u32::from_be_bytes([step[1], step[2], step[3], step[4]]);
        let increment = value & 0x7fff_ffff;
        match step[0] % 4 {
            0 => {
                let settings = Settings { initial_window: Some(increment), ..Settings::default() };
                if let Err(error) = send.settings(&settings, &mut out) {
                    assert_eq!(error.code, Code::FLOW_CONTROL_ERROR);
                    return;
                }
            }
            1 => {
                let octets = vec![0; (value & 0xffff) as usize];
                let before = send.window(stream);
                let taken = send.data(stream, &octets, false, &mut out);
                assert!(taken <= before as usize);
                out.clear();
                send.seal();
            }
            which => {
                let target = if which == 2 { stream } else { StreamId::TRANSPORT };
                match send.window_update(target, increment) {
                    Ok(()) => {}
                    Err(WindowError::Stream { code, .. }) => {
                        assert_eq!((target, code), (stream, Code::FLOW_CONTROL_ERROR));
                        assert_eq!(send.window(stream), 0);
                        send.open(stream);
                    }
                    Err(WindowError::Transport(error)) => {
                        assert_eq!((target, error.code), (StreamId::TRANSPORT, Code::FLOW_CONTROL_ERROR));
                        return;
                    }
                }
            }
        }
        assert!(send.window(stream) <= crate::h2::WINDOW_MAX);
    }
}
