//! Accepting on the ring.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use io_uring::{cqueue, opcode, types};
use rustix::io::Errno;

use super::super::socket;
use super::super::token::{Op, pack};
use super::super::{Done, Key};
use super::Uring;
use super::complete::accepted_socket;

/// The listening sockets, living and dying.
pub(super) struct Listeners {
    rows: Vec<Option<Listener>>,
    /// No longer listening, but the kernel may still look at the descriptor.
    dying: Vec<Listener>,
    generation: u32,
    multishot: bool,
}

struct Listener {
    key: Key,
    fd: OwnedFd,
    armed: bool,
}

impl Listeners {
    pub(super) fn new(multishot: bool) -> Self {
        Self { rows: Vec::new(), dying: Vec::new(), generation: 0, multishot }
    }

    fn row(&mut self, listener: u32) -> &mut Option<Listener> {
        let index = listener as usize;
        if index >= self.rows.len() {
            self.rows.resize_with(index + 1, || None);
        }
        &mut self.rows[index]
    }

    fn living(&mut self, key: Key) -> Option<&mut Listener> {
        self.row(key.slot).as_mut().filter(|listener| listener.key == key)
    }
}

impl Uring {
    pub(super) fn start_listening(&mut self, listener: u32, fd: OwnedFd) {
        self.ring.counts.kernel_calls += 1;
        // Early kernels do not wait on a non-blocking listener; a failure shows when accepting.
        let _ = rustix::io::ioctl_fionbio(&fd, false);
        self.listeners.generation = (self.listeners.generation + 1) % Key::GENERATIONS;
        let key = Key { slot: listener, generation: self.listeners.generation };
        let row = self.listeners.row(listener);
        assert!(row.is_none(), "listener {listener} is in use");
        *row = Some(Listener { key, fd, armed: false });
        self.arm_accept(listener);
    }

    pub(super) fn arm_accept(&mut self, listener: u32) {
        let multishot = self.listeners.multishot;
        let Some(row) = self.listeners.row(listener) else {
            panic!("listener {listener} is not open here");
        };
        if std::mem::replace(&mut row.armed, true) {
            return;
        }
        let fd = types::Fd(row.fd.as_raw_fd());
        let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        let entry = if multishot {
            opcode::AcceptMulti::new(fd).flags(flags).build()
        } else {
            opcode::Accept::new(fd, std::ptr::null_mut(), std::ptr::null_mut()).flags(flags).build()
        };
        let key = row.key;
        // SAFETY: names the listening socket, kept open (living or dying) until the last completion, and no memory.
        unsafe { self.push(Op::Accept, key, entry) };
    }

    pub(super) fn stop_listening(&mut self, listener: u32) {
        let Some(row) = self.listeners.row(listener).take() else {
            panic!("listener {listener} is not open here");
        };
        if row.armed {
            let entry = opcode::AsyncCancel::new(pack(Op::Accept, row.key)).build();
            let key = row.key;
            self.listeners.dying.push(row);
            // SAFETY: names no memory and no descriptor.
            unsafe { self.push(Op::CancelAccept, key, entry) };
        }
    }

    pub(super) fn accepted(&mut self, key: Key, completion: &cqueue::Entry, done: &mut VecDeque<Done>) {
        let listener = key.slot;
        let last = !cqueue::more(completion.flags());
        if last {
            self.listeners.dying.retain(|row| row.key != key); // closes it
        }
        let living = self.listeners.living(key);
        let is_living = living.is_some();
        if let Some(row) = living {
            row.armed = !last;
        }
        if let Some(socket) = accepted_socket(completion) {
            done.push_back(Done::Accepted { listener, socket });
        } else {
            let code = -completion.result();
            let passes =
                code == libc::ECANCELED || code == libc::EAGAIN || socket::is_callers(Errno::from_raw_os_error(code));
            if is_living && !passes {
                let error = io::Error::from_raw_os_error(code);
                done.push_back(Done::AcceptFailed { listener, error });
                return;
            }
        }
        if last && is_living {
            self.arm_accept(listener);
        }
    }
}
