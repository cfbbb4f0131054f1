//! How far a sitting is, and how long it will still take.

use std::time::Instant;

/// Counts measurements and the time they were thought to take.
pub(crate) struct Progress {
    count: u32,
    total: u32,
    done_s: f64,
    total_s: f64,
    started: Instant,
}

/// Until so much has been done, the estimate is taken as it is.
const TRUSTED_S: f64 = 20.0;

impl Progress {
    pub(crate) fn new(total: u32, total_s: f64) -> Self {
        Self { count: 0, total, done_s: 0.0, total_s, started: Instant::now() }
    }

    /// One measurement more, that was thought to take so long.
    pub(crate) fn done(&mut self, seconds: f64) {
        self.count += 1;
        self.done_s += seconds;
    }

    /// `[12/400, 9:35 left]`.
    pub(crate) fn line(&self) -> String {
        let left = left(self.done_s, self.total_s, self.started.elapsed().as_secs_f64());
        format!("[{}/{}, {} left]", self.count, self.total, clock(left))
    }
}

/// Seconds that are left when `done_s` of the estimated `total_s` took `elapsed`.
fn left(done_s: f64, total_s: f64, elapsed: f64) -> f64 {
    let pace = if done_s > TRUSTED_S { elapsed / done_s } else { 1.0 };
    (total_s - done_s).max(0.0) * pace
}

/// Minutes and seconds.
pub(crate) fn clock(seconds: f64) -> String {
    format!("{}:{:02}", (seconds / 60.0).floor(), (seconds % 60.0).floor())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_follows_the_pace() {
        assert_eq!(clock(left(0.0, 605.0, 0.0)), "10:05");
        assert_eq!(clock(left(100.0, 400.0, 200.0)), "10:00", "twice as slow as thought");
        assert_eq!(clock(left(500.0, 400.0, 400.0)), "0:00");
    }
}
