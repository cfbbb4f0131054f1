//! SLIM on a stream: a link and its key, what is subscribed and published on it.

use super::Client;
use slimline_wire::h2::StreamId;
use slimline_wire::link::{HeaderMac, HopFields, Initiator};
use slimline_wire::message::{
    Ack, Bounds, Content, Header, HeaderParts, LinkNegotiation, MacOut, MessageView, NameParts, PublishParts, Session,
    build_link, build_publish, build_subscribe, build_unsubscribe, parse, parse_within, rewrite,
};
use slimline_wire::{ConnType, NameId};

/// A negotiated link on one stream.
pub struct Link {
    pub stream: StreamId,
    pub link_id: String,
    pub mac: Option<HeaderMac>,
}

/// A request for a link with everything left open.
pub const LINK: LinkNegotiation<'static> = LinkNegotiation {
    link_id: "link",
    slim_version: "3.4.6",
    is_reply: false,
    ecdh_public_key: &[],
    connection_type: ConnType::Edge,
    node_id: "test-node",
    deployment_name: "",
    kem_payload: None,
};

impl Client {
    /// Opens a channel and negotiates a link on it.
    pub fn link(&mut self, kind: ConnType) -> Link {
        self.link_as(kind, &format!("link-{}-{:?}", self.next_stream, self.socket.local_addr().ok()), "test-node", "")
    }

    /// As [`Client::link`], saying who we are.
    pub fn link_as(&mut self, kind: ConnType, link_id: &str, node_id: &str, deployment: &str) -> Link {
        let initiator = Initiator::new(false).expect("random numbers");
        let request = LinkNegotiation {
            link_id,
            node_id,
            deployment_name: deployment,
            connection_type: kind,
            ecdh_public_key: initiator.public(),
            ..LINK
        };
        self.negotiate(&request, Some(&initiator))
    }

    /// A link with a post-quantum key.
    pub fn link_hybrid(&mut self, link_id: &str) -> Link {
        let initiator = Initiator::new(true).expect("random numbers");
        let request = LinkNegotiation {
            link_id,
            ecdh_public_key: initiator.public(),
            kem_payload: initiator.kem_public().map(|public| &public[..]),
            ..LINK
        };
        self.negotiate(&request, Some(&initiator))
    }

    /// A link without a key, which only a lax node takes.
    pub fn link_keyless(&mut self, kind: ConnType) -> Link {
        self.negotiate(&LinkNegotiation { link_id: "keyless", connection_type: kind, ..LINK }, None)
    }

    fn negotiate(&mut self, request: &LinkNegotiation<'_>, initiator: Option<&Initiator>) -> Link {
        let (stream, reply) = self.ask_for_link(request);
        let MessageView::Link(reply) = parse_within(&reply, &Bounds::NONE).expect("a readable reply") else {
            panic!("not a link reply")
        };
        assert!(reply.is_reply);
        assert_eq!(reply.link_id, request.link_id);
        assert_eq!(reply.connection_type, request.connection_type, "the kind is echoed");
        assert_eq!(reply.kem_payload.is_some(), request.kem_payload.is_some(), "hybrid if and only if asked for");
        assert_eq!(reply.ecdh_public_key.len(), if initiator.is_some() { 32 } else { 0 });
        let mac = initiator.map(|initiator| {
            let key = initiator.finish(request.link_id, &reply).expect("a key");
            HeaderMac::new(&key, request.link_id)
        });
        Link { stream, link_id: request.link_id.to_owned(), mac }
    }

    /// Opens a channel, asks for a link and gives the reply.
    pub fn ask_for_link(&mut self, request: &LinkNegotiation<'_>) -> (StreamId, Vec<u8>) {
        let stream = self.open_channel();
        let mut message = Vec::new();
        build_link(request, &mut message);
        self.message(stream, &message);
        (stream, self.expect_message(stream))
    }

    /// Subscribes and waits for the ack; the error text is empty on success.
    pub fn subscribe(&mut self, link: &mut Link, name: [&str; 3], id: NameId, subscription_id: u64) -> String {
        let message = link.subscribe_message(name, id, subscription_id, true);
        self.message(link.stream, &message);
        self.expect_ack(link.stream, subscription_id)
    }

    /// Unsubscribes and waits for the ack.
    pub fn unsubscribe(&mut self, link: &mut Link, name: [&str; 3], id: NameId, subscription_id: u64) -> String {
        let message = link.subscribe_message(name, id, subscription_id, false);
        self.message(link.stream, &message);
        self.expect_ack(link.stream, subscription_id)
    }

    fn expect_ack(&mut self, stream: StreamId, subscription_id: u64) -> String {
        let octets = self.expect_message(stream);
        let MessageView::SubscriptionAck(Ack { subscription_id: acked, success, error }) =
            parse(&octets).expect("a readable ack")
        else {
            panic!("not an ack: {octets:02x?}")
        };
        assert_eq!(acked, subscription_id);
        assert_eq!(success, error.is_empty());
        error.to_owned()
    }

    /// Publishes `payload`.
    pub fn publish(&mut self, link: &mut Link, to: [&str; 3], id: NameId, fanout: u32, payload: &[u8]) {
        let message = link.publish_message(to, id, fanout, payload);
        self.message(link.stream, &message);
    }
}

impl Link {
    /// A signed Subscribe or Unsubscribe of `name` for ourselves.
    pub fn subscribe_message(&mut self, name: [&str; 3], id: NameId, subscription_id: u64, subscribe: bool) -> Vec<u8> {
        let parts = header(name, id, name, id, 1);
        let mut message = Vec::new();
        if subscribe {
            build_subscribe(&parts, subscription_id, &mut message);
        } else {
            build_unsubscribe(&parts, subscription_id, &mut message);
        }
        self.sign(message)
    }

    /// A signed Publish.
    pub fn publish_message(&mut self, to: [&str; 3], id: NameId, fanout: u32, payload: &[u8]) -> Vec<u8> {
        let mut message = Vec::new();
        build_publish(
            &PublishParts {
                header: header(["org", "ns", "sender"], NameId(7), to, id, fanout),
                session: Session { session_type: 1, session_message_type: 1, session_id: 9, message_id: 1 },
                content: Content::App { payload_type: "msg", blob: payload },
                metadata: &[("key", "value")],
            },
            &mut message,
        );
        self.sign(message)
    }

    /// Puts this link's header MAC into a message, where it has a key.
    pub fn sign(&mut self, message: Vec<u8>) -> Vec<u8> {
        let Some(mac) = &mut self.mac else { return message };
        let view = parse_within(&message, &Bounds::NONE).expect("our own message");
        let header = view.header().expect("a message with a header");
        let tag = mac.tag(header, header.ttl, HopFields::AsReceived);
        let mut signed = Vec::new();
        rewrite(&message, header, header.ttl, MacOut::Set(tag), &mut signed);
        signed
    }

    /// Writes this link's tag over the placeholder in a message's header; every other octet stays as it is, hop fields
    /// and unusual encodings included.
    pub fn sign_in_place(&mut self, message: &mut [u8]) {
        let mac = self.mac.as_mut().expect("a key");
        let view = parse(message).expect("our own message");
        let header = view.header().expect("a message with a header");
        let place = header.header_mac.expect("a placeholder").as_ptr() as usize - message.as_ptr() as usize;
        let tag = mac.tag(header, header.ttl, HopFields::AsReceived);
        message[place..place + tag.len()].copy_from_slice(&tag);
    }

    pub fn check(&mut self, header: &Header<'_>) {
        if let Some(mac) = &mut self.mac {
            assert!(mac.verify(header), "the node signs what it forwards");
        }
    }
}

fn header<'a>(from: [&'a str; 3], from_id: NameId, to: [&'a str; 3], to_id: NameId, fanout: u32) -> HeaderParts<'a> {
    HeaderParts {
        source: NameParts::of(from, from_id),
        destination: NameParts::of(to, to_id),
        identity: "identity-token",
        fanout,
        version: "3.4.6",
        ttl: 8,
        incoming_conn: Some(1),
        error: None,
        header_mac: Some([0; 32]),
        e2e_header_sig: None,
    }
}

/// The application payload of a publish, found without our own parser.
pub fn payload_of(message: &[u8]) -> Vec<u8> {
    use prost::Message as _;
    let decoded = slimline_wire::pb::Message::decode(message).expect("prost reads it");
    let Some(slimline_wire::pb::message::MessageType::Publish(publish)) = decoded.message_type else {
        panic!("not a publish")
    };
    match publish.msg.and_then(|content| content.content_type) {
        Some(slimline_wire::pb::content::ContentType::AppPayload(payload)) => payload.blob,
        other => panic!("no application payload: {other:?}"),
    }
}
