//! What a message is refused for, each reason by its smallest example; and the bounds, from both sides.

use prost::Message as _;
use slimline_wire::message::{
    Bounds, HEADER_OCTETS_MAX, IDENTITY_OCTETS_MAX, LINK_STRING_OCTETS_MAX, NAME_COMPONENT_OCTETS_MAX, parse,
    parse_within,
};
use slimline_wire::pb::message::MessageType;
use slimline_wire::{Reach, WireError, pb};

fn name() -> pb::Name {
    let encoded = pb::EncodedName { component_0: 1, component_1: 2, component_2: 3, name_id: None };
    pb::Name { name: Some(encoded), str_name: None }
}

fn publish(change: impl FnOnce(&mut pb::Publish)) -> Vec<u8> {
    let header = pb::SlimHeader { source: Some(name()), destination: Some(name()), ..Default::default() };
    let mut publish = pb::Publish { header: Some(header), session: Some(pb::SessionHeader::default()), msg: None };
    change(&mut publish);
    message(MessageType::Publish(publish))
}

fn header(change: impl FnOnce(&mut pb::SlimHeader)) -> Vec<u8> {
    publish(|publish| change(publish.header.as_mut().unwrap()))
}

fn link(change: impl FnOnce(&mut pb::LinkNegotiationPayload)) -> Vec<u8> {
    let mut negotiation = pb::LinkNegotiationPayload::default();
    change(&mut negotiation);
    message(MessageType::Link(pb::Link { link_type: Some(pb::link::LinkType::LinkNegotiation(negotiation)) }))
}

fn message(message_type: MessageType) -> Vec<u8> {
    pb::Message { message_type: Some(message_type), ..Default::default() }.encode_to_vec()
}

/// `inner` as field `number` of a message.
fn nest(number: u8, inner: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    prost::encoding::encode_varint(inner.len() as u64, &mut out);
    out.extend_from_slice(inner);
    out
}

fn refused(octets: &[u8]) -> WireError {
    let Err(error) = parse(octets) else { panic!("{} octets were not refused", octets.len()) };
    assert_eq!(error.reach(), Reach::Message);
    error
}

#[test]
fn what_is_missing_is_named() {
    assert!(parse(&publish(|_| ())).is_ok(), "nothing is missing, not even text, id or content");
    assert_eq!(refused(&[]), WireError::NoType);
    assert_eq!(refused(&nest(4, &[])), WireError::NoType);
    assert_eq!(refused(&publish(|publish| publish.header = None)), WireError::NoHeader { within: "Publish" });
    assert_eq!(refused(&nest(1, &[])), WireError::NoHeader { within: "Subscribe" });
    assert_eq!(refused(&nest(2, &[])), WireError::NoHeader { within: "Unsubscribe" });
    assert_eq!(refused(&publish(|publish| publish.session = None)), WireError::NoSession);
    assert_eq!(refused(&header(|header| header.source = None)), WireError::NoSource);
    assert_eq!(refused(&header(|header| header.source = Some(pb::Name::default()))), WireError::NoSource);
    assert_eq!(refused(&header(|header| header.destination = None)), WireError::NoDestination);
    assert_eq!(refused(&header(|header| header.destination = Some(pb::Name::default()))), WireError::NoDestination);
    assert_eq!(refused(&nest(5, &[])), WireError::NoNegotiation);
    assert!(parse(&nest(6, &[])).is_ok(), "an ack of all defaults");
}

#[test]
fn bounds_can_be_others() {
    let long = header(|header| {
        header.identity = "i".repeat(IDENTITY_OCTETS_MAX + 1);
        header.version = "v".repeat(HEADER_OCTETS_MAX);
        let text = pb::StringName { str_component_1: "c".repeat(2000), ..pb::StringName::default() };
        header.destination.as_mut().unwrap().str_name = Some(text);
    });
    let wide = Bounds {
        header_octets_max: 100_000,
        identity_octets_max: 10_000,
        name_component_octets_max: 2000,
        link_text_octets_max: 300,
    };
    let refused = |octets: &[u8], bounds: Bounds| parse_within(octets, &bounds).err();
    assert_eq!(refused(&long, wide), None);
    assert_eq!(refused(&long, Bounds::NONE), None);
    assert!(matches!(refused(&long, Bounds::DEFAULT), Some(WireError::HeaderTooLong { .. })));
    let narrower = Bounds { identity_octets_max: IDENTITY_OCTETS_MAX, ..wide };
    assert!(matches!(refused(&long, narrower), Some(WireError::IdentityTooLong { .. })));
    let narrower = Bounds { name_component_octets_max: 1999, ..wide };
    assert!(matches!(refused(&long, narrower), Some(WireError::NameComponentTooLong { length: 2000, limit: 1999 })));
    let named = link(|link| link.node_id = "n".repeat(300));
    assert_eq!(refused(&named, wide), None);
    assert!(matches!(refused(&named, Bounds::DEFAULT), Some(WireError::LinkStringTooLong { field: 6, .. })));
}

#[test]
fn bounds_hold_from_both_sides() {
    let identity = |count| header(|header| header.identity = "i".repeat(count));
    assert!(parse(&identity(IDENTITY_OCTETS_MAX)).is_ok());
    let limit = IDENTITY_OCTETS_MAX;
    assert_eq!(refused(&identity(limit + 1)), WireError::IdentityTooLong { length: limit + 1, limit });

    let limit = NAME_COMPONENT_OCTETS_MAX;
    for index in 0..3 {
        let component = |count| {
            let mut text = pb::StringName::default();
            let fields = [&mut text.str_component_0, &mut text.str_component_1, &mut text.str_component_2];
            *fields.into_iter().nth(index).unwrap() = "c".repeat(count);
            header(|header| header.destination.as_mut().unwrap().str_name = Some(text))
        };
        assert!(parse(&component(limit)).is_ok());
        assert_eq!(refused(&component(limit + 1)), WireError::NameComponentTooLong { length: limit + 1, limit });
    }

    let limit = HEADER_OCTETS_MAX;
    let mut around = 0; // octets of the header beside its longest string
    let empty = header(|header| {
        header.version = "v".repeat(limit / 2);
        around = header.encoded_len() - limit / 2;
    });
    assert!(parse(&empty).is_ok());
    let long = |count| header(|header| header.version = "v".repeat(count));
    assert!(parse(&long(limit - around)).is_ok());
    assert_eq!(refused(&long(limit - around + 1)), WireError::HeaderTooLong { length: limit + 1, limit });

    let limit = LINK_STRING_OCTETS_MAX;
    let text = |count| "l".repeat(count);
    type Set = fn(&mut pb::LinkNegotiationPayload, String);
    let set: [(u32, Set); 4] = [
        (1, |link, text| link.link_id = text),
        (2, |link, text| link.slim_version = text),
        (6, |link, text| link.node_id = text),
        (7, |link, text| link.deployment_name = text),
    ];
    for (field, set) in set {
        assert!(parse(&link(|link| set(link, text(limit)))).is_ok());
        let error = refused(&link(|link| set(link, text(limit + 1))));
        assert_eq!(error, WireError::LinkStringTooLong { field, length: limit + 1, limit });
    }
}

#[test]
fn singular_fields_are_there_once() {
    let header =
        pb::SlimHeader { source: Some(name()), destination: Some(name()), ..Default::default() }.encode_to_vec();
    let with = |extra: &[u8]| nest(3, &[nest(1, &[&header, extra].concat()), nest(2, &[])].concat());
    assert!(parse(&with(&[])).is_ok());
    for (field, octets) in [(3, &[0x1a, 0, 0x1a, 0][..]), (6, &[0x30, 1, 0x30, 1]), (11, &[0x5a, 0, 0x5a, 0])] {
        assert_eq!(refused(&with(octets)), WireError::Repeated { within: "SLIMHeader", field });
    }
    let name = nest(1, &name().encode_to_vec());
    assert_eq!(refused(&with(&name)), WireError::Repeated { within: "SLIMHeader", field: 1 });
    let publish = publish(|_| ());
    assert_eq!(refused(&publish.repeat(2)), WireError::SecondChoice { within: "Message", field: 3 });
    assert_eq!(refused(&[publish, nest(6, &[])].concat()), WireError::SecondChoice { within: "Message", field: 6 });
    let negotiation = nest(1, &[]).repeat(2);
    assert_eq!(refused(&nest(5, &negotiation)), WireError::SecondChoice { within: "Link", field: 1 });
    assert_eq!(refused(&nest(6, &[8, 1, 8, 1])), WireError::Repeated { within: "SubscriptionAck", field: 1 });
}

#[test]
fn content_and_metadata_are_checked_unread() {
    let with = |content: &[u8]| {
        let header = pb::SlimHeader { source: Some(name()), destination: Some(name()), ..Default::default() };
        nest(3, &[nest(1, &header.encode_to_vec()), nest(2, &[]), nest(3, content)].concat())
    };
    assert!(parse(&with(&nest(1, &nest(2, b"\xff any octets \x80")))).is_ok());
    let not_text = nest(1, &nest(1, b"\xff"));
    assert_eq!(refused(&with(&not_text)), WireError::NotUtf8 { within: "ApplicationPayload", field: 1 });
    let both = [nest(1, &[]), nest(2, &[])].concat();
    assert_eq!(refused(&with(&both)), WireError::SecondChoice { within: "Content", field: 2 });
    let deep = nest(2, &nest(8, &nest(1, &nest(1, &nest(2, &nest(3, b"\xc0"))))));
    assert_eq!(refused(&with(&deep)), WireError::NotUtf8 { within: "StringName", field: 3 });
    let wrong = nest(2, &nest(13, &[0x0d, 0, 0, 0, 0]));
    assert_eq!(refused(&with(&wrong)), WireError::WrongWireType { within: "HeartbeatPayload", field: 1 });
    let many = nest(2, &nest(9, &[nest(1, &[]), nest(1, &[]), nest(1, &[])].concat()));
    assert!(parse(&with(&many)).is_ok(), "a repeated field may repeat");

    let ack = nest(6, &[]);
    let with = |entry: &[u8]| [&ack, nest(4, entry).as_slice()].concat();
    assert!(parse(&[with(&nest(1, b"key")), nest(4, &nest(1, b"key"))].concat()).is_ok(), "a key may come again");
    assert_eq!(refused(&with(&nest(2, b"\xff"))), WireError::NotUtf8 { within: "MetadataEntry", field: 2 });
    let double = nest(1, b"k").repeat(2);
    assert_eq!(refused(&with(&double)), WireError::Repeated { within: "MetadataEntry", field: 1 });
    assert_eq!(refused(&[ack, vec![0x20, 0]].concat()), WireError::WrongWireType { within: "Message", field: 4 });
}
