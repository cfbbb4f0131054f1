//! SETTINGS: what each end tells the other about itself.

use super::{Code, FRAME_OCTETS_MAX, FRAME_OCTETS_MIN, Head, Kind, Limits, Role, StreamId, TransportError, WINDOW_MAX};

/// The settings one SETTINGS frame carried; `None` is "as before".
///
/// When a setting is repeated in one frame the last value stands. Source: RFC 9113 §6.5.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Dynamic table the peer's HPACK decoder keeps, in octets.
    pub header_table_size: Option<u32>,
    /// Whether the peer accepts pushed streams.
    pub enable_push: Option<bool>,
    /// Streams the peer lets us have open at once.
    pub streams_max: Option<u32>,
    /// Window in which new streams start at the peer; existing ones move by the difference.
    pub initial_window: Option<u32>,
    /// Largest frame payload the peer accepts.
    pub max_frame_size: Option<u32>,
    /// Header list the peer is willing to take; advice.
    pub header_list_octets_max: Option<u32>,
}

/// Octets of one setting on the wire.
const SETTING_OCTETS: usize = 6;

mod id {
    pub(super) const HEADER_TABLE_SIZE: u16 = 0x1;
    pub(super) const ENABLE_PUSH: u16 = 0x2;
    pub(super) const MAX_CONCURRENT_STREAMS: u16 = 0x3;
    pub(super) const INITIAL_WINDOW_SIZE: u16 = 0x4;
    pub(super) const MAX_FRAME_SIZE: u16 = 0x5;
    pub(super) const MAX_HEADER_LIST_SIZE: u16 = 0x6;
}

impl Settings {
    /// Reads a SETTINGS payload that `role` received.
    ///
    /// Shape:  any number of (identifier u16, value u32), big-endian.
    /// Errors: FRAME_SIZE_ERROR for a broken length, else the code §6.5.2 gives for the value.
    /// Source: RFC 9113 §6.5.1, §6.5.2; unknown identifiers are ignored.
    pub fn parse(payload: &[u8], role: Role) -> Result<Self, TransportError> {
        let (settings, []) = payload.as_chunks::<SETTING_OCTETS>() else {
            return Err(TransportError::frame_size("SETTINGS length is not a multiple of 6"));
        };
        let mut read = Self::default();
        for &[i0, i1, v0, v1, v2, v3] in settings {
            let value = u32::from_be_bytes([v0, v1, v2, v3]);
            match u16::from_be_bytes([i0, i1]) {
                id::HEADER_TABLE_SIZE => read.header_table_size = Some(value),
                id::ENABLE_PUSH => match (value, role) {
                    (0, _) => read.enable_push = Some(false),
                    (1, Role::Server) => read.enable_push = Some(true),
                    (1, Role::Client) => return Err(TransportError::protocol("a server cannot ask for ENABLE_PUSH")),
                    _ => return Err(TransportError::protocol("ENABLE_PUSH is neither 0 nor 1")),
                },
                id::MAX_CONCURRENT_STREAMS => read.streams_max = Some(value),
                id::INITIAL_WINDOW_SIZE if value > WINDOW_MAX => {
                    return Err(TransportError::new(Code::FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE above 2^31-1"));
                }
                id::INITIAL_WINDOW_SIZE => read.initial_window = Some(value),
                id::MAX_FRAME_SIZE if !(FRAME_OCTETS_MIN..=FRAME_OCTETS_MAX).contains(&value) => {
                    return Err(TransportError::protocol("MAX_FRAME_SIZE outside 16384..=16777215"));
                }
                id::MAX_FRAME_SIZE => read.max_frame_size = Some(value),
                id::MAX_HEADER_LIST_SIZE => read.header_list_octets_max = Some(value),
                _ => {}
            }
        }
        Ok(read)
    }

    /// What `limits` tell the peer of `role`. The HPACK table stays at the protocol's 4096 and is not mentioned.
    #[must_use]
    pub fn announcing(limits: &Limits, role: Role) -> Self {
        Self {
            header_table_size: None,
            enable_push: (role == Role::Client).then_some(false),
            streams_max: (role == Role::Server).then_some(limits.streams_max),
            initial_window: Some(limits.initial_window),
            max_frame_size: Some(limits.max_frame_size),
            header_list_octets_max: Some(limits.header_list_octets_max),
        }
    }

    /// Appends the SETTINGS frame that says this.
    pub fn write(&self, out: &mut Vec<u8>) {
        let pairs = [
            (id::HEADER_TABLE_SIZE, self.header_table_size),
            (id::ENABLE_PUSH, self.enable_push.map(u32::from)),
            (id::MAX_CONCURRENT_STREAMS, self.streams_max),
            (id::INITIAL_WINDOW_SIZE, self.initial_window),
            (id::MAX_FRAME_SIZE, self.max_frame_size),
            (id::MAX_HEADER_LIST_SIZE, self.header_list_octets_max),
        ];
        let said = || pairs.iter().filter_map(|&(id, value)| Some((id, value?)));
        let length = said().map(|_| 6).sum();
        out.extend_from_slice(&Head { length, kind: Kind::SETTINGS, flags: 0, stream: StreamId::TRANSPORT }.to_wire());
        for (id, value) in said() {
            out.extend_from_slice(&id.to_be_bytes());
            out.extend_from_slice(&value.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let told = Settings::announcing(&Limits::default(), Role::Server);
        let mut out = Vec::new();
        told.write(&mut out);
        let (head, payload) = Head::split(&out).unwrap();
        assert_eq!(head.length as usize, payload.len());
        assert_eq!(Settings::parse(payload, Role::Client), Ok(told));
    }

    #[test]
    fn values_are_checked() {
        let code = |octets: &[u8], role| Settings::parse(octets, role).map_err(|error| error.code);
        assert_eq!(code(&[0, 2, 0, 0, 0, 2], Role::Server), Err(Code::PROTOCOL_ERROR));
        assert_eq!(code(&[0, 2, 0, 0, 0, 1], Role::Client), Err(Code::PROTOCOL_ERROR));
        assert!(code(&[0, 2, 0, 0, 0, 1], Role::Server).is_ok());
        assert_eq!(code(&[0, 4, 0x80, 0, 0, 0], Role::Server), Err(Code::FLOW_CONTROL_ERROR));
        assert_eq!(code(&[0, 5, 0, 0, 0x3f, 0xff], Role::Server), Err(Code::PROTOCOL_ERROR));
        assert_eq!(code(&[0, 5, 1, 0, 0, 0], Role::Server), Err(Code::PROTOCOL_ERROR));
        assert_eq!(code(&[0, 5, 0], Role::Server), Err(Code::FRAME_SIZE_ERROR));
        assert_eq!(code(&[0xff, 0xff, 0, 0, 0, 1], Role::Server), Ok(Settings::default()));
    }
}
