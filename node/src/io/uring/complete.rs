//! What each completion means.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use io_uring::cqueue;

use super::super::token::{Op, unpack};
use super::super::{Done, Ended, Key};
use super::{Closing, Receive, SPARE_GATHERS_MAX, Uring};

impl Uring {
    /// Turns one completion into what the owner hears; true = somebody used the waker.
    pub(super) fn complete(&mut self, completion: &cqueue::Entry, done: &mut VecDeque<Done>) -> bool {
        let last = !cqueue::more(completion.flags());
        let Some((op, key)) = unpack(completion.user_data()) else {
            self.counters.stale += 1;
            return false;
        };
        match op {
            Op::Wake => {
                if last {
                    self.waker.clear();
                    self.watch_waker();
                }
                return true;
            }
            Op::Accept => self.accepted(key, completion, done),
            Op::CancelAccept => {}
            _ => {
                let Some(socket) = self.sockets.find(key) else {
                    self.counters.stale += 1;
                    self.drop_buffers(completion);
                    return false;
                };
                socket.pending -= u32::from(last);
                match op {
                    Op::Receive => self.received(key, completion, done),
                    Op::Send => self.sent(key, completion.result(), done),
                    Op::Connect => self.connected(key, completion.result(), done),
                    // A cancel says nothing the cancelled entry does not say better.
                    _ => {}
                }
                if last {
                    self.settle_if_closing(key);
                }
            }
        }
        false
    }

    fn settle_if_closing(&mut self, key: Key) {
        if self.sockets.live(key).closing != Closing::No {
            self.settle(key);
        }
    }

    fn received(&mut self, key: Key, completion: &cqueue::Entry, done: &mut VecDeque<Done>) {
        let closing = self.sockets.live(key).closing != Closing::No;
        let (result, flags) = (completion.result(), completion.flags());
        match (u32::try_from(result), cqueue::buffer_select(flags)) {
            (Ok(octets), Some(first)) if octets > 0 => {
                self.counters.octets_received += u64::from(octets);
                let unwanted = &mut self.unwanted;
                let sound = self.buffers.take(first, octets, |lease| {
                    if closing {
                        unwanted.push(lease);
                    } else {
                        done.push_back(Done::Received { key, lease });
                    }
                });
                if !sound {
                    self.broken
                        .get_or_insert_with(|| io::Error::other("io_uring named a receive buffer it does not have"));
                }
            }
            _ => self.drop_buffers(completion),
        }
        if !cqueue::more(flags) {
            self.receive_ended(key, result, done);
        }
    }

    /// The receive entry is used up: arm again, or say why not.
    fn receive_ended(&mut self, key: Key, result: i32, done: &mut VecDeque<Done>) {
        let socket = self.sockets.live(key);
        let asked = std::mem::replace(&mut socket.receive, Receive::Off);
        if socket.closing != Closing::No {
            return;
        }
        let why = match -result {
            0 => Ended::Eof,
            libc::ENOBUFS => {
                self.counters.enobufs += 1;
                Ended::NoBuffers
            }
            // It ended with octets (single shot, or a full completion queue), or for no reason of the socket's.
            ..0 | libc::ECANCELED | libc::EINTR | libc::EAGAIN => match asked {
                Receive::Pausing => Ended::Cancelled,
                _ => return self.arm_receive(key),
            },
            code => Ended::Error(io::Error::from_raw_os_error(code)),
        };
        done.push_back(Done::ReceiveEnded { key, why });
    }

    /// A completion without octets may still have used a buffer up.
    fn drop_buffers(&mut self, completion: &cqueue::Entry) {
        let flags = completion.flags();
        let Some(first) = cqueue::buffer_select(flags) else { return };
        let goes_on = cqueue::buffer_more(flags);
        match u32::try_from(completion.result()) {
            Ok(octets) if octets > 0 => {
                let unwanted = &mut self.unwanted;
                let _ = self.buffers.take(first, octets, |lease| unwanted.push(lease));
            }
            _ => self.buffers.take_empty(first, goes_on),
        }
    }

    fn sent(&mut self, key: Key, result: i32, done: &mut VecDeque<Done>) {
        let Some(sending) = self.sockets.live(key).sending.take() else {
            self.counters.stale += 1;
            return;
        };
        let result = match usize::try_from(result) {
            Ok(octets) => {
                self.counters.octets_sent += octets as u64;
                self.counters.short_sends += u64::from(octets < sending.asked);
                Ok(octets)
            }
            Err(_) => Err(io::Error::from_raw_os_error(-result)),
        };
        if self.gathers.len() < SPARE_GATHERS_MAX {
            self.gathers.extend(sending.gather);
        }
        let block = sending.block;
        done.push_back(Done::Sent { key, block, result });
    }

    fn connected(&mut self, key: Key, result: i32, done: &mut VecDeque<Done>) {
        let socket = self.sockets.live(key);
        socket.connecting = None;
        if socket.closing != Closing::No {
            return;
        }
        let result = match result {
            0 => Ok(()),
            code => Err(io::Error::from_raw_os_error(-code)),
        };
        done.push_back(Done::Connected { key, result });
    }
}

/// The socket of a successful accept.
pub(super) fn accepted_socket(completion: &cqueue::Entry) -> Option<OwnedFd> {
    let fd = RawFd::try_from(completion.result()).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: the kernel made this descriptor for this completion; each completion is looked at once, so it has no
    // other owner.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// An engine that goes away accepts nobody.
pub(super) fn drop_accepted(completion: &cqueue::Entry) {
    if let Some((Op::Accept, _)) = unpack(completion.user_data()) {
        drop(accepted_socket(completion));
    }
}
