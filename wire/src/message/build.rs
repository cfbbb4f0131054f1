//! Builders: messages written into the caller's buffer, fields in ascending order, defaults left out.
//!
//! A sender that has to sign builds with a MAC of zeros, parses what it built and patches the tag in
//! ([`crate::link::sign`]).

use super::fields::{ack, body, header, link, message, name};
use super::view::LinkNegotiation;
use super::{MAC_OCTETS, NameView};
use crate::name::{Name, NameId, Prefix};
use crate::proto::{
    octets_always_len, octets_len, put_head, put_octets, put_octets_always, put_u64, put_u64_always, u64_always_len,
    u64_len,
};

/// A name to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameParts<'a> {
    /// Hashes and id; the id is always written.
    pub name: Name,
    /// The three components. SDKs always send them, and upstream nodes need them in a Subscribe.
    pub text: Option<[&'a str; 3]>,
}

impl<'a> NameParts<'a> {
    /// Hashes `text`.
    #[must_use]
    pub fn of(text: [&'a str; 3], id: NameId) -> Self {
        Self { name: Name { prefix: Prefix::of(text[0], text[1], text[2]), id }, text: Some(text) }
    }
}

impl<'a> From<NameView<'a>> for NameParts<'a> {
    fn from(view: NameView<'a>) -> Self {
        Self { name: view.name, text: view.text }
    }
}

/// A header to be written; the fields are [`super::Header`]'s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderParts<'a> {
    /// Who sends.
    pub source: NameParts<'a>,
    /// For whom.
    pub destination: NameParts<'a>,
    /// The sender's token.
    pub identity: &'a str,
    /// 1 picks one receiver, any other number takes all.
    pub fanout: u32,
    /// The sender's SLIM version.
    pub version: &'a str,
    /// Hops.
    pub ttl: u32,
    /// SDKs send it, nobody reads it; with it and a MAC every hop can patch in place.
    pub incoming_conn: Option<u64>,
    /// Set by endpoints.
    pub error: Option<bool>,
    /// The tag for the next hop.
    pub header_mac: Option<[u8; MAC_OCTETS]>,
    /// End to end.
    pub e2e_header_sig: Option<&'a [u8]>,
}

/// A session header to be written, enums as their numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// `SessionType`.
    pub session_type: i32,
    /// `SessionMessageType`.
    pub session_message_type: i32,
    /// Which conversation of the two ends.
    pub session_id: u32,
    /// Which message of it.
    pub message_id: u32,
}

/// What a publish carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// No content at all.
    Absent,
    /// An application's octets.
    App {
        /// Their type, as the application names it.
        payload_type: &'a str,
        /// The octets.
        blob: &'a [u8],
    },
    /// A `Content` already encoded.
    Encoded(&'a [u8]),
}

/// A publish to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishParts<'a> {
    /// From whom, to whom.
    pub header: HeaderParts<'a>,
    /// Which conversation.
    pub session: Session,
    /// What it carries.
    pub content: Content<'a>,
    /// Entries, written in this order.
    pub metadata: &'a [(&'a str, &'a str)],
}

/// Appends a SubscriptionAck.
pub fn build_ack(subscription_id: u64, success: bool, error: &str, out: &mut Vec<u8>) {
    let length = u64_len(ack::SUBSCRIPTION_ID, subscription_id)
        + u64_len(ack::SUCCESS, success.into())
        + octets_len(ack::ERROR, error.len());
    put_head(message::SUBSCRIPTION_ACK, length, out);
    put_u64(ack::SUBSCRIPTION_ID, subscription_id, out);
    put_u64(ack::SUCCESS, success.into(), out);
    put_octets(ack::ERROR, error.as_bytes(), out);
}

/// Appends a Link with its negotiation.
pub fn build_link(negotiation: &LinkNegotiation<'_>, out: &mut Vec<u8>) {
    let connection_type = u64::from(negotiation.connection_type.to_wire());
    let length = octets_len(link::LINK_ID, negotiation.link_id.len())
        + octets_len(link::SLIM_VERSION, negotiation.slim_version.len())
        + u64_len(link::IS_REPLY, negotiation.is_reply.into())
        + octets_len(link::ECDH_PUBLIC_KEY, negotiation.ecdh_public_key.len())
        + u64_len(link::CONNECTION_TYPE, connection_type)
        + octets_len(link::NODE_ID, negotiation.node_id.len())
        + octets_len(link::DEPLOYMENT_NAME, negotiation.deployment_name.len())
        + negotiation.kem_payload.map_or(0, |payload| octets_always_len(link::KEM_PAYLOAD, payload.len()));
    put_head(message::LINK, octets_always_len(link::NEGOTIATION, length), out);
    put_head(link::NEGOTIATION, length, out);
    put_octets(link::LINK_ID, negotiation.link_id.as_bytes(), out);
    put_octets(link::SLIM_VERSION, negotiation.slim_version.as_bytes(), out);
    put_u64(link::IS_REPLY, negotiation.is_reply.into(), out);
    put_octets(link::ECDH_PUBLIC_KEY, negotiation.ecdh_public_key, out);
    put_u64(link::CONNECTION_TYPE, connection_type, out);
    put_octets(link::NODE_ID, negotiation.node_id.as_bytes(), out);
    put_octets(link::DEPLOYMENT_NAME, negotiation.deployment_name.as_bytes(), out);
    if let Some(payload) = negotiation.kem_payload {
        put_octets_always(link::KEM_PAYLOAD, payload, out);
    }
}

/// Appends a Subscribe.
pub fn build_subscribe(header: &HeaderParts<'_>, subscription_id: u64, out: &mut Vec<u8>) {
    build_subscription(message::SUBSCRIBE, header, subscription_id, out);
}

/// Appends an Unsubscribe.
pub fn build_unsubscribe(header: &HeaderParts<'_>, subscription_id: u64, out: &mut Vec<u8>) {
    build_subscription(message::UNSUBSCRIBE, header, subscription_id, out);
}

fn build_subscription(kind: u32, header: &HeaderParts<'_>, subscription_id: u64, out: &mut Vec<u8>) {
    let header_length = header_len(header);
    let length = octets_always_len(body::HEADER, header_length) + u64_len(body::SUBSCRIPTION_ID, subscription_id);
    put_head(kind, length, out);
    put_head(body::HEADER, header_length, out);
    put_header(header, out);
    put_u64(body::SUBSCRIPTION_ID, subscription_id, out);
}

/// Appends a Publish.
pub fn build_publish(parts: &PublishParts<'_>, out: &mut Vec<u8>) {
    let header_length = header_len(&parts.header);
    let session_length = session_len(&parts.session);
    let content_length = content_len(&parts.content);
    let length = octets_always_len(body::HEADER, header_length)
        + octets_always_len(body::SESSION, session_length)
        + content_length.map_or(0, |length| octets_always_len(body::CONTENT, length));
    put_head(message::PUBLISH, length, out);
    put_head(body::HEADER, header_length, out);
    put_header(&parts.header, out);
    put_head(body::SESSION, session_length, out);
    put_session(&parts.session, out);
    if let Some(length) = content_length {
        put_head(body::CONTENT, length, out);
        put_content(&parts.content, out);
    }
    for (key, value) in parts.metadata {
        put_head(message::METADATA, octets_len(1, key.len()) + octets_len(2, value.len()), out);
        put_octets(1, key.as_bytes(), out);
        put_octets(2, value.as_bytes(), out);
    }
}

fn header_len(parts: &HeaderParts<'_>) -> usize {
    octets_always_len(header::SOURCE, name_len(&parts.source))
        + octets_always_len(header::DESTINATION, name_len(&parts.destination))
        + octets_len(header::IDENTITY, parts.identity.len())
        + u64_len(header::FANOUT, parts.fanout.into())
        + octets_len(header::VERSION, parts.version.len())
        + u64_len(header::TTL, parts.ttl.into())
        + parts.incoming_conn.map_or(0, |conn| u64_always_len(header::INCOMING_CONN, conn))
        + parts.error.map_or(0, |error| u64_always_len(header::ERROR, error.into()))
        + parts.header_mac.map_or(0, |mac| octets_always_len(header::HEADER_MAC, mac.len()))
        + parts.e2e_header_sig.map_or(0, |sig| octets_always_len(header::E2E_HEADER_SIG, sig.len()))
}

fn put_header(parts: &HeaderParts<'_>, out: &mut Vec<u8>) {
    put_head(header::SOURCE, name_len(&parts.source), out);
    put_name(&parts.source, out);
    put_head(header::DESTINATION, name_len(&parts.destination), out);
    put_name(&parts.destination, out);
    put_octets(header::IDENTITY, parts.identity.as_bytes(), out);
    put_u64(header::FANOUT, parts.fanout.into(), out);
    put_octets(header::VERSION, parts.version.as_bytes(), out);
    put_u64(header::TTL, parts.ttl.into(), out);
    if let Some(conn) = parts.incoming_conn {
        put_u64_always(header::INCOMING_CONN, conn, out);
    }
    if let Some(error) = parts.error {
        put_u64_always(header::ERROR, error.into(), out);
    }
    if let Some(mac) = &parts.header_mac {
        put_octets_always(header::HEADER_MAC, mac, out);
    }
    if let Some(sig) = parts.e2e_header_sig {
        put_octets_always(header::E2E_HEADER_SIG, sig, out);
    }
}

fn name_len(parts: &NameParts<'_>) -> usize {
    octets_always_len(name::ENCODED, encoded_name_len(&parts.name))
        + parts.text.map_or(0, |text| octets_always_len(name::TEXT, string_name_len(&text)))
}

fn put_name(parts: &NameParts<'_>, out: &mut Vec<u8>) {
    put_head(name::ENCODED, encoded_name_len(&parts.name), out);
    for (number, component) in (1..).zip(parts.name.prefix.0) {
        put_u64(number, component, out);
    }
    let [high, low] = parts.name.id.halves();
    put_head(name::ID, name_id_len(parts.name.id), out);
    put_u64(name::ID_HIGH, high, out);
    put_u64(name::ID_LOW, low, out);
    if let Some(text) = parts.text {
        put_head(name::TEXT, string_name_len(&text), out);
        for (number, component) in (1..).zip(text) {
            put_octets(number, component.as_bytes(), out);
        }
    }
}

fn encoded_name_len(name: &Name) -> usize {
    let components: usize = (1..).zip(name.prefix.0).map(|(number, component)| u64_len(number, component)).sum();
    components + octets_always_len(name::ID, name_id_len(name.id))
}

fn name_id_len(id: NameId) -> usize {
    let [high, low] = id.halves();
    u64_len(name::ID_HIGH, high) + u64_len(name::ID_LOW, low)
}

fn string_name_len(text: &[&str; 3]) -> usize {
    (1..).zip(text).map(|(number, component)| octets_len(number, component.len())).sum()
}

fn session_len(session: &Session) -> usize {
    session_fields(session).map(|(number, value)| u64_len(number, value)).iter().sum()
}

fn put_session(session: &Session, out: &mut Vec<u8>) {
    for (number, value) in session_fields(session) {
        put_u64(number, value, out);
    }
}

/// Negative enum numbers travel as 64-bit two's complement.
fn session_fields(session: &Session) -> [(u32, u64); 4] {
    [
        (1, i64::from(session.session_type).cast_unsigned()),
        (2, i64::from(session.session_message_type).cast_unsigned()),
        (3, session.session_id.into()),
        (4, session.message_id.into()),
    ]
}

fn content_len(content: &Content<'_>) -> Option<usize> {
    match content {
        Content::Absent => None,
        Content::App { payload_type, blob } => Some(octets_always_len(1, app_len(payload_type, blob))),
        Content::Encoded(octets) => Some(octets.len()),
    }
}

fn put_content(content: &Content<'_>, out: &mut Vec<u8>) {
    match content {
        Content::Absent => {}
        Content::App { payload_type, blob } => {
            put_head(1, app_len(payload_type, blob), out);
            put_octets(1, payload_type.as_bytes(), out);
            put_octets(2, blob, out);
        }
        Content::Encoded(octets) => out.extend_from_slice(octets),
    }
}

fn app_len(payload_type: &str, blob: &[u8]) -> usize {
    octets_len(1, payload_type.len()) + octets_len(2, blob.len())
}
