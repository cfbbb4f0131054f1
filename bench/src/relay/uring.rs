//! The relay over io_uring, through the node's own kernel door: what the node's engine costs without the node.

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;

use slimline_node::io::{Block, Done, Ended, Engine, EngineChoice, Io, IoOptions, Key};

use super::HELD_OCTETS_MAX;
use crate::client::relay::{HELLO_OCTETS, read_hello};

#[derive(Default)]
struct End {
    /// What came before the hello was whole.
    hello: Vec<u8>,
    /// Whether it publishes, and its group; none before its hello.
    side: Option<(bool, u32)>,
    held: Vec<u8>,
    /// Its last block, for the next send.
    spare: Vec<u8>,
    sending: bool,
    /// Receiving stopped because a target is full.
    paused: bool,
}

struct Relay {
    io: Engine,
    ends: Vec<Option<End>>,
    /// Ends with something to send at the end of the turn.
    dirty: Vec<usize>,
}

fn key(slot: usize) -> Key {
    Key { slot: slot as u32, generation: 0 } // a slot is used once in a relay's life
}

/// Serves until the process ends.
pub(super) fn serve(listener: TcpListener) -> io::Result<()> {
    let (mut io, _) = Engine::open(&IoOptions { engine: EngineChoice::Uring, ..IoOptions::default() })?;
    io.listen(0, OwnedFd::from(listener));
    let mut relay = Relay { io, ends: Vec::new(), dirty: Vec::new() };
    let mut done = VecDeque::new();
    loop {
        relay.io.enter(None, &mut done)?;
        for one in done.drain(..) {
            relay.complete(one)?;
        }
        relay.flush();
    }
}

impl Relay {
    fn complete(&mut self, done: Done) -> io::Result<()> {
        match done {
            Done::Accepted { socket, .. } => {
                let slot = self.ends.len();
                self.io.adopt(key(slot), socket)?;
                self.io.receive(key(slot));
                self.ends.push(Some(End::default()));
            }
            Done::AcceptFailed { error, .. } => return Err(error),
            Done::Received { key, lease } => {
                let slot = key.slot as usize;
                let octets = self.io.octets(&lease);
                let kept = forward(&mut self.ends, &mut self.dirty, slot, octets);
                self.io.put_back(lease);
                match kept {
                    None => self.end(slot),
                    Some(full) if full => {
                        self.io.pause(key);
                        if let Some(end) = &mut self.ends[slot] {
                            end.paused = true;
                        }
                    }
                    Some(_) => {}
                }
            }
            Done::ReceiveEnded { key, why: Ended::NoBuffers } => self.io.receive(key),
            Done::ReceiveEnded { why: Ended::Cancelled, .. } => {}
            Done::ReceiveEnded { key, .. } => self.end(key.slot as usize),
            Done::Sent { key, block, result } => match result {
                Ok(sent) if sent < block.len() => {
                    let (mut octets, _) = block.into_parts();
                    octets.drain(..sent);
                    self.io.send(key, Block::from(octets), 0);
                }
                Ok(_) => self.sent(key.slot as usize, block.into_parts().0),
                Err(_) => self.end(key.slot as usize),
            },
            Done::Closed { .. } | Done::Woken | Done::Connected { .. } => {}
        }
        Ok(())
    }

    /// A block has gone: the next may follow, and those who waited for room may go on.
    fn sent(&mut self, slot: usize, mut block: Vec<u8>) {
        let Some(Some(end)) = self.ends.get_mut(slot) else { return };
        block.clear();
        end.spare = block;
        end.sending = false;
        if !end.held.is_empty() {
            self.dirty.push(slot);
        }
        let Some((publishes, group)) = end.side else { return };
        if end.held.len() > HELD_OCTETS_MAX {
            return;
        }
        for (slot, end) in self.ends.iter_mut().enumerate().filter_map(|(slot, end)| Some((slot, end.as_mut()?))) {
            if end.paused && end.side == Some((!publishes, group)) {
                end.paused = false;
                self.io.receive(key(slot));
            }
        }
    }

    fn end(&mut self, slot: usize) {
        if self.ends.get_mut(slot).and_then(Option::take).is_none() {
            return;
        }
        self.io.close(key(slot));
        // Somebody may have waited for this one; who still has a full target stops again.
        for (slot, end) in self.ends.iter_mut().enumerate().filter_map(|(slot, end)| Some((slot, end.as_mut()?))) {
            if std::mem::take(&mut end.paused) {
                self.io.receive(key(slot));
            }
        }
    }

    fn flush(&mut self) {
        while let Some(slot) = self.dirty.pop() {
            let Some(Some(end)) = self.ends.get_mut(slot) else { continue };
            if !end.sending && !end.held.is_empty() {
                end.sending = true;
                let block = std::mem::replace(&mut end.held, std::mem::take(&mut end.spare));
                self.io.send(key(slot), Block::from(block), 0);
            }
        }
    }
}

/// Copies what `slot` received to its targets; true when one of them is full, `None` when it is no relay's client.
fn forward(ends: &mut [Option<End>], dirty: &mut Vec<usize>, slot: usize, mut octets: &[u8]) -> Option<bool> {
    let Some(Some(end)) = ends.get_mut(slot) else { return Some(false) };
    if end.side.is_none() {
        let (head, rest) = octets.split_at(octets.len().min(HELLO_OCTETS - end.hello.len()));
        end.hello.extend_from_slice(head);
        octets = rest;
        if let Ok(hello) = <&[u8; HELLO_OCTETS]>::try_from(end.hello.as_slice()) {
            end.side = Some(read_hello(hello)?);
        }
    }
    let Some((publishes, group)) = end.side else { return Some(false) };
    if octets.is_empty() {
        return Some(false);
    }
    let mut full = false;
    for (slot, target) in ends.iter_mut().enumerate().filter_map(|(slot, end)| Some((slot, end.as_mut()?))) {
        if target.side == Some((!publishes, group)) {
            target.held.extend_from_slice(octets);
            full |= target.held.len() > HELD_OCTETS_MAX;
            dirty.push(slot);
        }
    }
    Some(full)
}
