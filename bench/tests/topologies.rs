//! Every topology, payload and command runs against a node, and what the node says of itself is in the report.

mod kit;

use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use kit::{Node, join, run, slimload};

#[test]
fn topologies_payloads_and_commands() {
    let node = Node::start();
    for options in [
        "throughput --pubs 3 --subs 2 --names 9 --spread uniform --payload 64-1024",
        "throughput --pubs 2 --subs 2 --names 50 --spread zipf --payload 64:70,1024:25,16384:5",
        "throughput --pubs 1 --subs 4 --names 1 --spread uniform",
        "throughput --pubs 2 --subs 6 --names 2 --fanout all",
        "throughput --pubs 4 --subs 4 --connections-per-thread 3 --payload mls:256",
        "throughput --fresh --payload mls:64:1,1024:1",
        "fanout --subs 3",
        "names --names 200 --subs 2",
        "idle --connections 20 --rate 500",
        "latency --rate 300,600 --arrivals poisson",
        "latency --load 0.05",
        "soak --rate 500",
        "capacity --rate 50 --hold-us 0 --repeats 1",
        "pingpong --nagle --acks --pubs 2",
        "churn --pubs 6 --threads 3",
        "churn --engine epoll",
        "pingpong --engine epoll --acks",
        "throughput --engine epoll --pubs 2 --subs 2",
    ] {
        // The rates of a search for the knee go down until a count would take for ever.
        let count = if options.starts_with("capacity") { "" } else { " --count 60" };
        let ran = run(slimload(&format!(
            "{options} --node {} --variants 64{count} --duration 0.5 --warmup 0.02 --json -",
            node.address
        )));
        assert_eq!(ran.code, Some(0), "{options}: {ran:?}");
        let measured = ran.measurement();
        // Counted, not timed: a busy machine may take longer than any short span. (Churn has a duration only.)
        assert!(measured["latency"]["count"].as_u64().unwrap() > 0, "{options}: {measured}");
        let engine = if options.contains("epoll") { "epoll" } else { "io-uring" };
        assert_eq!(measured["engine"], engine, "{options}");
    }
}

/// Acknowledgements are writes of their own, and churn uses its sockets up: with every engine.
#[cfg(feature = "glommio")]
#[test]
fn dialogues_and_churn_over_glommio() {
    let node = Node::start();
    for command in ["pingpong --nagle --acks --pubs 2 --count 60", "churn --pubs 4 --duration 0.5"] {
        let options =
            format!("{command} --engine glommio --node {} --variants 64 --warmup 0.02 --json -", node.address);
        let ran = run(slimload(&options));
        assert_eq!(ran.code, Some(0), "{command}: {ran:?}");
        assert!(ran.measurement()["latency"]["count"].as_u64().unwrap() > 0, "{command}");
    }
}

/// Newcomers may be ready before the one who greets them.
#[test]
fn a_greeter_who_comes_late_greets_everybody() {
    let node = Node::start();
    let late = first_delayed(node.address, Duration::from_millis(300));
    let ran = run(slimload(&format!("churn --pubs 4 --node {late} --duration 0.8 --warmup 0 --json -")));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.measurement()["latency"]["count"].as_u64().unwrap() > 4, "{ran:?}");
}

/// An address that leads to `target`; the first who connects is let through later.
fn first_delayed(target: SocketAddr, delay: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for (number, guest) in listener.incoming().enumerate() {
            let guest = guest.unwrap();
            thread::spawn(move || {
                thread::sleep(if number == 0 { delay } else { Duration::ZERO });
                join(guest, target);
            });
        }
    });
    address
}

#[test]
fn mls_payloads_are_as_large_as_recorded_ones() {
    let node = Node::start();
    let ran =
        run(slimload(&format!("throughput --payload mls:19 --node {} --count 200 --warmup 0 --json -", node.address)));
    let measured = ran.measurement();
    let octets =
        measured["payload_mib_per_s"].as_f64().unwrap() * f64::from(1 << 20) * measured["seconds"].as_f64().unwrap();
    let each = octets / measured["delivered"].as_f64().unwrap();
    assert!((each - 597.0).abs() < 0.01, "{each}");
}

#[test]
fn what_the_node_dropped_is_in_the_report() {
    let socket = std::env::temp_dir().join(format!("slimload-stats-{}.sock", std::process::id()));
    let node = Node::start().with_stats(&socket);
    let ran = run(slimload(&format!(
        "throughput --node {} --node-stats {} --count 200 --warmup 0 --json -",
        node.address,
        socket.display()
    )));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let measured = ran.measurement();
    assert_eq!(measured["node_drops"], serde_json::json!({}), "{measured}");
    // Whose CPU and memory it is, the kernel says of the socket.
    assert!(measured["node_cpu_ns_per_message"].as_f64().unwrap() > 0.0);
    assert!(measured["node_rss_octets"].as_u64().unwrap() > 1_000_000);
}
