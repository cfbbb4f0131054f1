//! Every fault a run has to find, made on purpose: a relay that mistreats one message, or stands still for a while.

mod kit;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use kit::{finish, run, slimload};
use serde_json::json;

/// Who publishes or subscribes in which group is said in so many octets.
const HELLO: usize = 16;
/// A frame's head, gRPC's flag, and the length of what follows.
const PREFIX: usize = 14;

/// What a relay makes of the frame with this number from publishers of this group: frames, and whose subscribers
/// they are for.
type Treatment = Box<dyn FnMut(u64, u32, Vec<u8>) -> Vec<(u32, Vec<u8>)> + Send>;

/// What all connections of a relay share.
struct Relay {
    treatment: Treatment,
    count: u64,
    subscribers: HashMap<u32, TcpStream>,
}

/// A relay with one subscriber per group.
fn relay(treatment: impl FnMut(u64, u32, Vec<u8>) -> Vec<(u32, Vec<u8>)> + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // Who stands still is to be felt, not to be made up for by the kernel.
    rustix::net::sockopt::set_socket_recv_buffer_size(&listener, 64 * 1024).unwrap();
    let address = listener.local_addr().unwrap();
    let relay = Relay { treatment: Box::new(treatment), count: 0, subscribers: HashMap::new() };
    let relay = Arc::new(Mutex::new(relay));
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let relay = relay.clone();
            thread::spawn(move || serve(&relay, client));
        }
    });
    address
}

fn serve(relay: &Mutex<Relay>, mut client: TcpStream) {
    let mut hello = [0; HELLO];
    client.read_exact(&mut hello).unwrap();
    let group = u32::from_le_bytes(hello[12..].try_into().unwrap());
    if hello[8] == b'S' {
        relay.lock().unwrap().subscribers.insert(group, client);
        return;
    }
    let mut prefix = [0; PREFIX];
    // Whoever leaves has said everything.
    while client.read_exact(&mut prefix).is_ok() {
        let octets = u32::from_be_bytes(prefix[10..].try_into().unwrap()) as usize;
        let mut frame = prefix.to_vec();
        frame.resize(PREFIX + octets, 0);
        client.read_exact(&mut frame[PREFIX..]).unwrap();
        let Relay { treatment, count, subscribers } = &mut *relay.lock().unwrap();
        for (group, frame) in treatment(*count, group, frame) {
            let mut subscriber = &subscribers[&group];
            let _ = subscriber.write_all(&frame); // it may have left
        }
        *count += 1;
    }
}

/// Faults of a run of 300 messages from two publishers, of which `wanted` must be all.
fn faults(name: &str, address: SocketAddr, wanted: &serde_json::Value) {
    let ran = run(slimload(&format!(
        "throughput --peer relay --node {address} --pubs 2 --subs 2 --window 16 --payload 100 --variants 16 \
         --count 300 --warmup 0 --json -"
    )));
    let mut found = ran.measurement()["faults"].clone();
    found.as_object_mut().unwrap().retain(|_, count| *count != 0);
    assert_eq!((&found, ran.code), (wanted, Some(i32::from(*wanted != json!({})))), "{name}: {ran:?}");
}

/// Everything at once: a run waits ten seconds for what does not come.
#[test]
fn every_class_of_fault_is_found_and_none_where_there_is_none() {
    let mut held = None;
    let mut foreign: Option<Vec<u8>> = None;
    let cases: [(&str, SocketAddr, serde_json::Value); 7] = [
        ("none", relay(as_it_came), json!({})),
        (
            "loss",
            relay(|n, group, frame| if n == 50 { vec![] } else { as_it_came(n, group, frame) }),
            json!({"lost": 1}),
        ),
        (
            "duplication",
            relay(|n, group, frame| vec![(group, frame); if n == 50 { 2 } else { 1 }]),
            json!({"duplicated": 1}),
        ),
        (
            "reordering",
            relay(move |n, group, frame| match (n, held.take()) {
                (50, _) => {
                    held = Some((group, frame));
                    vec![]
                }
                // The next of the same flow goes first.
                (_, Some((of, first))) if of == group => vec![(group, frame), (of, first)],
                (_, kept) => {
                    held = kept;
                    vec![(group, frame)]
                }
            }),
            json!({"reordered": 1}),
        ),
        (
            "corruption",
            relay(|n, group, mut frame| {
                // The last octet of the payload.
                *frame.last_mut().unwrap() ^= u8::from(n == 50);
                vec![(group, frame)]
            }),
            json!({"corrupt": 1, "lost": 1}),
        ),
        (
            "misrouting",
            relay(|n, group, frame| vec![(if n == 50 { 1 - group } else { group }, frame)]),
            json!({"misrouted": 1, "lost": 1}),
        ),
        (
            "a message of another run",
            // The first run's first message comes once more in the second.
            relay(move |n, group, frame| {
                let mut frames = as_it_came(n, group, frame.clone());
                match &foreign {
                    None => foreign = Some(frame),
                    Some(first) if n == 350 => frames.push((group, first.clone())),
                    Some(_) => {}
                }
                frames
            }),
            json!({"foreign": 1}),
        ),
    ];
    thread::scope(|scope| {
        for (name, address, wanted) in &cases {
            scope.spawn(move || {
                if *name == "a message of another run" {
                    faults(name, *address, &json!({}));
                }
                faults(name, *address, wanted);
            });
        }
    });
}

fn as_it_came(_: u64, group: u32, frame: Vec<u8>) -> Vec<(u32, Vec<u8>)> {
    vec![(group, frame)]
}

#[test]
fn a_loss_comes_with_the_reason_the_node_counts() {
    let dropped = Arc::new(AtomicU64::new(0));
    let socket = std::env::temp_dir().join(format!("slimload-drops-{}.sock", std::process::id()));
    let stats = UnixListener::bind(&socket).unwrap();
    let counted = dropped.clone();
    thread::spawn(move || {
        for mut asks in stats.incoming().flatten() {
            let totals = json!([{"totals": {"drop_stalled": 7 + counted.load(Ordering::SeqCst), "publishes_in": 300}}]);
            asks.write_all(totals.to_string().as_bytes()).unwrap();
        }
    });
    let address = relay(move |n, group, frame| {
        if n == 50 || n == 51 {
            dropped.fetch_add(1, Ordering::SeqCst);
            return vec![];
        }
        vec![(group, frame)]
    });
    let ran = run(slimload(&format!(
        "throughput --peer relay --node {address} --count 300 --warmup 0 --node-stats {} --json -",
        socket.display()
    )));
    std::fs::remove_file(&socket).unwrap();
    let measured = ran.measurement();
    assert_eq!((ran.code, &measured["faults"]["lost"]), (Some(1), &json!(2)), "{ran:?}");
    assert_eq!(measured["node_drops"], json!({"stalled": 2}), "{measured}");
    assert!(measured["warnings"].to_string().contains("2 lost; the node dropped 2: stalled 2"), "{measured}");
}

/// How long whoever is stopped is stopped.
const STALL: Duration = Duration::from_millis(500);

/// A thousand messages at a thousand a second, of which the half was due while nothing moved.
const STALLED: &str = "latency --peer relay --rate 1000 --count 1000 --warmup 0 --variants 16 --json -";

fn shows_the_stall(ran: &kit::Ran) {
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let measured = ran.measurement();
    let latency = |name: &str| measured["latency"][name].as_f64().unwrap();
    // Each waited for what was left of the stall when it was due: a fifth of all for 300 ms or more, and all together
    // for 125 ms on average. Had their times begun when they were sent, only those under way would have waited.
    assert!(latency("p90_us") > 300_000.0 && latency("mean_us") > 110_000.0, "{measured}");
    assert!(latency("p99_us") > 400_000.0 && latency("max_us") > 450_000.0, "{measured}");
    // A few were due before the generator saw that it counts.
    assert!((1000..1050).contains(&measured["latency"]["count"].as_u64().unwrap()), "{measured}");
    assert_eq!(measured["unsent"], 0, "{measured}");
}

#[test]
fn a_stall_of_the_node_is_in_the_latency_of_every_message_behind_it() {
    let address = relay(|n, group, frame| {
        if n == 200 {
            thread::sleep(STALL);
        }
        vec![(group, frame)]
    });
    // Larger than what sockets hold meanwhile: most of them could not even be sent.
    shows_the_stall(&run(slimload(&format!("{STALLED} --payload 40000 --node {address}"))));
}

/// Stops a generator for a while once its peer has seen so many messages.
fn stopped_after(count: u64, options: &str) -> kit::Ran {
    let (tell, told) = std::sync::mpsc::channel();
    let address = relay(move |n, group, frame| {
        if n == count {
            tell.send(()).unwrap();
        }
        vec![(group, frame)]
    });
    let mut command = slimload(&format!("{options} --node {address}"));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    told.recv_timeout(Duration::from_secs(30)).unwrap();
    for signal in ["-STOP", "-CONT"] {
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        thread::sleep(STALL);
    }
    finish(child, &command)
}

#[test]
fn a_stall_at_the_end_is_in_the_latency_of_what_was_still_due() {
    let ran = stopped_after(950, &STALLED.replace("--count 1000", "--duration 1"));
    let measured = ran.measurement();
    assert_eq!((ran.code, &measured["unsent"]), (Some(0), &json!(0)), "{ran:?}");
    assert!(measured["latency"]["count"].as_u64().unwrap() >= 990, "{measured}");
    assert!(measured["latency"]["p99_us"].as_f64().unwrap() > 400_000.0, "{measured}");
}

#[test]
fn a_stall_of_the_generator_is_in_the_latency_of_every_message_behind_it() {
    let ran = stopped_after(200, STALLED);
    shows_the_stall(&ran);
    let warnings = ran.measurement()["warnings"].to_string();
    assert!(warnings.contains("the generator itself was late"), "{warnings}");
}
