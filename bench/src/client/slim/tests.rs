//! What is signed, what is verified, and what the same seed repeats: a client whose link key is known.

use std::collections::HashSet;

use prost::Message as _;
use slimline_wire::link::LinkKey;

use super::*;
use crate::client::{Client, Protocol};
use crate::payload::Kind;
use crate::plan::Plan;
use crate::publisher::Publisher;
use crate::scenario::{Command, Options};
use crate::topology::Names;

const LINK: &str = "link";

fn mac() -> HeaderMac {
    HeaderMac::new(&LinkKey::from_octets([7; 32]), LINK)
}

/// A client that may publish as much as it likes.
fn client() -> Client {
    let settings = Settings {
        authority: "node".into(),
        run: 1,
        connection: 0,
        verify_one_in: 1,
        no_mac: false,
        tls: None,
        authorization: None,
    };
    let mut slim = Slim::start(&settings, &mut Vec::new()).unwrap();
    slim.mac = Some(mac());
    for stream in [slim.stream, StreamId::TRANSPORT] {
        slim.send.window_update(stream, 1 << 30).unwrap();
    }
    Client { protocol: Protocol::Slim(Box::new(slim)), tls: None }
}

/// The first `count` messages of a publisher of run `run`.
fn messages(options: Options, run: u32, count: usize) -> Vec<Vec<u8>> {
    let plan = Plan::check(Command::Throughput, options).unwrap();
    let mut client = client();
    let mut publisher = Publisher::new(&plan, Names { run }, 0, None, &mut client).unwrap();
    let mut messages = Vec::new();
    for _ in 0..count {
        let mut out = Vec::new();
        assert!(publisher.publish(&mut client, 0, Kind::Data, &mut out).unwrap());
        client.seal(&mut out).unwrap();
        // A frame's head, and the message's prefix.
        messages.push(out.split_off(9 + PREFIX_OCTETS));
    }
    messages
}

/// Identity tokens and MACs of messages, all of which verify.
fn signed(messages: &[Vec<u8>]) -> (HashSet<Vec<u8>>, HashSet<Vec<u8>>) {
    let mut mac = mac();
    let (mut identities, mut tags) = (HashSet::new(), HashSet::new());
    for message in messages {
        let MessageView::Publish(publish) = parse(message).unwrap() else { panic!("not a publish") };
        assert!(mac.verify(&publish.header));
        let header = slimline_wire::pb::Message::decode(message.as_slice());
        let Some(slimline_wire::pb::message::MessageType::Publish(publish)) = header.unwrap().message_type else {
            panic!("not a publish")
        };
        let header = publish.header.unwrap();
        identities.insert(header.identity.into_bytes());
        tags.insert(header.header_mac.unwrap());
    }
    (identities, tags)
}

#[test]
fn headers_are_signed_in_thousands_of_variants_or_each_anew() {
    let (identities, tags) = signed(&messages(Options::default(), 1, 5000));
    assert_eq!((identities.len(), tags.len()), (4096, 4096), "4096 variants, walked in turns");
    let few = Options { variants: Some(4), ..Options::default() };
    let (identities, tags) = signed(&messages(Options { fresh: true, ..few.clone() }, 1, 100));
    assert_eq!((identities.len(), tags.len()), (100, 100), "--fresh");
    let (identities, tags) = signed(&messages(few, 1, 100));
    assert_eq!((identities.len(), tags.len()), (4, 4), "pre-signed");
}

#[test]
fn the_same_seed_repeats_sizes_in_every_run() {
    let sizes = |seed, run, fresh| {
        let payload = Some("64-1024".to_owned());
        let options = Options { payload, variants: Some(4), seed: Some(seed), fresh, ..Options::default() };
        messages(options, run, 50).iter().map(Vec::len).collect::<Vec<_>>()
    };
    assert_eq!(sizes(1, 1, false), sizes(1, 2, false));
    assert_eq!(sizes(1, 1, false), sizes(1, 2, true), "signing draws from elsewhere");
    assert_ne!(sizes(1, 1, false), sizes(2, 1, false));
}

/// Hands `messages` to a link; how many were delivered and how many were damaged.
fn received(messages: &[Vec<u8>], verify_one_in: u32) -> (usize, usize) {
    let (mut stage, mut mac, mut until_verify) = (Stage::Ready, Some(mac()), 1);
    let initiator = Initiator::new(false).unwrap();
    let (mut delivered, mut damaged) = (0, 0);
    for message in messages {
        let mut link = Link {
            stage: &mut stage,
            mac: &mut mac,
            initiator: &initiator,
            link_id: LINK,
            until_verify: &mut until_verify,
            verify_one_in,
            no_mac: false,
        };
        let tell = &mut |happening: Happening<'_>| match happening {
            Happening::Delivery { .. } => delivered += 1,
            Happening::Damaged => damaged += 1,
            Happening::Ready | Happening::Subscribed => panic!("neither was sent"),
        };
        link.message(message, tell).unwrap();
    }
    (delivered, damaged)
}

#[test]
fn one_received_mac_in_sixty_four_is_verified() {
    let verify_one_in = Plan::check(Command::Throughput, Options::default()).unwrap().verify_one_in;
    let mut wrong = messages(Options::default(), 1, 640);
    assert_eq!(received(&wrong, verify_one_in), (640, 0));
    for message in &mut wrong {
        let MessageView::Publish(publish) = parse(message).unwrap() else { panic!("not a publish") };
        let patch = publish.header.patch().expect("it is signed");
        patch.apply(message, 8, &[0x5a; 32]);
    }
    assert_eq!(received(&wrong, verify_one_in), (630, 10));
    assert_eq!(received(&wrong, 1), (0, 640));
}

#[test]
fn a_reply_without_a_key_ends_a_link_that_wants_one() {
    for no_mac in [false, true] {
        let (mut stage, mut mac, mut until_verify) = (Stage::Negotiating, None, 1);
        let initiator = Initiator::new(false).unwrap();
        let mut link = Link {
            stage: &mut stage,
            mac: &mut mac,
            initiator: &initiator,
            link_id: LINK,
            until_verify: &mut until_verify,
            verify_one_in: 64,
            no_mac,
        };
        let reply = LinkNegotiation {
            link_id: LINK,
            slim_version: "0.1.0",
            is_reply: true,
            ecdh_public_key: &[],
            connection_type: ConnType::Edge,
            node_id: "node",
            deployment_name: "",
            kem_payload: None,
        };
        let mut message = Vec::new();
        build_link(&reply, &mut message);
        let ended = link.message(&message, &mut |_| ());
        assert_eq!(ended.is_err_and(|reason| reason.contains("--no-mac")), !no_mac);
    }
}
