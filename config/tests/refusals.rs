//! What is refused: the last cause is the text operators search for, the place and key say where.

use slimline_config::{Config, ConfigError, parse};

/// A service's block that is accepted.
const PLAIN: &str = "dataplane: {servers: [{endpoint: '127.0.0.1:46357', tls: {insecure: true}}]}";

fn read(text: &str) -> Result<Config, ConfigError> {
    parse(text, "slim.yaml", &|name: &str| match name {
        "SECRET" => Some("hunter2".to_owned()),
        "NUMBER" => Some("4".to_owned()),
        "ADDRESS" => Some("[::1]:46357".to_owned()),
        "LEVEL" => Some("debug".to_owned()),
        "AGE" => Some("1h".to_owned()),
        _ => None,
    })
}

/// Checks one row: the step, the key, and the causes joined by ` / `. In `marked`, `»` stands before the place that is
/// named (and is taken out before reading).
#[track_caller]
fn check(marked: &str, step: &str, path: &str, causes: &str) {
    let before = marked.split('»').next().expect("a first part");
    assert_eq!(marked.matches('»').count(), 1, "one mark: {marked}");
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|&character| character != '\n').count() + 1;
    let error = read(&marked.replace('»', "")).expect_err("refused");
    assert_eq!(error.causes().collect::<Vec<_>>().join(" / "), causes);
    assert_eq!(error.path(), path);
    assert_eq!(error.place().map(|place| place.to_string()), Some(format!("{line}:{column}")));
    assert!(error.report().to_string().starts_with(&format!("Error: {step}\n\nCaused by:\n")), "{}", error.report());
    assert!(error.to_string().starts_with(&format!("slim.yaml:{line}:{column}: ")), "{error}");
}

const LOAD: &str = "failed to load configuration";
const RUNTIME: &str = "invalid runtime configuration";
const TRACING: &str = "invalid tracing configuration";
const SERVICES: &str = "error loading services";
const SLIMLINE: &str = "invalid slimline configuration";

/// A row about a service's block; `path` is relative to it.
#[track_caller]
fn service(block: &str, path: &str, causes: &str) {
    check(&format!("services:\n  slim/0:\n    {block}\n"), SERVICES, &format!("services.slim/0{path}"), causes);
}

/// A row about the keys of a server entry, or about the whole of it when nothing is marked.
#[track_caller]
fn server(keys: &str, path: &str, causes: &str) {
    let mark = if keys.contains('»') { "" } else { "»" };
    let path = format!(".dataplane.servers[0]{path}");
    service(&format!("dataplane: {{servers: [{mark}{{{keys}}}]}}"), &path, causes);
}

/// A row about one more key of a good server entry.
#[track_caller]
fn more(key: &str, path: &str, causes: &str) {
    server(&format!("endpoint: '127.0.0.1:1', tls: {{insecure: true}}, {key}"), path, causes);
}

#[track_caller]
fn client(keys: &str, path: &str, causes: &str) {
    let mark = if keys.contains('»') { "" } else { "»" };
    let path = format!(".dataplane.clients[0]{path}");
    service(&format!("dataplane: {{clients: [{mark}{{{keys}}}]}}"), &path, causes);
}

#[track_caller]
fn slimline(block: &str, path: &str, cause: &str) {
    let text = format!("services: {{slim/0: {{{PLAIN}}}}}\nslimline:\n  {block}\n");
    check(&text, SLIMLINE, &format!("slimline{path}"), cause);
}

#[test]
#[rustfmt::skip]
fn documents() {
    check("»foo: 1\nservices: {}", LOAD, "foo",      "invalid configuration - key foo not valid");
    check("»runtime: {}",          LOAD, "services", "invalid configuration - missing services");
    check("»services:",            LOAD, "services", "invalid configuration - missing services");
    check("»services: {}",         LOAD, "services", "invalid configuration - missing services");
    check("»- a",                  LOAD, "",         "invalid configuration - impossible to parse yaml");
    check("»",                     LOAD, "",         "invalid configuration - impossible to parse yaml");
    check("a: 1\n»a: 2",           LOAD, "",         "yaml parse error / duplicate entry with key \"a\"");
    assert_eq!(read("services: [").expect_err("open").causes().next(), Some("yaml parse error"));
}

#[test]
#[rustfmt::skip]
fn references() {
    check("services: {a: »'${env:NO}'}",   LOAD, "services.a",
          "config provider error / environment variable error / environment variable not found");
    check("services: {a: »'${vault:NO}'}", LOAD, "services.a", "config provider error / ${vault:NO} not found");
    check("services: {a: »'${NO}'}",       LOAD, "services.a", "config provider error / ${NO} not found");
    check("services: {a: »'${file:/no}'}", LOAD, "services.a",
          "config provider error / file error: /no / No such file or directory (os error 2)");
    // The result is always a string.
    check("runtime: {n_cores: »'${env:NUMBER}'}\nservices: {slim/0: {}}", RUNTIME, "runtime.n_cores",
          "invalid type: string \"${env:NUMBER}\", expected usize");
}

#[test]
fn references_feed_strings_and_durations() {
    let keys = "endpoint: '${env:ADDRESS}', tls: {insecure: true}, keepalive: {max_connection_age: '${env:AGE}'}";
    let text = format!(
        "tracing: {{log_level: '${{env:LEVEL}}'}}\nservices: {{slim/0: {{dataplane: {{servers: [{{{keys}}}]}}}}}}"
    );
    let config = read(&text).expect("accepted");
    let server = &config.services[0].servers[0];
    assert_eq!(server.listen.to_string(), "[::1]:46357");
    assert_eq!(server.keepalive.max_connection_age.as_secs(), 3600);
    assert_eq!(config.tracing.log_level.as_str(), "debug");
}

/// A reference may hold a secret: no refusal shows what it stands for.
#[test]
#[rustfmt::skip]
fn references_are_not_shown() {
    let hidden = |text: &str| {
        let report = read(text).expect_err("refused").report().to_string();
        assert!(!report.contains("hunter2"), "{report}");
    };
    for value in ["endpoint", "max_frame_size", "keepalive", "tls", "auth", "negotiation_timeout_secs", "slimline"] {
        hidden(&format!("services: {{slim/0: {{dataplane: {{servers: [{{{value}: '${{env:SECRET}}'}}]}}}}}}"));
    }
    for keys in ["compression: '${env:SECRET}'", "rate_limit: '${env:SECRET}'", "connect_timeout: '${env:SECRET}'",
                 "auth: {type: basic, username: '${env:SECRET}', password: 5}", "auth: {type: '${env:SECRET}'}"] {
        hidden(&format!("services: {{slim/0: {{dataplane: {{clients: [{{endpoint: 'http://a', {keys}}}]}}}}}}"));
    }
    hidden("slimline: {limits: {memory_octets_max: '${env:SECRET}'}}\nservices: {slim/0: {}}");
}

#[test]
#[rustfmt::skip]
fn strict_blocks() {
    service("»pubsub: {}", ".pubsub",
            "unknown field `pubsub`, expected one of `node_id`, `domain_name`, `auth`, `dataplane`, `controller`, `peers`, `default_gateway`");
    service("dataplane: {»server: []}", ".dataplane.server",
            "unknown field `server`, expected one of `enforce_pqc`, `servers`, `clients`, `outbound_clients`");
    service("controller: {»x: 1}", ".controller.x",
            "unknown field `x`, expected one of `enforce_pqc`, `servers`, `clients`, `outbound_clients`");
    service("peers: {»x: 1}", ".peers.x", "unknown field `x`, expected `topology` or `discovery`");
    let services = format!("\nservices: {{slim/0: {{{PLAIN}}}}}");
    check(&format!("tracing: {{»filter: []}}{services}"), TRACING, "tracing.filter",
          "unknown field `filter`, expected one of `log_level`, `display_thread_names`, `display_thread_ids`, `filters`, `opentelemetry`");
    check(&format!("tracing: {{opentelemetry: {{»x: 1}}}}{services}"), TRACING, "tracing.opentelemetry.x",
          "unknown field `x`, expected one of `enabled`, `grpc`, `service_name`, `service_version`, `environment`, `metrics_interval_secs`");
    check(&format!("runtime: {{»cores: 1}}{services}"), RUNTIME, "runtime.cores",
          "unknown field `cores`, expected one of `n_cores`, `thread_name`, `drain_timeout`");
    let peer = "peers: {discovery: {type: static, peers: [{node_id: a, endpoint: 'http://b:1', x: 1}]}}";
    let refused = read(&format!("services: {{slim/0: {{{peer}}}}}")).expect_err("strict");
    assert!(refused.to_string().contains("unknown field `x`, expected one of `node_id`, `endpoint`, "), "{refused}");
    slimline("»shard: 1", ".shard", "unknown field `shard`, expected one of `shards`, `engine`, `io`, `limits`, `stats`");
    slimline("stats: {»x: 1}", ".stats.x", "unknown field `x`, expected `socket` or `interval`");
    more("slimline: {»x: 1}", ".slimline.x", "unknown field `x`, expected one of `slow_reader`, `health`, `health_open`");
    for (block, cause) in [("limits", "`streams_max`, "), ("io", "`disable`, ")] {
        let refused = read(&format!("services: {{slim/0: {{{PLAIN}}}}}\nslimline: {{{block}: {{x: 1}}}}")).expect_err("strict");
        assert!(refused.to_string().contains(&format!("unknown field `x`, expected one of {cause}")), "{refused}");
    }
}

#[test]
fn renamed_keys_are_explained() {
    let refused = read("services: {slim/0: {pubsub: {}}}").expect_err("refused");
    assert_eq!(refused.advice(), Some("the key is called `dataplane` now"));
}

#[test]
fn lenient_blocks_ignore_and_warn() {
    let config = read(
        "services:
  slim/0:
    dataplane:
      servers:
        - endpoint: 127.0.0.1:1
          tls: {insecure: true, ca_file: x}
          max_recv_msg_size: 1
          keepalive: {permit_without_stream: true}
          read_buffer_size: 5
          http2_only: false
",
    )
    .expect("accepted");
    let mut warnings: Vec<_> = config.warnings.iter().map(ToString::to_string).collect();
    warnings.sort();
    let server = "services.slim/0.dataplane.servers[0]";
    let unknown = "this key is not known and has no effect";
    assert_eq!(
        warnings,
        [
            format!("slim.yaml:10:23: {server}.http2_only: has no effect: a gRPC listener never accepts HTTP/1"),
            format!("slim.yaml:6:33: {server}.tls.ca_file: {unknown}"),
            format!("slim.yaml:7:11: {server}.max_recv_msg_size: {unknown}"),
            format!("slim.yaml:8:23: {server}.keepalive.permit_without_stream: {unknown}"),
            format!("slim.yaml:9:29: {server}.read_buffer_size: has no effect"),
        ]
    );
}

#[test]
fn the_first_server_decides_about_negotiation() {
    let text = "services:
  slim/0:
    dataplane:
      servers:
        - {endpoint: 127.0.0.1:1, tls: {insecure: true}, require_header_mac: false}
        - {endpoint: 127.0.0.1:2, tls: {insecure: true}, negotiation_timeout_secs: 9}
        - {endpoint: 127.0.0.1:3, tls: {insecure: true}, require_header_mac: true}
";
    let config = read(text).expect("accepted");
    let servers = &config.services[0].servers;
    assert!(servers.iter().all(|server| !server.require_header_mac && server.negotiation_timeout.as_secs() == 5));
    let warnings: Vec<_> = config.warnings.iter().map(ToString::to_string).collect();
    let text = "differs from the first server's, which counts for every connection";
    assert_eq!(
        warnings,
        [
            format!("slim.yaml:6:84: services.slim/0.dataplane.servers[1].negotiation_timeout_secs: {text}"),
            format!("slim.yaml:7:78: services.slim/0.dataplane.servers[2].require_header_mac: {text}"),
        ]
    );
}

#[test]
#[rustfmt::skip]
fn service_keys() {
    check("services: {»slim: {}}",   SERVICES, "services.slim",   "id cannot be empty");
    check("services: {»0a/x: {}}",   SERVICES, "services.0a/x",   "invalid kind `0a`: a letter, then up to 62 of 0-9 A-Z a-z _");
    check("services: {»/x: {}}",     SERVICES, "services./x",     "invalid kind ``: a letter, then up to 62 of 0-9 A-Z a-z _");
    check("services: {»slim/A: {}}", SERVICES, "services.slim/A", "invalid name `A`: up to 1024 of a-z 0-9 -");
    for good in ["slim/", "slim/a-0", "Other_1/0"] {
        let config = read(&format!("services: {{{good}: {{{PLAIN}}}}}")).expect(good);
        assert_eq!(config.services[0].name, good);
    }
}

#[test]
#[rustfmt::skip]
fn services() {
    service("dataplane: »{}",  ".dataplane", "no server or client configured");
    service("»dataplane:",     ".dataplane", "no server or client configured");
    service("»node_id: a",     ".dataplane", "no server or client configured");
    service("dataplane: »5",   ".dataplane", "invalid type: integer `5`, expected a map");
    service("node_id: »5",     ".node_id",   "invalid type: integer `5`, expected a string");
    service(&format!("node_id: »{}", "x".repeat(257)), ".node_id", "257 octets, limit 256");
    service("default_gateway: »'on'", ".default_gateway", "unknown variant `on`, expected `auto` or `off`");
    service("auth: {type: shared_secret, secret: »short}", ".auth.secret", "hmac key is too short");
    service("auth: »{type: shared_secret, secret: 0123456789abcdef0123456789abcdef}", ".auth",
            "domain_name must be set when auth is configured");
    service("peers: {discovery: »{type: static, peers: []}}", ".peers.discovery",
            "static discovery needs at least one entry below `peers`");
    service("dataplane: {enforce_pqc: true, clients: [{endpoint: 'http://a:1', tls: {tls_version: »tls1.2}}]}",
            ".dataplane.clients[0].tls.tls_version",
            "invalid tls version: enforce_pqc requires tls_version \"tls1.3\"");
}

#[test]
#[rustfmt::skip]
fn server_endpoints() {
    let plain = |endpoint: &str, causes: &str| server(&format!("tls: {{insecure: true}}, endpoint: »'{endpoint}'"), ".endpoint", causes);
    plain("",                        "missing grpc endpoint");
    plain("localhost:46357",         "endpoint parse error / invalid socket address syntax");
    plain("http://127.0.0.1:46357",  "endpoint parse error / invalid socket address syntax");
    plain("127.0.0.1",               "endpoint parse error / invalid socket address syntax");
    plain("unix://relative",         "endpoint parse error / a socket file needs an absolute path");
    plain("unix:///",                "endpoint parse error / a socket file needs an absolute path");
    plain("ws://:80",                "endpoint parse error / a host is missing");
    plain("wss://a.example",         "TLS is required but no TLS configuration was provided");
    let tls = |endpoint: &str, causes: &str| {
        server(&format!("tls: {{source: {{type: file, cert: a, key: b}}}}, endpoint: »'{endpoint}'"), ".endpoint", causes);
    };
    tls("unix:///x", "unix domain sockets require tls.insecure=true");
    tls("ws://a",    "websocket server TLS configuration is set but endpoint scheme is not wss://");
    server("tls: {insecure: true}", "", "missing field `endpoint`");
}

#[test]
fn endpoints_that_are_accepted() {
    let listen = |endpoint: &str| {
        let text = format!("services: {{slim/0: {{{}}}}}", PLAIN.replace("127.0.0.1:46357", endpoint));
        read(&text).expect(endpoint).services[0].servers[0].listen.to_string()
    };
    assert_eq!(listen("0.0.0.0:46357"), "0.0.0.0:46357");
    assert_eq!(listen("[::]:46357"), "[::]:46357");
    assert_eq!(listen("127.0.0.1:0"), "127.0.0.1:0");
    assert_eq!(listen("unix:///run/slim.sock"), "unix:///run/slim.sock");
    assert_eq!(listen("unix:///run/slim.sock?x=1#y"), "unix:///run/slim.sock");
}

#[test]
#[rustfmt::skip]
fn server_values() {
    server("endpoint: '127.0.0.1:1'",                           ".tls",             "missing server cert or key");
    server("endpoint: x, tls: »{insecure: false}",              ".tls",             "missing server cert or key");
    server("endpoint: x, tls: »{source: {type: none}}",         ".tls",             "missing server cert or key");
    server("endpoint: x, tls: {tls_version: »tls1.1}",          ".tls.tls_version", "invalid tls version: tls1.1");
    server("endpoint: x, tls: {source: »{type: file, cert: a}}", ".tls.source",     "missing field `key`");
    server("endpoint: x, tls: {source: {type: »disk}}", ".tls.source.type",
           "unknown variant `disk`, expected one of `file`, `pem`, `spire`, `none`");
    server("endpoint: x, tls: {reload_interval: »10s}", ".tls.reload_interval", "invalid type: string \"10s\", expected a map");
    more("max_frame_size: »16",  ".max_frame_size", "invalid value: integer `16`, expected 1 to 15");
    more("max_frame_size: »0",   ".max_frame_size", "invalid value: integer `0`, expected 1 to 15");
    more("max_frame_size: »-1",  ".max_frame_size", "invalid value: integer `-1`, expected u32");
    more("max_frame_size: »1.5", ".max_frame_size", "invalid type: floating point `1.5`, expected u32");
    more("max_concurrent_streams: »5000000000", ".max_concurrent_streams", "invalid value: integer `5000000000`, expected u32");
    more("max_concurrent_streams: »0",          ".max_concurrent_streams", "invalid value: integer `0`, expected at least 1");
    more("require_header_mac: »yes",            ".require_header_mac", "invalid type: string \"yes\", expected a boolean");
    more("keepalive: {time: »5}",               ".keepalive.time", "invalid type: integer `5`, expected a duration string");
    more("keepalive: {time: »'5'}",             ".keepalive.time", "invalid duration \"5\" / the number 5 has no unit");
    more("keepalive: {time: »0s}",              ".keepalive.time", "must be longer than zero");
    more("negotiation_timeout_secs: »0",        ".negotiation_timeout_secs", "must be longer than zero");
    more("negotiation_timeout_secs: 1, link_hmac_timeout_secs: »1", ".link_hmac_timeout_secs", "duplicate field `negotiation_timeout_secs`");
    more("auth: {type: basic, username: a, password: »''}", ".auth.password", "password cannot be empty");
    more("auth: {type: »static_jwt}", ".auth.type",
         "unknown variant `static_jwt`, expected one of `basic`, `jwt`, `oidc`, `spire`, `none`");
}

#[test]
#[rustfmt::skip]
fn slow_readers() {
    let slow = |keys: &str, path: &str, cause: &str| {
        let mark = if keys.contains('»') { "" } else { "»" };
        more(&format!("slimline: {{slow_reader: {mark}{{{keys}}}}}"), &format!(".slimline.slow_reader{path}"), cause);
    };
    slow("policy: »x",                         ".policy", "unknown variant `x`, expected one of `block`, `drop`, `disconnect`");
    slow("hard_cap: 1 MiB",                    "",        "hard_cap is smaller than slimline.limits.message_octets_max");
    slow("high: »1 MB",                        ".high",   "invalid type: string \"1 MB\", expected a size in octets");
    slow("high: »9 MiB",                       ".high",   "invalid value: integer `9437184`, expected 1024 to 8388608");
    slow("high: 4096, low: »4096",             ".low",    "invalid value: integer `4096`, expected 1 to 4095");
    slow("low: »0",                            ".low",    "invalid value: integer `0`, expected 1 to 1048575");
    slow("policy: drop, stall_after: »1s",     ".stall_after", "policy drop means stall_after 0s");
    slow("policy: disconnect, cut_after: »3s", ".cut_after", "policy disconnect cuts a connection when it stalls");
    slow("stall_after: 2s, cut_after: »1s",    ".cut_after", "cut_after is shorter than stall_after");
}

#[test]
#[rustfmt::skip]
fn clients() {
    client("endpoint: »'a:1'",     ".endpoint", "invalid endpoint scheme");
    client("endpoint: »'ftp://a'", ".endpoint", "invalid endpoint scheme");
    client("endpoint: »''",        ".endpoint", "missing grpc endpoint");
    client("tls: {}",              "",          "missing field `endpoint`");
    client("endpoint: 'http://a', compression: »none", ".compression",
           "unknown variant `none`, expected one of `Gzip`, `Zlib`, `Deflate`, `Snappy`, `Zstd`, `Lz4`, `None`, `Empty`");
    client("endpoint: 'http://a', rate_limit: »'5'",    ".rate_limit", "rate limit parse error");
    client("endpoint: 'http://a', link_id: »''",        ".link_id", "link_id must not be empty");
    client("endpoint: 'http://a', connection_type: »x", ".connection_type", "unknown variant `x`, expected one of `edge`, `peer`, `remote`");
    client("endpoint: 'http://a', backoff: {type: »x}", ".backoff.type", "unknown variant `x`, expected `exponential` or `fixed_interval`");
}

#[test]
#[rustfmt::skip]
fn our_own_values() {
    slimline("shards: »0",                          ".shards", "invalid value: integer `0`, expected 1 to 256");
    slimline("engine: »glommio",                    ".engine", "unknown variant `glommio`, expected one of `auto`, `io_uring`, `epoll`");
    slimline("io: {disable: [»bundle]}",            ".io.disable[0]",
             "unknown variant `bundle`, expected one of `bundles`, `multishot`, `defer_taskrun`, `msg_ring`");
    slimline("io: {ring_entries: »100}",            ".io.ring_entries", "100 is not a power of two");
    slimline("io: {recv_buf_octets: »1}",           ".io.recv_buf_octets", "invalid value: integer `1`, expected 4096 to 4194304");
    slimline("limits: {preface_deadline: »0s}",     ".limits.preface_deadline", "must be longer than zero");
    slimline("limits: {stream_window_octets: »1 KiB}", ".limits.stream_window_octets",
             "invalid value: integer `1024`, expected 65535 to 2147483647");
    slimline("limits: {slim_header_octets_max: 4 KiB, identity_octets_max: »4097}", ".limits.identity_octets_max",
             "invalid value: integer `4097`, expected 64 to 4096");
    slimline("limits: {name_component_octets_max: »100}", ".limits.name_component_octets_max",
             "invalid value: integer `100`, expected 128 to 16384");
    slimline("limits: {names_max: 5, names_per_connection_max: »6}", ".limits.names_per_connection_max",
             "invalid value: integer `6`, expected 1 to 5");
    slimline("stats: {socket: »a.sock}",            ".stats.socket", "a socket file needs an absolute path");
    slimline("stats: {interval: »0s}",              ".stats.interval", "must be longer than zero");
}

#[test]
#[rustfmt::skip]
fn not_built_yet() {
    let refused = |block: &str, path: &str| service(block, path, &format!("services.slim/0{path}: not supported yet"));
    refused("dataplane: {clients: [»{endpoint: 'http://a:1'}]}", ".dataplane.clients[0]");
    refused(&PLAIN.replace("servers", "enforce_pqc: »true, servers"), ".dataplane.enforce_pqc");
    refused(&PLAIN.replace("{insecure: true}", "»{source: {type: file, cert: a, key: b}}"), ".dataplane.servers[0].tls");
    refused(&PLAIN.replace("'127.0.0.1:46357'", "»'ws://localhost:46357/slim'"), ".dataplane.servers[0].endpoint");
    refused(&PLAIN.replace("tls:", "auth: »{type: basic, username: a, password: b}, tls:"), ".dataplane.servers[0].auth");
    let beside = |block: &str, path: &str| refused(&format!("{PLAIN}\n    {block}"), path);
    beside("controller: »{servers: [{endpoint: '127.0.0.1:46358', tls: {insecure: true}}]}", ".controller");
    beside("controller: »{clients: [{endpoint: 'http://a:1'}]}", ".controller");
    beside("peers: »{discovery: {type: kubernetes, namespace: a, service_name: b, port: 1}}", ".peers");
    beside("auth: »{type: spire}\n    domain_name: a", ".auth");
    check(&format!("tracing: {{opentelemetry: {{enabled: »true}}}}\nservices: {{slim/0: {{{PLAIN}}}}}"), TRACING,
          "tracing.opentelemetry.enabled", "tracing.opentelemetry.enabled: not supported yet");
    for key in ["io: {sqpoll: »true}", "io: {send_zc: »true}"] {
        let path = key.replace(": {", ".").split(": »").next().unwrap_or_default().to_owned();
        check(&format!("slimline: {{{key}}}\nservices: {{slim/0: {{{PLAIN}}}}}"), SLIMLINE,
              &format!("slimline.{path}"), &format!("slimline.{path}: not supported yet"));
    }
    // A wrong value is said before what is right but not built.
    check("tracing: {opentelemetry: {enabled: true}}\nservices: {slim/0: {dataplane: {servers: [{endpoint: »x, tls: {insecure: true}}]}}}",
          SERVICES, "services.slim/0.dataplane.servers[0].endpoint", "endpoint parse error / invalid socket address syntax");
}

/// What is not built is accepted as long as it says nothing.
#[test]
fn defaults_of_what_is_not_built() {
    let text = format!(
        "tracing: {{opentelemetry: {{enabled: false, grpc: {{endpoint: 'http://localhost:4317'}}}}}}\nservices: {{slim/0: {{{}, \
         controller: {{enforce_pqc: false, servers: [], clients: [], outbound_clients: []}}, peers: null, auth: ~}}}}",
        PLAIN.replace("tls:", "auth: {type: none}, tls:")
    );
    let config = read(&text).expect("accepted");
    assert_eq!(config.services.len(), 1);
    assert_eq!(config.warnings, []);
}

#[test]
fn missing_file() {
    let error = slimline_config::load("/no/such.yaml".as_ref(), &|_: &str| None).expect_err("refused");
    assert_eq!(
        error.report().to_string(),
        "Error: failed to load configuration\n\nCaused by:\n    0: io error\n    1: No such file or directory (os error 2)\n\n\
         at /no/such.yaml\nhelp: give the file with --config FILE or the environment variable CONFIG\n"
    );
    assert_eq!(ConfigError::EXIT_CODE, 1);
}
