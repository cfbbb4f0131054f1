//! What one transport may cost us.

use super::{FRAME_OCTETS_MAX, FRAME_OCTETS_MIN, WINDOW_MAX};

/// Which end of the transport we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We dialled: we say the preface and open streams.
    Client,
    /// We accepted: we expect the preface, and streams are opened to us.
    Server,
}

/// Bounds of one transport. The first six are also what our SETTINGS tell the peer.
///
/// Units: octets, frames, and frames per ten seconds. Source: RFC 9113 §6.5.2, §10.5; slim-wire §1.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Receive window of each stream, in octets.
    pub initial_window: u32,
    /// Receive window of the whole transport, in octets; never below 65535, where the protocol starts it.
    pub transport_window: u32,
    /// Largest frame payload we accept, 16384 to 2^24 - 1.
    pub max_frame_size: u32,
    /// Largest header list, each field counted as its octets plus 32.
    pub header_list_octets_max: u32,
    /// Streams the peer may have open at once.
    pub streams_max: u32,
    /// CONTINUATION frames of one header block.
    pub continuation_frames_max: u32,
    /// Frames of each control kind per ten seconds; what data traffic earns comes on top (see the `flood` module).
    pub control_frames_per_10s: u32,
    /// Streams per ten seconds that end in a reset: the peer's own, and those its mistakes make us send.
    pub resets_per_10s: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            initial_window: 1 << 20,
            transport_window: 1 << 20,
            max_frame_size: FRAME_OCTETS_MIN,
            header_list_octets_max: 16_384,
            streams_max: 100,
            continuation_frames_max: 8,
            control_frames_per_10s: 1000,
            resets_per_10s: 200,
        }
    }
}

impl Limits {
    /// The same limits with every number inside what the protocol can carry.
    pub(crate) fn in_range(&self) -> Self {
        Self {
            initial_window: self.initial_window.min(WINDOW_MAX),
            transport_window: self.transport_window.clamp(super::WINDOW_AT_START, WINDOW_MAX),
            max_frame_size: self.max_frame_size.clamp(FRAME_OCTETS_MIN, FRAME_OCTETS_MAX),
            ..self.clone()
        }
    }

    /// Encoded octets one header block may have, over all its frames: past this the transport ends, since a block
    /// that is not decoded leaves the compression state unknown.
    pub(crate) fn header_block_octets_max(&self) -> u32 {
        self.header_list_octets_max.saturating_mul(4).max(FRAME_OCTETS_MIN)
    }
}
