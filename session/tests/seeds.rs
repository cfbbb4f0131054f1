//! What fuzz targets start from, replayed, and the same properties for random changes of it.

mod common;

use std::path::{Path, PathBuf};

use common::{Net, SECRET};
use proptest::prelude::*;
use prost::Message as _;
use slimline_session::identity::jwt::{Algorithm, JwtProvider};
use slimline_session::identity::{Provider as _, SharedSecret, SigningKey, key::KeyKind};
use slimline_session::mls::Group;
use slimline_session::testing;
use slimline_session::{Publish, SessionConfig};
use slimline_wire::pb;
use std::sync::Arc;
use std::time::Duration;

type Property = fn(&[u8]);

const TARGETS: [(&str, Property); 3] =
    [("session_endpoint", testing::endpoint), ("session_mls", testing::mls), ("session_tokens", testing::tokens)];

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target)
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder(target))
        .unwrap_or_else(|error| panic!("{target}: {error}"))
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

#[test]
fn replayed() {
    for (target, run) in TARGETS {
        let seeds = seeds(target);
        assert!(seeds.len() >= 10, "{} seeds of {target}", seeds.len());
        for seed in seeds {
            run(&seed);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Octets changed, added or cut off.
    #[test]
    fn changed(which: prop::sample::Index, at: prop::sample::Index, value: u8, cut: bool, more in prop::collection::vec(any::<u8>(), 0..8)) {
        for (target, run) in TARGETS {
            let seeds = seeds(target);
            let mut octets = which.get(&seeds).clone();
            if octets.is_empty() {
                continue;
            }
            let place = at.index(octets.len());
            octets[place] ^= value;
            if cut {
                octets.truncate(place);
            }
            octets.extend(&more);
            run(&octets);
        }
    }

    #[test]
    fn anything(octets in prop::collection::vec(any::<u8>(), 0..300)) {
        for (_, run) in TARGETS {
            run(&octets);
        }
    }
}

/// Writes the seeds anew: what two applications say to each other, tokens and MLS messages of every kind.
#[test]
#[ignore = "writes fuzz/seeds; run it by hand when messages change"]
fn written() {
    let write = |target: &str, name: String, octets: &[u8]| {
        std::fs::create_dir_all(folder(target)).unwrap();
        std::fs::write(folder(target).join(name), octets).unwrap();
    };
    for mls in [true, false] {
        let mut net = Net::new(1);
        let (alice, peter) = (net.app("acme/ns/alice"), net.app("acme/ns/peter"));
        let now = net.now();
        let config = SessionConfig::point_to_point();
        let config = if mls { config } else { config.without_mls() };
        let id = net.endpoint(alice).create_session(now, config, &"acme/ns/peter".parse().unwrap()).unwrap();
        net.run(Duration::from_secs(1));
        for app in [alice, peter] {
            net.with(app, id, |session, now| session.publish(now, Publish::from(b"hello".to_vec()))).unwrap();
        }
        net.run(Duration::from_secs(11));
        net.with(alice, id, |session, now| session.close(now)).unwrap();
        net.run(Duration::from_secs(1));
        let mut all = Vec::new();
        for (n, octets) in net.carried.iter().enumerate() {
            let record = testing::record(1, &pb::Message::decode(&**octets).unwrap());
            write("session_endpoint", format!("{}-{n:02}", if mls { "mls" } else { "plain" }), &record);
            all.extend(record);
        }
        write("session_endpoint", format!("{}-all", if mls { "mls" } else { "plain" }), &all);
    }

    let member = |name: &str| {
        let key = SigningKey::generate(KeyKind::P256).unwrap();
        let subject = format!("acme/ns/{name}_12345678");
        let identity = Arc::new(SharedSecret::with_subject(subject, SECRET, key).unwrap());
        Group::new(identity.clone(), identity).unwrap()
    };
    let [mut m, mut a, mut b] = ["m", "a", "b"].map(member);
    m.create(1_000_000).unwrap();
    let mut n = 0;
    let mut mls = |octets: &[u8]| {
        n += 1;
        write("session_mls", format!("{n:02}"), octets);
    };
    for newcomer in [&mut a, &mut b] {
        let package = newcomer.key_package(1_000_000).unwrap();
        mls(&package);
        let added = m.add(&package, 1_000_000).unwrap();
        mls(&added.commit);
        mls(added.welcome.as_ref().unwrap());
    }
    mls(&m.refresh(1_000_000).unwrap().commit);
    mls(&m.seal(b"hello", b"aad".to_vec()).unwrap());
    mls(&m.seal(&[7; 300], Vec::new()).unwrap());
    mls(&m.remove("acme/ns/b_12345678").unwrap().commit);
    mls(b"");

    let key = SigningKey::generate(KeyKind::P256).unwrap();
    let secret = SharedSecret::with_subject("acme/ns/alice_12345678".into(), SECRET, key).unwrap();
    let token = secret.token(1_000_000).unwrap();
    let jwt = JwtProvider::new("alice", "issuer", &["slim"], Algorithm::HS256, SECRET.as_bytes()).unwrap();
    let jwt = jwt.token(1_000_000).unwrap();
    let name: slimline_session::Name = "acme/ns/alice".parse().unwrap();
    let texts = [
        token.clone(),
        token.replace("alice", "mally"),
        token.replacen(':', "", 1),
        jwt.clone(),
        jwt.replace('.', ".."),
        "eyJhbGciOiJub25lIn0.e30.".to_owned(),
        r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"k","x":"AA","y":"AA"},{"kty":"oct","kid":"o","alg":"HS256","k":"AA"}]}"#.to_owned(),
        r#"{"keys":[]}"#.to_owned(),
        "eyJwdWJrZXkiOiJBQUFBIn0=".to_owned(),
        " acme/ns / alice ".to_owned(),
        "a//b".to_owned(),
    ];
    for (n, text) in texts.iter().enumerate() {
        write("session_tokens", format!("{n:02}"), text.as_bytes());
    }
    write("session_tokens", "name".to_owned(), &name.to_wire().encode_to_vec());
}
