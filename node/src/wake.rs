//! Bells: how another thread gets a parked shard's attention, at most once per sleep.

use crate::io::Waker;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// Rings one shard. Ringing an awake shard costs one load; a parked one is woken once per sleep.
#[derive(Clone)]
pub(crate) struct Bell {
    sleeping: Arc<AtomicBool>,
    waker: Waker,
}

impl Bell {
    pub(crate) fn new(sleeping: Arc<AtomicBool>, waker: Waker) -> Self {
        Self { sleeping, waker }
    }

    /// Wakes the shard if it is parked. What it should find must have been published before.
    pub(crate) fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::SeqCst) && self.sleeping.swap(false, Ordering::SeqCst) {
            self.waker.wake();
        }
    }

    /// Wakes the shard whatever it does.
    pub(crate) fn ring_always(&self) {
        self.waker.wake();
    }
}
