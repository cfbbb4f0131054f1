//! What can be asked wrongly, and what can go wrong on the way: one line that says what to do, exit code 2, no file.

mod kit;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use kit::{Node, Service, run, slimload};

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("slimload-{test}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, content: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    fn is_empty(&self) -> bool {
        fs::read_dir(&self.0).unwrap().next().is_none()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A server that answers every first read with `answer`, and keeps the connection.
fn server(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let mut octets = [0; 4096];
            let _ = client.read(&mut octets).and_then(|_| client.write_all(answer));
            thread::spawn(move || while client.read(&mut octets).is_ok_and(|n| n > 0) {});
        }
    });
    address
}

#[test]
fn scenario_files() {
    let folder = Folder::new("scenario");
    let cases = [
        ("title = \"t\"\ncommand = \"throughput\"\n[options]\npubs = 1\nthreds = 2\n", "line 5: unknown key `threds`"),
        ("title = \"t\"\ncommand = \"sprint\"\n", "line 2: unknown variant `sprint`"),
        ("title = \"t\"\ncommand = \"throughput\"\n[[cases]]\nlabel = \"x\"\noptions = { pubs = \"two\" }\n", "line 5"),
        ("title = ", "line 1"),
        ("command = \"throughput\"\n", "missing key `title`"),
        ("title = \"t\"\ncommand = \"latency\"\n[options]\nfresh = true\nno_mac = true\n", "no-mac"),
        ("title = \"t\"\ncommand = \"latency\"\n[options]\ninsecure_skip_verify = true\n", "belong to tls"),
        ("title = \"t\"\ncommand = \"latency\"\n[options]\nrate = [1.0]\nload = [0.5]\n", "s.toml: --load and --rate"),
        (
            "title = \"t\"\ncommand = \"throughput\"\n[[cases]]\nlabel = \"two\"\noptions = { pubs = 0 }\n",
            "s.toml: case `two`: publishers",
        ),
    ];
    for (text, complaint) in cases {
        let file = folder.file("s.toml", text);
        run(slimload(&format!("run {file}"))).refused_with(complaint);
    }
    run(slimload("run /nonexistent.toml")).refused_with("/nonexistent.toml");
}

#[test]
fn plans_that_cannot_be() {
    for (options, complaint) in [
        ("throughput --pubs 0", "at least 1"),
        ("throughput --subs 3 --names 2 --fanout all", "multiple"),
        ("throughput --pubs 1 --subs 8", "--spread uniform"),
        ("throughput --payload 8", "--payload"),
        ("throughput --payload mls:9999999", "4 MiB"),
        ("throughput --threads 65", "at most 64"),
        ("throughput --connections-per-thread 0", "--connections-per-thread"),
        ("throughput --pin 4000", "may not run on CPU 4000"),
        ("throughput --threads 2 --pin 0", "--pin names 1 CPUs for 2 threads"),
        ("throughput --node-pid 4294967295", "no such process"),
        ("throughput --node-stats /nonexistent.sock", "--node-stats /nonexistent.sock"),
        ("throughput --basic-auth /nonexistent", "--basic-auth /nonexistent"),
        ("throughput --peer nats --tls", "--peer slim"),
        ("churn --peer relay", "SLIM nodes only"),
        ("throughput --peer nats --subs 3 --names 1", "--fanout all"),
        ("throughput --peer relay --subs 3 --names 1", "--fanout all"),
        ("throughput --peer relay --pubs 4 --names 4 --spread uniform", "a relay knows no names"),
        ("throughput --peer relay --pubs 4 --names 4 --subs 2", "a relay knows no names"),
        ("idle --peer relay", "a relay knows no names"),
        ("latency --rate 0", "--rate 0"),
        ("throughput --duration -1", "--duration"),
        ("throughput --json /nonexistent/run.json", "/nonexistent/run.json"),
        ("throughput --plot run.jpeg", ".jpeg"),
        ("throughput --json /tmp", "it is a folder"),
        ("throughput --json - --csv -", "another output goes there"),
        ("throughput --hgrm -", "it must be a file's name"),
        ("throughput --plot /dev/null", "it must be a file's name"),
        ("throughput --node nowhere", "it is not HOST:PORT"),
        ("throughput --duration 0", "measures nothing"),
        ("throughput --count 0", "at least 1"),
        ("throughput --verify-one-in 0", "at least 1"),
        ("throughput --identity 4200000", "4 MiB"),
        ("throughput --rate 1000,2000", "a ladder of rates belongs to latency"),
        ("latency --window 5", "an open loop waits for nobody"),
        ("throughput --arrivals poisson", "give a --rate"),
        ("pingpong --subs 5", "as many subscribers as --pubs"),
        ("churn --rate 100", "go on when they are answered"),
        ("throughput --connections 5", "belongs to idle"),
        ("throughput --hold-us 5", "belongs to capacity"),
        ("relay --cpu 4000", "may not run on CPU 4000"),
    ] {
        let options = if options.contains("-1") { options.replace(" -1", "=-1") } else { options.to_owned() };
        run(slimload(&options)).refused_with(complaint);
    }
}

#[test]
fn too_few_file_descriptors() {
    let mut command = Command::new("sh");
    let program = env!("CARGO_BIN_EXE_slimload");
    command.args(["-c", &format!("ulimit -n 64; exec {program} idle --connections 500")]);
    run(command).refused_with("ulimit -n");
}

#[cfg(feature = "glommio")]
#[test]
fn too_little_locked_memory_for_glommio() {
    let relay = Service::relay("epoll");
    let program = env!("CARGO_BIN_EXE_slimload");
    for arguments in [
        format!("throughput --peer relay --node {} --engine glommio --count 1", relay.address),
        "relay --listen 127.0.0.1:0 --engine glommio".into(),
    ] {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -l 64; exec {program} {arguments}")]);
        run(command).refused_with("ulimit -l");
    }
}

#[test]
fn nobody_listens() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for command in ["throughput", "churn", "pingpong"] {
        run(slimload(&format!("{command} --node {free}"))).refused_with("is a node listening there?");
    }
    run(slimload("throughput --node nonexistent.invalid:1")).refused_with("nonexistent.invalid:1");
}

#[test]
fn somebody_else_listens() {
    for answer in [&b"SSH-2.0-x\r\n"[..], b"HTTP/1.1 400 Bad Request\r\n\r\n", b"INFO {}\r\n"] {
        for command in ["throughput", "churn"] {
            let ran = run(slimload(&format!("{command} --node {}", server(answer))));
            ran.refused_with("does not speak the expected protocol");
            assert_eq!(ran.stderr.contains("it answers in HTTP/1"), answer.starts_with(b"HTTP"), "{ran:?}");
        }
    }
    let relay = Service::relay("epoll");
    run(slimload(&format!("throughput --node {}", relay.address))).refused_with("does not speak the expected protocol");
    let node = Node::start();
    run(slimload(&format!("throughput --peer nats --node {}", node.address)))
        .refused_with("does not speak the expected protocol");
}

/// SETTINGS, then `:status: 401` on stream 1 with END_STREAM, as a node with another secret answers.
const UNAUTHORIZED: &[u8] = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x05\x01\x05\x00\x00\x00\x01\x08\x03401";

/// SETTINGS, `:status: 200`, then trailers with `grpc-status: 7` and `grpc-message: no key`, as a node answers a link
/// it will not negotiate.
const NEGOTIATION_REFUSED: &[u8] = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x01\x01\x04\x00\x00\x00\x01\x88\
    \x00\x00\x24\x01\x05\x00\x00\x00\x01\x00\x0bgrpc-status\x017\x00\x0cgrpc-message\x06no key";

#[test]
fn a_negotiation_that_fails() {
    for command in ["throughput", "churn"] {
        run(slimload(&format!("{command} --node {}", server(NEGOTIATION_REFUSED))))
            .refused_with("negotiation refused: grpc-status 7 no key (see the node's log)");
    }
    let node = Node::start();
    run(slimload(&format!("throughput --no-mac --node {}", node.address))).refused_with("require_header_mac: false");
}

#[test]
fn a_wrong_secret() {
    let folder = Folder::new("secret");
    let secret = folder.file("secret", "app:not-the-password\n");
    let ran = run(slimload(&format!("throughput --node {} --basic-auth {secret}", server(UNAUTHORIZED))));
    ran.refused_with("did not accept our credentials");
    assert!(!ran.stderr.contains("not-the-password"));
    run(slimload(&format!("throughput --node {}", server(UNAUTHORIZED)))).refused_with("pass --basic-auth FILE");
    let shapeless = folder.file("shapeless", "password-alone\n");
    run(slimload(&format!("throughput --basic-auth {shapeless}"))).refused_with("USERNAME:PASSWORD");
}

/// Churn has a deadline of its own, shorter than that of the other commands.
#[test]
fn somebody_listens_and_says_nothing() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let ran = run(slimload(&format!("churn --node {}", silent.local_addr().unwrap())));
    ran.refused_with("negotiation did not finish within 5 s");
    assert!(ran.stderr.contains("does the node require TLS or authentication?"), "{ran:?}");
}

/// A node that has no room for more is no stranger: it has let others in.
#[test]
fn the_node_takes_no_more_connections() {
    let node = Node::start();
    let crowded = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = crowded.local_addr().unwrap();
    thread::spawn(move || {
        for (number, client) in crowded.incoming().flatten().enumerate() {
            match number {
                0..16 => kit::join(client, node.address),
                // Those are in by then; whoever else comes is shut out.
                _ => thread::sleep(Duration::from_millis(500)),
            }
        }
    });
    run(slimload(&format!("idle --connections 40 --node {address}")))
        .refused_with("may the node have so many connections?");
}

#[test]
fn the_node_dies_mid_run_and_nobody_knows_its_process() {
    let mut relay = Service::relay("epoll");
    let mut command =
        slimload(&format!("latency --rate 500 --peer relay --node {} --duration 30 --warmup 0", relay.address));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    thread::sleep(Duration::from_millis(500));
    relay.kill();
    kit::finish(child, &command).refused_with("the node's process has ended");
}

#[test]
fn the_node_dies_mid_run() {
    let folder = Folder::new("death");
    let mut relay = Service::relay("epoll");
    let json = folder.0.join("run.json");
    let mut command = slimload(&format!(
        "latency --rate 500 --peer relay --node {} --node-pid {} --duration 30 --warmup 0 --json {} --hgrm {}",
        relay.address,
        relay.pid(),
        json.display(),
        folder.0.join("run.hgrm").display(),
    ));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    thread::sleep(Duration::from_millis(500));
    relay.kill();
    let ran = kit::finish(child, &command);
    ran.refused_with("the node's process has ended");
    assert!(folder.is_empty(), "half-written files");
}

#[test]
fn what_was_asked_for_is_written_whole() {
    let folder = Folder::new("whole");
    let node = Node::start();
    let at = |name: &str| folder.0.join(name).display().to_string();
    let ran = run(slimload(&format!(
        "latency --node {} --rate 200,400,200 --duration 0.2 --warmup 0 --json {} --csv {} --hgrm {} --plot {}",
        node.address,
        at("run.json"),
        at("run.csv"),
        at("run.hgrm"),
        at("run.png"),
    )));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let mut names: Vec<_> =
        fs::read_dir(&folder.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(
        names,
        [
            "run-200-s-2.hgrm",
            "run-200-s.hgrm",
            "run-400-s.hgrm",
            "run-percentiles.png",
            "run-rate-latency.png",
            "run.csv",
            "run.json"
        ]
    );
}
