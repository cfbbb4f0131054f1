//! The files we ship say what we claim they say.

use slimline_config::{Config, EMBEDDED, Listen, LogLevel, ServerExt, Slimline, embedded_default, load, parse};

fn shipped(file: &str) -> Config {
    let path = format!("{}/{file}", env!("CARGO_MANIFEST_DIR"));
    let config = load(path.as_ref(), &|_: &str| None).unwrap_or_else(|error| panic!("{}", error.report()));
    assert_eq!(config.warnings, [], "{file}");
    config
}

#[test]
fn base_server_config() {
    let config = shipped("base/server-config.yaml");
    assert_eq!(config.tracing.log_level, LogLevel::Info);
    assert!(config.tracing.display_thread_names && config.tracing.display_thread_ids);
    assert_eq!(config.runtime.n_cores, 0);
    assert_eq!(config.runtime.thread_name, "slim-data-plane");
    assert_eq!(config.runtime.drain_timeout.as_secs(), 10);
    let [service] = &*config.services else { panic!("one service") };
    assert_eq!(service.name, "slim/0");
    let [server] = &*service.servers else { panic!("one server") };
    assert_eq!(server.listen, Listen::Tcp("0.0.0.0:46357".parse().expect("an address")));
    assert_eq!(server.slimline, ServerExt::default());
    assert_eq!(config.slimline, Slimline::default());
}

#[test]
fn embedded() {
    let config = embedded_default();
    assert_eq!(config.warnings, []);
    let [service] = &*config.services else { panic!("one service") };
    let [server] = &*service.servers else { panic!("one server") };
    assert_eq!(server.listen, Listen::Tcp("127.0.0.1:46357".parse().expect("an address")));
    assert_eq!(server.max_frame_size, 16_384);
    assert_eq!(server.max_concurrent_streams, 100);
    assert!(server.require_header_mac);
    assert_eq!(server.negotiation_timeout.as_secs(), 5);
}

/// Each start that is not told its node id makes up a new one.
#[test]
fn node_ids_differ() {
    let [first, second] = [(); 2].map(|()| {
        let config = parse(EMBEDDED, "embedded", &|_: &str| None).expect("accepted");
        config.services[0].node_id.clone()
    });
    assert_ne!(first, second);
    for node_id in [first, second] {
        let uuid = node_id.strip_prefix("node-").expect("prefix");
        assert_eq!(uuid.len(), 36);
        assert_eq!(uuid.as_bytes()[14], b'4', "{uuid}"); // RFC 9562 §5.4: version
    }
}

const REFERENCE: &str = include_str!("../reference.yaml");

/// The reference says the defaults: leaving everything out gives the same.
#[test]
fn reference_is_the_default() {
    let mut reference = shipped("reference.yaml");
    let mut minimal = parse(
        "services: {slim/0: {dataplane: {servers: [{endpoint: '0.0.0.0:46357', tls: {insecure: true}}]}}}",
        "minimal",
        &|_: &str| None,
    )
    .expect("accepted");
    for config in [&mut reference, &mut minimal] {
        assert!(config.services[0].node_id.starts_with("node-"));
        config.services[0].node_id.clear();
    }
    assert_eq!(reference, minimal);
}

/// The lines that start with `#:` are right too: put in one block at a time, only "not supported yet" is left to say.
#[test]
fn what_the_reference_leaves_out_is_right() {
    let lines: Vec<&str> = REFERENCE.lines().collect();
    let is_left_out = |line: &str| line.trim_start().starts_with("#: ");
    let mut blocks = 0;
    let mut start = 0;
    while let Some(offset) = lines[start..].iter().position(|line| is_left_out(line)) {
        start += offset;
        let end =
            lines[start..].iter().position(|line| !is_left_out(line)).map_or(lines.len(), |length| start + length);
        let block: Vec<String> = lines[start..end].iter().map(|line| line.replacen("#: ", "", 1)).collect();
        let mut text = [&lines[..start], &lines[end..]].map(|part| part.join("\n") + "\n");
        // A block replaces the line it would repeat or contradict.
        for (key, line) in [("type: basic", "            type: none"), ("source:", "            insecure: true")] {
            if block[0].trim_start().starts_with(key) {
                text[0] = text[0]
                    .lines()
                    .filter(|given| !given.starts_with(line))
                    .map(|given| format!("{given}\n"))
                    .collect();
            }
        }
        let text =
            format!("{}{}\n{}", text[0], block.join("\n"), text[1]).replace("domain_name: null", "domain_name: a");
        let env = |name: &str| name.starts_with("SLIM_").then(|| "x".repeat(32));
        let error = parse(&text, "reference", &env).expect_err(&block[0]);
        let last = error.causes().last().expect("a cause");
        assert!(last.ends_with(": not supported yet"), "{}\n{}", block.join("\n"), error.report());
        blocks += 1;
        start = end;
    }
    assert_eq!(blocks, 6, "enforce_pqc, tls, auth of a server, clients, auth of the service, peers");
}

/// systemd waits longer for a stop than the node takes for one.
#[test]
fn systemd_outwaits_the_drain() {
    let unit = include_str!("../systemd/slimline.service");
    let wait = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")).expect("TimeoutStopSec");
    let wait = slimline_config::parse_duration(wait).expect("a duration");
    assert!(wait > embedded_default().runtime.drain_timeout);
    assert!(unit.contains("\nExecStart=/usr/bin/slimline --config "));
}
