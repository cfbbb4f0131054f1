//! The field table the parser goes by says what `proto/dataplane.proto` says.

use slimline_wire::message::fields::{self, Kind, Schema};
use std::collections::{BTreeMap, BTreeSet};

/// Messages by name, fields by number: `(repeated, type, name)`.
type Messages = BTreeMap<String, BTreeMap<u32, (bool, String, String)>>;

/// Reads our own .proto, which keeps one declaration per line.
fn declared() -> (Messages, BTreeSet<String>) {
    let (mut messages, mut enums) = (Messages::new(), BTreeSet::new());
    let mut current = String::new();
    for line in include_str!("../proto/dataplane.proto").lines() {
        let words: Vec<&str> = line.trim().trim_end_matches(';').split_whitespace().collect();
        match words.as_slice() {
            ["message", name, ..] => {
                current = (*name).to_owned();
                messages.insert(current.clone(), BTreeMap::new());
            }
            ["enum", name, ..] => {
                current.clear();
                enums.insert((*name).to_owned());
            }
            [label @ .., kind, name, "=", number] if !current.is_empty() && *kind != "map<string," => {
                let field = (label == ["repeated"], (*kind).to_owned(), (*name).to_owned());
                let number = number.parse().unwrap_or_else(|_| panic!("{line}"));
                assert!(messages.get_mut(&current).unwrap().insert(number, field).is_none(), "{line}");
            }
            _ => {}
        }
    }
    (messages, enums)
}

fn compare(schema: &Schema, messages: &Messages, enums: &BTreeSet<String>, seen: &mut BTreeSet<String>) {
    if !seen.insert(schema.name.to_owned()) {
        return;
    }
    let declared = &messages[schema.name];
    assert_eq!(declared.len(), schema.fields.len(), "{}", schema.name);
    for ((number, (repeated, kind, name)), ours) in declared.iter().zip(schema.fields) {
        let place = format!("{}.{name} = {number}", schema.name);
        assert_eq!(*number as usize, schema.fields.iter().position(|field| std::ptr::eq(field, ours)).unwrap() + 1);
        assert_eq!(*repeated, matches!(ours, Kind::Many(_)), "{place}");
        match ours {
            Kind::Varint => {
                assert!(["bool", "uint32", "uint64"].contains(&kind.as_str()) || enums.contains(kind), "{place}");
            }
            Kind::Text => assert_eq!(kind, "string", "{place}"),
            Kind::Bytes => assert_eq!(kind, "bytes", "{place}"),
            Kind::One(inner) | Kind::Many(inner) => {
                assert_eq!(kind, inner.name, "{place}");
                compare(inner, messages, enums, seen);
            }
        }
    }
}

#[test]
fn the_field_table_is_the_protos() {
    let (messages, enums) = declared();
    let mut seen = BTreeSet::new();
    for schema in [&fields::SUBSCRIBE, &fields::UNSUBSCRIBE, &fields::PUBLISH, &fields::LINK, &fields::SUBSCRIPTION_ACK]
    {
        compare(schema, &messages, &enums, &mut seen);
    }
    // HeaderIntegrityAad never travels by itself, and Message is read by hand.
    let unseen: Vec<_> = messages.keys().filter(|name| !seen.contains(*name)).collect();
    assert_eq!(unseen, ["HeaderIntegrityAad", "Message"]);
}

#[test]
#[rustfmt::skip]
fn numbers_read_by_hand_are_the_protos() {
    use fields::{ack, body, header, link, message, name};
    let (messages, _) = declared();
    let number = |message: &str, field: &str| {
        let fields = &messages[message];
        fields.iter().find(|(_, (_, _, name))| name == field).map(|(number, _)| *number)
    };
    for (numbers, message) in [
        (&[("subscribe", message::SUBSCRIBE), ("unsubscribe", message::UNSUBSCRIBE), ("publish", message::PUBLISH),
           ("link", message::LINK), ("subscription_ack", message::SUBSCRIPTION_ACK)][..], "Message"),
        (&[("header", body::HEADER), ("subscription_id", body::SUBSCRIPTION_ID)], "Subscribe"),
        (&[("header", body::HEADER), ("subscription_id", body::SUBSCRIPTION_ID)], "Unsubscribe"),
        (&[("header", body::HEADER), ("session", body::SESSION), ("msg", body::CONTENT)], "Publish"),
        (&[("source", header::SOURCE), ("destination", header::DESTINATION), ("identity", header::IDENTITY),
           ("fanout", header::FANOUT), ("version", header::VERSION), ("ttl", header::TTL),
           ("recv_from", header::RECV_FROM), ("forward_to", header::FORWARD_TO),
           ("incoming_conn", header::INCOMING_CONN), ("error", header::ERROR), ("header_mac", header::HEADER_MAC),
           ("e2e_header_sig", header::E2E_HEADER_SIG)], "SLIMHeader"),
        (&[("name", name::ENCODED), ("str_name", name::TEXT)], "Name"),
        (&[("name_id", name::ID)], "EncodedName"),
        (&[("id_0", name::ID_HIGH), ("id_1", name::ID_LOW)], "NameId"),
        (&[("subscription_id", ack::SUBSCRIPTION_ID), ("success", ack::SUCCESS), ("error", ack::ERROR)],
         "SubscriptionAck"),
        (&[("link_negotiation", link::NEGOTIATION)], "Link"),
        (&[("link_id", link::LINK_ID), ("slim_version", link::SLIM_VERSION), ("is_reply", link::IS_REPLY),
           ("link_ecdh_public_key", link::ECDH_PUBLIC_KEY), ("connection_type", link::CONNECTION_TYPE),
           ("node_id", link::NODE_ID), ("deployment_name", link::DEPLOYMENT_NAME),
           ("link_kem_payload", link::KEM_PAYLOAD)], "LinkNegotiationPayload"),
    ] {
        for (field, ours) in numbers {
            assert_eq!(number(message, field), Some(*ours), "{message}.{field}");
        }
    }
    assert!(include_str!("../proto/dataplane.proto").contains("map<string, string> metadata = 4;"));
    assert_eq!(message::METADATA, 4);
}
