//! Builders write what prost would write, and what was put in is read back.

use proptest::prelude::*;
use prost::Message as _;
use slimline_wire::message::{
    Content, HeaderParts, LinkNegotiation, MessageView, NameParts, PublishParts, Session, build_ack, build_link,
    build_publish, build_subscribe, build_unsubscribe, parse,
};
use slimline_wire::testing::message::assert_same;
use slimline_wire::{ConnType, Name, NameId, Prefix, pb};

#[derive(Clone, Debug)]
struct Made {
    names: [(Name, Option<[String; 3]>); 2],
    texts: [String; 2],
    numbers: [u32; 2],
    incoming_conn: Option<u64>,
    error: Option<bool>,
    mac: Option<[u8; 32]>,
    sig: Option<Vec<u8>>,
}

impl Made {
    fn header(&self) -> HeaderParts<'_> {
        let [source, destination] = self.names.each_ref().map(|(name, text)| NameParts {
            name: *name,
            text: text.as_ref().map(|text| text.each_ref().map(String::as_str)),
        });
        HeaderParts {
            source,
            destination,
            identity: &self.texts[0],
            fanout: self.numbers[0],
            version: &self.texts[1],
            ttl: self.numbers[1],
            incoming_conn: self.incoming_conn,
            error: self.error,
            header_mac: self.mac,
            e2e_header_sig: self.sig.as_deref(),
        }
    }
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 0..300_u64, any::<u64>()]
}

fn name() -> impl Strategy<Value = (Name, Option<[String; 3]>)> {
    ([number(), number(), number()], [number(), number()], prop::option::of([".{0,9}", ".{0,9}", ".{0,9}"]))
        .prop_map(|(prefix, id, text)| (Name { prefix: Prefix(prefix), id: NameId::from_halves(id) }, text))
}

fn header() -> impl Strategy<Value = Made> {
    (
        [name(), name()],
        [".{0,300}", ".{0,9}"],
        [prop_oneof![0..3_u32, any::<u32>()], prop_oneof![0..9_u32, any::<u32>()]],
        (prop::option::of(number()), prop::option::of(any::<bool>())),
        (prop::option::of(any::<[u8; 32]>()), prop::option::of(prop::collection::vec(any::<u8>(), 0..80))),
    )
        .prop_map(|(names, texts, numbers, (incoming_conn, error), (mac, sig))| Made {
            names,
            texts,
            numbers,
            incoming_conn,
            error,
            mac,
            sig,
        })
}

/// What was built is what prost would have built from the same values; returns prost's.
fn check(built: &[u8]) -> pb::Message {
    let message = pb::Message::decode(built).unwrap();
    assert_eq!(message.encode_to_vec(), built);
    assert_same(&parse(built).unwrap(), &message);
    message
}

fn check_header(view: &MessageView<'_>, parts: &HeaderParts<'_>) {
    let header = view.header().unwrap();
    for (view, parts) in [(header.source, parts.source), (header.destination, parts.destination)] {
        assert_eq!(NameParts::from(view), parts);
        assert!(view.has_id);
    }
    assert_eq!([header.identity, header.version], [parts.identity, parts.version]);
    assert_eq!([header.fanout, header.ttl], [parts.fanout, parts.ttl]);
    assert_eq!((header.incoming_conn, header.error), (parts.incoming_conn, parts.error));
    assert_eq!(header.header_mac, parts.header_mac.as_ref().map(|mac| mac.as_slice()));
    assert_eq!(header.e2e_header_sig, parts.e2e_header_sig);
    assert_eq!(header.patch().is_some(), parts.header_mac.is_some() && (1..0x80).contains(&parts.ttl));
}

proptest! {
    #[test]
    fn subscriptions(made in header(), id in number()) {
        for build in [build_subscribe, build_unsubscribe] {
            let mut built = Vec::new();
            build(&made.header(), id, &mut built);
            check(&built);
            check_header(&parse(&built).unwrap(), &made.header());
        }
    }

    #[test]
    fn publishes(
        made in header(),
        (session_type, session_message_type, session_id, message_id) in
            (-1..4_i32, 0..40_i32, any::<u32>(), any::<u32>()),
        (kind, payload_type, blob) in (0..3_u8, ".{0,9}", prop::collection::vec(any::<u8>(), 0..300)),
        metadata in prop::collection::btree_map(".{0,9}", ".{0,9}", 0..4),
    ) {
        let metadata: Vec<_> = metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let encoded = pb::Content { content_type: Some(pb::content::ContentType::CommandPayload(Default::default())) };
        let encoded = encoded.encode_to_vec();
        let content = match kind {
            0 => Content::Absent,
            1 => Content::App { payload_type: &payload_type, blob: &blob },
            _ => Content::Encoded(&encoded),
        };
        let session = Session { session_type, session_message_type, session_id, message_id };
        let parts = PublishParts { header: made.header(), session, content, metadata: &metadata };
        let mut built = Vec::new();
        build_publish(&parts, &mut built);
        let message = check(&built);
        assert_eq!(message.metadata.len(), metadata.len());
        let view = parse(&built).unwrap();
        check_header(&view, &parts.header);
        let MessageView::Publish(publish) = view else { panic!("{view:?}") };
        let read = [publish.session_type, publish.session_message_type];
        assert_eq!((read, publish.session_id, publish.message_id),
                   ([session_type, session_message_type], session_id, message_id));
        assert_eq!(publish.content.is_some(), kind != 0);
    }

    #[test]
    fn acks(id in number(), success: bool, error in ".{0,40}") {
        let mut built = Vec::new();
        build_ack(id, success, &error, &mut built);
        check(&built);
        let MessageView::SubscriptionAck(ack) = parse(&built).unwrap() else { panic!("not an ack") };
        assert_eq!((ack.subscription_id, ack.success, ack.error), (id, success, error.as_str()));
    }

    #[test]
    fn links(
        texts in [".{0,40}", ".{0,9}", ".{0,40}", ".{0,9}"], is_reply: bool,
        key in prop::collection::vec(any::<u8>(), 0..40),
        kind in prop::sample::select(vec![ConnType::Remote, ConnType::Peer, ConnType::Edge]),
        kem in prop::option::of(prop::collection::vec(any::<u8>(), 0..1200)),
    ) {
        let link = LinkNegotiation {
            link_id: &texts[0], slim_version: &texts[1], is_reply, ecdh_public_key: &key, connection_type: kind,
            node_id: &texts[2], deployment_name: &texts[3], kem_payload: kem.as_deref(),
        };
        let mut built = Vec::new();
        build_link(&link, &mut built);
        check(&built);
        assert_eq!(parse(&built).unwrap(), MessageView::Link(link));
    }
}
