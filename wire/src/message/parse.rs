//! From octets to a view, in one pass.

use super::check::check;
use super::fields::{self, length, varint};
use super::view::{Ack, Header, LinkNegotiation, MessageView, NameView, Place, Publish, Subscription};
use super::{HEADER_OCTETS_MAX, IDENTITY_OCTETS_MAX, LINK_STRING_OCTETS_MAX, MAC_OCTETS, NAME_COMPONENT_OCTETS_MAX};
use crate::error::WireError;
use crate::name::{ConnType, Name, NameId, Prefix};
use crate::proto::{Walk, varint_of};

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
            unknown(&mut walk, key, fields::message::SUBSCRIPTION_ACK, "Message", 0)?;
        }
    }
    let Some(body) = body else { return Err(WireError::NoType) };
    match body.key {
        PUBLISH => publish(&body),
        SUBSCRIBE => subscription(&body, "Subscribe").map(MessageView::Subscribe),
        UNSUBSCRIBE => subscription(&body, "Unsubscribe").map(MessageView::Unsubscribe),
        LINK => link(body.octets).map(MessageView::Link),
        _ => ack(body.octets).map(MessageView::SubscriptionAck),
    }
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

fn publish<'a>(body: &Body<'a>) -> Result<MessageView<'a>, WireError> {
    const WITHIN: &str = "Publish";
    let mut publish = Publish::EMPTY;
    let mut seen = Seen::new(WITHIN);
    let mut walk = Walk::new(body.octets, WITHIN);
    while !walk.is_done() {
        let key = walk.key()?;
        match key {
            HEADER => {
                seen.once(fields::body::HEADER)?;
                header(body, &mut walk, &mut publish.header)?;
            }
            SESSION => {
                seen.once(fields::body::SESSION)?;
                session(walk.octets()?, &mut publish)?;
            }
            CONTENT => {
                seen.once(fields::body::CONTENT)?;
                let content = walk.octets()?;
                check(content, &fields::CONTENT, 2)?;
                publish.content = Some(content);
            }
            _ => unknown(&mut walk, key, fields::body::CONTENT, WITHIN, 1)?,
        }
    }
    if !seen.has(fields::body::HEADER) {
        return Err(WireError::NoHeader { within: WITHIN });
    }
    if !seen.has(fields::body::SESSION) {
        return Err(WireError::NoSession);
    }
    Ok(MessageView::Publish(publish))
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
            unknown(&mut walk, key, 4, WITHIN, 2)?;
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
                header(body, &mut walk, &mut subscription.header)?;
            }
            SUBSCRIPTION_ID => {
                seen.once(fields::body::SUBSCRIPTION_ID)?;
                subscription.subscription_id = walk.varint()?;
            }
            _ => unknown(&mut walk, key, fields::body::SUBSCRIPTION_ID, within, 1)?,
        }
    }
    if !seen.has(fields::body::HEADER) {
        return Err(WireError::NoHeader { within });
    }
    Ok(subscription)
}

/// Takes the header off the front of the walk through `body`, which stands behind the header's key.
fn header<'a>(body: &Body<'a>, walk: &mut Walk<'a>, header: &mut Header<'a>) -> Result<(), WireError> {
    const WITHIN: &str = "SLIMHeader";
    let length_at = body.end - walk.left();
    let octets = walk.octets()?;
    let end = body.end - walk.left();
    if octets.len() > HEADER_OCTETS_MAX {
        return Err(WireError::HeaderTooLong { length: octets.len(), limit: HEADER_OCTETS_MAX });
    }
    let mut seen = Seen::new(WITHIN);
    let (mut ttl_at, mut mac_at) = (0, 0); // 0: no place to patch
    let mut walk = Walk::new(octets, WITHIN);
    while !walk.is_done() {
        let key = walk.key()?;
        match key {
            SOURCE => {
                seen.once(fields::header::SOURCE)?;
                name(walk.octets()?, WireError::NoSource, &mut header.source)?;
            }
            DESTINATION => {
                seen.once(fields::header::DESTINATION)?;
                name(walk.octets()?, WireError::NoDestination, &mut header.destination)?;
            }
            IDENTITY => {
                seen.once(fields::header::IDENTITY)?;
                header.identity = walk.string(fields::header::IDENTITY)?;
                if header.identity.len() > IDENTITY_OCTETS_MAX {
                    let length = header.identity.len();
                    return Err(WireError::IdentityTooLong { length, limit: IDENTITY_OCTETS_MAX });
                }
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
            _ => unknown(&mut walk, key, fields::header::LAST, WITHIN, 2)?,
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

/// Reads a `Name`; `missing` is what its absence is called.
fn name<'a>(octets: &'a [u8], missing: WireError, name: &mut NameView<'a>) -> Result<(), WireError> {
    const WITHIN: &str = "Name";
    name.encoded = octets;
    if usual_name(octets, name).is_some() {
        return Ok(());
    }
    let mut seen = Seen::new(WITHIN);
    let mut walk = Walk::new(octets, WITHIN);
    while !walk.is_done() {
        let key = walk.key()?;
        match key {
            ENCODED => {
                seen.once(fields::name::ENCODED)?;
                encoded_name(walk.octets()?, name)?;
            }
            TEXT => {
                seen.once(fields::name::TEXT)?;
                name.text = Some(string_name(walk.octets()?)?);
            }
            _ => unknown(&mut walk, key, fields::name::TEXT, WITHIN, 3)?,
        }
    }
    if seen.has(fields::name::ENCODED) { Ok(()) } else { Err(missing) }
}

/// Reads a name laid out as every known encoder does: all fields there, in ascending order, one-octet lengths.
///
/// `None` leaves it to the general road, which may find nothing wrong with it.
#[inline]
fn usual_name<'a>(octets: &'a [u8], name: &mut NameView<'a>) -> Option<()> {
    let mut walk = Usual(octets);
    let mut encoded = walk.nested(ENCODED)?;
    let prefix = Prefix([encoded.hash(COMPONENT_0)?, encoded.hash(COMPONENT_1)?, encoded.hash(COMPONENT_2)?]);
    let mut id = encoded.nested(ID)?;
    let halves = [id.hash(ID_HIGH)?, id.hash(ID_LOW)?];
    let mut text = walk.nested(TEXT)?;
    let components = [text.component(1)?, text.component(2)?, text.component(3)?];
    let is_all = walk.0.is_empty() && encoded.0.is_empty() && id.0.is_empty() && text.0.is_empty();
    is_all.then(|| {
        name.name = Name { prefix, id: NameId::from_halves(halves) };
        name.has_id = true;
        name.text = Some(components);
    })
}

/// A walk that knows what comes next, or gives up.
struct Usual<'a>(&'a [u8]);

impl<'a> Usual<'a> {
    #[inline(always)]
    fn nested(&mut self, key: u32) -> Option<Self> {
        let (&[first, length], rest) = self.0.split_first_chunk()?;
        let (inside, rest) = rest.split_at_checked(length.into())?;
        self.0 = rest;
        (u32::from(first) == key && length < 0x80).then_some(Self(inside))
    }

    #[inline(always)]
    fn hash(&mut self, key: u32) -> Option<u64> {
        let (&first, rest) = self.0.split_first()?;
        let (value, octets) = varint_of(rest);
        self.0 = rest.get(octets..)?;
        (u32::from(first) == key && octets > 0).then_some(value)
    }

    #[inline(always)]
    fn component(&mut self, number: u32) -> Option<&'a str> {
        let octets = self.nested(length(number))?.0;
        std::str::from_utf8(octets).ok()
    }
}

const ENCODED: u32 = length(fields::name::ENCODED);
const TEXT: u32 = length(fields::name::TEXT);
const ID: u32 = length(fields::name::ID);

fn encoded_name(octets: &[u8], name: &mut NameView<'_>) -> Result<(), WireError> {
    const WITHIN: &str = "EncodedName";
    let mut seen = Seen::new(WITHIN);
    let mut walk = Walk::new(octets, WITHIN);
    while !walk.is_done() {
        let key = walk.key()?;
        match key {
            COMPONENT_0 => {
                seen.once(1)?;
                name.name.prefix.0[0] = walk.varint()?;
            }
            COMPONENT_1 => {
                seen.once(2)?;
                name.name.prefix.0[1] = walk.varint()?;
            }
            COMPONENT_2 => {
                seen.once(3)?;
                name.name.prefix.0[2] = walk.varint()?;
            }
            ID => {
                seen.once(fields::name::ID)?;
                name.has_id = true;
                name.name.id = name_id(walk.octets()?)?;
            }
            _ => unknown(&mut walk, key, fields::name::ID, WITHIN, 4)?,
        }
    }
    Ok(())
}

const COMPONENT_0: u32 = varint(1);
const COMPONENT_1: u32 = varint(2);
const COMPONENT_2: u32 = varint(3);

fn name_id(octets: &[u8]) -> Result<NameId, WireError> {
    const WITHIN: &str = "NameId";
    let (mut high, mut low) = (0, 0);
    let mut seen = Seen::new(WITHIN);
    let mut walk = Walk::new(octets, WITHIN);
    while !walk.is_done() {
        let key = walk.key()?;
        match key {
            ID_HIGH => {
                seen.once(fields::name::ID_HIGH)?;
                high = walk.varint()?;
            }
            ID_LOW => {
                seen.once(fields::name::ID_LOW)?;
                low = walk.varint()?;
            }
            _ => unknown(&mut walk, key, fields::name::ID_LOW, WITHIN, 5)?,
        }
    }
    Ok(NameId::from_halves([high, low]))
}

const ID_HIGH: u32 = varint(fields::name::ID_HIGH);
const ID_LOW: u32 = varint(fields::name::ID_LOW);

fn string_name(octets: &[u8]) -> Result<[&str; 3], WireError> {
    const WITHIN: &str = "StringName";
    let mut text = [""; 3];
    let mut seen = Seen::new(WITHIN);
    let mut walk = Walk::new(octets, WITHIN);
    while !walk.is_done() {
        let key = walk.key()?;
        let number = key >> 3;
        if key & 7 != crate::proto::wire_type::LENGTH || number > 3 {
            unknown(&mut walk, key, 3, WITHIN, 4)?;
            continue;
        }
        seen.once(number)?;
        let component = walk.string(number)?;
        if component.len() > NAME_COMPONENT_OCTETS_MAX {
            let length = component.len();
            return Err(WireError::NameComponentTooLong { length, limit: NAME_COMPONENT_OCTETS_MAX });
        }
        text[number as usize - 1] = component;
    }
    Ok(text)
}

fn link(octets: &[u8]) -> Result<LinkNegotiation<'_>, WireError> {
    const WITHIN: &str = "Link";
    let mut negotiation = None;
    let mut walk = Walk::new(octets, WITHIN);
    while !walk.is_done() {
        let key = walk.key()?;
        if key == length(fields::link::NEGOTIATION) {
            if negotiation.is_some() {
                return Err(WireError::SecondChoice { within: WITHIN, field: fields::link::NEGOTIATION });
            }
            negotiation = Some(link_negotiation(walk.octets()?)?);
        } else {
            unknown(&mut walk, key, fields::link::NEGOTIATION, WITHIN, 1)?;
        }
    }
    negotiation.ok_or(WireError::NoNegotiation)
}

fn link_negotiation(octets: &[u8]) -> Result<LinkNegotiation<'_>, WireError> {
    use fields::link as number;
    const WITHIN: &str = "LinkNegotiationPayload";
    let mut link = LinkNegotiation {
        link_id: "",
        slim_version: "",
        is_reply: false,
        ecdh_public_key: &[],
        connection_type: ConnType::Remote,
        node_id: "",
        deployment_name: "",
        kem_payload: None,
    };
    let mut seen = Seen::new(WITHIN);
    let mut walk = Walk::new(octets, WITHIN);
    while !walk.is_done() {
        let key = walk.key()?;
        let field = key >> 3;
        let is_varint = matches!(field, number::IS_REPLY | number::CONNECTION_TYPE);
        if field > number::LAST || key != if is_varint { varint(field) } else { length(field) } {
            unknown(&mut walk, key, number::LAST, WITHIN, 2)?;
            continue;
        }
        seen.once(field)?;
        match field {
            number::LINK_ID => link.link_id = link_string(&mut walk, field)?,
            number::SLIM_VERSION => link.slim_version = link_string(&mut walk, field)?,
            number::IS_REPLY => link.is_reply = walk.varint()? != 0,
            number::ECDH_PUBLIC_KEY => link.ecdh_public_key = walk.octets()?,
            number::CONNECTION_TYPE => link.connection_type = ConnType::from_wire(walk.varint_u32()?),
            number::NODE_ID => link.node_id = link_string(&mut walk, field)?,
            number::DEPLOYMENT_NAME => link.deployment_name = link_string(&mut walk, field)?,
            _ => link.kem_payload = Some(walk.octets()?),
        }
    }
    Ok(link)
}

fn link_string<'a>(walk: &mut Walk<'a>, field: u32) -> Result<&'a str, WireError> {
    let string = walk.string(field)?;
    if string.len() > LINK_STRING_OCTETS_MAX {
        return Err(WireError::LinkStringTooLong { field, length: string.len(), limit: LINK_STRING_OCTETS_MAX });
    }
    Ok(string)
}

fn ack(octets: &[u8]) -> Result<Ack<'_>, WireError> {
    const WITHIN: &str = "SubscriptionAck";
    let mut ack = Ack { subscription_id: 0, success: false, error: "" };
    let mut seen = Seen::new(WITHIN);
    let mut walk = Walk::new(octets, WITHIN);
    while !walk.is_done() {
        let key = walk.key()?;
        match key {
            ACK_ID => {
                seen.once(fields::ack::SUBSCRIPTION_ID)?;
                ack.subscription_id = walk.varint()?;
            }
            ACK_SUCCESS => {
                seen.once(fields::ack::SUCCESS)?;
                ack.success = walk.varint()? != 0;
            }
            ACK_ERROR => {
                seen.once(fields::ack::ERROR)?;
                ack.error = walk.string(fields::ack::ERROR)?;
            }
            _ => unknown(&mut walk, key, fields::ack::ERROR, WITHIN, 1)?,
        }
    }
    Ok(ack)
}

const ACK_ID: u32 = varint(fields::ack::SUBSCRIPTION_ID);
const ACK_SUCCESS: u32 = varint(fields::ack::SUCCESS);
const ACK_ERROR: u32 = length(fields::ack::ERROR);

/// Steps over a field no arm knew: one above `last` is unknown, any other has the wrong wire type.
#[cold]
fn unknown(walk: &mut Walk<'_>, key: u32, last: u32, within: &'static str, depth: u32) -> Result<(), WireError> {
    let field = key >> 3;
    if field <= last {
        return Err(WireError::WrongWireType { within, field });
    }
    walk.skip(key, depth)
}

/// Which fields were there already.
struct Seen {
    bits: u32,
    within: &'static str,
}

impl Seen {
    #[inline(always)]
    fn new(within: &'static str) -> Self {
        Self { bits: 0, within }
    }

    #[inline(always)]
    fn once(&mut self, field: u32) -> Result<(), WireError> {
        let bit = 1 << field;
        if self.bits & bit != 0 {
            return Err(WireError::Repeated { within: self.within, field });
        }
        self.bits |= bit;
        Ok(())
    }

    #[inline(always)]
    fn has(&self, field: u32) -> bool {
        self.bits & 1 << field != 0
    }
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
    const EMPTY: Self = Self {
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

impl NameView<'_> {
    const EMPTY: Self =
        Self { name: Name { prefix: Prefix([0; 3]), id: NameId::ANY }, has_id: false, text: None, encoded: &[] };
}
