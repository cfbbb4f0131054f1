//! Applications that come back: sessions over crashes at random points, and files that are not what they should be.

mod common;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use common::{Net, open_store, store_path};
use slimline_session::identity::jwt::{Algorithm, JwtProvider, JwtVerifier};
use slimline_session::identity::{Binding, SharedSecret, SigningKey, key::KeyKind};
use slimline_session::{
    AppEvent, Credentials, Direction, Endpoint, Event, Name, Publish, SessionConfig, SessionId, Store, StoreError,
    StoreKey,
};
use slimline_wire::pb::SessionMessageType as Kind;

const SECOND: Duration = Duration::from_secs(1);

fn seeds(default: u64) -> u64 {
    std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(default)
}

fn open(net: &mut Net, config: SessionConfig) -> (usize, usize, SessionId) {
    let (alice, bob) = (net.kept_app("acme/ns/alice"), net.kept_app("acme/ns/bob"));
    let now = net.now();
    let id = net.endpoint(alice).create_session(now, config, &"acme/ns/bob".parse().unwrap()).unwrap();
    net.until(SECOND * 60, "established", |net| net.saw(alice, |event| *event == Event::Established));
    net.until(SECOND * 60, "arrived", |net| net.arrived(bob) == Some(id));
    (alice, bob, id)
}

/// Publishes when there is somebody to publish to, as an application would.
fn say(net: &mut Net, app: usize, id: SessionId, text: &str) {
    net.until(SECOND * 60, "the publish is taken", |net| {
        net.apps[app].up
            && net.with(app, id, |session, now| session.publish(now, Publish::from(text.as_bytes().to_vec()))).is_ok()
    });
}

/// Both sides crash at random points: each message arrives once, in order.
#[test]
fn a_pair_by_seed() {
    let mut crashed = 0;
    for seed in 0..seeds(24) {
        let config = SessionConfig::point_to_point().with_retries(SECOND, 30);
        let config = if seed % 4 == 3 { config.without_mls() } else { config };
        let mut net = Net::new(seed);
        let (alice, bob, id) = open(&mut net, config);
        net.crashes = 20 + seed % 5 * 20;
        net.faults.loss = 50 * (seed % 3);
        let (mut sent, mut heard) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
        for n in 0..30 {
            say(&mut net, alice, id, &format!("a{n}"));
            sent.0.push(format!("a{n}"));
            if n % 3 == 0 {
                say(&mut net, bob, id, &format!("b{n}"));
                sent.1.push(format!("b{n}"));
            }
            net.run(SECOND / 10);
            for (app, heard) in [(bob, &mut heard.0), (alice, &mut heard.1)] {
                if n % 4 == 0 && net.apps[app].up {
                    heard.extend(net.texts(app, id));
                }
            }
        }
        net.run(SECOND * 5);
        net.crashes = 0;
        net.run(SECOND * 60);
        heard.0.extend(net.texts(bob, id));
        heard.1.extend(net.texts(alice, id));
        assert_eq!(heard, sent, "seed {seed}, {} crashes", net.crashed);
        let epochs = [alice, bob].map(|app| net.with(app, id, |session, _| session.epoch()));
        assert_eq!(epochs[0], epochs[1], "seed {seed}");
        crashed += net.crashed;
    }
    assert!(crashed > 24, "{crashed} crashes are too few to mean anything");
}

/// After a crash the next message is sealed with keys that were never used: the peer takes it at once, without a retry.
#[test]
fn no_generation_is_used_twice() {
    let mut net = Net::new(5);
    let (alice, bob, id) = open(&mut net, SessionConfig::point_to_point());
    for n in 0..20 {
        for app in [alice, bob] {
            say(&mut net, app, id, &format!("before {n}"));
        }
        net.run(SECOND / 100);
        let refused = [alice, bob].map(|app| net.endpoint(app).counters().refused);
        assert_eq!(net.texts(bob, id), [format!("before {n}")]);
        assert_eq!(net.texts(alice, id), [format!("before {n}")]);
        let crashing = [alice, bob][n % 2];
        net.crash(crashing, Duration::from_millis(1));
        net.run(SECOND / 100);
        say(&mut net, crashing, id, "after");
        net.run(SECOND / 100);
        let other = [bob, alice][n % 2];
        assert_eq!(net.texts(other, id), ["after"], "round {n}");
        assert_eq!(net.endpoint(other).counters().refused, refused[(n + 1) % 2], "round {n}: nothing came twice");
        net.run(SECOND * 3);
    }
}

/// What is not written does not leave.
#[test]
fn nothing_leaves_before_it_is_written() {
    let mut net = Net::new(1);
    let (alice, _, id) = open(&mut net, SessionConfig::point_to_point());
    let now = net.now();
    let endpoint = net.endpoint(alice);
    let publish = endpoint.with_session(now, id, |session| session.publish(now, b"x".to_vec().into()));
    publish.unwrap().unwrap();
    assert!(endpoint.poll_transmit().is_none() && !endpoint.has_transmit());
    let changes = endpoint.changes().expect("a ratchet went on");
    assert!(endpoint.poll_transmit().is_none());
    let second = endpoint.with_session(now, id, |session| session.publish(now, b"y".to_vec().into()));
    second.unwrap().unwrap();
    endpoint.written();
    assert!(endpoint.poll_transmit().is_some());
    assert!(endpoint.poll_transmit().is_none(), "the second is not written yet");
    assert!(!changes.is_empty());
}

/// A moderator and its members crash while the group grows, speaks and shrinks: at rest all are in one epoch and hear all.
#[test]
fn a_group_by_seed() {
    for seed in 0..seeds(16) {
        let mut net = Net::new(1000 + seed);
        let config = SessionConfig::group().with_retries(SECOND, 30);
        let config = if seed % 4 == 3 { config.without_mls() } else { config };
        let names = ["mod", "one", "two", "three"].map(|name| format!("acme/ns/{name}"));
        let apps = names.each_ref().map(|name| net.kept_app(name));
        let now = net.now();
        let id = net.endpoint(apps[0]).create_session(now, config, &"acme/ns/chan".parse().unwrap()).unwrap();
        net.crashes = 10 + seed % 4 * 15;
        for (n, name) in names.iter().enumerate().skip(1) {
            net.until(SECOND * 120, "invited", |net| {
                let here = net.apps[apps[0]].up;
                here && net.with(apps[0], id, |session, now| session.invite(now, &name.parse().unwrap())).is_ok()
            });
            net.run(SECOND * 5);
            // A crash before the invite was written took it away; again, as an application would.
            net.until(SECOND * 240, "joined", |net| {
                if !net.apps[apps[0]].up || !net.apps[apps[n]].up {
                    return false;
                }
                let joined = net.with(apps[0], id, |session, _| session.participants().len() > n);
                joined && net.endpoint(apps[n]).sessions().next() == Some(id)
            });
        }
        for n in 0..5 {
            for app in apps {
                say(&mut net, app, id, &format!("{n} of {app}"));
            }
            net.run(SECOND / 3);
        }
        net.crashes = 0;
        net.run(SECOND * 90);
        let participants = apps.map(|app| net.with(app, id, |session, _| session.participants().len()));
        assert_eq!(participants, [4; 4], "seed {seed}");
        let epochs = apps.map(|app| net.with(app, id, |session, _| session.epoch()));
        assert!(epochs.iter().all(|epoch| *epoch == epochs[0]), "seed {seed}: {epochs:?}");
        for app in apps {
            net.texts(app, id);
        }
        for app in apps {
            say(&mut net, app, id, &format!("at last {app}"));
        }
        net.run(SECOND * 5);
        for app in apps {
            let mut expected: Vec<String> =
                apps.iter().filter(|other| **other != app).map(|other| format!("at last {other}")).collect();
            let mut heard = net.texts(app, id);
            heard.sort();
            expected.sort();
            assert_eq!(heard, expected, "seed {seed}");
        }
    }
}

/// Back after an hour in which the moderator moved the group on: the member asks for a new leaf and is in again.
#[test]
fn back_after_the_group_moved_on() {
    let mut net = Net::new(3);
    let apps = ["mod", "one", "two"].map(|name| net.kept_app(&format!("acme/ns/{name}")));
    let now = net.now();
    let id =
        net.endpoint(apps[0]).create_session(now, SessionConfig::group(), &"acme/ns/chan".parse().unwrap()).unwrap();
    net.with(apps[0], id, |session, now| session.invite(now, &"acme/ns/one".parse().unwrap())).unwrap();
    net.run(SECOND * 3);
    net.crash(apps[1], SECOND * 120);
    net.run(SECOND * 60);
    net.with(apps[0], id, |session, now| session.invite(now, &"acme/ns/two".parse().unwrap())).unwrap();
    net.run(SECOND * 100);
    let epochs = apps.map(|app| net.with(app, id, |session, _| session.epoch()));
    assert!(epochs[0] == epochs[1] && epochs[1] == epochs[2], "{epochs:?}");
    say(&mut net, apps[2], id, "welcome back");
    net.run(SECOND * 3);
    assert_eq!(net.texts(apps[1], id).last().map(String::as_str), Some("welcome back"));
    let seen = net.apps[apps[0]].events.iter().any(|event| matches!(event, AppEvent::Session(_, Event::Online(_))));
    assert!(seen, "the moderator saw it come back");
}

/// After a restart a member still knows with which epoch another's stream began, and which of its own messages were said
/// before another came.
#[test]
fn back_with_who_came_when() {
    let mut net = Net::new(4);
    let [moderator, a, c] = ["mod", "a", "c"].map(|name| net.app(&format!("acme/ns/{name}")));
    let b = net.kept_app("acme/ns/b");
    let now = net.now();
    let channel = "acme/ns/chan".parse().unwrap();
    let id = net.endpoint(moderator).create_session(now, SessionConfig::group(), &channel).unwrap();
    let invite = |net: &mut Net, name: &str| {
        net.with(moderator, id, |session, now| session.invite(now, &name.parse().unwrap())).unwrap();
        net.run(SECOND * 2);
    };
    invite(&mut net, "acme/ns/b");
    invite(&mut net, "acme/ns/a");
    say(&mut net, b, id, "before c came");
    net.filter = Box::new(move |from, to, publish| {
        let kind = publish.session.as_ref().unwrap().session_message_type();
        (from, to, kind) != (a, b, Kind::Msg)
    });
    say(&mut net, a, id, "of the first stay");
    net.run(SECOND / 10);
    let name = net.name(a).without_id();
    net.with(moderator, id, |session, now| session.remove(now, &name)).unwrap();
    net.run(SECOND * 2);
    net.filter = Box::new(|_, _, _| true);
    invite(&mut net, "acme/ns/a");
    assert_ne!(net.arrived(a), Some(id));
    invite(&mut net, "acme/ns/c");
    say(&mut net, b, id, "after");
    net.run(SECOND);
    assert_eq!(net.texts(c, id), ["after"]);

    net.crash(b, SECOND / 100);
    net.run(SECOND);
    let (now, late) = (net.now(), net.carried_by(a, Kind::Msg, 1).remove(0));
    let refused = net.endpoint(b).counters().refused;
    net.endpoint(b).handle(now, late);
    assert_eq!(net.endpoint(b).counters().refused, refused + 1);
    assert_eq!(net.texts(b, id), [""; 0]);
    assert_eq!(net.asks_for(moderator, b, 1), Some(true));
    assert_eq!(net.asks_for(c, b, 1), Some(false));
}

// --- files ------------------------------------------------------------------------------------------------------------

/// A store with a few commits, closed again.
fn filled() -> PathBuf {
    let path = store_path();
    let mut store = open_store(&path);
    for n in 0..5_u8 {
        store.commit(vec![(vec![n], Some(vec![n; 100])), (b"same".to_vec(), Some(vec![n]))]).unwrap();
    }
    store.commit(vec![(vec![0], None)]).unwrap();
    path
}

fn check(store: &Store) {
    assert_eq!(store.records().count(), 5);
    assert_eq!(store.get(&[3]), Some(&[3; 100][..]));
    assert_eq!(store.get(b"same"), Some(&[4][..]));
    assert_eq!(store.get(&[0]), None);
}

fn refused(path: &std::path::Path, key: [u8; 32]) -> StoreError {
    let before = std::fs::read(path).unwrap();
    let error = Store::open(path, StoreKey::new(key)).unwrap_err();
    assert_eq!(std::fs::read(path).unwrap(), before, "the file is untouched");
    error
}

#[test]
fn what_was_committed_is_there_again() {
    let path = filled();
    let before = std::fs::read(&path).unwrap();
    check(&open_store(&path));
    assert_eq!(std::fs::read(&path).unwrap(), before, "opening writes nothing");
    assert!(!before.windows(20).any(|window| window == [3; 20]), "nothing readable");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn another_key_another_file_another_layout() {
    let path = filled();
    assert!(matches!(refused(&path, [8; 32]), StoreError::WrongKey { .. }));
    let mut octets = std::fs::read(&path).unwrap();
    octets[15] = 9;
    std::fs::write(&path, &octets).unwrap();
    assert!(matches!(refused(&path, [7; 32]), StoreError::Layout { found: 9, ours: 1, .. }));
    for foreign in ["", "short", "a file of somebody else, with text that is long enough to hold a head"] {
        std::fs::write(&path, foreign).unwrap();
        let error = refused(&path, [7; 32]);
        assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
        assert!(error.to_string().contains("is not a slimline store"), "{error}");
    }
    std::fs::remove_file(path).unwrap();
    let nowhere = Store::open("/nonexistent/store", StoreKey::new([7; 32])).unwrap_err();
    assert!(matches!(nowhere, StoreError::Io { .. }), "{nowhere}");
}

/// Cut off anywhere: what was committed is missed, never quietly forgotten.
#[test]
fn cut_off_anywhere() {
    let path = filled();
    let whole = std::fs::read(&path).unwrap();
    for length in 0..whole.len() {
        std::fs::write(&path, &whole[..length]).unwrap();
        let error = refused(&path, [7; 32]);
        let expected = if length < 16 {
            matches!(error, StoreError::Foreign { .. })
        } else {
            matches!(error, StoreError::Damaged { .. })
        };
        assert!(expected, "{length}: {error}");
    }
    std::fs::remove_file(path).unwrap();
}

/// One bit changed anywhere: refused, or (in one of the two slots) without effect.
#[test]
fn changed_anywhere() {
    let path = filled();
    let whole = std::fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 1 << (at % 8);
        std::fs::write(&path, &changed).unwrap();
        match Store::open(&path, StoreKey::new([7; 32])) {
            Ok(store) => {
                assert!((64..128).contains(&at), "octet {at}");
                check(&store);
            }
            Err(error) => {
                drop(error);
                refused(&path, [7; 32]);
            }
        }
    }
    std::fs::remove_file(path).unwrap();
}

/// A commit that was being written when the power went was never acted upon: it is dropped, and the store goes on.
#[test]
fn a_commit_cut_off_while_it_was_written() {
    let path = filled();
    let whole = std::fs::read(&path).unwrap();
    let mut longer = open_store(&path);
    longer.commit(vec![(b"late".to_vec(), Some(vec![1; 50]))]).unwrap();
    drop(longer);
    let later = std::fs::read(&path).unwrap();
    for length in whole.len()..later.len() {
        // The head as it was: the slots are written after the commit.
        std::fs::write(&path, [&whole[..128], &later[128..length]].concat()).unwrap();
        let mut store = open_store(&path);
        check(&store);
        store.commit(vec![(b"next".to_vec(), Some(vec![2]))]).unwrap();
        drop(store);
        let store = open_store(&path);
        assert_eq!(store.get(b"next"), Some(&[2][..]));
        assert_eq!(store.get(b"late"), None);
    }
    // Whole, but not noted: it counts.
    std::fs::write(&path, [&whole[..128], &later[128..]].concat()).unwrap();
    assert_eq!(open_store(&path).get(b"late"), Some(&[1; 50][..]));
    std::fs::remove_file(path).unwrap();
}

#[test]
fn one_process_at_a_time() {
    let path = filled();
    let first = open_store(&path);
    let error = Store::open(&path, StoreKey::new([7; 32])).unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    drop(first);
    check(&open_store(&path));
    std::fs::remove_file(path).unwrap();
}

/// A log that is mostly outdated is written anew: the file stays small, and nothing is lost.
#[test]
fn the_file_stays_small() {
    let path = filled();
    let mut store = open_store(&path);
    for n in 0..3000_u32 {
        store
            .commit(vec![(b"large".to_vec(), Some(vec![1; 10_000])), (b"n".to_vec(), Some(n.to_be_bytes().to_vec()))])
            .unwrap();
    }
    let error = Store::open(&path, StoreKey::new([7; 32])).unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "the new file is locked too: {error}");
    drop(store);
    assert!(std::fs::metadata(&path).unwrap().len() < 2 << 20);
    let store = open_store(&path);
    assert_eq!(store.get(b"n"), Some(&2999_u32.to_be_bytes()[..]));
    assert_eq!(store.get(&[3]), Some(&[3; 100][..]));
    std::fs::remove_file(path).unwrap();
}

/// Only its owner reads the file; it is never written through a link that somebody laid in its way, and what could not be
/// finished does not stay.
#[test]
fn the_file_is_ours() {
    use std::os::unix::fs::PermissionsExt as _;
    let path = store_path();
    let (victim, unfinished) = (store_path(), path.with_extension(format!("{}.new", std::process::id())));
    std::fs::write(&victim, "somebody's file").unwrap();
    std::os::unix::fs::symlink(&victim, &unfinished).unwrap();
    let mut store = open_store(&path);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "somebody's file");
    assert!(!unfinished.is_symlink() && !unfinished.exists());
    // The log is to be written anew, and its place is taken by what no file can replace.
    store.commit(vec![(b"large".to_vec(), Some(vec![1; 1 << 20]))]).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir_all(path.join("in the way")).unwrap();
    for n in 0..10_u8 {
        let _ = store.commit(vec![(b"large".to_vec(), Some(vec![n; 1 << 20]))]);
    }
    assert!(matches!(store.commit(Vec::new()), Err(StoreError::Stopped { .. })));
    assert!(!unfinished.exists(), "half a log is left");
    std::fs::remove_dir_all(&path).unwrap();
    std::fs::remove_file(victim).unwrap();
}

#[test]
fn another_identity_is_refused() {
    let mut net = Net::new(1);
    let alice = net.kept_app("acme/ns/alice");
    net.run(SECOND);
    let now = net.now();
    let (store, _, name) = net.apps[alice].kept.as_ref().unwrap();
    let known = store.identity().unwrap().unwrap();
    let stranger = |subject: &str| {
        let key = SigningKey::generate(KeyKind::P256).unwrap();
        Credentials::new(SharedSecret::with_subject(subject.into(), common::SECRET, key).unwrap())
    };
    for subject in ["acme/ns/eve_00000000", &known.subject] {
        let error = Endpoint::reopen(name, stranger(subject), Direction::BOTH, store, now).err().unwrap();
        assert!(matches!(error, StoreError::OtherIdentity { .. }), "{error}");
        assert!(error.to_string().contains(&known.subject), "{error}");
    }
}

/// An application with tokens of its own kind comes back with the key that the store kept.
#[test]
fn a_jwt_identity_comes_back() {
    let net = Net::new(1);
    let path = store_path();
    let name: Name = "acme/ns/alice".parse().unwrap();
    let provider =
        || JwtProvider::new("alice", "tests", &["slim"], Algorithm::HS256, common::SECRET.as_bytes()).unwrap();
    let credentials = |provider: JwtProvider| Credentials {
        provider: Arc::new(provider),
        verifier: Arc::new(JwtVerifier::new(Algorithm::HS256, common::SECRET.as_bytes()).unwrap()),
        binding: Binding::Enforce,
    };
    let mut store = open_store(&path);
    let mut endpoint = Endpoint::reopen(&name, credentials(provider()), Direction::BOTH, &store, net.now()).unwrap();
    let group = endpoint.create_session(net.now(), SessionConfig::group(), &"acme/ns/chan".parse().unwrap()).unwrap();
    store.commit(endpoint.changes().unwrap()).unwrap();
    drop(store);
    let store = open_store(&path);
    let another = Endpoint::reopen(&name, credentials(provider()), Direction::BOTH, &store, net.now()).err().unwrap();
    assert!(another.to_string().contains("alice with another key"), "{another}");
    let known = store.identity().unwrap().unwrap();
    let credentials = credentials(provider().with_key(known.key));
    let endpoint = Endpoint::reopen(&name, credentials, Direction::BOTH, &store, net.now()).unwrap();
    assert_eq!(endpoint.sessions().collect::<Vec<_>>(), [group]);
    std::fs::remove_file(path).unwrap();
}
