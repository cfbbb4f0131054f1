//! Does a way of receiving really work here? Tried on a socket pair before any peer depends on it.

use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use io_uring::{cqueue, types};

use super::super::Key;
use super::super::buf_ring::BufRing;
use super::super::token::{Op, pack};
use super::ring::{Batch, Ring};
use super::{Mode, receive_entry};

/// Sends a pattern through a socket pair and receives it by `mode`: true if every octet came where the completions
/// said, and a multishot receive stayed armed.
///
/// Errors: the ring itself failed, or kept an operation: it cannot be used at all.
pub(super) fn receives(ring: &mut Ring, buffers: &mut BufRing, mode: Mode) -> io::Result<bool> {
    let (ours, theirs) = UnixStream::pair()?;
    theirs.set_nonblocking(true)?;
    let ours = OwnedFd::from(ours);
    // More than one buffer, and then some, as far as a socket holds it.
    let stride = buffers.pool().stride() as usize;
    let pattern: Vec<u8> = (0..(stride + stride / 2).min(OCTETS_MAX)).map(octet).collect();
    let mut check = Check::default();
    let mut written = 0;
    let mut theirs = Some(theirs);
    let deadline = Instant::now() + PATIENCE;
    let mut batch: Batch = [const { std::mem::MaybeUninit::uninit() }; 128];
    let token = pack(Op::Receive, Key { slot: 0, generation: 0 });
    let mut armed = false;
    loop {
        if !armed {
            let entry = receive_entry!(mode, types::Fd(ours.as_raw_fd())).user_data(token);
            // SAFETY: the entry names `ours`, open until the last completion came (or the engine is given up below),
            // and the buffers, which outlive the ring.
            unsafe { ring.push(&entry) }?;
            armed = true;
        }
        ring.enter(Some(Duration::ZERO))?; // arms before octets come, so that they come as completions
        if let Some(end) = &mut theirs {
            match end.write(&pattern[written..]) {
                Ok(octets) => written += octets,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            if written == pattern.len() && check.octets == written {
                theirs = None; // the receive ends with EOF
            }
        }
        ring.enter(Some(Duration::from_millis(10)))?;
        for completion in ring.take(&mut batch) {
            armed = cqueue::more(completion.flags());
            check.completion(completion, buffers, mode);
        }
        if theirs.is_none() && !armed {
            return Ok(check.ended && !check.failed);
        }
        if check.failed {
            theirs = None; // not like this; the operation still has to end
        }
        if Instant::now() > deadline {
            // Leaving would free memory under an operation: the socket dies with this frame and ends it.
            std::mem::forget(ours);
            return Err(io::Error::other("io_uring does not end a receive; not usable"));
        }
    }
}

#[derive(Default)]
struct Check {
    octets: usize,
    ended: bool,
    failed: bool,
}

impl Check {
    fn completion(&mut self, completion: &cqueue::Entry, buffers: &mut BufRing, mode: Mode) {
        let (flags, result) = (completion.flags(), completion.result());
        let goes_on = cqueue::buffer_more(flags);
        match (u32::try_from(result), cqueue::buffer_select(flags)) {
            (Ok(0), buffer) => {
                self.ended = true;
                if let Some(index) = buffer {
                    buffers.take_empty(index, goes_on);
                }
            }
            (Ok(octets), Some(first)) => {
                self.failed |= mode != Mode::Single && !cqueue::more(flags);
                let mut leases = Vec::new();
                self.failed |= !buffers.take(first, octets, |lease| leases.push(lease));
                for lease in leases {
                    for (offset, found) in buffers.pool().octets(&lease).iter().enumerate() {
                        self.failed |= *found != octet(self.octets + offset);
                    }
                    self.octets += lease.octet_count();
                    buffers.put_back(lease);
                }
            }
            // A small pool may run dry within one write: armed again.
            (Err(_), _) if result == -libc::ENOBUFS => {}
            (_, buffer) => {
                self.failed = true;
                if let Some(index) = buffer {
                    buffers.take_empty(index, goes_on);
                }
            }
        }
    }
}

/// The pattern: neighbours differ, and so do places a power of two apart.
fn octet(index: usize) -> u8 {
    (index % 251).to_be_bytes()[size_of::<usize>() - 1]
}

const OCTETS_MAX: usize = 128 * 1024;
const PATIENCE: Duration = Duration::from_secs(2);
