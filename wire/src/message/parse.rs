//! From octets to a view, in one pass.

use super::check::{Seen, check, unknown};
use super::fields::{self, length, varint};
use super::known::KnownNames;
use super::parse_link::{ack, link};
use super::parse_name::name;
use super::view::{Header, MessageView, NameView, Place, Publish, Subscription};
use super::{Bounds, MAC_OCTETS};
use crate::error::WireError;
use crate::proto::Walk;

/// Reads one message.
///
/// Shape:  a protobuf `Message`, fields in any order; unknown fields are stepped over at every level.
/// Units:  octets; offsets inside the view count from the start of `message`.
/// Errors: all that prost would refuse, down to content and metadata; what slim-wire §5.2 asks for and is not there;
///         strings over their bounds; and a singular field or a oneof that is there twice, because parsers disagree on
///         which one counts and a node must not route by another one than the next hop reads.
/// Source: slim-wire §2, §5.2; the agreement with prost is a property (`tests/message_props.rs`).
///
/// # Panics
/// If `message` is longer than 4 GiB, which no framing can announce.
pub fn parse(message: &[u8]) -> Result<MessageView<'_>, WireError> {
    parse_within(message, &Bounds::DEFAULT)
}

/// As [`parse`], with other bounds.
pub fn parse_within<'a>(message: &'a [u8], bounds: &Bounds) -> Result<MessageView<'a>, WireError> {
    let mut view = MessageView::blank();
    read(message, None, &mut view)?;
    bounds.check(&view)?;
    Ok(view)
}

/// As [`parse_within`], of a message that most likely has the names of another one read with the same `known`, into a
/// `view` that stays where it is.
///
/// Shape:  what is known changes what reading costs, and never what is read (`tests/message_props.rs`); a view is some
///         400 octets, which would be copied several times on their way out of here.
/// Errors: as [`parse()`]; then `view` has no meaning.
pub fn parse_into<'a>(
    message: &'a [u8],
    bounds: &Bounds,
    known: &'a mut KnownNames,
    view: &mut MessageView<'a>,
) -> Result<(), WireError> {
    read(message, Some(known), view)?;
    bounds.check(view)
}

/// Reads only the header of a publish, into a `header` that stays where it is; for a message that was read before.
///
/// Shape:  as [`parse_into`] reads it; everything beside the header is stepped over, not checked again.
/// Errors: no publish, or none with a header; the rest as [`parse()`].
pub fn read_header_again<'a>(
    message: &'a [u8],
    known: &'a mut KnownNames,
    view: &mut Header<'a>,
) -> Result<(), WireError> {
    let mut walk = Walk::new(message, "Message");
    while !walk.is_done() {
        let key = walk.key()?;
        if key != PUBLISH {
            walk.skip(key, 0)?;
            continue;
        }
        let length_at = message.len() - walk.left();
        let octets = walk.octets()?;
        let body = Body { key, octets, length_at, end: message.len() - walk.left() };
        let mut walk = Walk::new(octets, "Publish");
        while !walk.is_done() {
            let key = walk.key()?;
            if key != HEADER {
                walk.skip(key, 1)?;
                continue;
            }
            let length_at = body.end - walk.left();
            let octets = walk.octets()?;
            let part = Part { octets, length_at, end: body.end - walk.left() };
            *view = Header::EMPTY;
            return header(&body, &part, view, Some(known));
        }
        return Err(WireError::NoHeader { within: "Publish" });
    }
    Err(WireError::NoType)
}

fn read<'a>(message: &'a [u8], known: Option<&'a mut KnownNames>, view: &mut MessageView<'a>) -> Result<(), WireError> {
    let mut walk = Walk::new(message, "Message");
    let mut body = None;
    while !walk.is_done() {
        let key = walk.key()?;
        if key == length(fields::message::METADATA) {
            check(walk.octets()?, &fields::METADATA_ENTRY, 1)?;
        } else if is_body(key) {
            if body.is_some() {
                return Err(WireError::SecondChoice { within: "Message", field: key >> 3 });
            }
            let length_at = message.len() - walk.left();
            let octets = walk.octets()?;
            body = Some(Body { key, octets, length_at, end: message.len() - walk.left() });
        } else {
            walk = unknown(walk, key, fields::message::SUBSCRIPTION_ACK, "Message", 0)?;
        }
    }
    let Some(body) = body else { return Err(WireError::NoType) };
    match body.key {
        PUBLISH => return publish(&body, known, view),
        SUBSCRIBE => *view = MessageView::Subscribe(subscription(&body, "Subscribe")?),
        UNSUBSCRIBE => *view = MessageView::Unsubscribe(subscription(&body, "Unsubscribe")?),
        LINK => *view = MessageView::Link(link(body.octets)?),
        _ => *view = MessageView::SubscriptionAck(ack(body.octets)?),
    }
    Ok(())
}

const SUBSCRIBE: u32 = length(fields::message::SUBSCRIBE);
const UNSUBSCRIBE: u32 = length(fields::message::UNSUBSCRIBE);
const PUBLISH: u32 = length(fields::message::PUBLISH);
const LINK: u32 = length(fields::message::LINK);
const SUBSCRIPTION_ACK: u32 = length(fields::message::SUBSCRIPTION_ACK);

fn is_body(key: u32) -> bool {
    matches!(key, SUBSCRIBE | UNSUBSCRIBE | PUBLISH | LINK | SUBSCRIPTION_ACK)
}

/// The member of the oneof: which, and where.
struct Body<'a> {
    key: u32,
    octets: &'a [u8],
    length_at: usize,
    end: usize,
}

fn publish<'a>(
    body: &Body<'a>,
    mut known: Option<&'a mut KnownNames>,
    view: &mut MessageView<'a>,
) -> Result<(), WireError> {
    const WITHIN: &str = "Publish";
    *view = MessageView::Publish(Publish::EMPTY);
    let MessageView::Publish(publish) = view else { unreachable!("just written") };
    let mut seen = Seen::new(WITHIN);
    let mut walk = Walk::new(body.octets, WITHIN);
    while !walk.is_done() {
        let key = walk.key()?;
        match key {
            HEADER => {
                seen.once(fields::body::HEADER)?;
                let length_at = body.end - walk.left();
                let octets = walk.octets()?;
                let part = Part { octets, length_at, end: body.end - walk.left() };
                header(body, &part, &mut publish.header, known.take())?;
            }
            SESSION => {
                seen.once(fields::body::SESSION)?;
                session(walk.octets()?, publish)?;
            }
            CONTENT => {
                seen.once(fields::body::CONTENT)?;
                let content = walk.octets()?;
                check(content, &fields::CONTENT, 2)?;
                publish.content = Some(content);
            }
            _ => walk = unknown(walk, key, fields::body::CONTENT, WITHIN, 1)?,
        }
    }
    if !seen.has(fields::body::HEADER) {
        return Err(WireError::NoHeader { within: WITHIN });
    }
    if !seen.has(fields::body::SESSION) {
        return Err(WireError::NoSession);
    }
    Ok(())
}

const HEADER: u32 = length(fields::body::HEADER);
const SESSION: u32 = length(fields::body::SESSION);
const CONTENT: u32 = length(fields::body::CONTENT);
const SUBSCRIPTION_ID: u32 = varint(fields::body::SUBSCRIPTION_ID);

fn session(octets: &[u8], publish: &mut Publish<'_>) -> Result<(), WireError> {
    const WITHIN: &str = "SessionHeader";
    let mut seen = Seen::new(WITHIN);
    let mut walk = Walk::new(octets, WITHIN);
    while !walk.is_done() {
        let key = walk.key()?;
        if !(varint(1)..=varint(4)).contains(&key) || key & 7 != 0 {
            walk = unknown(walk, key, 4, WITHIN, 2)?;
            continue;
        }
        seen.once(key >> 3)?;
        let value = walk.varint_u32()?;
        match key >> 3 {
            1 => publish.session_type = value.cast_signed(),
            2 => publish.session_message_type = value.cast_signed(),
            3 => publish.session_id = value,
            _ => publish.message_id = value,
        }
    }
    Ok(())
}

fn subscription<'a>(body: &Body<'a>, within: &'static str) -> Result<Subscription<'a>, WireError> {
    let mut subscription = Subscription::EMPTY;
    let mut seen = Seen::new(within);
    let mut walk = Walk::new(body.octets, within);
    while !walk.is_done() {
        let key = walk.key()?;
        match key {
            HEADER => {
                seen.once(fields::body::HEADER)?;
                let length_at = body.end - walk.left();
                let octets = walk.octets()?;
                let part = Part { octets, length_at, end: body.end - walk.left() };
                header(body, &part, &mut subscription.header, None)?;
            }
            SUBSCRIPTION_ID => {
                seen.once(fields::body::SUBSCRIPTION_ID)?;
                subscription.subscription_id = walk.varint()?;
            }
            _ => walk = unknown(walk, key, fields::body::SUBSCRIPTION_ID, within, 1)?,
        }
    }
    if !seen.has(fields::body::HEADER) {
        return Err(WireError::NoHeader { within });
    }
    Ok(subscription)
}

/// The header inside `body`, and where.
struct Part<'a> {
    octets: &'a [u8],
    length_at: usize,
    end: usize,
}

fn header<'a>(
    body: &Body<'a>,
    part: &Part<'a>,
    header: &mut Header<'a>,
    known: Option<&'a mut KnownNames>,
) -> Result<(), WireError> {
    const WITHIN: &str = "SLIMHeader";
    let Part { octets, length_at, end } = *part;
    let mut seen = Seen::new(WITHIN);
    let (mut ttl_at, mut mac_at) = (0, 0); // 0: no place to patch
    let (mut known_source, mut known_destination) = known.map(KnownNames::pair).unzip();
    let mut walk = Walk::new(octets, WITHIN);
    while !walk.is_done() {
        let key = walk.key()?;
        match key {
            SOURCE => {
                seen.once(fields::header::SOURCE)?;
                name(walk.octets()?, WireError::NoSource, known_source.take(), &mut header.source)?;
            }
            DESTINATION => {
                seen.once(fields::header::DESTINATION)?;
                name(walk.octets()?, WireError::NoDestination, known_destination.take(), &mut header.destination)?;
            }
            IDENTITY => {
                seen.once(fields::header::IDENTITY)?;
                header.identity = walk.string(fields::header::IDENTITY)?;
            }
            FANOUT => {
                seen.once(fields::header::FANOUT)?;
                header.fanout = walk.varint_u32()?;
            }
            VERSION => {
                seen.once(fields::header::VERSION)?;
                header.version = walk.string(fields::header::VERSION)?;
            }
            TTL => {
                seen.once(fields::header::TTL)?;
                let left = walk.left();
                header.ttl = walk.varint_u32()?;
                ttl_at = if left - walk.left() == 1 { end - left } else { 0 };
            }
            RECV_FROM => {
                seen.once(fields::header::RECV_FROM)?;
                header.recv_from = Some(walk.varint()?);
            }
            FORWARD_TO => {
                seen.once(fields::header::FORWARD_TO)?;
                header.forward_to = Some(walk.varint()?);
            }
            INCOMING_CONN => {
                seen.once(fields::header::INCOMING_CONN)?;
                header.incoming_conn = Some(walk.varint()?);
            }
            ERROR => {
                seen.once(fields::header::ERROR)?;
                header.error = Some(walk.varint()? != 0);
            }
            HEADER_MAC => {
                seen.once(fields::header::HEADER_MAC)?;
                let mac = walk.octets()?;
                header.header_mac = Some(mac);
                mac_at = if mac.len() == MAC_OCTETS { end - walk.left() - MAC_OCTETS } else { 0 };
            }
            E2E_HEADER_SIG => {
                seen.once(fields::header::E2E_HEADER_SIG)?;
                header.e2e_header_sig = Some(walk.octets()?);
            }
            _ => walk = unknown(walk, key, fields::header::LAST, WITHIN, 2)?,
        }
    }
    if !seen.has(fields::header::SOURCE) {
        return Err(WireError::NoSource);
    }
    if !seen.has(fields::header::DESTINATION) {
        return Err(WireError::NoDestination);
    }
    let stays = header.recv_from.is_none() && header.forward_to.is_none();
    header.place = Place {
        body_length_at: offset(body.length_at),
        body_at: offset(body.end - body.octets.len()),
        body_end: offset(body.end),
        length_at: offset(length_at),
        at: offset(end - octets.len()),
        end: offset(end),
        ttl_at: if stays { offset(ttl_at) } else { 0 },
        mac_at: offset(mac_at),
    };
    Ok(())
}

const SOURCE: u32 = length(fields::header::SOURCE);
const DESTINATION: u32 = length(fields::header::DESTINATION);
const IDENTITY: u32 = length(fields::header::IDENTITY);
const FANOUT: u32 = varint(fields::header::FANOUT);
const VERSION: u32 = length(fields::header::VERSION);
const TTL: u32 = varint(fields::header::TTL);
const RECV_FROM: u32 = varint(fields::header::RECV_FROM);
const FORWARD_TO: u32 = varint(fields::header::FORWARD_TO);
const INCOMING_CONN: u32 = varint(fields::header::INCOMING_CONN);
const ERROR: u32 = varint(fields::header::ERROR);
const HEADER_MAC: u32 = length(fields::header::HEADER_MAC);
const E2E_HEADER_SIG: u32 = length(fields::header::E2E_HEADER_SIG);

/// Offsets fit: gRPC announces a message's length in 32 bits.
fn offset(at: usize) -> u32 {
    u32::try_from(at).expect("a message is shorter than 4 GiB")
}

// What the fields that are not there read as.

impl Publish<'_> {
    const EMPTY: Self = Self {
        header: Header::EMPTY,
        session_type: 0,
        session_message_type: 0,
        session_id: 0,
        message_id: 0,
        content: None,
    };
}

impl Subscription<'_> {
    const EMPTY: Self = Self { header: Header::EMPTY, subscription_id: 0 };
}

impl Header<'_> {
    /// What the header reads as that is not there.
    pub const EMPTY: Self = Self {
        source: NameView::EMPTY,
        destination: NameView::EMPTY,
        identity: "",
        fanout: 0,
        version: "",
        ttl: 0,
        recv_from: None,
        forward_to: None,
        incoming_conn: None,
        error: None,
        header_mac: None,
        e2e_header_sig: None,
        place: Place { body_length_at: 0, body_at: 0, body_end: 0, length_at: 0, at: 0, end: 0, ttl_at: 0, mac_at: 0 },
    };
}
