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
