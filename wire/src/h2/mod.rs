//! HTTP/2 without sockets, split by direction: [`Recv`] turns bytes into events, [`Send`] turns intentions into bytes.
//!
//! The two halves share nothing, so a shard may read one event while it writes the answer. What one half learns and the
//! other must know travels through the caller: `Event::Settings` goes to [`Send::settings`], `Event::WindowUpdate` to
//! [`Send::window_update`], a stream that ended to `close` of both, and [`Send::take_data_sent`] to [`Recv::data_sent`].
//!
//! Source: RFC 9113 (HTTP/2), RFC 7541 (HPACK).

mod check;
mod code;
mod fields;
mod flood;
mod flow;
mod frame;
mod head;
pub mod hpack;
mod limits;
mod recv;
mod send;
mod settings;
mod streams;

pub use check::HEADER_LIST_TOO_LONG;
pub use code::{Code, TransportError};
pub use fields::{FieldList, Fields};
pub use head::{Head, Kind, StreamId, flag};
pub use limits::{Limits, Role};
pub use recv::{Event, Recv};
pub use send::{Send, WindowError};
pub use settings::Settings;

/// What a client says before its first frame. Source: RFC 9113 §3.4.
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Every window starts here until SETTINGS or WINDOW_UPDATE say otherwise. Source: RFC 9113 §6.9.2.
pub const WINDOW_AT_START: u32 = 65_535;

/// The largest window there can be. Source: RFC 9113 §6.9.1.
pub const WINDOW_MAX: u32 = (1 << 31) - 1;

/// The frame payload every endpoint accepts, and the least SETTINGS_MAX_FRAME_SIZE. Source: RFC 9113 §4.2.
pub const FRAME_OCTETS_MIN: u32 = 16_384;

/// The most SETTINGS_MAX_FRAME_SIZE may say. Source: RFC 9113 §6.5.2.
pub const FRAME_OCTETS_MAX: u32 = (1 << 24) - 1;
