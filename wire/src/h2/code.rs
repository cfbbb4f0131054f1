//! Error codes, and the error that ends a transport.

use core::fmt;

/// Why a stream or a transport ends, as RST_STREAM and GOAWAY say it.
///
/// Source: RFC 9113 §7. A number nobody assigned is kept as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Code(pub u32);

impl Code {
    /// Nothing went wrong.
    pub const NO_ERROR: Self = Self(0x0);
    /// The peer broke the protocol in a way no other code names.
    pub const PROTOCOL_ERROR: Self = Self(0x1);
    /// Our own fault.
    pub const INTERNAL_ERROR: Self = Self(0x2);
    /// More octets than the window allowed, or a window past its maximum.
    pub const FLOW_CONTROL_ERROR: Self = Self(0x3);
    /// SETTINGS were not acknowledged in time.
    pub const SETTINGS_TIMEOUT: Self = Self(0x4);
    /// A frame on a stream the peer had already ended.
    pub const STREAM_CLOSED: Self = Self(0x5);
    /// A frame longer than allowed, or of a length its kind cannot have.
    pub const FRAME_SIZE_ERROR: Self = Self(0x6);
    /// The stream was not processed; it is safe to try it again.
    pub const REFUSED_STREAM: Self = Self(0x7);
    /// The stream is no longer wanted.
    pub const CANCEL: Self = Self(0x8);
    /// The header compression state is lost.
    pub const COMPRESSION_ERROR: Self = Self(0x9);
    /// A CONNECT's TCP connection broke.
    pub const CONNECT_ERROR: Self = Self(0xa);
    /// The peer costs more than it should.
    pub const ENHANCE_YOUR_CALM: Self = Self(0xb);
    /// The transport's security does not meet the minimum.
    pub const INADEQUATE_SECURITY: Self = Self(0xc);
    /// The peer should use HTTP/1.1.
    pub const HTTP_1_1_REQUIRED: Self = Self(0xd);
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            0x0 => "NO_ERROR",
            0x1 => "PROTOCOL_ERROR",
            0x2 => "INTERNAL_ERROR",
            0x3 => "FLOW_CONTROL_ERROR",
            0x4 => "SETTINGS_TIMEOUT",
            0x5 => "STREAM_CLOSED",
            0x6 => "FRAME_SIZE_ERROR",
            0x7 => "REFUSED_STREAM",
            0x8 => "CANCEL",
            0x9 => "COMPRESSION_ERROR",
            0xa => "CONNECT_ERROR",
            0xb => "ENHANCE_YOUR_CALM",
            0xc => "INADEQUATE_SECURITY",
            0xd => "HTTP_1_1_REQUIRED",
            other => return write!(f, "error code {other:#x}"),
        })
    }
}

/// Ends the transport: GOAWAY with this code and debug text, then close.
///
/// `Copy` and free of allocation, because a hostile peer decides how often one is made. Source: RFC 9113 §5.4.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {reason}")]
pub struct TransportError {
    /// What GOAWAY says.
    pub code: Code,
    /// Its debug text: the rule that was broken, or the limit that was passed.
    pub reason: &'static str,
}

impl TransportError {
    pub(crate) const fn new(code: Code, reason: &'static str) -> Self {
        Self { code, reason }
    }

    pub(crate) const fn protocol(reason: &'static str) -> Self {
        Self::new(Code::PROTOCOL_ERROR, reason)
    }

    pub(crate) const fn frame_size(reason: &'static str) -> Self {
        Self::new(Code::FRAME_SIZE_ERROR, reason)
    }

    pub(crate) const fn calm(reason: &'static str) -> Self {
        Self::new(Code::ENHANCE_YOUR_CALM, reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transport_error_reads_as_code_and_reason() {
        assert_eq!(TransportError::protocol("HEADERS on stream 0").to_string(), "PROTOCOL_ERROR: HEADERS on stream 0");
        assert_eq!(Code(0x1f).to_string(), "error code 0x1f");
    }
}
