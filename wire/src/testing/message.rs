//! Properties of [`crate::message`] and [`crate::link`], with prost as the oracle.
//!
//! Each takes any octets and panics when the property does not hold.

pub use super::compose::{compose, compose_and_spoil, spoil};
use crate::link::{HeaderMac, HopFields, preimage};
use crate::message::fields;
use crate::message::{
    Bounds, HEADER_OCTETS_MAX, Header, IDENTITY_OCTETS_MAX, KnownNames, LINK_STRING_OCTETS_MAX, MAC_OCTETS, MacOut,
    MessageView, NAME_COMPONENT_OCTETS_MAX, NameView, parse, parse_into, read_header_again, rewrite,
};
use crate::proto::{Walk, key, wire_type};
use crate::{ConnType, NameId, WireError, pb};
use pb::message::MessageType;
use prost::Message as _;

/// What we accept prost accepts, and reads the same values; what only prost accepts we refuse for a stated reason.
pub fn agrees_with_prost(octets: &[u8]) {
    let theirs = pb::Message::decode(octets);
    match (parse(octets), theirs) {
        (Ok(view), Ok(message)) => assert_same(&view, &message),
        (Ok(view), Err(error)) => panic!("accepted {view:?}, which prost refuses: {error}"),
        (Err(_), Err(_)) => {}
        (Err(error), Ok(message)) => {
            assert!(is_ours_to_refuse(error, octets, &message), "refused {message:?}: {error}")
        }
    }
}

/// Whether we refuse something prost takes for one of our own reasons: what §5.2 asks for, bounds, doubles.
fn is_ours_to_refuse(error: WireError, octets: &[u8], message: &pb::Message) -> bool {
    let header = header_of(message);
    let lacks = |name: Option<&pb::Name>| name.is_none_or(|name| name.name.is_none());
    match error {
        WireError::NoType => message.message_type.is_none(),
        WireError::NoHeader { .. } => header.is_none(),
        // Met before the repetition that prost fills the gap from.
        WireError::NoSource | WireError::NoDestination if has_second_header_or_name(octets) => true,
        WireError::NoSource => header.is_some_and(|header| lacks(header.source.as_ref())),
        WireError::NoDestination => header.is_some_and(|header| lacks(header.destination.as_ref())),
        WireError::NoSession => {
            matches!(&message.message_type, Some(MessageType::Publish(publish)) if publish.session.is_none())
        }
        WireError::NoNegotiation => {
            matches!(&message.message_type, Some(MessageType::Link(link)) if link.link_type.is_none())
        }
        WireError::HeaderTooLong { length, limit } => length > limit && octets.len() > HEADER_OCTETS_MAX,
        WireError::IdentityTooLong { length, limit } => length > limit && octets.len() > IDENTITY_OCTETS_MAX,
        WireError::NameComponentTooLong { length, limit } => length > limit && octets.len() > NAME_COMPONENT_OCTETS_MAX,
        WireError::LinkStringTooLong { length, limit, .. } => length > limit && octets.len() > LINK_STRING_OCTETS_MAX,
        WireError::Repeated { .. } | WireError::SecondChoice { .. } => true,
        // prost reads a map entry as such whatever wire type its key claims.
        WireError::WrongWireType { within: "Message", field: fields::message::METADATA } => true,
        _ => false,
    }
}

/// Whether a body has two headers, or a header two sources or destinations.
fn has_second_header_or_name(message: &[u8]) -> bool {
    let count = |message, wanted| walk_fields(message).into_iter().filter(|(key, ..)| *key == wanted).count();
    let names = [fields::header::SOURCE, fields::header::DESTINATION].map(|number| key(number, wire_type::LENGTH));
    let is_body = |key: u32| matches!(key, BODY_SUBSCRIBE | BODY_UNSUBSCRIBE | BODY_PUBLISH);
    walk_fields(message).into_iter().filter(|(key, ..)| is_body(*key)).any(|(.., body)| {
        let headers = walk_fields(body).into_iter().filter(|(key, ..)| *key == HEADER);
        count(body, HEADER) > 1
            || headers.into_iter().any(|(.., header)| names.iter().any(|name| count(header, *name) > 1))
    })
}

fn header_of(message: &pb::Message) -> Option<&pb::SlimHeader> {
    match message.message_type.as_ref()? {
        MessageType::Subscribe(subscribe) => subscribe.header.as_ref(),
        MessageType::Unsubscribe(unsubscribe) => unsubscribe.header.as_ref(),
        MessageType::Publish(publish) => publish.header.as_ref(),
        MessageType::Link(_) | MessageType::SubscriptionAck(_) => None,
    }
}

fn header_of_mut(message: &mut pb::Message) -> Option<&mut pb::SlimHeader> {
    match message.message_type.as_mut()? {
        MessageType::Subscribe(subscribe) => subscribe.header.as_mut(),
        MessageType::Unsubscribe(unsubscribe) => unsubscribe.header.as_mut(),
        MessageType::Publish(publish) => publish.header.as_mut(),
        MessageType::Link(_) | MessageType::SubscriptionAck(_) => None,
    }
}

/// A view and prost's struct of the same octets hold the same values.
pub fn assert_same(view: &MessageView<'_>, message: &pb::Message) {
    match (view, message.message_type.as_ref().expect("of some type")) {
        (MessageView::Subscribe(ours), MessageType::Subscribe(theirs)) => {
            assert_same_header(&ours.header, theirs.header.as_ref());
            assert_eq!(ours.subscription_id, theirs.subscription_id);
        }
        (MessageView::Unsubscribe(ours), MessageType::Unsubscribe(theirs)) => {
            assert_same_header(&ours.header, theirs.header.as_ref());
            assert_eq!(ours.subscription_id, theirs.subscription_id);
        }
        (MessageView::Publish(ours), MessageType::Publish(theirs)) => {
            assert_same_header(&ours.header, theirs.header.as_ref());
            let session = theirs.session.as_ref().expect("publishes carry a session header");
            assert_eq!(ours.session_type, session.session_type);
            assert_eq!(ours.session_message_type, session.session_message_type);
            assert_eq!([ours.session_id, ours.message_id], [session.session_id, session.message_id]);
            let content = ours.content.map(|content| pb::Content::decode(content).expect("checked content decodes"));
            assert_eq!(content, theirs.msg);
        }
        (MessageView::Link(ours), MessageType::Link(theirs)) => {
            let Some(pb::link::LinkType::LinkNegotiation(theirs)) = &theirs.link_type else { panic!("no negotiation") };
            assert_eq!([ours.link_id, ours.slim_version], [&theirs.link_id, &theirs.slim_version]);
            assert_eq!(ours.is_reply, theirs.is_reply);
            assert_eq!(ours.ecdh_public_key, theirs.link_ecdh_public_key);
            let kind = match pb::LinkConnectionType::try_from(theirs.connection_type) {
                Ok(pb::LinkConnectionType::Peer) => ConnType::Peer,
                Ok(pb::LinkConnectionType::Edge) => ConnType::Edge,
                _ => ConnType::Remote,
            };
            assert_eq!(ours.connection_type, kind);
            assert_eq!([ours.node_id, ours.deployment_name], [&theirs.node_id, &theirs.deployment_name]);
            assert_eq!(ours.kem_payload, theirs.link_kem_payload.as_deref());
        }
        (MessageView::SubscriptionAck(ours), MessageType::SubscriptionAck(theirs)) => {
            assert_eq!(ours.subscription_id, theirs.subscription_id);
            assert_eq!(ours.success, theirs.success);
            assert_eq!(ours.error, theirs.error);
        }
        (ours, theirs) => panic!("{ours:?} is not {theirs:?}"),
    }
}

/// What was read before changes nothing of what is read.
pub fn is_read_alike_after(before: &[u8], octets: &[u8]) {
    for sequence in [[before, octets, before, octets], [octets, octets, before, octets]] {
        let (mut known, mut on_the_way_out) = (KnownNames::default(), KnownNames::default());
        for octets in sequence {
            let mut view = MessageView::blank();
            let outcome = parse_into(octets, &Bounds::DEFAULT, &mut known, &mut view);
            assert_eq!(outcome.map(|()| view), parse(octets), "in {sequence:02x?}");
            let mut again = Header::EMPTY;
            if let (MessageView::Publish(publish), Ok(())) = (view, outcome) {
                assert_eq!(read_header_again(octets, &mut on_the_way_out, &mut again), Ok(()));
                assert_eq!(again, publish.header, "in {sequence:02x?}");
            }
        }
    }
}

fn assert_same_header(ours: &Header<'_>, theirs: Option<&pb::SlimHeader>) {
    let theirs = theirs.expect("a header is there");
    assert_same_name(&ours.source, theirs.source.as_ref());
    assert_same_name(&ours.destination, theirs.destination.as_ref());
    assert_eq!([ours.identity, ours.version], [&theirs.identity, &theirs.version]);
    assert_eq!([ours.fanout, ours.ttl], [theirs.fanout, theirs.ttl]);
    assert_eq!(
        [ours.recv_from, ours.forward_to, ours.incoming_conn],
        [theirs.recv_from, theirs.forward_to, theirs.incoming_conn]
    );
    assert_eq!(ours.error, theirs.error);
    assert_eq!(
        [ours.header_mac, ours.e2e_header_sig],
        [theirs.header_mac.as_deref(), theirs.e2e_header_sig.as_deref()]
    );
}

fn assert_same_name(ours: &NameView<'_>, theirs: Option<&pb::Name>) {
    let theirs = theirs.expect("a name is there");
    let encoded = theirs.name.as_ref().expect("hashes are there");
    assert_eq!(ours.name.prefix.0, [encoded.component_0, encoded.component_1, encoded.component_2]);
    assert_eq!(ours.has_id, encoded.name_id.is_some());
    let id = encoded.name_id.map_or(NameId::ANY, |id| NameId::from_halves([id.id_0, id.id_1]));
    assert_eq!(ours.name.id, id);
    let text = theirs.str_name.as_ref();
    let text = text.map(|text| [&*text.str_component_0, &*text.str_component_1, &*text.str_component_2]);
    assert_eq!(ours.text, text);
}

/// [`rewrite`] is decode, modify, encode; and what it was not asked to change comes out octet for octet.
pub fn rewrites_as_prost_would(octets: &[u8], ttl: u32, mac: MacOut) {
    let Ok(view) = parse(octets) else { return };
    let Some(header) = view.header() else { return };
    let before = pb::Message::decode(octets).expect("what we accept prost accepts");
    let mut out = b"in front".to_vec();
    rewrite(octets, header, ttl, mac, &mut out);
    let out = out.strip_prefix(b"in front").expect("rewrite appends");

    let mut expected = before.clone();
    let hop = header_of_mut(&mut expected).expect("the view has one");
    hop.ttl = ttl;
    (hop.recv_from, hop.forward_to, hop.incoming_conn) = (None, None, None);
    match mac {
        MacOut::Keep => {}
        MacOut::Remove => hop.header_mac = None,
        MacOut::Set(mac) => hop.header_mac = Some(mac.to_vec()),
    }
    assert_eq!(pb::Message::decode(out).expect("rewritten messages decode"), expected);
    assert_eq!(untouched(octets), untouched(out), "octets beside the rewritten fields");
    let rewritten = parse(out).expect("rewritten messages parse");
    if (1..0x80).contains(&ttl) && matches!(mac, MacOut::Set(_)) {
        assert!(rewritten.header().and_then(Header::patch).is_some(), "the next hop can patch");
    }

    if let Some(ttl_at) = header.ttl_at() {
        let mut expected = before.clone();
        header_of_mut(&mut expected).expect("the view has one").ttl = ttl % 0x80;
        let mut out = octets.to_vec();
        out[ttl_at as usize] = ttl.to_le_bytes()[0] & 0x7f;
        assert_eq!(pb::Message::decode(out.as_slice()).expect("patched messages decode"), expected);
    }
    let (Some(patch), MacOut::Set(tag)) = (header.patch(), mac) else { return };
    assert_eq!(Some(patch.ttl_at), header.ttl_at());
    let mut expected = before;
    let hop = header_of_mut(&mut expected).expect("the view has one");
    (hop.ttl, hop.header_mac) = (ttl % 0x80, Some(tag.to_vec()));
    let mut out = octets.to_vec();
    patch.apply(&mut out, ttl % 0x80, &tag);
    assert_eq!(pb::Message::decode(out.as_slice()).expect("patched messages decode"), expected);
}

/// Everything a rewrite may not touch, flattened: fields around the body, around the header, and of the header.
fn untouched(message: &[u8]) -> Vec<Vec<u8>> {
    let mut parts = Vec::new();
    for (key, octets, value) in walk_fields(message) {
        if !matches!(key, BODY_SUBSCRIBE | BODY_UNSUBSCRIBE | BODY_PUBLISH) {
            parts.push(octets.to_vec());
            continue;
        }
        for (key, octets, value) in walk_fields(value) {
            if key != HEADER {
                parts.push(octets.to_vec());
                continue;
            }
            let hop = [6, 7, 8, 9, 11];
            let kept = walk_fields(value).into_iter().filter(|(key, ..)| !hop.contains(&(key >> 3)));
            parts.extend(kept.map(|(_, octets, _)| octets.to_vec()));
        }
    }
    parts
}

const BODY_SUBSCRIBE: u32 = key(fields::message::SUBSCRIBE, wire_type::LENGTH);
const BODY_UNSUBSCRIBE: u32 = key(fields::message::UNSUBSCRIBE, wire_type::LENGTH);
const BODY_PUBLISH: u32 = key(fields::message::PUBLISH, wire_type::LENGTH);
const HEADER: u32 = key(fields::body::HEADER, wire_type::LENGTH);

/// Key, all octets, and the octets behind the length of each field.
fn walk_fields(message: &[u8]) -> Vec<(u32, &[u8], &[u8])> {
    let mut found = Vec::new();
    let mut walk = Walk::new(message, "test");
    while !walk.is_done() {
        let from = message.len() - walk.left();
        let key = walk.key().expect("parsed before");
        let mut inside = walk;
        let value = if key & 7 == wire_type::LENGTH { inside.octets().expect("parsed before") } else { &[] };
        walk.skip(key, 0).expect("parsed before");
        found.push((key, &message[from..message.len() - walk.left()], value));
    }
    found
}

/// The pre-image agrees with one made from prost's structs, and a tag verifies: through `mac`, whatever it went
/// through before, as through a fresh one. Returns pre-image and tag for an HMAC oracle.
pub fn signs_what_prost_reads(
    octets: &[u8],
    link_id: &str,
    mac: &mut HeaderMac,
) -> Option<(Vec<u8>, [u8; MAC_OCTETS])> {
    let view = parse(octets).ok()?;
    let header = view.header()?;
    let message = pb::Message::decode(octets).expect("what we accept prost accepts");
    let theirs = header_of(&message).expect("the view has one");
    for (hop, ttl) in [(HopFields::Cleared, header.ttl.wrapping_sub(1)), (HopFields::AsReceived, header.ttl)] {
        let mut ours = Vec::new();
        preimage(link_id, header, ttl, hop, &mut ours);
        let mut theirs = theirs.clone();
        theirs.ttl = ttl;
        if hop == HopFields::Cleared {
            (theirs.recv_from, theirs.forward_to) = (None, None);
        }
        assert_eq!(ours, preimage_by_struct(link_id, &theirs));
    }
    let tag = mac.tag(header, header.ttl, HopFields::AsReceived);
    let mut signed = *header;
    let mut verifies = |tag| {
        signed.header_mac = tag;
        mac.verify(&signed)
    };
    let mut wrong = tag;
    wrong[usize::from(tag[0] % 32)] ^= 1 << (tag[1] % 8);
    assert!(verifies(Some(&tag)), "what was signed verifies");
    assert!(!verifies(Some(&wrong)), "one bit off");
    assert!(!verifies(Some(&tag[..31])), "one octet short");
    assert!(!verifies(None), "no tag");
    let mut expected = Vec::new();
    preimage(link_id, header, header.ttl, HopFields::AsReceived, &mut expected);
    Some((expected, tag))
}

/// The pre-image by the letter of slim-wire §4.4, from whole structs.
fn preimage_by_struct(link_id: &str, header: &pb::SlimHeader) -> Vec<u8> {
    fn text(text: &str) -> Vec<u8> {
        [&u32::try_from(text.len()).expect("short").to_le_bytes(), text.as_bytes()].concat()
    }
    fn option<T>(value: Option<&T>, inside: impl Fn(&T) -> Vec<u8>) -> Vec<u8> {
        value.map_or_else(|| vec![0], |value| [vec![1], inside(value)].concat())
    }
    fn long(value: &u64) -> Vec<u8> {
        value.to_le_bytes().to_vec()
    }
    fn name(name: &pb::Name) -> Vec<u8> {
        let encoded = option(name.name.as_ref(), |name| {
            let id = option(name.name_id.as_ref(), |id| [long(&id.id_0), long(&id.id_1)].concat());
            [long(&name.component_0), long(&name.component_1), long(&name.component_2), id].concat()
        });
        let strings = option(name.str_name.as_ref(), |name| {
            [text(&name.str_component_0), text(&name.str_component_1), text(&name.str_component_2)].concat()
        });
        [encoded, strings].concat()
    }
    [
        b"SLIM-DP-HDR-v1\0".to_vec(),
        text(link_id),
        option(header.source.as_ref(), name),
        option(header.destination.as_ref(), name),
        text(&header.identity),
        header.fanout.to_le_bytes().to_vec(),
        option(header.recv_from.as_ref(), long),
        option(header.forward_to.as_ref(), long),
        option(header.error.as_ref(), |error| vec![u8::from(*error)]),
        header.ttl.to_le_bytes().to_vec(),
    ]
    .concat()
}
