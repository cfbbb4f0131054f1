//! Properties of what reads other people's octets, for any octets: tests call them with chosen and random input, fuzz targets
//! with what they come up with.

use std::cell::RefCell;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use prost::Message as _;
use slimline_wire::pb;
use slimline_wire::pb::message::MessageType;

use crate::endpoint::Endpoint;
use crate::identity::jwt::{Algorithm, JwtVerifier, peek};
use crate::identity::spiffe::{carried_key, keys};
use crate::identity::{Provider, SharedSecret, SigningKey, Verifier};
use crate::integrity;
use crate::message::{Credentials, Kind, Now};
use crate::mls::Group;
use crate::name::{Name, app_id};
use crate::session::{Direction, SessionConfig};

/// The secret of everybody here; seeds hold tokens made with it.
pub const SECRET: &str = "0123456789abcdef0123456789abcdef";
const NOW_S: u64 = 1_000_000;
/// Calls of one run are bounded, so that a run is.
const TIMEOUTS_MAX: usize = 64;

fn identity(name: &str) -> Arc<SharedSecret> {
    let scalar = [name.len().to_le_bytes()[0]; 32];
    let key = SigningKey::from_p256_scalar(&scalar).expect("a small number is a scalar");
    Arc::new(SharedSecret::with_subject(format!("acme/ns/{name}_12345678"), SECRET, key).expect("a good secret"))
}

/// Tokens, JWTs, key sets and names: what is not ours to believe is refused, and asked twice the answer is the same.
pub fn tokens(octets: &[u8]) {
    static VERIFIER: OnceLock<(Arc<SharedSecret>, JwtVerifier)> = OnceLock::new();
    let (secret, jwt) = VERIFIER.get_or_init(|| {
        (identity("alice"), JwtVerifier::new(Algorithm::HS256, SECRET.as_bytes()).expect("any secret will do"))
    });
    let text = String::from_utf8_lossy(octets);
    for verifier in [&**secret as &dyn Verifier, jwt] {
        let lapsed = verifier.verify_lapsed(&text);
        assert_eq!(lapsed, verifier.verify_lapsed(&text));
        if let Ok(claims) = &lapsed {
            let then = verifier.verify(&text, claims.issued.min(claims.expires));
            assert_eq!(then.as_ref(), Ok(claims), "believed in its time, if believed at all");
        } else {
            assert!(verifier.verify(&text, NOW_S).is_err(), "time makes nothing credible");
        }
    }
    let _ = (peek(&text), carried_key(&text), keys(octets), JwtVerifier::from_jwks(&text));
    if let Ok(name) = text.parse::<Name>() {
        assert_eq!(name.to_string().parse::<Name>().as_ref(), Ok(&name), "a name reads as it is written");
        assert_eq!(Name::from_wire(&name.to_wire()).as_ref(), Ok(&name));
    }
    if let Ok(wire) = pb::Name::decode(octets) {
        let _ = Name::from_wire(&wire);
    }
}

/// MLS messages from nowhere: refused, and the group is as it was.
pub fn mls(octets: &[u8]) {
    thread_local! {
        static GROUPS: RefCell<[Group; 3]> = RefCell::new({
            let [mut moderator, mut member, outsider] = ["mod", "member", "out"].map(|name| {
                let identity = identity(name);
                Group::new(identity.clone(), identity).expect("an identity with a key")
            });
            moderator.create(NOW_S).expect("a group");
            let package = member.key_package(NOW_S).expect("a key package");
            let added = moderator.add(&package, NOW_S).expect("a second member");
            member.join(&added.welcome.expect("a welcome")).expect("joined");
            [moderator, member, outsider]
        });
    }
    GROUPS.with_borrow_mut(|[moderator, member, outsider]| {
        let before = (moderator.epoch(), member.epoch());
        assert!(member.open(octets).is_err());
        assert!(member.apply(octets, NOW_S).is_err());
        assert!(outsider.join(octets).is_err());
        let _ = moderator.owner_of(octets, NOW_S); // a key package among the seeds is a good one
        assert_eq!((moderator.epoch(), member.epoch(), outsider.is_ready()), (before.0, before.1, false));
    });
}

/// An application in a session hears anything, some of it signed by a peer: it lives, counts, and holds to its bounds.
///
/// Shape: records of a flag octet, a length u16 and a protobuf message; an odd flag has the message signed by the peer.
pub fn endpoint(octets: &[u8]) {
    let (ours, theirs) = (identity("alice"), identity("peter"));
    let credentials = |identity: &Arc<SharedSecret>| Credentials {
        provider: identity.clone(),
        verifier: identity.clone(),
        binding: crate::identity::Binding::Enforce,
    };
    let start = Instant::now();
    let mut now = Now { instant: start, unix_s: NOW_S };
    let name: Name = "acme/ns/alice".parse().expect("a name");
    let mut alice = Endpoint::new(&name, credentials(&ours), Direction::BOTH).expect("randomness");
    alice.connected(now);
    alice.subscribe(now, &name);
    let peer = "acme/ns/peter".parse::<Name>().expect("a name").with_id(app_id(theirs.subject()));
    let config = SessionConfig::point_to_point().without_mls();
    alice.create_session(now, config, &peer.without_id()).expect("room for a session");
    let mut rest = octets;
    let mut handled = 0;
    while let Some((&[flag, low, high], after)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_le_bytes([low, high])).min(after.len());
        let (record, after) = after.split_at(length);
        rest = after;
        let Ok(mut message) = pb::Message::decode(record) else { continue };
        if flag & 1 == 1 {
            adopt(&mut message, &alice, &peer, &*theirs);
        }
        alice.handle(now, message);
        handled += 1;
        now = Now { instant: now.instant + Duration::from_millis(u64::from(flag) * 4), ..now };
        drain(&mut alice);
    }
    assert_eq!(alice.counters().received, handled);
    for _ in 0..TIMEOUTS_MAX {
        let Some(next) = alice.poll_timeout() else { break };
        now = Now { instant: now.instant.max(next), ..now };
        alice.handle_timeout(now);
        drain(&mut alice);
    }
}

/// Makes a message the peer's, to us: with its token and its signatures.
fn adopt(message: &mut pb::Message, to: &Endpoint, peer: &Name, identity: &dyn Provider) {
    let Some(MessageType::Publish(publish)) = &mut message.message_type else { return };
    let (Some(header), Some(session)) = (&mut publish.header, &publish.session) else { return };
    header.source = Some(peer.to_wire());
    header.destination = Some(to.name().to_wire());
    header.identity = identity.token(NOW_S).unwrap_or_default();
    if Kind::try_from(session.session_message_type).is_ok_and(integrity::is_control) {
        let _ = integrity::sign(message, identity); // what has no shape stays unsigned
    }
}

fn drain(endpoint: &mut Endpoint) {
    while let Some(message) = endpoint.poll_transmit() {
        assert!(message.message_type.is_some());
    }
    while endpoint.poll_event().is_some() {}
}

/// What a history between two such applications sounds like: seeds for [`endpoint`], and the tokens in it for [`tokens`].
#[must_use]
pub fn record(flag: u8, message: &pb::Message) -> Vec<u8> {
    let octets = message.encode_to_vec();
    let mut record = vec![flag];
    record.extend_from_slice(&u16::try_from(octets.len()).unwrap_or(u16::MAX).to_le_bytes());
    record.extend_from_slice(&octets);
    record
}
