//! What is accepted arrives, each key in its own field.

use std::path::PathBuf;
use std::time::Duration;

use slimline_config::{
    Config, DefaultGateway, Engine, Io, IoFeature, Keepalive, Limits, LogLevel, SlowReader, SlowReaderPolicy, Stats,
    default_stats_socket, parse,
};

fn read(text: &str) -> Config {
    parse(text, "a.yaml", &|_: &str| None).unwrap_or_else(|error| panic!("{}", error.report()))
}

/// A service, then more top-level blocks.
fn with(more: &str) -> Config {
    read(&format!(
        "services: {{slim/0: {{dataplane: {{servers: [{{endpoint: '127.0.0.1:1', tls: {{insecure: true}}}}]}}}}}}\n{more}"
    ))
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn tracing_and_runtime() {
    let config = with(
        "tracing: {log_level: WaRn, display_thread_names: false, display_thread_ids: true, filters: [a=debug, b]}
runtime: {n_cores: 3, thread_name: t, drain_timeout: 1m30s}",
    );
    assert_eq!(config.tracing.log_level, LogLevel::Warn);
    assert!(!config.tracing.display_thread_names && config.tracing.display_thread_ids);
    assert_eq!(config.tracing.filters, Some(vec!["a=debug".to_owned(), "b".to_owned()]));
    assert_eq!(config.runtime.n_cores, 3);
    assert_eq!(config.runtime.thread_name, "t");
    assert_eq!(config.runtime.drain_timeout, seconds(90));
    assert_eq!(with("tracing: {filters: []}").tracing.filters, Some(Vec::new()), "written and empty is not absent");
    assert_eq!(with("").tracing.filters, None);
    let config = with("tracing: {log_level: loud}");
    assert_eq!(config.tracing.log_level, LogLevel::Info);
    assert_eq!(
        config.warnings[0].to_string(),
        "a.yaml:2:22: tracing.log_level: not one of trace, debug, info, warn, error: info is used"
    );
}

#[test]
fn services_in_the_order_of_the_file() {
    let server = "dataplane: {servers: [{endpoint: '127.0.0.1:1', tls: {insecure: true}}]}";
    let config = read(&format!(
        "services: {{slim/b: {{node_id: n, domain_name: d, default_gateway: off, {server}}}, slim/a: {{{server}}}}}"
    ));
    let [first, second] = &*config.services else { panic!("two services") };
    assert_eq!((&*first.name, &*first.node_id, first.domain_name.as_deref()), ("slim/b", "n", Some("d")));
    assert_eq!(first.default_gateway, DefaultGateway::Off);
    assert_eq!((&*second.name, second.domain_name.as_deref()), ("slim/a", None));
    assert_eq!(second.default_gateway, DefaultGateway::Auto);
}

#[test]
fn server() {
    let config = read(
        "services:
  slim/0:
    dataplane:
      servers:
        - endpoint: '[::1]:5'
          tls: {insecure: true}
          max_frame_size: 15
          max_concurrent_streams: 7
          max_header_list_size: 2048
          keepalive: {time: 1s, timeout: 2s, max_connection_age: 3s}
          require_header_mac: false
          link_hmac_timeout_secs: 4
          slimline:
            health: false
            health_open: true
            slow_reader: {high: 6 MiB, low: 5 MiB, stall_after: 8s, cut_after: 9s, hard_cap: 7 MiB}
",
    );
    let server = &config.services[0].servers[0];
    assert_eq!(server.listen.to_string(), "[::1]:5");
    assert_eq!(server.max_frame_size, 15 << 20);
    assert_eq!(server.max_concurrent_streams, 7);
    assert_eq!(server.max_header_list_size, 2048);
    let keepalive = Keepalive { time: seconds(1), timeout: seconds(2), max_connection_age: seconds(3) };
    assert_eq!(server.keepalive, keepalive);
    assert!(!server.require_header_mac);
    assert_eq!(server.negotiation_timeout, seconds(4));
    assert!(!server.slimline.health && server.slimline.health_open);
    let slow_reader = SlowReader {
        policy: SlowReaderPolicy::Block,
        high: 6 << 20,
        low: 5 << 20,
        stall_after: seconds(8),
        cut_after: seconds(9),
        hard_cap: 7 << 20,
    };
    assert_eq!(server.slimline.slow_reader, slow_reader);
}

/// A policy is a choice of times, and what is not written follows what is.
#[test]
fn slow_reader_defaults_follow() {
    let slow = |keys: &str, limits: &str| {
        let entry =
            format!("{{endpoint: '127.0.0.1:1', tls: {{insecure: true}}, slimline: {{slow_reader: {{{keys}}}}}}}");
        let config = read(&format!(
            "services: {{slim/0: {{dataplane: {{servers: [{entry}]}}}}}}\nslimline: {{limits: {{{limits}}}}}"
        ));
        config.services[0].servers[0].slimline.slow_reader
    };
    assert_eq!(slow("", ""), SlowReader::default());
    let drop = slow("policy: drop", "");
    assert_eq!((drop.stall_after, drop.cut_after), (seconds(0), seconds(10)));
    let disconnect = slow("policy: disconnect, stall_after: 2s", "");
    assert_eq!((disconnect.stall_after, disconnect.cut_after), (seconds(2), seconds(2)));
    assert_eq!(slow("stall_after: 30s", "").cut_after, seconds(30));
    assert_eq!(slow("", "message_octets_max: 16 MiB").hard_cap, 16 << 20, "the largest message fits a queue");
    assert_eq!(slow("high: 64 KiB", "").low, 32 << 10);
}

/// Nothing that is added to a moment is so long that the sum is none: "for ever" is what some write as the largest number.
#[test]
fn the_longest_durations_can_be_added_to_a_moment() {
    let forever = "18446744073709551615s";
    let config = read(&format!(
        "runtime: {{drain_timeout: {forever}}}
services: {{slim/0: {{dataplane: {{servers: [{{endpoint: '127.0.0.1:1', tls: {{insecure: true}},
  negotiation_timeout_secs: 9223372036854775807,
  keepalive: {{time: {forever}, timeout: {forever}, max_connection_age: {forever}}}}}]}}}}}}
slimline: {{limits: {{preface_deadline: {forever}, headers_deadline: {forever}}}, stats: {{interval: {forever}}}}}"
    ));
    let server = &config.services[0].servers[0];
    let limits = &config.slimline.limits;
    let durations = [
        config.runtime.drain_timeout,
        server.negotiation_timeout,
        server.keepalive.time,
        server.keepalive.timeout,
        server.keepalive.max_connection_age,
        limits.preface_deadline,
        limits.headers_deadline,
        config.slimline.stats.interval.expect("written"),
    ];
    for duration in durations {
        assert!(duration >= Duration::from_secs(50 * 365 * 86_400), "{duration:?} is not for ever");
        let sum = std::time::Instant::now().checked_add(duration).and_then(|sum| sum.checked_add(duration));
        assert!(sum.is_some(), "{duration:?}");
    }
}

#[test]
fn slimline() {
    let config = with("slimline:
  shards: 8
  engine: epoll
  io: {disable: [bundles, msg_ring, multishot, defer_taskrun], ring_entries: 256, recv_buf_count: 32, recv_buf_octets: 8192,
       spin_us: 20, flush_us: 30, sqpoll: false, send_zc: false}
  stats: {socket: /run/a.sock, interval: 40s}");
    assert_eq!(config.slimline.shards, Some(8));
    assert_eq!(config.slimline.engine, Engine::Epoll);
    assert_eq!(
        config.slimline.io,
        Io {
            disable: vec![IoFeature::Bundles, IoFeature::MsgRing, IoFeature::Multishot, IoFeature::DeferTaskrun],
            ring_entries: 256,
            recv_buf_count: 32,
            recv_buf_octets: 8192,
            spin_us: 20,
            flush_us: 30,
            sqpoll: false,
            send_zc: false,
        }
    );
    let stats = Stats { socket: Some(PathBuf::from("/run/a.sock")), interval: Some(seconds(40)) };
    assert_eq!(config.slimline.stats, stats);
    assert_eq!(with("slimline: {engine: io_uring}").slimline.engine, Engine::IoUring);
}

#[test]
fn limits() {
    let config = with(
        "slimline:
  limits:
    streams_max: 11
    stream_window_octets: 100012
    transport_window_octets: 100013
    preface_deadline: 14s
    headers_deadline: 15s
    header_list_octets_max: 2016
    continuation_frames_max: 17
    control_frames_per_10s: 18
    resets_per_10s: 19
    message_octets_max: 10020
    slim_header_octets_max: 5021
    identity_octets_max: 522
    name_component_octets_max: 223
    link_text_octets_max: 124
    names_max: 126
    names_per_connection_max: 125
    unacknowledged_max: 27
    connections_max: 28
    accept_backlog: 29
    memory_octets_max: 1 GiB",
    );
    assert_eq!(
        config.slimline.limits,
        Limits {
            streams_max: 11,
            stream_window_octets: 100_012,
            transport_window_octets: 100_013,
            preface_deadline: seconds(14),
            headers_deadline: seconds(15),
            header_list_octets_max: 2016,
            continuation_frames_max: 17,
            control_frames_per_10s: 18,
            resets_per_10s: 19,
            message_octets_max: 10_020,
            slim_header_octets_max: 5021,
            identity_octets_max: 522,
            name_component_octets_max: 223,
            link_text_octets_max: 124,
            names_max: 126,
            names_per_connection_max: 125,
            unacknowledged_max: 27,
            connections_max: 28,
            accept_backlog: 29,
            memory_octets_max: Some(1 << 30),
        }
    );
    let server = &config.services[0].servers[0];
    assert_eq!(
        (server.max_concurrent_streams, server.max_header_list_size),
        (11, 2016),
        "what a listener does not say"
    );
    let few = with("slimline: {limits: {names_max: 9}}").slimline.limits;
    assert_eq!(few.names_per_connection_max, 9, "one connection never has more than all of them");
}

/// Files as they are found: anchors, quotes, comments, null for "nothing here".
#[test]
fn yaml_as_people_write_it() {
    let config = read(
        "---
# a comment
services:
  slim/0: &base
    dataplane:
      servers:
        - endpoint: \"0.0.0.0:46357\"
          tls: &plain
            insecure: true
        - {endpoint: '0.0.0.0:46358', tls: *plain}
      clients:
    controller: {servers: [], clients: []}
  slim/1: *base
tracing:
runtime: ~
",
    );
    assert_eq!(config.services.len(), 2);
    assert_eq!(config.services[0].servers, config.services[1].servers);
    assert_eq!(config.services[0].servers[1].listen.to_string(), "0.0.0.0:46358");
    assert_ne!(config.services[0].node_id, config.services[1].node_id);
}

/// Stricter readings of YAML refuse some of these; files like them work with SLIM.
#[test]
fn yaml_as_other_tools_write_it() {
    let head = "services:\n  slim/0:\n    dataplane:\n";
    let server = "{endpoint: '0.0.0.0:1', tls: {insecure: true}}";
    for text in [
        format!("{head}      servers:\n      - endpoint: 0.0.0.0:1\n        tls:\n          insecure: true\n      clients: [\n      ]\n"),
        format!("{head}      servers: [\n{server},\n]\n"),
        format!("\u{feff}{head}      servers: [{server}]\n...\n").replace('\n', "\r\n"),
        format!("%YAML 1.2\n---\n{head}      servers: [{server}]"),
        "{\"services\": {\"slim/0\": {\"dataplane\": {\"servers\": [{\"endpoint\": \"0.0.0.0:1\", \"tls\":\n\t{\"insecure\": true}}]}}}}"
            .to_owned(),
    ] {
        assert_eq!(read(&text).services[0].servers[0].listen.to_string(), "0.0.0.0:1", "{text}");
    }
}

#[test]
fn stats_socket_of_a_default_run() {
    let at = |directory: Option<&str>| {
        let directory = directory.map(str::to_owned);
        default_stats_socket(46357, &|name: &str| directory.clone().filter(|_| name == "XDG_RUNTIME_DIR"))
    };
    assert_eq!(at(Some("/run/user/1")), Some(PathBuf::from("/run/user/1/slimline/46357.sock")));
    assert_eq!(at(Some("relative")), None);
    assert_eq!(at(Some("")), None);
    assert_eq!(at(None), None);
}
