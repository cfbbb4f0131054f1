//! The two queues shared with the kernel, and the one call that serves both.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, squeue};

/// A ring and what is in flight on it.
pub(super) struct Ring {
    ring: IoUring,
    /// What `enter` passes: the ring's descriptor, or its index when that is registered.
    enter_fd: RawFd,
    enter_flags: EnterFlags,
    /// The kernel flags waiting completion work in shared memory, so looking needs no call.
    flags_work: bool,
    /// Entries submitted or queued whose last completion was not seen yet.
    in_flight: u32,
    pub(super) counts: Counts,
}

/// What only the ring sees.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) kernel_calls: u64,
    pub(super) completions: u64,
    pub(super) cq_overflow: u64,
    pub(super) sq_full: u64,
}

/// Completions copied out at a time.
pub(super) type Batch = [MaybeUninit<cqueue::Entry>; 128];

impl Ring {
    pub(super) fn new(ring: IoUring, flags_work: bool) -> Self {
        let mut enter_flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        if ring.params().is_feature_no_iowait() {
            enter_flags |= EnterFlags::NO_IOWAIT; // waiting for peers is not waiting for a disk
        }
        Self { enter_fd: ring.as_raw_fd(), enter_flags, flags_work, in_flight: 0, counts: Counts::default(), ring }
    }

    /// Registers the ring's own descriptor, which saves its lookup in every `enter`; false = not here.
    pub(super) fn register_self(&mut self) -> bool {
        let fd = self.ring.as_raw_fd();
        let Ok(data) = u64::try_from(fd) else { return false };
        match change_registration(fd, REGISTER_RING_FDS, Update { offset: u32::MAX, spare: 0, data }) {
            Some(index) => {
                self.enter_fd = index;
                self.enter_flags |= EnterFlags::REGISTERED_RING;
                true
            }
            None => false,
        }
    }

    pub(super) fn submitter(&mut self) -> io_uring::Submitter<'_> {
        self.counts.kernel_calls += 1;
        self.ring.submitter()
    }

    /// How many last completions are still to come.
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Queues an entry, submitting early when the queue is full.
    ///
    /// # Safety
    ///
    /// Whatever memory and descriptor the entry names stay valid until its last completion was taken.
    pub(super) unsafe fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        for _ in 0..SUBMIT_TRIES {
            // SAFETY: the caller's promise is exactly what `push` asks for.
            let pushed = unsafe { self.ring.submission().push(entry) };
            if pushed.is_ok() {
                self.in_flight += 1;
                return Ok(());
            }
            self.counts.sq_full += 1;
            self.call(0, EnterFlags::empty(), None)?;
        }
        Err(io::Error::other("io_uring takes no submissions any more"))
    }

    /// Submits what is queued and lets the kernel finish what it can, waiting for one completion at most `wait`.
    pub(super) fn enter(&mut self, wait: Option<Duration>) -> io::Result<()> {
        let waits = wait != Some(Duration::ZERO) && self.ring.completion().is_empty();
        if !waits && self.flags_work {
            let queue = self.ring.submission();
            if queue.is_empty() && !queue.taskrun() && !queue.cq_overflow() {
                return Ok(());
            }
        }
        let deadline = wait.filter(|_| waits).map(timespec);
        self.call(u32::from(waits), self.enter_flags, deadline.as_ref())
    }

    /// Copies completions out; empty = none are left.
    pub(super) fn take<'a>(&mut self, batch: &'a mut Batch) -> &'a [cqueue::Entry] {
        let taken: &[cqueue::Entry] = self.ring.completion().fill(batch);
        self.counts.completions += taken.len() as u64;
        for entry in taken {
            self.in_flight -= u32::from(!cqueue::more(entry.flags()));
        }
        taken
    }

    /// The completion queue could not hold everything: counted, and the rest is fetched. True = take again.
    pub(super) fn refill_after_overflow(&mut self) -> io::Result<bool> {
        if !self.ring.submission().cq_overflow() {
            return Ok(false);
        }
        self.counts.cq_overflow += 1;
        self.call(0, self.enter_flags, None)?;
        Ok(true)
    }

    /// Lets the kernel finish more of what is ready, if it says there is more. True = take again.
    pub(super) fn finish_more(&mut self) -> io::Result<bool> {
        if !self.flags_work || !self.ring.submission().taskrun() {
            return Ok(false);
        }
        self.call(0, self.enter_flags, None)?;
        Ok(true)
    }

    fn call(&mut self, min_complete: u32, flags: EnterFlags, wait: Option<&Timespec>) -> io::Result<()> {
        let to_submit = u32::try_from(self.ring.submission().len()).unwrap_or(u32::MAX);
        let mut args = SubmitArgs::new();
        if let Some(wait) = wait {
            args = args.timespec(wait);
        }
        let flags = flags | (self.enter_flags & EnterFlags::REGISTERED_RING);
        let (arg, size) = if flags.contains(EnterFlags::EXT_ARG) {
            (&raw const args, size_of::<SubmitArgs<'_, '_>>())
        } else {
            (std::ptr::null(), 0)
        };
        self.counts.kernel_calls += 1;
        // SAFETY: the kernel reads `args` and the timespec it points to during the call only; both outlive it. What
        // the queued entries name is covered by the promise made in `push`.
        let result = unsafe {
            libc::syscall(libc::SYS_io_uring_enter, self.enter_fd, to_submit, min_complete, flags.bits(), arg, size)
        };
        if result >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            // Time is up, a signal, no memory for a request just now, or completions to be taken first.
            Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY) => Ok(()),
            _ => Err(error),
        }
    }
}

/// Calls that free no place in the submission queue before it counts as broken.
const SUBMIT_TRIES: u32 = 1000;

impl Drop for Ring {
    /// A registered ring would live on with its thread, and with it the sockets registered in it.
    fn drop(&mut self) {
        if self.enter_flags.contains(EnterFlags::REGISTERED_RING)
            && let Ok(offset) = u32::try_from(self.enter_fd)
        {
            let update = Update { offset, spare: 0, data: 0 };
            change_registration(self.ring.as_raw_fd(), UNREGISTER_RING_FDS, update);
        }
    }
}

/// The kernel's `struct io_uring_rsrc_update`.
#[repr(C)]
struct Update {
    offset: u32,
    spare: u32,
    data: u64,
}

/// Registers or unregisters one ring descriptor of this thread; the index it has, if that worked.
fn change_registration(ring: RawFd, operation: u32, mut update: Update) -> Option<RawFd> {
    let count = 1_u32;
    // SAFETY: the kernel reads and writes one `Update`, which lives across the call.
    let changed = unsafe { libc::syscall(libc::SYS_io_uring_register, ring, operation, &raw mut update, count) };
    RawFd::try_from(update.offset).ok().filter(|_| changed == 1)
}

// From the kernel's list of io_uring_register(2) operations.
const REGISTER_RING_FDS: u32 = 20;
const UNREGISTER_RING_FDS: u32 = 21;

fn timespec(wait: Duration) -> Timespec {
    Timespec::new().sec(wait.as_secs()).nsec(wait.subsec_nanos())
}
