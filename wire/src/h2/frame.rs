//! Payloads of the frames that carry more than their fields: padding, priority, fixed shapes.

use super::{Code, Head, Kind, StreamId, TransportError, flag};

/// Takes the padding off a HEADERS payload that is whole.
///
/// Errors: PROTOCOL_ERROR when the padding is longer than what is left. Source: RFC 9113 §6.2, §6.1.
pub(super) fn unpad(head: Head, payload: &[u8]) -> Result<&[u8], TransportError> {
    if !head.has(flag::PADDED) {
        return Ok(payload);
    }
    let (&padding, rest) =
        payload.split_first().ok_or(TransportError::frame_size("PADDED frame without its length"))?;
    let content = rest.len().checked_sub(usize::from(padding)).ok_or(PADDING_TOO_LONG)?;
    Ok(&rest[..content])
}

/// Source: RFC 9113 §6.1.
pub(super) const PADDING_TOO_LONG: TransportError = TransportError::protocol("padding as long as its frame");

/// The stream a priority field says its stream depends on, and what follows the field.
///
/// Source: RFC 9113 §6.3: exclusive bit, dependency u31, weight u8. All but the dependency is ignored.
pub(super) fn priority(payload: &[u8]) -> Option<(StreamId, &[u8])> {
    let (&[d0, d1, d2, d3, _weight], rest) = payload.split_first_chunk()?;
    Some((StreamId::from_wire([d0, d1, d2, d3]), rest))
}

/// Four octets, when that is all there is.
pub(super) fn word(payload: &[u8]) -> Option<u32> {
    payload.try_into().ok().map(u32::from_be_bytes)
}

/// Appends a whole frame.
pub(super) fn write(kind: Kind, flags: u8, stream: StreamId, payload: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(payload.len()).expect("callers keep payloads within a frame");
    out.extend_from_slice(&Head { length, kind, flags, stream }.to_wire());
    out.extend_from_slice(payload);
}

/// Appends a GOAWAY.
pub(super) fn write_goaway(last: StreamId, code: Code, debug: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(debug.len()).expect("debug text is short") + 8;
    out.extend_from_slice(&Head { length, kind: Kind::GOAWAY, flags: 0, stream: StreamId::TRANSPORT }.to_wire());
    out.extend_from_slice(&last.get().to_be_bytes());
    out.extend_from_slice(&code.0.to_be_bytes());
    out.extend_from_slice(debug);
}
