//! Every relay under every generator engine: the same octets arrive, whole and once, whatever drives the sockets.

mod kit;

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use kit::{Service, run, slimload};

/// Engines of this build.
fn engines() -> &'static [&'static str] {
    if cfg!(feature = "glommio") { &["epoll", "io-uring", "glommio"] } else { &["epoll", "io-uring"] }
}

#[test]
fn every_relay_carries_every_engine() {
    for relay in engines().iter().chain(&["tokio", "splice"]) {
        for engine in engines() {
            let service = Service::relay(relay);
            let ran = run(slimload(&format!(
                "throughput --peer relay --node {} --node-pid {} --engine {engine} --payload 100-20000 --count 3000 \
                 --warmup 0.05 --json -",
                service.address,
                service.pid(),
            )));
            assert_eq!(ran.code, Some(0), "{engine} through {relay}: {ran:?}");
            let measured = ran.measurement();
            assert!(measured["delivered"].as_u64().unwrap() >= 3000, "{engine} through {relay}: {measured}");
            assert!(measured["node_cpu_ns_per_message"].as_f64().unwrap() > 0.0, "{engine} through {relay}");
        }
    }
}

#[test]
fn engines_wake_each_other_across_threads() {
    let service = Service::relay("epoll");
    for engine in engines() {
        // Publisher 1 lives on another thread than its subscriber: credits come by wake-ups only.
        let ran = run(slimload(&format!(
            "throughput --peer relay --node {} --engine {engine} --threads 2 --pubs 3 --subs 3 --window 1 --payload 64 \
             --duration 0.2 --warmup 0 --json -",
            service.address,
        )));
        assert_eq!(ran.code, Some(0), "{engine}: {ran:?}");
        assert!(ran.measurement()["delivered"].as_u64().unwrap() > 100, "{engine}");
    }
}

/// Who leaves at once, or speaks another protocol, ends itself and not the relay.
#[test]
fn a_relay_outlives_whoever_is_rude() {
    for relay in engines().iter().chain(&["tokio", "splice"]) {
        let service = Service::relay(relay);
        for words in [&b""[..], b"GET / HTTP/1.1\r\n\r\n"] {
            let mut rude = TcpStream::connect(&service.address).unwrap();
            rude.write_all(words).unwrap();
            rustix::net::sockopt::set_socket_linger(&rude, Some(Duration::ZERO)).unwrap(); // it leaves with a reset
        }
        let ran = run(slimload(&format!(
            "throughput --peer relay --node {} --count 100 --warmup 0 --json -",
            service.address
        )));
        assert_eq!(ran.code, Some(0), "{relay}: {ran:?}");
    }
}

#[test]
fn a_relay_serves_groups_apart_and_fans_out() {
    for relay in engines().iter().chain(&["tokio"]) {
        let service = Service::relay(relay);
        let ran = run(slimload(&format!(
            "fanout --peer relay --node {} --pubs 2 --subs 4 --names 2 --payload 64-900 --count 1000 --warmup 0 --json -",
            service.address
        )));
        assert_eq!(ran.code, Some(0), "{relay}: {ran:?}");
        assert!(ran.measurement()["delivered"].as_u64().unwrap() >= 2000, "{relay}");
    }
}
