//! Recorded traffic of released SLIM nodes and applications, and vectors made with their keys.
//!
//! How each file was captured: `vectors/README.md`.

mod recordings;

use prost::Message as _;
use recordings::{octets, recorded_messages};
use serde_json::Value;
use slimline_wire::link::{HeaderMac, HopFields, Initiator, LinkKey, derive_classic, derive_hybrid, preimage};
use slimline_wire::message::{Header, MessageView, parse};
use slimline_wire::name::component_hash;
use slimline_wire::pb;

#[test]
fn component_hashes() {
    for (component, hash) in golden()["name_hash_xxh64_utf8_plus_ff_seed0"].as_object().unwrap() {
        assert_eq!(format!("{:016x}", component_hash(component)), hash.as_str().unwrap(), "{component:?}");
    }
}

#[test]
fn every_recorded_message_parses_as_prost_reads_it() {
    let mut kinds = [0; 5];
    for (place, octets) in recorded_messages() {
        let view = parse(&octets).unwrap_or_else(|error| panic!("{place}: {error}"));
        let message = pb::Message::decode(octets.as_slice()).unwrap();
        slimline_wire::testing::message::assert_same(&view, &message);
        kinds[match view {
            MessageView::Subscribe(_) => 0,
            MessageView::Unsubscribe(_) => 1,
            MessageView::Publish(_) => 2,
            MessageView::Link(_) => 3,
            MessageView::SubscriptionAck(_) => 4,
        }] += 1;
        // Upstream's encoder is prost, but its metadata map has no order: the length is the same, the octets may not be.
        assert_eq!(message.encoded_len(), octets.len(), "{place}");
        if message.metadata.len() < 2 {
            assert_eq!(message.encode_to_vec(), octets, "{place}");
        }
    }
    assert!(kinds.iter().all(|kind| *kind > 0), "{kinds:?}");
}

#[test]
fn recorded_names_hash_to_their_words() {
    let mut components = 0;
    for (place, octets) in recorded_messages() {
        let view = parse(&octets).unwrap();
        for name in view.header().into_iter().flat_map(|header| [header.source, header.destination]) {
            let text = name.text.expect("recorded names carry text");
            for (component, hash) in text.into_iter().zip(name.name.prefix.0) {
                assert_eq!(component_hash(component), hash, "{place}: {component:?}");
                components += 1;
            }
        }
    }
    assert!(components > 1000, "{components}");
}

#[test]
fn the_offline_vector_has_its_mac() {
    let golden = golden();
    let vector = &golden["mac_offline"];
    let link_id = vector["link_id"].as_str().unwrap();
    // The vector is a bare header: as a Subscribe it can be parsed.
    let message = subscribe_around(&octets(&vector["slim_header_hex_without_mac"]));
    let view = parse(&message).unwrap();
    let header = view.header().unwrap();
    assert_eq!(preimage_of(link_id, header), octets(&vector["preimage"]));
    let key = LinkKey::from_octets(array(&vector["key"]));
    let tag = HeaderMac::new(&key, link_id).tag(header, header.ttl, HopFields::AsReceived);
    assert_eq!(tag.as_slice(), octets(&vector["mac"]));
}

#[test]
fn live_links_can_be_recomputed() {
    let golden = golden();
    for name in ["live_classic", "live_hybrid_mlkem768"] {
        let vector = &golden[name];
        let link_id = vector["link_id"].as_str().unwrap();
        let (request, reply) = (octets(&vector["request"]), octets(&vector["reply"]));
        let (MessageView::Link(request), MessageView::Link(reply)) = (parse(&request).unwrap(), parse(&reply).unwrap())
        else {
            panic!("{name}: not links")
        };
        assert!(!request.is_reply && reply.is_reply);
        assert_eq!((request.link_id, reply.link_id), (link_id, link_id));

        let initiator = Initiator::from_secrets(array(&vector["client_x25519_private"]), None);
        assert_eq!(request.ecdh_public_key, initiator.public());
        let shared = array(&vector["x25519_shared"]);
        let key = if let Some(kem_secret) = vector.get("mlkem768_dk") {
            let kem_shared = decapsulate(&octets(kem_secret), reply.kem_payload.unwrap());
            assert_eq!(kem_shared.as_slice(), octets(&vector["mlkem_shared"]));
            derive_hybrid(link_id, &shared, &kem_shared)
        } else {
            let key = derive_classic(link_id, &shared);
            assert_eq!(initiator.finish(link_id, &reply).unwrap().as_octets(), key.as_octets());
            key
        };
        assert_eq!(key.as_octets().as_slice(), octets(&vector["derived_mac_key"]), "{name}");

        let mut mac = HeaderMac::new(&key, link_id);
        let publish = octets(&vector["publish_from_node"]);
        let view = parse(&publish).unwrap();
        let header = view.header().unwrap();
        assert_eq!(preimage_of(link_id, header), octets(&vector["publish_preimage"]), "{name}");
        assert_eq!(header.header_mac.unwrap(), octets(&vector["publish_mac"]), "{name}");
        assert!(mac.verify(header), "{name}: what the node signed");
        let subscribe = octets(&vector["signed_subscribe"]);
        assert!(mac.verify(parse(&subscribe).unwrap().header().unwrap()), "{name}: what the node accepted");
        assert!(mac.verify(header), "{name}: once more, now from the flow's state");
    }
}

fn preimage_of(link_id: &str, header: &Header<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    preimage(link_id, header, header.ttl, HopFields::AsReceived, &mut out);
    out
}

#[expect(deprecated, reason = "the vector holds the expanded form of its key")]
fn decapsulate(secret: &[u8], ciphertext: &[u8]) -> [u8; 32] {
    use ml_kem::kem::Decapsulate;
    let secret = ml_kem::ml_kem_768::DecapsulationKey::from_expanded(secret.try_into().unwrap()).unwrap();
    secret.decapsulate(ciphertext.try_into().unwrap()).into()
}

fn subscribe_around(header: &[u8]) -> Vec<u8> {
    let header = pb::SlimHeader::decode(header).unwrap();
    let subscribe = pb::Subscribe { header: Some(header), subscription_id: 0 };
    pb::Message { message_type: Some(pb::message::MessageType::Subscribe(subscribe)), ..Default::default() }
        .encode_to_vec()
}

fn golden() -> Value {
    serde_json::from_str(include_str!("vectors/golden_vectors.json")).unwrap()
}

fn array<const N: usize>(value: &Value) -> [u8; N] {
    octets(value).try_into().unwrap()
}
