//! The thread that drives [`Control`].

use super::{Control, PassOutcome};
use crate::wake::Bell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Longest sleep while answers wait for shards: a shard that applies its log rings only when asked to.
const WAITING_NAP: Duration = Duration::from_micros(50);

/// Longest sleep when nothing waits.
const IDLE_NAP: Duration = Duration::from_secs(1);

/// The bell shards ring when they left a request; a thread parks on it.
#[derive(Debug, Default)]
pub(crate) struct ControlBell {
    rung: AtomicBool,
    thread: std::sync::OnceLock<std::thread::Thread>,
}

impl ControlBell {
    /// Wakes control if it sleeps; cheap when it was rung already.
    pub(crate) fn ring(&self) {
        if !self.rung.swap(true, Ordering::SeqCst)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }
}

/// Runs control until `stop` is set.
pub(crate) fn run(
    control: &mut Control,
    bell: &ControlBell,
    shards: &[Bell],
    stop: &AtomicBool,
    publish: impl Fn(usize),
) {
    let _ = bell.thread.set(std::thread::current());
    while !stop.load(Ordering::Acquire) {
        bell.rung.store(false, Ordering::SeqCst);
        let outcome = control.pass();
        for (shard, ring) in control.ring.iter_mut().enumerate() {
            if std::mem::take(ring) {
                shards[shard].ring();
            }
        }
        for shard in control.behind() {
            shards[shard].ring_always();
        }
        publish(control.names());
        match outcome {
            PassOutcome::Busy => {}
            PassOutcome::Waiting if !bell.rung.load(Ordering::SeqCst) => std::thread::park_timeout(WAITING_NAP),
            PassOutcome::Idle if !bell.rung.load(Ordering::SeqCst) => std::thread::park_timeout(IDLE_NAP),
            PassOutcome::Waiting | PassOutcome::Idle => {}
        }
    }
}

/// The control thread's handle, for those who ring it.
pub(crate) type SharedBell = Arc<ControlBell>;
