//! Counters that tell a busy peer from a hostile one.
//!
//! Each kind of frame that costs us more than it costs the peer, and carries no message, may come
//! [`Limits::control_frames_per_10s`] times in ten seconds ([`Limits::resets_per_10s`] for streams that end in a reset).
//! The ten seconds are fixed intervals from the first frame on, so the sharpest burst ever let through is twice a limit.
//!
//! Two kinds are legitimate companions of data and are given more the more data moves:
//!
//! * **PING**: peers that estimate bandwidth ping once per round trip while DATA reaches them, on a short path
//!   thousands of times a second. Every DATA frame received, and every one sent ([`Recv::data_sent`]), earns one PING;
//!   what was earned is worth something in the same interval and in the next.
//! * **WINDOW_UPDATE**: answers DATA we sent, so it is judged where that is known, in [`Send::window_update`]: no
//!   clock, a purse that every DATA frame and stream we send fills.
//!
//! Peers' acknowledgements (of our PING, of our SETTINGS) count as their kind: we send few of either. Source: RFC 9113
//! §10.5; the flood classes of CVE-2019-9511 to 9518, CVE-2023-44487 (rapid reset) and CVE-2025-8671 (made-you-reset).
//!
//! [`Recv::data_sent`]: super::Recv::data_sent
//! [`Send::window_update`]: super::Send::window_update

use std::time::{Duration, Instant};

use super::{Limits, TransportError};

/// What is counted, each on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    /// SETTINGS and their acknowledgements.
    Settings,
    /// PING and its acknowledgements.
    Ping,
    /// PRIORITY.
    Priority,
    /// DATA without an octet of data that does not end its stream.
    EmptyData,
    /// Frames of kinds we do not know, and GOAWAY.
    Other,
    /// Frames for streams that have ended.
    Late,
    /// Streams refused for being too many, or after GOAWAY.
    Refused,
    /// Streams that ended in a reset, by the peer or by its mistake.
    Reset,
}

const KINDS: usize = Counted::Reset as usize + 1;

/// How long one interval lasts.
const INTERVAL: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub(crate) struct Flood {
    since: Option<Instant>,
    counts: [u32; KINDS],
    /// DATA frames, both directions, in this interval and in the one before.
    data: u32,
    data_before: u32,
    control_max: u32,
    resets_max: u32,
}

impl Flood {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            since: None,
            counts: [0; KINDS],
            data: 0,
            data_before: 0,
            control_max: limits.control_frames_per_10s,
            resets_max: limits.resets_per_10s,
        }
    }

    /// Counts one; an error when it was one too many.
    pub(crate) fn count(&mut self, now: Instant, what: Counted) -> Result<(), TransportError> {
        match self.since {
            Some(since) if now.saturating_duration_since(since) < INTERVAL => {}
            Some(since) => {
                let next_interval = now.saturating_duration_since(since) < 2 * INTERVAL;
                self.data_before = if next_interval { self.data } else { 0 };
                self.data = 0;
                self.counts = [0; KINDS];
                self.since = Some(now);
            }
            None => self.since = Some(now),
        }
        let allowed = match what {
            Counted::Ping => self.control_max.saturating_add(self.data).saturating_add(self.data_before),
            Counted::Reset => self.resets_max,
            _ => self.control_max,
        };
        let count = &mut self.counts[what as usize];
        *count = count.saturating_add(1);
        if *count <= allowed { Ok(()) } else { Err(TransportError::calm(what.reason())) }
    }

    /// `frames` DATA frames moved.
    #[inline]
    pub(crate) fn data(&mut self, frames: u32) {
        self.data = self.data.saturating_add(frames);
    }
}

impl Counted {
    /// The debug text of the GOAWAY: names the limit.
    fn reason(self) -> &'static str {
        match self {
            Self::Settings => "control_frames_per_10s: too many SETTINGS",
            Self::Ping => "control_frames_per_10s: too many PING",
            Self::Priority => "control_frames_per_10s: too many PRIORITY",
            Self::EmptyData => "control_frames_per_10s: too many empty DATA",
            Self::Other => "control_frames_per_10s: too many frames without use",
            Self::Late => "control_frames_per_10s: too many frames for ended streams",
            Self::Refused => "control_frames_per_10s: too many streams beyond streams_max",
            Self::Reset => "resets_per_10s: too many streams reset",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h2::Code;

    #[test]
    fn the_limit_is_per_kind_and_per_interval() {
        let limits = Limits { control_frames_per_10s: 3, ..Limits::default() };
        let (mut flood, start) = (Flood::new(&limits), Instant::now());
        for _ in 0..3 {
            flood.count(start, Counted::Settings).unwrap();
            flood.count(start, Counted::Priority).unwrap();
        }
        let error = flood.count(start + Duration::from_secs(9), Counted::Settings).unwrap_err();
        assert_eq!(error.code, Code::ENHANCE_YOUR_CALM);
        assert!(error.reason.contains("control_frames_per_10s"));
        flood.count(start + Duration::from_secs(10), Counted::Settings).unwrap();
    }

    #[test]
    fn data_earns_pings_for_this_interval_and_the_next() {
        let limits = Limits { control_frames_per_10s: 1, ..Limits::default() };
        let (mut flood, start) = (Flood::new(&limits), Instant::now());
        flood.count(start, Counted::Ping).unwrap();
        flood.data(2);
        flood.count(start, Counted::Ping).unwrap();
        flood.count(start, Counted::Ping).unwrap();
        assert!(flood.clone().count(start, Counted::Ping).is_err());
        let next = start + INTERVAL;
        for _ in 0..3 {
            flood.count(next, Counted::Ping).unwrap();
        }
        assert!(flood.clone().count(next, Counted::Ping).is_err());
        let after = next + INTERVAL;
        flood.count(after, Counted::Ping).unwrap();
        assert!(flood.count(after, Counted::Ping).is_err());
    }
}
