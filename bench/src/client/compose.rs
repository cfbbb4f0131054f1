//! SLIM messages as the generator writes and reads them: composed field by field, read by a walk of its own, so
//! that the instrument does not lean on the message code it measures.
//!
//! Source: slim-wire §2.1 (numbers), §9.2 and §9.4 (what an SDK sends, sizes).

use slimline_wire::name::Name;

/// What goes into a SLIM header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeaderParts<'a> {
    pub(crate) source: (&'a Name, &'a [String; 3]),
    pub(crate) destination: (&'a Name, &'a [String; 3]),
    pub(crate) identity: &'a [u8],
    pub(crate) fanout: u32,
}

/// The version our headers carry, as long as a released one.
const VERSION: &[u8] = b"0.1.0";
/// What SDKs start with.
const TTL: u64 = 8;

pub(crate) fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint_octets(value: u64) -> usize {
    (70 - (value | 1).leading_zeros() as usize) / 7
}

fn put_number(field: u32, value: u64, out: &mut Vec<u8>) {
    put_varint(u64::from(field) << 3, out);
    put_varint(value, out);
}

fn put_head(field: u32, octets: usize, out: &mut Vec<u8>) {
    put_varint(u64::from(field) << 3 | 2, out);
    put_varint(octets as u64, out);
}

pub(crate) fn put_octets(field: u32, octets: &[u8], out: &mut Vec<u8>) {
    put_head(field, octets.len(), out);
    out.extend_from_slice(octets);
}

fn put_name(field: u32, (name, text): (&Name, &[String; 3]), out: &mut Vec<u8>) {
    let (mut id, mut encoded, mut strings) = (Vec::new(), Vec::new(), Vec::new());
    put_number(1, (name.id.0 >> 64) as u64, &mut id);
    put_number(2, name.id.0 as u64, &mut id);
    for (field, component) in (1..).zip(name.prefix.0) {
        put_number(field, component, &mut encoded);
    }
    put_octets(4, &id, &mut encoded);
    for (field, text) in (1..).zip(text) {
        put_octets(field, text.as_bytes(), &mut strings);
    }
    let mut whole = Vec::new();
    put_octets(1, &encoded, &mut whole);
    put_octets(2, &strings, &mut whole);
    put_octets(field, &whole, out);
}

/// Tag and length before the MAC, which is the last field of [`header`].
pub(crate) const MAC_HEAD_OCTETS: usize = 2;

/// Appends the octets of a SLIMHeader whose MAC is 32 zeros; returns where the MAC stands.
pub(crate) fn header(parts: &HeaderParts<'_>, out: &mut Vec<u8>) -> usize {
    put_name(1, parts.source, out);
    put_name(2, parts.destination, out);
    put_octets(3, parts.identity, out);
    put_number(4, u64::from(parts.fanout), out);
    put_octets(5, VERSION, out);
    put_number(6, TTL, out);
    put_number(9, 1, out); // incoming_conn, as SDKs leave it
    put_head(11, 32, out);
    let mac_at = out.len();
    out.extend_from_slice(&[0; 32]);
    mac_at
}

/// Octets between the identity token and the MAC of [`header`].
pub(crate) fn after_identity(fanout: u32) -> usize {
    (1 + varint_octets(fanout.into())) + (1 + 1 + VERSION.len()) + (1 + varint_octets(TTL)) + (1 + 1) + (1 + 1)
}

/// Appends a Subscribe with `header`; returns where the header starts.
pub(crate) fn subscribe(header: &[u8], subscription_id: u64, out: &mut Vec<u8>) -> usize {
    let body = 1 + varint_octets(header.len() as u64) + header.len() + 1 + varint_octets(subscription_id);
    put_head(1, body, out);
    put_head(1, header.len(), out);
    let at = out.len();
    out.extend_from_slice(header);
    put_number(2, subscription_id, out);
    at
}

/// What stands between header and payload of a publish.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Envelope {
    pub(crate) session_id: u32,
    pub(crate) message_id: u32,
    /// Point to point (1) or multicast (2).
    pub(crate) session_type: u8,
}

/// The kind of content SDKs name for plain messages.
const PAYLOAD_TYPE: &[u8] = b"msg";

/// The lengths of one publish, from the inside out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lengths {
    application: usize,
    content: usize,
    session: usize,
    body: usize,
    /// The whole message.
    pub(crate) message: usize,
}

impl Lengths {
    /// Reckons them.
    pub(crate) fn of(header: usize, envelope: Envelope, payload: usize) -> Self {
        let field = |octets: usize| 1 + varint_octets(octets as u64) + octets;
        let application = field(PAYLOAD_TYPE.len()) + field(payload);
        let content = field(application);
        let session =
            2 + 2 + 1 + varint_octets(envelope.session_id.into()) + 1 + varint_octets(envelope.message_id.into());
        let body = field(header) + field(session) + field(content);
        Self { application, content, session, body, message: field(body) }
    }
}

/// Appends a publish up to, and without, its payload.
pub(crate) fn publish_head(header: &[u8], envelope: Envelope, payload: usize, lengths: &Lengths, out: &mut Vec<u8>) {
    put_head(3, lengths.body, out);
    put_head(1, header.len(), out);
    out.extend_from_slice(header);
    put_head(2, lengths.session, out);
    out.extend_from_slice(&[0x08, envelope.session_type, 0x10, 1]);
    put_number(3, envelope.session_id.into(), out);
    put_number(4, envelope.message_id.into(), out);
    put_head(3, lengths.content, out);
    put_head(1, lengths.application, out);
    put_octets(1, PAYLOAD_TYPE, out);
    put_head(2, payload, out);
}

/// A field of a message, as far as the walk needs it.
enum Value<'a> {
    Number(u64),
    Octets(&'a [u8]),
    Fixed,
}

#[inline]
fn get_varint(input: &mut &[u8]) -> Option<u64> {
    // Most tags and lengths are one octet.
    match *input {
        [octet, rest @ ..] if *octet < 0x80 => {
            *input = rest;
            Some(u64::from(*octet))
        }
        _ => get_long_varint(input),
    }
}

fn get_long_varint(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let (&octet, rest) = input.split_first()?;
        *input = rest;
        value |= u64::from(octet & 0x7f).checked_shl(shift).unwrap_or(0);
        if octet < 0x80 {
            return Some(value);
        }
    }
    None
}

#[inline]
fn get_field<'a>(input: &mut &'a [u8]) -> Option<(u64, Value<'a>)> {
    let tag = get_varint(input)?;
    let mut skip = |octets: usize| -> Option<&'a [u8]> {
        let (head, rest) = input.split_at_checked(octets)?;
        *input = rest;
        Some(head)
    };
    let value = match tag & 7 {
        0 => Value::Number(get_varint(input)?),
        1 => skip(8).map(|_| Value::Fixed)?,
        5 => skip(4).map(|_| Value::Fixed)?,
        2 => {
            let octets = usize::try_from(get_varint(input)?).ok()?;
            let (head, rest) = input.split_at_checked(octets)?;
            *input = rest;
            Value::Octets(head)
        }
        _ => return None,
    };
    Some((tag >> 3, value))
}

/// The last length-delimited field `wanted`; `None` if absent or the octets do not parse up to it.
fn find(mut input: &[u8], wanted: u64) -> Option<&[u8]> {
    while !input.is_empty() {
        if let (field, Value::Octets(octets)) = get_field(&mut input)?
            && field == wanted
        {
            return Some(octets);
        }
    }
    None
}

/// What a node sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming<'a> {
    /// A publish and its payload.
    Publish { payload: &'a [u8] },
    /// The answer to a (un)subscribe.
    Ack { subscription_id: u64, success: bool, error: &'a [u8] },
    /// Link negotiation.
    Link,
    /// Something else that parses.
    Other,
}

/// Reads one message as far as the generator cares.
pub(crate) fn read(message: &[u8]) -> Option<Incoming<'_>> {
    let mut rest = message;
    while !rest.is_empty() {
        match get_field(&mut rest)? {
            (3, Value::Octets(publish)) => {
                let application = find(find(publish, 3)?, 1)?;
                return Some(Incoming::Publish { payload: find(application, 2)? });
            }
            (5, Value::Octets(_)) => return Some(Incoming::Link),
            (6, Value::Octets(mut ack)) => {
                let (mut subscription_id, mut success, mut error) = (0, false, &[][..]);
                while !ack.is_empty() {
                    match get_field(&mut ack)? {
                        (1, Value::Number(id)) => subscription_id = id,
                        (2, Value::Number(flag)) => success = flag != 0,
                        (3, Value::Octets(text)) => error = text,
                        _ => {}
                    }
                }
                return Some(Incoming::Ack { subscription_id, success, error });
            }
            _ => {}
        }
    }
    Some(Incoming::Other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Names;
    use slimline_wire::name::NameId;

    fn sample_header() -> Vec<u8> {
        let names = Names { run: 5 };
        let (source, destination) = (names.name(1, NameId(7 << 64 | 9)), names.name(2, NameId::ANY));
        let (source_text, destination_text) = (names.text(1), names.text(2));
        let identity = [b'i'; 229];
        let parts = HeaderParts {
            source: (&source, &source_text),
            destination: (&destination, &destination_text),
            identity: &identity,
            fanout: 1,
        };
        let mut out = Vec::new();
        let mac_at = header(&parts, &mut out);
        assert_eq!(mac_at + 32, out.len());
        out
    }

    #[test]
    fn lengths_are_what_is_written() {
        let header = sample_header();
        for payload in [40, 64, 127, 128, 16_383, 16_384, 2_097_152] {
            for message_id in [0, 127, 128, u32::MAX] {
                let envelope = Envelope { session_id: 77, message_id, session_type: 1 };
                let lengths = Lengths::of(header.len(), envelope, payload);
                let mut out = Vec::new();
                publish_head(&header, envelope, payload, &lengths, &mut out);
                out.resize(out.len() + payload, 0x55);
                assert_eq!(out.len(), lengths.message);
                assert_eq!(read(&out), Some(Incoming::Publish { payload: &vec![0x55; payload] }));
            }
        }
    }

    /// The header is as long as an SDK's: 430 octets with the same text lengths would be exact; ours has longer names.
    #[test]
    fn headers_have_a_realistic_size() {
        assert!((420..520).contains(&sample_header().len()), "{}", sample_header().len());
    }

    #[test]
    fn acks_read_back_and_cuts_do_not_panic() {
        let ack = [0x32, 0x07, 0x08, 0xc2, 0x3b, 0x1a, 0x02, b'n', b'o'];
        assert_eq!(read(&ack), Some(Incoming::Ack { subscription_id: 7618, success: false, error: b"no" }));
        for length in 1..ack.len() {
            let _ = read(&ack[..length]);
        }
    }

    #[test]
    fn composed_messages_decode_as_the_schema_says() {
        use prost::Message as _;
        use slimline_wire::pb;
        let header = sample_header();
        let mut out = Vec::new();
        subscribe(&header, 99, &mut out);
        let message = pb::Message::decode(out.as_slice()).unwrap();
        assert!(
            matches!(message.message_type, Some(pb::message::MessageType::Subscribe(s)) if s.subscription_id == 99)
        );
        let envelope = Envelope { session_id: 77, message_id: 3, session_type: 1 };
        let mut out = Vec::new();
        publish_head(&header, envelope, 50, &Lengths::of(header.len(), envelope, 50), &mut out);
        out.resize(out.len() + 50, 1);
        let message = pb::Message::decode(out.as_slice()).unwrap();
        let Some(pb::message::MessageType::Publish(publish)) = message.message_type else { panic!("not a publish") };
        let header = publish.header.unwrap();
        assert_eq!((header.ttl, header.fanout, header.incoming_conn), (8, 1, Some(1)));
        assert_eq!(header.header_mac.unwrap().len(), 32);
        assert_eq!(publish.session.unwrap().message_id, 3);
    }
}
