//! What the workers and the coordinator share: the stage, the counters, the credits. Nothing here is per message
//! but one add per publisher and turn.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use crate::engine::Waker;
use crate::error::BenchError;
use crate::record::Recorder;

/// Where the run stands. Every worker looks once per turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub(crate) enum Stage {
    /// Connecting and negotiating.
    Connect = 0,
    /// Subscribing.
    Subscribe,
    /// Signing headers.
    Prepare,
    /// Publishing, not measured yet.
    Warm,
    /// Publishing, measured.
    Measure,
    /// Waiting for what is under way.
    Drain,
    /// Over.
    Stop,
}

impl Stage {
    const ALL: [Self; 7] =
        [Self::Connect, Self::Subscribe, Self::Prepare, Self::Warm, Self::Measure, Self::Drain, Self::Stop];

    /// For error messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect and negotiation",
            Self::Subscribe => "subscription",
            Self::Prepare => "preparation",
            Self::Warm => "warm-up",
            Self::Measure => "measurement",
            Self::Drain => "drain",
            Self::Stop => "the end",
        }
    }
}

/// How often latencies are handed to the coordinator.
const HAND_OVER_NS: u64 = 150_000_000;

/// Keeps neighbours off each other's cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);

/// What one worker reports.
#[derive(Debug, Default)]
pub(crate) struct WorkerState {
    pub(crate) sent: AtomicU64,
    pub(crate) delivered: AtomicU64,
    pub(crate) delivered_octets: AtomicU64,
    pub(crate) ready: AtomicU64,
    pub(crate) subscribed: AtomicU64,
    pub(crate) prepared: AtomicBool,
    /// It has sent its whole share of a counted run.
    pub(crate) finished: AtomicBool,
    /// It sends nothing more, and its counts say so.
    pub(crate) drained: AtomicBool,
    pub(crate) parked: AtomicBool,
    pub(crate) thread_id: AtomicU32,
    /// Latencies since the coordinator last looked, and when some were last handed over.
    pub(crate) latencies: Mutex<Recorder>,
    handed_over_ns: AtomicU64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Shared {
    stage: AtomicU32,
    pub(crate) start: Instant,
    /// Intended times in this span are measured.
    pub(crate) measure_from_ns: AtomicU64,
    pub(crate) measure_to_ns: AtomicU64,
    pub(crate) workers: Vec<Padded<WorkerState>>,
    /// Deliveries of each publisher's messages.
    pub(crate) credits: Vec<Padded<AtomicU64>>,
    wakers: Mutex<Vec<Option<Waker>>>,
    failure: Mutex<Option<BenchError>>,
}

impl Shared {
    /// For `threads` workers and `publishers` publishers.
    pub(crate) fn new(threads: u32, publishers: u32) -> Self {
        Self {
            stage: AtomicU32::new(0),
            start: Instant::now(),
            measure_from_ns: AtomicU64::new(u64::MAX),
            measure_to_ns: AtomicU64::new(u64::MAX),
            workers: (0..threads).map(|_| Padded::default()).collect(),
            credits: (0..publishers).map(|_| Padded::default()).collect(),
            wakers: Mutex::new(vec![None; threads as usize]),
            failure: Mutex::new(None),
        }
    }

    /// Nanoseconds since the run began.
    pub(crate) fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// The stage.
    pub(crate) fn stage(&self) -> Stage {
        Stage::ALL[self.stage.load(Ordering::Acquire) as usize]
    }

    /// Goes on to `stage` and wakes everybody; never back.
    pub(crate) fn advance(&self, stage: Stage) {
        self.stage.fetch_max(stage as u32, Ordering::AcqRel);
        let wakers = self.wakers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        wakers.iter().flatten().for_each(Waker::wake);
    }

    /// Notes that the calling thread is this worker's.
    pub(crate) fn set_thread(&self, worker: usize) {
        let id = rustix::thread::gettid().as_raw_pid().cast_unsigned();
        self.workers[worker].0.thread_id.store(id, Ordering::Release);
    }

    /// Leaves a worker's waker for the others.
    pub(crate) fn set_waker(&self, worker: usize, waker: Waker) {
        self.wakers.lock().unwrap_or_else(std::sync::PoisonError::into_inner)[worker] = Some(waker);
    }

    /// All wakers, for a worker to keep once every worker has left its own.
    pub(crate) fn wakers(&self) -> Vec<Option<Waker>> {
        self.wakers.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Hands a worker's latencies over now and then, which empties `latencies`.
    pub(crate) fn hand_over(&self, worker: usize, latencies: &mut Recorder) {
        let (state, now_ns) = (&self.workers[worker].0, self.now_ns());
        if now_ns - state.handed_over_ns.load(Ordering::Relaxed) < HAND_OVER_NS {
            return;
        }
        state.handed_over_ns.store(now_ns, Ordering::Relaxed);
        if latencies.count() > 0
            && let Ok(mut live) = state.latencies.try_lock()
        {
            live.merge(latencies);
            latencies.clear();
        }
    }

    /// Ends the run with an error; the first one counts.
    pub(crate) fn fail(&self, error: BenchError) {
        self.failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(error);
        self.advance(Stage::Stop);
    }

    /// The error that ended the run.
    pub(crate) fn take_failure(&self) -> Option<BenchError> {
        self.failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
    }

    /// Sum of one counter over the workers.
    pub(crate) fn sum(&self, counter: impl Fn(&WorkerState) -> &AtomicU64) -> u64 {
        self.workers.iter().map(|worker| counter(&worker.0).load(Ordering::Acquire)).sum()
    }

    /// Whether a flag is set in every worker.
    pub(crate) fn all(&self, flag: impl Fn(&WorkerState) -> &AtomicBool) -> bool {
        self.workers.iter().all(|worker| flag(&worker.0).load(Ordering::Acquire))
    }
}
