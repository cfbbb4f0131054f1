//! The relay over epoll: one receive, one send.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

use rustix::event::epoll::EventFlags;

use super::poll::{LISTENER, Poll};
use super::{HELD_OCTETS_MAX, READ_OCTETS};
use crate::client::relay::{HELLO_OCTETS, read_hello};

struct End {
    socket: TcpStream,
    publishes: bool,
    group: u32,
    held: Vec<u8>,
    from: usize,
}

impl End {
    /// Sends what the kernel takes; the rest is held.
    fn send(&mut self, octets: &[u8]) -> io::Result<()> {
        let mut rest = octets;
        while self.held.is_empty() && !rest.is_empty() {
            match self.socket.write(rest) {
                Ok(sent) => rest = &rest[sent..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.held.extend_from_slice(rest);
        Ok(())
    }

    fn send_held(&mut self) -> io::Result<()> {
        while self.from < self.held.len() {
            match self.socket.write(&self.held[self.from..]) {
                Ok(sent) => self.from += sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.held.clear();
        self.from = 0;
        Ok(())
    }
}

/// Accepts a connection and reads its hello; a client that sends something else, or leaves, is turned away.
pub(super) fn accept(listener: &TcpListener) -> io::Result<Option<(TcpStream, bool, u32)>> {
    match listener.accept() {
        Ok((socket, _)) => Ok(greet(socket).ok()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads a newcomer's hello: its role and group.
fn greet(mut socket: TcpStream) -> io::Result<(TcpStream, bool, u32)> {
    let mut hello = [0; HELLO_OCTETS];
    socket.set_read_timeout(Some(std::time::Duration::from_secs(1)))?;
    socket.read_exact(&mut hello)?;
    let (publishes, group) = read_hello(&hello).ok_or(io::ErrorKind::InvalidData)?;
    socket.set_nodelay(true)?;
    socket.set_nonblocking(true)?;
    Ok((socket, publishes, group))
}

/// Serves until the process ends.
pub(super) fn serve(listener: &TcpListener) -> io::Result<()> {
    let mut poll = Poll::new(listener)?;
    let mut ends: Vec<Option<End>> = Vec::new();
    let mut buffer = vec![0; READ_OCTETS];
    let mut ready = Vec::new();
    loop {
        poll.wait(&mut ready)?;
        for &(token, flags) in &ready {
            if token == LISTENER {
                if let Some((socket, publishes, group)) = accept(listener)? {
                    let slot = ends.iter().position(Option::is_none).unwrap_or(ends.len());
                    poll.add(slot, &socket, EventFlags::IN)?;
                    let end = End { socket, publishes, group, held: Vec::new(), from: 0 };
                    if slot == ends.len() {
                        ends.push(Some(end));
                    } else {
                        ends[slot] = Some(end);
                    }
                }
                continue;
            }
            if relay(token as usize, flags, &mut ends, &mut buffer).is_err()
                && let Some(place) = ends.get_mut(token as usize)
            {
                *place = None;
            }
            watch(&poll, &ends)?;
        }
    }
}

/// One readiness report.
fn relay(slot: usize, flags: EventFlags, ends: &mut [Option<End>], buffer: &mut [u8]) -> io::Result<()> {
    let Some(Some(end)) = ends.get_mut(slot) else { return Ok(()) };
    if flags.contains(EventFlags::OUT) {
        end.send_held()?;
    }
    if !flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
        return Ok(());
    }
    let (publishes, group) = (end.publishes, end.group);
    let received = match end.socket.read(buffer) {
        Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(received) => received,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
        Err(error) => return Err(error),
    };
    for target in ends.iter_mut().flatten().filter(|end| end.group == group && end.publishes != publishes) {
        let _ = target.send(&buffer[..received]); // its own report will end it
    }
    Ok(())
}

/// Sets what each socket waits for; only needed while something is held anywhere.
fn watch(poll: &Poll, ends: &[Option<End>]) -> io::Result<()> {
    let full: Vec<(bool, u32)> = ends
        .iter()
        .flatten()
        .filter(|end| end.held.len() > HELD_OCTETS_MAX)
        .map(|end| (end.publishes, end.group))
        .collect();
    if full.is_empty() && ends.iter().flatten().all(|end| end.held.is_empty() && end.from == 0) && !WATCHED.get() {
        return Ok(());
    }
    let mut any = false;
    for (slot, end) in ends.iter().enumerate().filter_map(|(slot, end)| Some((slot, end.as_ref()?))) {
        let stopped = full.iter().any(|&(publishes, group)| publishes != end.publishes && group == end.group);
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, !stopped);
        flags.set(EventFlags::OUT, !end.held.is_empty());
        any |= stopped || !end.held.is_empty();
        poll.modify(slot, &end.socket, flags)?;
    }
    WATCHED.set(any);
    Ok(())
}

thread_local! {
    /// Some socket waits for something else than input.
    static WATCHED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}
