//! What comes out of the receive half.

use crate::h2::{Code, Fields, Settings, StreamId};

/// What the peer's bytes mean.
///
/// Shape: `'r` borrows from the receiver, `'i` from the input. `flow_octets` are what the peer's windows lost: they
/// are to be given back by [`Recv::credit_stream`](crate::h2::Recv::credit_stream) and [`Recv::credit_transport`](crate::h2::Recv::credit_transport).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'r, 'i> {
    /// The first header section of a message, checked as a request (server) or final response (client).
    Headers {
        /// New to a server; one of its own to a client.
        stream: StreamId,
        /// Pseudo-headers first.
        fields: Fields<'r>,
        /// Whether the message has neither data nor trailers.
        end_stream: bool,
    },
    /// The last header section; always ends the peer's half of the stream.
    Trailers {
        /// The stream that ends.
        stream: StreamId,
        /// No pseudo-headers.
        fields: Fields<'r>,
    },
    /// A piece of a DATA frame, as much of it as had arrived.
    Data {
        /// Whose it is.
        stream: StreamId,
        /// Data alone, without padding; may be empty.
        octets: &'i [u8],
        /// Octets that count against both windows, padding included.
        flow_octets: u32,
        /// Whether the peer's half of the stream ends after these octets.
        end_stream: bool,
    },
    /// The peer gave a stream up; it is gone from this half.
    Reset {
        /// The stream.
        stream: StreamId,
        /// Why, as the peer says.
        code: Code,
    },
    /// For [`Send::settings`], which answers it.
    ///
    /// [`Send::settings`]: crate::h2::Send::settings
    Settings(Settings),
    /// The peer applied our SETTINGS.
    SettingsAck,
    /// To be answered by [`Send::ping_ack`].
    ///
    /// [`Send::ping_ack`]: crate::h2::Send::ping_ack
    Ping([u8; 8]),
    /// The answer to our PING.
    Pong([u8; 8]),
    /// For [`Send::window_update`]; the increment is not zero. The stream may have ended.
    ///
    /// [`Send::window_update`]: crate::h2::Send::window_update
    WindowUpdate {
        /// A stream, or the transport.
        stream: StreamId,
        /// Octets more that we may send.
        increment: u32,
    },
    /// The peer will open no more streams, and looked at none of ours above `last`.
    GoAway {
        /// The last of our streams it may have acted on.
        last: StreamId,
        /// Why.
        code: Code,
    },
    /// A mistake of the peer that costs one stream: answer RST_STREAM. It is gone from this half.
    StreamError {
        /// The stream.
        stream: StreamId,
        /// What RST_STREAM says.
        code: Code,
        /// For the log.
        reason: &'static str,
    },
    /// DATA of a stream that has ended: only the transport window wants it back.
    IgnoredData {
        /// Octets for [`Recv::credit_transport`](crate::h2::Recv::credit_transport).
        flow_octets: u32,
    },
}
