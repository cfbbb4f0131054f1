//! The engine on io_uring: one kernel call per turn submits everything and takes everything.
//!
//! A socket's row keeps count of its entries in the kernel; `Closed` is said, and the row given up, when none is left.
//! So no completion can outlive its key, and what an entry names (block, descriptor, address) outlives the entry.

use std::collections::VecDeque;
use std::io;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use io_uring::{opcode, squeue, types};

use super::buf_ring::BufRing;
use super::options::{Features, IoCounters, IoOptions};
use super::pool::Lease;
use super::socket::Waker;
use super::token::{Op, Table, pack};
use super::{Block, Done, Key};

mod address;
mod calls;
mod complete;
mod gather;
mod listen;
mod probe;
mod ring;
mod setup;

use address::Address;
use gather::Gather;
use listen::Listeners;
use ring::{Batch, Ring};

/// The io_uring engine. It belongs to the thread that made it.
pub struct Uring {
    /// First, so that it is closed before the memory it fills is freed.
    ring: ManuallyDrop<Ring>,
    buffers: ManuallyDrop<BufRing>,
    sockets: ManuallyDrop<Table<Socket>>,
    listeners: Listeners,
    waker: Waker,
    mode: Mode,
    features: Features,
    /// Octets taken before the owner has its turn: half of what the buffers hold, at most.
    octets_per_enter: u64,
    /// Completions that needed no kernel, or come after others.
    ready: VecDeque<Done>,
    /// Leases of closing sockets on their way back.
    unwanted: Vec<Lease>,
    /// Lists of pieces, for reuse.
    gathers: Vec<Gather>,
    /// Taken out while it is gone through.
    batch: Option<Box<Batch>>,
    counters: IoCounters,
    /// The first failure of the ring, told by the next `enter`.
    broken: Option<io::Error>,
}

/// How receiving is asked for; the best that works here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// One entry, many completions, each over several buffers.
    Bundle,
    /// One entry, many completions.
    Multishot,
    /// One entry, one completion; the engine arms again.
    Single,
}

struct Socket {
    fd: OwnedFd,
    /// Registered with the ring, at the index of its slot.
    registered: bool,
    receive: Receive,
    sending: Option<Sending>,
    connecting: Option<Box<Address>>,
    /// Entries in the kernel whose last completion is to come.
    pending: u32,
    closing: Closing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Receive {
    Off,
    On,
    /// A cancel is under way; then `Cancelled` is said.
    Pausing,
    /// A cancel is under way, but the owner has changed its mind: armed again silently.
    Resuming,
}

struct Sending {
    block: Block,
    asked: usize,
    /// The pieces, when there are several.
    gather: Option<Gather>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    No,
    /// Waits for everything pending.
    Waiting,
    /// Waits for the ring to forget the socket.
    Unregistering,
}

/// Builds an entry towards a socket, registered or not: the two are different types to the crate.
macro_rules! towards {
    ($key:expr, $socket:expr, $fd:ident => $entry:expr) => {
        if $socket.registered {
            let $fd = types::Fixed($key.slot);
            $entry
        } else {
            let $fd = types::Fd($socket.fd.as_raw_fd());
            $entry
        }
    };
}
use towards;

/// The receive entry of a mode.
macro_rules! receive_entry {
    ($mode:expr, $fd:expr) => {
        match $mode {
            $crate::io::uring::Mode::Bundle => {
                io_uring::opcode::RecvMultiBundle::new($fd, $crate::io::uring::BUFFER_GROUP).build()
            }
            $crate::io::uring::Mode::Multishot => {
                io_uring::opcode::RecvMulti::new($fd, $crate::io::uring::BUFFER_GROUP).build()
            }
            $crate::io::uring::Mode::Single => io_uring::opcode::Recv::new($fd, std::ptr::null_mut(), 0)
                .buf_group($crate::io::uring::BUFFER_GROUP)
                .build()
                .flags(io_uring::squeue::Flags::BUFFER_SELECT),
        }
    };
}
use receive_entry;

impl Uring {
    /// Opens the engine for the calling thread.
    ///
    /// Errors: io_uring is missing, denied or too old; the text says which and what helps.
    pub fn new(options: &IoOptions) -> io::Result<Self> {
        let ready = setup::open(options)?;
        let mut engine = Self {
            ring: ManuallyDrop::new(ready.ring),
            buffers: ManuallyDrop::new(ready.buffers),
            sockets: ManuallyDrop::new(Table::new()),
            listeners: Listeners::new(ready.features.multishot),
            waker: Waker::new()?,
            mode: ready.mode,
            features: ready.features,
            octets_per_enter: OCTETS_PER_ENTER
                .min(u64::from(options.recv_buf_octets) * u64::from(options.recv_buf_count) / 2),
            ready: VecDeque::new(),
            unwanted: Vec::new(),
            gathers: Vec::new(),
            batch: Some(new_batch()),
            counters: IoCounters::default(),
            broken: None,
        };
        engine.watch_waker();
        Ok(engine)
    }

    /// Every wake becomes one completion, without reading the counter.
    fn watch_waker(&mut self) {
        let entry = opcode::PollAdd::new(types::Fd(self.waker.fd().as_raw_fd()), READABLE).multi(true);
        // SAFETY: names the eventfd, which `waker` keeps open as long as the ring.
        unsafe { self.push(Op::Wake, NOBODY, entry.build()) };
    }

    /// Queues an entry; a failing ring is remembered for `enter`.
    ///
    /// # Safety
    ///
    /// As [`Ring::push`]: what the entry names stays valid until its last completion was taken.
    unsafe fn push(&mut self, op: Op, key: Key, entry: squeue::Entry) {
        // SAFETY: passed on.
        if let Err(error) = unsafe { self.ring.push(&entry.user_data(pack(op, key))) } {
            self.broken.get_or_insert(error);
        }
    }

    fn arm_receive(&mut self, key: Key) {
        let mode = self.mode;
        let socket = self.sockets.live(key);
        socket.receive = Receive::On;
        socket.pending += 1;
        let entry = towards!(key, socket, fd => receive_entry!(mode, fd));
        // SAFETY: names the socket, kept open while entries are pending, and the buffer group, which outlives the ring.
        unsafe { self.push(Op::Receive, key, entry) };
    }

    /// A send of several pieces.
    fn send_gathered(&mut self, key: Key, block: Block, from: usize) {
        let mut gather = self.gathers.pop().unwrap_or_else(Gather::new);
        let Some(socket) = self.open(key) else {
            self.gathers.push(gather);
            return self.ready.push_back(Done::unsent(key, block));
        };
        assert!(socket.sending.is_none(), "{key:?} has a send in flight");
        let (header, asked) = gather.name(block.pieces(from));
        socket.sending = Some(Sending { block, asked, gather: Some(gather) });
        socket.pending += 1;
        let entry = towards!(key, socket, fd => {
            opcode::SendMsg::new(fd, header).flags(libc::MSG_NOSIGNAL.cast_unsigned()).build()
        });
        // SAFETY: names the socket, the boxed header with its vectors, and the heap memory of the block and of what it
        // shares (which moving the block does not move). The row keeps all of it, untouched, while the entry is
        // pending; what the block shares is held by an `Rc` of its own, so nobody can get at it to write.
        unsafe { self.push(Op::Send, key, entry) };
    }

    fn cancel(&mut self, key: Key, op: Op) {
        self.sockets.live(key).pending += 1;
        let entry = opcode::AsyncCancel::new(pack(op, key)).build();
        // SAFETY: names no memory and no descriptor.
        unsafe { self.push(Op::Cancel, key, entry) };
    }

    fn insert(&mut self, key: Key, fd: OwnedFd) -> &mut Socket {
        let registered = key.slot < self.features.registered_files
            && self.ring.submitter().register_files_update(key.slot, &[fd.as_raw_fd()]).is_ok();
        let socket = Socket {
            fd,
            registered,
            receive: Receive::Off,
            sending: None,
            connecting: None,
            pending: 0,
            closing: Closing::No,
        };
        self.sockets.insert(key, socket);
        self.sockets.live(key)
    }

    /// The socket of a key that is neither closing nor gone.
    fn open(&mut self, key: Key) -> Option<&mut Socket> {
        self.sockets.find(key).filter(|socket| socket.closing == Closing::No)
    }

    fn start_closing(&mut self, key: Key) {
        let Some(socket) = self.open(key) else { return };
        socket.closing = Closing::Waiting;
        let receiving = socket.receive == Receive::On;
        let (sending, connecting) = (socket.sending.is_some(), socket.connecting.is_some());
        for (pending, op) in [(receiving, Op::Receive), (sending, Op::Send), (connecting, Op::Connect)] {
            if pending {
                self.cancel(key, op);
            }
        }
        self.settle(key);
    }

    /// Takes a closing socket one step further once nothing of it is pending.
    fn settle(&mut self, key: Key) {
        let socket = self.sockets.live(key);
        if socket.pending > 0 {
            return;
        }
        match socket.closing {
            Closing::No => {}
            Closing::Waiting if socket.registered => {
                socket.closing = Closing::Unregistering;
                socket.pending = 1;
                let entry = opcode::Close::new(types::Fixed(key.slot)).build();
                // SAFETY: names a place in the table of registered files, not reused before `Closed`.
                unsafe { self.push(Op::Unregister, key, entry) };
            }
            Closing::Waiting | Closing::Unregistering => {
                self.ring.counts.kernel_calls += 1;
                self.sockets.remove(key); // the last descriptor: here the peer sees the end
                self.ready.push_back(Done::Closed { key });
            }
        }
    }

    /// Going on would find no buffers: first the owner has to put some back.
    fn is_half_lent(&self) -> bool {
        let pool = self.buffers.pool();
        !self.features.incremental && pool.leases_out() >= u32::from(pool.count() / 2)
    }

    /// Takes every completion there is, as long as the owner's share for one turn lasts.
    fn reap(&mut self, done: &mut VecDeque<Done>) -> io::Result<()> {
        let (before, octets_before) = (done.len(), self.counters.octets_received);
        let mut woken = false;
        let mut batch = self.batch.take().unwrap_or_else(new_batch);
        loop {
            let mut progress = false;
            loop {
                let taken = self.ring.take(&mut batch);
                for completion in taken {
                    woken |= self.complete(completion, done);
                }
                if taken.is_empty() {
                    break;
                }
                progress = true;
            }
            // The kernel's hints can be stale: TASKRUN stays set when its last work was run in between. Without
            // progress there is nothing to go on for, and what is queued here has to be submitted.
            if !progress {
                break;
            }
            let octets = self.counters.octets_received - octets_before;
            let is_enough =
                done.len() - before >= DONE_PER_ENTER || octets >= self.octets_per_enter || self.is_half_lent();
            // The kernel finishes only some 20 receives per call, whatever is ready.
            if !self.ring.refill_after_overflow()? && (is_enough || !self.ring.finish_more()?) {
                break;
            }
        }
        self.batch = Some(batch);
        for lease in self.unwanted.drain(..) {
            self.buffers.put_back(lease);
        }
        if woken {
            done.push_back(Done::Woken);
        }
        done.append(&mut self.ready);
        self.broken.take().map_or(Ok(()), Err)
    }
}

impl Drop for Uring {
    /// Ends everything in flight before the memory it uses goes; what the kernel does not give up is leaked.
    fn drop(&mut self) {
        let all = types::CancelBuilder::any().all();
        let entry = opcode::AsyncCancel2::new(all).build();
        // SAFETY: names no memory and no descriptor.
        unsafe { self.push(Op::Cancel, NOBODY, entry) };
        let deadline = Instant::now() + CANCEL_PATIENCE;
        let mut batch = new_batch();
        while self.ring.in_flight() > 0 && self.broken.is_none() && Instant::now() < deadline {
            if let Err(error) = self.ring.enter(Some(Duration::from_millis(10))) {
                self.broken = Some(error);
            }
            loop {
                let taken = self.ring.take(&mut batch);
                for completion in taken {
                    complete::drop_accepted(completion);
                }
                if taken.is_empty() {
                    break;
                }
            }
            let _ = self.ring.refill_after_overflow();
        }
        let idle = self.ring.in_flight() == 0;
        // SAFETY: dropped once, here; the ring is not used again.
        unsafe { ManuallyDrop::drop(&mut self.ring) };
        if idle {
            // SAFETY: as above, and nothing in the kernel names these buffers any more.
            unsafe { ManuallyDrop::drop(&mut self.buffers) };
            // SAFETY: as above.
            unsafe { ManuallyDrop::drop(&mut self.sockets) };
        }
    }
}

fn new_batch() -> Box<Batch> {
    Box::new([const { MaybeUninit::uninit() }; 128])
}

/// The only group of receive buffers on a ring.
const BUFFER_GROUP: u16 = 0;
/// The key of what belongs to no socket.
const NOBODY: Key = Key { slot: 0, generation: 0 };
/// Completions of one `enter`, so that the owner's turn stays short.
const DONE_PER_ENTER: usize = 4096;
/// Octets received in one `enter` at most, about: half of a common L2 cache.
const OCTETS_PER_ENTER: u64 = 512 * 1024;
/// Lists of pieces kept for reuse.
const SPARE_GATHERS_MAX: usize = 64;
/// poll(2)'s POLLIN, as wide as the ring wants it.
const READABLE: u32 = 1;
const _: () = assert!(libc::POLLIN == 1);
/// How long a dropped engine waits for the kernel.
const CANCEL_PATIENCE: Duration = Duration::from_secs(1);
