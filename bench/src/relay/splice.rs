//! The relay through a pipe: the floor of what forwarding can cost in one thread.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use rustix::event::epoll::EventFlags;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use super::poll::{LISTENER, Poll};

/// Octets a pipe holds.
const PIPE_OCTETS: usize = 1024 * 1024;

/// One connection, and the pipe from it to its partner.
struct End {
    socket: TcpStream,
    publishes: bool,
    group: u32,
    read: OwnedFd,
    write: OwnedFd,
    piped: usize,
}

/// Serves until the process ends.
pub(super) fn serve(listener: &TcpListener) -> io::Result<()> {
    let mut poll = Poll::new(listener)?;
    let mut ends: Vec<Option<End>> = Vec::new();
    let mut ready = Vec::new();
    loop {
        poll.wait(&mut ready)?;
        for &(token, _) in &ready {
            if token == LISTENER {
                if let Some((socket, publishes, group)) = super::epoll::accept(listener)? {
                    let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
                    let _ = fcntl_setpipe_size(&write, PIPE_OCTETS); // smaller works too
                    // Edge-triggered: a socket whose partner is full must not spin.
                    let flags = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
                    poll.add(ends.len(), &socket, flags)?;
                    ends.push(Some(End { socket, publishes, group, read, write, piped: 0 }));
                }
                continue;
            }
            let slot = token as usize;
            // Its own octets onwards, and those of its partner into it.
            for source in [Some(slot), partner(&ends, slot)].into_iter().flatten() {
                if relay(&mut ends, source).is_err() {
                    ends[source] = None;
                }
            }
        }
    }
}

/// The newest connection of the same group and the other role: an older one may be on its way out.
fn partner(ends: &[Option<End>], slot: usize) -> Option<usize> {
    let own = ends.get(slot)?.as_ref()?;
    ends.iter().rposition(|end| end.as_ref().is_some_and(|e| e.group == own.group && e.publishes != own.publishes))
}

/// Moves octets of `source` until one side would block.
fn relay(ends: &mut [Option<End>], source: usize) -> io::Result<()> {
    let Some(target) = partner(ends, source) else { return Ok(()) };
    let Ok([Some(end), Some(other)]) = ends.get_disjoint_mut([source, target]) else { return Ok(()) };
    loop {
        let mut moved = false;
        match splice(&end.socket, None, &end.write, None, PIPE_OCTETS, SpliceFlags::NONBLOCK | SpliceFlags::MOVE) {
            Ok(0) if end.piped == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                end.piped += count;
                moved |= count > 0;
            }
            Err(rustix::io::Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
        while end.piped > 0 {
            match splice(&end.read, None, &other.socket, None, end.piped, SpliceFlags::NONBLOCK | SpliceFlags::MOVE) {
                Ok(count) => {
                    end.piped -= count;
                    moved = true;
                }
                Err(rustix::io::Errno::AGAIN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        if !moved || end.piped > 0 {
            return Ok(());
        }
    }
}
