//! Sleeping and waking: who sleeps says so first and looks once more; who has news wakes only a sleeper, and only once.
//!
//! Both sides write, then fence, then read what the other writes (sequentially consistent fences), so at least one of them
//! sees the other's write:
//!
//! ```text
//!   sleeper                            somebody with news
//!   ───────                            ──────────────────
//!   state = parked                     news published
//!   fence                              fence
//!   news? then no sleep                parked? then ring, once
//!   block
//!   state = awake
//!   fence
//!   news (all published before anybody saw "parked")
//! ```
//!
//! The last two lines are what acknowledgements rest on (`log.rs`): if somebody saw the sleeper parked *after* publishing, the
//! sleeper sees the news before it does anything else.

use super::sync::{Arc, AtomicU32, Ordering, fence};
use crossbeam::utils::CachePadded;
use std::fmt;

/// A thread's state between working and sleeping, and how to wake it.
struct State {
    word: CachePadded<AtomicU32>,
    /// Makes a blocked thread return: an eventfd, MSG_RING, whatever it blocks on. Calling it once too often must be harmless.
    wake: Box<dyn Fn() + Send + Sync>,
}

const AWAKE: u32 = 0;
const PARKED: u32 = 1;
/// Parked, and somebody has rung already.
const WOKEN: u32 = 2;

/// The sleeper's own end.
pub(super) struct Parking(Arc<State>);

/// Everybody else's end: cheap to ring, and to clone.
#[derive(Clone)]
pub struct Doorbell(Arc<State>);

impl Parking {
    pub(super) fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(State { word: CachePadded::new(AtomicU32::new(AWAKE)), wake: Box::new(wake) }))
    }

    pub(super) fn doorbell(&self) -> Doorbell {
        Doorbell(Arc::clone(&self.0))
    }

    /// Says "about to sleep". The caller looks at all its queues after this, and sleeps only if they are empty.
    pub(super) fn park(&self) {
        self.0.word.store(PARKED, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Says "awake". What was published before anybody saw the thread parked is visible after this.
    pub(super) fn unpark(&self) {
        self.0.word.store(AWAKE, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }
}

impl Doorbell {
    /// Wakes the thread if it is parked and nobody has done so yet; call it after publishing. True if the bell was rung.
    pub fn ring(&self) -> bool {
        fence(Ordering::SeqCst);
        // The plain load first: a thread that is awake is the common case, and its cache line stays shared.
        let word = &self.0.word;
        let is_ours = word.load(Ordering::Relaxed) == PARKED
            && word.compare_exchange(PARKED, WOKEN, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if is_ours {
            (self.0.wake)();
        }
        is_ours
    }

    /// Whether the thread was parked, for a caller that has fenced since it published.
    pub(super) fn is_parked_after_fence(&self) -> bool {
        self.0.word.load(Ordering::Relaxed) != AWAKE
    }
}

impl fmt::Debug for Doorbell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = ["awake", "parked", "woken"].get(self.0.word.load(Ordering::Relaxed) as usize);
        f.debug_tuple("Doorbell").field(&state).finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn rings_only_for_a_sleeper_and_once_per_sleep() {
        let rung = std::sync::Arc::new(AtomicUsize::new(0));
        let counter = std::sync::Arc::clone(&rung);
        let parking = Parking::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        let bell = parking.doorbell();
        assert!(!bell.ring());
        parking.park();
        assert!(bell.ring());
        assert!(!bell.ring());
        parking.unpark();
        assert!(!bell.ring());
        parking.park();
        assert!(bell.clone().ring());
        assert_eq!(rung.load(Ordering::Relaxed), 2);
    }
}
