//! Inner parts as closures, for the benchmark suites: no interface, and of no use to anybody else.

use crate::conn::connection::{Link, Phase};
use crate::conn::out_queue::OutQueue;
use crate::conn::transport::StreamRole;
use crate::io::Block;
use crate::mesh::{Doorbell, delta_log};
use crate::settings::Settings;
use crate::shard::core::{Core, CoreParts};
use crate::shard::mesh::{MeshPort, mesh};
use crossbeam::queue::ArrayQueue;
use slimline_fib::{ConnId, Delta};
use slimline_wire::grpc::Deframer;
use slimline_wire::link::{HeaderMac, LinkKey};
use slimline_wire::{ConnType, Name};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

/// A queue in which eight copies of `message` wait: each call appends one, and takes the oldest.
pub fn out_queue(message: Vec<u8>) -> impl FnMut() {
    let mut queue = OutQueue::default();
    for _ in 0..8 {
        queue.back().extend_from_slice(&message);
    }
    move || {
        queue.back().extend_from_slice(black_box(&message));
        black_box(&queue.octets()[..message.len()]);
        queue.advance(message.len());
    }
}

/// What [`forward`] is fed with.
pub struct ForwardInput {
    /// How both clients open their transport and stream 1, without a link negotiation.
    pub head: Vec<u8>,
    /// Publishes for `name`, as frames of stream 1.
    pub data: Vec<u8>,
    /// How many publishes `data` holds.
    pub messages: u64,
    /// What the receiving client sends for each of these.
    pub receipt: Vec<u8>,
    /// The one subscription.
    pub name: Name,
    /// What the sender signs with and what the receiver verifies with, or no header MAC.
    pub keys: Option<[LinkKey; 2]>,
    /// The id of both links.
    pub link_id: &'static str,
    /// Whether the receiver hangs on another shard.
    pub across: bool,
}

/// Shards without their kernel, a sender on the first and a receiver on the last: each call is a turn that forwards
/// `messages` publishes.
///
/// # Panics
/// If one of them is not forwarded.
pub fn forward(input: ForwardInput) -> impl FnMut() {
    let shards = if input.across { 2 } else { 1 };
    let (writer, _readers) = delta_log(vec![|| (); shards], || (), 1);
    let bells: Vec<Doorbell> = (0..shards).map(|shard| writer.doorbell_of(shard)).collect();
    let (settings, now) = (Arc::new(settings(input.keys.is_some())), Instant::now());
    let mut cores: Vec<Core> =
        (0u16..).zip(mesh(shards)).map(|(index, mesh)| core(index, mesh, &settings, now)).collect();
    let [from_key, to_key] = input.keys.map_or([None, None], |keys| keys.map(Some));
    let mac = |key: Option<LinkKey>| key.map(|key| Box::new(HeaderMac::new(&key, input.link_id)));
    let (from, _) = connect(&mut cores[0], &input.head, mac(from_key), now);
    let (to, conn) = connect(&mut cores[shards - 1], &input.head, mac(to_key), now);
    for core in &mut cores {
        core.fib.apply(&Delta::Add { name: input.name, conn, kind: ConnType::Edge });
    }
    let mut in_flight: Vec<(usize, u32, u32, Block)> = Vec::new();
    move || {
        let before = cores[shards - 1].counters.messages_out;
        for (shard, slot, generation, block) in in_flight.drain(..) {
            let octets = block.len();
            assert!(cores[shard].sent(slot, generation, block, Ok(octets)).is_none(), "the kernel took all of it");
        }
        cores[0].received(from.0, from.1, black_box(&input.data), now);
        cores[0].mesh.publish(&bells);
        cores[shards - 1].received(to.0, to.1, &input.receipt, now);
        for (shard, core) in cores.iter_mut().enumerate() {
            core.take_from_mesh(now);
            for index in 0..core.touched.len() {
                let (slot, generation) = core.touched[index];
                if let Some(block) = core.take_block(slot, generation, now) {
                    in_flight.push((shard, slot, generation, black_box(block)));
                }
            }
            core.touched.clear();
            core.actions.clear();
        }
        assert_eq!(cores[shards - 1].counters.messages_out - before, input.messages);
    }
}

/// All defaults.
pub(crate) fn settings(require_header_mac: bool) -> Settings {
    let config = slimline_config::parse(CONFIG, "bench", &|_| None).expect("a configuration");
    Settings { require_header_mac, ..Settings::of(&config.services[0], &config.slimline) }
}

/// A shard's core without a control thread.
pub(crate) fn core(index: u16, mesh: MeshPort, settings: &Arc<Settings>, now: Instant) -> Core {
    Core::new(CoreParts {
        index,
        settings: Arc::clone(settings),
        inventory: Arc::default(),
        requests: Arc::new(ArrayQueue::new(1)),
        mesh,
        fib_seed: 42,
        now,
    })
}

/// A transport with one connection whose link is up.
pub(crate) fn connect(core: &mut Core, head: &[u8], mac: Option<Box<HeaderMac>>, now: Instant) -> ((u32, u32), ConnId) {
    let (slot, generation) = core.open_transport(0, now);
    core.received(slot, generation, head, now);
    let transport = core.transports.get_mut(slot, generation).expect("just opened");
    let (conn, life) = transport.connections[0];
    for stream in &mut transport.rx.as_mut().expect("nothing is being read").streams {
        if let StreamRole::Channel { deframer, .. } = &mut stream.role {
            *deframer = Deframer::new(core.settings.message_octets_max); // as after a negotiation
        }
    }
    let connection = core.connections.get_mut(conn, life).expect("its stream is open");
    connection.phase = Phase::Up(Box::new(Link { kind: ConnType::Edge, mac }));
    ((slot, generation), connection.id)
}

/// How a client with wide windows opens its transport and stream 1.
#[cfg(test)]
pub(crate) fn client_head() -> Vec<u8> {
    use slimline_wire::h2::{Limits, Role, Send, StreamId};
    let limits = Limits { initial_window: 1 << 30, transport_window: 1 << 30, ..Limits::default() };
    let mut client = Send::new(Role::Client, &limits);
    let mut out = Vec::new();
    client.start(&mut out);
    client.open(StreamId::new(1));
    client_request(&mut client, StreamId::new(1), &mut out);
    out
}

/// The request of an OpenChannel stream, as HEADERS.
#[cfg(test)]
pub(crate) fn client_request(
    client: &mut slimline_wire::h2::Send,
    stream: slimline_wire::h2::StreamId,
    out: &mut Vec<u8>,
) {
    use slimline_wire::grpc::OPEN_CHANNEL_PATH;
    let fields: [(&[u8], &[u8]); 5] = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", OPEN_CHANNEL_PATH.as_bytes()),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
    ];
    client.headers(stream, fields, false, out);
}

/// All defaults.
const CONFIG: &str =
    r#"services: {slim/0: {dataplane: {servers: [{endpoint: "127.0.0.1:1", tls: {insecure: true}}]}}}"#;
