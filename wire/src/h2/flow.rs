//! Receive windows: what the peer may still send, and when to tell it that there is room again.

/// One receive window, of a stream or of the transport.
///
/// Credit accumulates until it is half the window, so that a busy stream costs two WINDOW_UPDATEs per window and not
/// one per frame. Source: RFC 9113 §5.2, §6.9.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecvWindow {
    /// What the peer may still send; below zero only between our smaller SETTINGS and their effect.
    open: i64,
    /// Released by the consumer, not yet told to the peer.
    unreturned: u32,
    /// What the window is when nothing is outstanding.
    size: u32,
}

impl RecvWindow {
    /// A window of `size` octets of which the peer believes `open` to be open.
    pub(crate) fn new(size: u32, open: u32) -> Self {
        Self { open: i64::from(open), unreturned: 0, size }
    }

    /// Takes `octets` that arrived; false (and nothing taken) when the peer was not allowed to send them.
    #[inline]
    pub(crate) fn debit(&mut self, octets: u32) -> bool {
        let left = self.open - i64::from(octets);
        if left < 0 {
            return false;
        }
        self.open = left;
        true
    }

    /// Whether `octets` more would be within the window.
    #[inline]
    pub(crate) fn allows(&self, octets: u32) -> bool {
        i64::from(octets) <= self.open
    }

    /// Gives back `octets`; `Some(increment)` when it is time for a WINDOW_UPDATE.
    #[inline]
    pub(crate) fn credit(&mut self, octets: u32) -> Option<u32> {
        self.unreturned = self.unreturned.saturating_add(octets);
        if self.unreturned < self.size.div_ceil(2).max(1) {
            return None;
        }
        let increment = self.unreturned;
        self.unreturned = 0;
        self.open += i64::from(increment);
        debug_assert!(self.open <= i64::from(super::WINDOW_MAX), "credited more than was received");
        Some(increment)
    }

    /// The peer learned that windows start smaller by `octets` than it thought.
    pub(crate) fn shrink(&mut self, octets: u32) {
        self.open -= i64::from(octets);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_is_returned_by_halves() {
        let mut window = RecvWindow::new(100, 100);
        assert!(window.debit(60));
        assert_eq!(window.credit(49), None);
        assert_eq!(window.credit(1), Some(50));
        assert!(window.debit(90));
        assert!(!window.debit(1));
        assert_eq!(window.credit(10), None);
    }

    #[test]
    fn a_window_may_be_below_zero() {
        let mut window = RecvWindow::new(10, 65_535);
        assert!(window.debit(65_535));
        window.shrink(65_525);
        assert!(!window.debit(1));
        assert_eq!(window.credit(65_535), Some(65_535));
        assert!(window.debit(10));
        assert!(!window.debit(1));
    }
}
