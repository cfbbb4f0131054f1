//! TLS: a rustls server in this process, in front of a slimline node, and everything that can be wrong with it.

mod kit;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use kit::{Node, run, slimload};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};

/// An authority, and a listener with its certificate that hands plain octets on to `node`.
struct TlsFront {
    address: SocketAddr,
    authority_pem: String,
}

impl TlsFront {
    fn start(node: SocketAddr, name: &str) -> Self {
        let authority_key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority_pem = parameters.self_signed(&authority_key).unwrap().pem();
        let issuer = rcgen::Issuer::new(parameters, &authority_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        let chain = vec![CertificateDer::from(certificate.der().to_vec())];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let session = ServerConnection::new(config.clone()).unwrap();
                // A client that breaks the handshake off ends its own pair of threads, nothing else.
                let _ = carry(session, client, TcpStream::connect(node).unwrap());
            }
        });
        Self { address, authority_pem }
    }

    /// The authority in a file of its own.
    fn ca_source(&self, test: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("slimload-{test}-{}.pem", std::process::id()));
        std::fs::write(&path, &self.authority_pem).unwrap();
        path
    }
}

/// Carries octets both ways until one side ends.
fn carry(session: ServerConnection, client: TcpStream, node: TcpStream) -> std::io::Result<()> {
    let session = Arc::new(Mutex::new(session));
    let (mut from_client, mut to_node) = (client.try_clone()?, node.try_clone()?);
    let (mut to_client, mut from_node) = (client, node);
    let both = session.clone();
    let mut inward = move || -> std::io::Result<()> {
        let mut answers = from_client.try_clone()?;
        let mut octets = vec![0; 65536];
        loop {
            let received = from_client.read(&mut octets)?;
            let mut input = &octets[..received];
            let mut plain = Vec::new();
            {
                let mut session = both.lock().unwrap();
                while !input.is_empty() {
                    session.read_tls(&mut input)?;
                    let processed = session.process_new_packets();
                    while session.wants_write() {
                        session.write_tls(&mut answers)?;
                    }
                    let state = processed.map_err(std::io::Error::other)?;
                    let mut piece = vec![0; state.plaintext_bytes_to_read()];
                    session.reader().read_exact(&mut piece)?;
                    plain.extend_from_slice(&piece);
                }
            }
            to_node.write_all(&plain)?;
            if received == 0 {
                return Ok(());
            }
        }
    };
    let (client, node) = (to_client.try_clone()?, from_node.try_clone()?);
    thread::spawn(move || {
        let _ = inward(); // an end or a broken handshake: both sides are told
        let _ = node.shutdown(std::net::Shutdown::Both);
        let _ = client.shutdown(std::net::Shutdown::Both);
    });
    thread::spawn(move || -> std::io::Result<()> {
        let mut octets = vec![0; 65536];
        loop {
            let received = from_node.read(&mut octets)?;
            if received == 0 {
                return to_client.shutdown(std::net::Shutdown::Both);
            }
            let mut session = session.lock().unwrap();
            session.writer().write_all(&octets[..received])?;
            while session.wants_write() {
                session.write_tls(&mut to_client)?;
            }
        }
    });
    Ok(())
}

#[test]
fn every_command_and_engine_speaks_tls() {
    let node = Node::start();
    let front = TlsFront::start(node.address, "localhost");
    let ca = front.ca_source("commands");
    let secure = format!(
        "--node {} --tls --ca-source {} --server-name localhost --warmup 0.05 --json -",
        front.address,
        ca.display()
    );
    let engines: &[&str] =
        if cfg!(feature = "glommio") { &["epoll", "io-uring", "glommio"] } else { &["epoll", "io-uring"] };
    let mut commands: Vec<String> =
        engines.iter().map(|e| format!("throughput --engine {e} --payload 64-40000 --count 500 {secure}")).collect();
    commands.push(format!("latency --rate 500 --duration 0.2 {secure}"));
    commands.push(format!("pingpong --acks --count 50 {secure}"));
    commands.push(format!("churn --pubs 4 --threads 2 --duration 0.8 {secure}"));
    for command in commands {
        let ran = run(slimload(&command));
        assert_eq!(ran.code, Some(0), "{command}: {ran:?}");
        assert!(ran.measurement()["delivered"].as_u64().unwrap() >= 1, "{command}: {ran:?}");
    }
    std::fs::remove_file(ca).unwrap();
}

#[test]
fn a_certificate_is_checked_unless_we_are_told_not_to() {
    let node = Node::start();
    let front = TlsFront::start(node.address, "localhost");
    let ca = front.ca_source("checks");
    let base = format!("throughput --node {} --count 10 --warmup 0 --json - --tls", front.address);
    let good = format!("--ca-source {}", ca.display());
    let stranger = TlsFront::start(node.address, "localhost").ca_source("stranger");
    let cases = [
        (String::from("--insecure-skip-verify"), None),
        (format!("{good} --server-name localhost"), None),
        // The address is not in the certificate.
        (good.clone(), Some("invalid peer certificate")),
        (format!("{good} --server-name elsewhere.example"), Some("invalid peer certificate")),
        (format!("--ca-source {} --server-name localhost", stranger.display()), Some("--insecure-skip-verify")),
        (String::from("--ca-source /nonexistent.pem"), Some("--ca-source /nonexistent.pem")),
        (format!("{good} --server-name ???"), Some("--server-name ???")),
    ];
    for (options, complaint) in cases {
        let ran = run(slimload(&format!("{base} {options}")));
        match complaint {
            None => assert_eq!(ran.code, Some(0), "{options}: {ran:?}"),
            Some(complaint) => ran.refused_with(complaint),
        }
    }
    // Plain text towards TLS, and TLS towards plain text.
    run(slimload(&format!("throughput --node {} --count 10", front.address))).refused_with("--tls");
    run(slimload(&format!("throughput --node {} --count 10 --tls", node.address))).refused_with("TLS");
    for path in [ca, stranger] {
        std::fs::remove_file(path).unwrap();
    }
}
