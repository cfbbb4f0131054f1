//! The thread that drives [`Control`].

use super::{Control, PassOutcome};
use crate::mesh::Doorbell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;
use std::time::Duration;

/// Longest sleep: nothing depends on it but the age of published figures.
const NAP: Duration = Duration::from_secs(1);

/// Wakes the control thread, once it runs.
#[derive(Debug, Default)]
pub(crate) struct ControlWaker(OnceLock<Thread>);

impl ControlWaker {
    pub(crate) fn wake(&self) {
        if let Some(thread) = self.0.get() {
            thread.unpark();
        }
    }
}

/// Runs control until `stop` is set.
pub(crate) fn run(
    control: &mut Control,
    waker: &ControlWaker,
    shards: &[Doorbell],
    stop: &AtomicBool,
    publish: impl Fn(usize),
) {
    let _ = waker.0.set(std::thread::current());
    while !stop.load(Ordering::Acquire) {
        let may_sleep = round(control, shards);
        publish(control.names());
        if may_sleep {
            if !stop.load(Ordering::Acquire) {
                std::thread::park_timeout(NAP);
            }
            control.unpark();
        }
    }
}

/// One pass, and a ring for every shard that got orders; true when there is nothing more to do, which has been announced.
pub(crate) fn round(control: &mut Control, shards: &[Doorbell]) -> bool {
    let outcome = control.pass();
    for (shard, ring) in control.ring.iter_mut().enumerate() {
        if std::mem::take(ring) {
            shards[shard].ring();
        }
    }
    if outcome == PassOutcome::Busy {
        return false;
    }
    control.park();
    let may_sleep = !control.has_work();
    if !may_sleep {
        control.unpark();
    }
    may_sleep
}
