//! What may happen to one socket of the fake kernel, one step at a time.

use std::collections::VecDeque;
use std::io;
use std::time::Instant;

use super::super::options::IoCounters;
use super::super::packer::Packer;
use super::super::{Block, Done, Ended, Key};
use super::world::{Side, World};

pub(super) struct Socket {
    pub(super) wire: usize,
    pub(super) connecting: Option<Instant>,
    pub(super) receiving: bool,
    pub(super) pausing: bool,
    /// When the receive that is possible completes.
    pub(super) receive_due: Option<Instant>,
    pub(super) sending: Option<Sending>,
    /// When everything is cancelled and closed, and whether by reset.
    pub(super) closing: Option<(Instant, bool)>,
}

pub(super) struct Sending {
    pub(super) block: Block,
    pub(super) from: usize,
    pub(super) due: Instant,
    /// The octets travelled; only the completion is late.
    pub(super) taken: Option<usize>,
}

pub(super) fn step_connect(key: Key, socket: &mut Socket, world: &mut World, done: &mut VecDeque<Done>) -> bool {
    if socket.closing.is_some() || socket.connecting.is_none_or(|due| due > world.now) {
        return false;
    }
    socket.connecting = None;
    let result = if world.dice.happens(world.faults.connect_error) || world.wires[socket.wire].reset {
        world.injected.connect_error += 1;
        world.wires[socket.wire].break_off();
        Err(io::Error::from_raw_os_error(libc::ECONNREFUSED))
    } else {
        Ok(())
    };
    done.push_back(Done::Connected { key, result });
    true
}

pub(super) fn step_receive(
    key: Key,
    socket: &mut Socket,
    world: &mut World,
    buffers: &mut Packer,
    counters: &mut IoCounters,
    done: &mut VecDeque<Done>,
) -> bool {
    let wire = &world.wires[socket.wire];
    let possible = !wire.to_shard.is_empty() || wire.peer != Side::Open || wire.reset;
    if socket.closing.is_some() || socket.connecting.is_some() || !(socket.receiving || socket.pausing) {
        return false;
    }
    if !possible && !socket.pausing {
        return false;
    }
    let due = *socket.receive_due.get_or_insert_with(|| world.moment());
    if due > world.now {
        return false;
    }
    socket.receive_due = None;
    if socket.pausing && !(possible && loses_race(world)) {
        socket.pausing = false;
        let why = Ended::Cancelled;
        done.push_back(Done::ReceiveEnded { key, why });
        return true;
    }
    let starves = world.dice.happens(world.faults.no_buffers);
    let why = 'ended: {
        let wire = &mut world.wires[socket.wire];
        if wire.reset {
            break 'ended Ended::Error(io::Error::from_raw_os_error(libc::ECONNRESET));
        }
        if wire.to_shard.is_empty() {
            break 'ended Ended::Eof;
        }
        let Some(room) = buffers.room().filter(|_| !starves) else {
            world.injected.no_buffers += u64::from(starves);
            counters.enobufs += 1;
            break 'ended Ended::NoBuffers;
        };
        let most = room.len().min(wire.to_shard.len());
        let (count, short) = world.share(most, world.faults.short_receive);
        world.injected.short_receive += u64::from(short);
        let octets = world.wires[socket.wire].to_shard.drain(..count);
        room.iter_mut().zip(octets).for_each(|(to, from)| *to = from);
        counters.octets_received += count as u64;
        let lease = buffers.lend(count);
        done.push_back(Done::Received { key, lease });
        return true;
    };
    socket.receiving = false;
    socket.pausing = false;
    done.push_back(Done::ReceiveEnded { key, why });
    true
}

pub(super) fn step_send(
    key: Key,
    socket: &mut Socket,
    world: &mut World,
    counters: &mut IoCounters,
    done: &mut VecDeque<Done>,
) -> bool {
    let Some(mut sending) = socket.sending.take_if(|sending| sending.due <= world.now) else {
        return false;
    };
    let closing = socket.closing.is_some();
    let cancelled = closing && sending.taken.is_none() && !loses_race(world);
    let wire = &world.wires[socket.wire];
    let result = if let Some(taken) = sending.taken {
        Ok(taken)
    } else if cancelled {
        Err(io::Error::from_raw_os_error(libc::ECANCELED))
    } else if wire.reset {
        Err(io::Error::from_raw_os_error(libc::ECONNRESET))
    } else if wire.shard != Side::Open || socket.connecting.is_some() {
        Err(io::Error::from_raw_os_error(libc::EPIPE))
    } else {
        let rest = sending.block.len() - sending.from;
        let room = match wire.peer {
            Side::Closed => rest, // it vanishes, and the answer is a reset
            _ => wire.room_to_peer(),
        };
        if room == 0 {
            if closing {
                Err(io::Error::from_raw_os_error(libc::ECANCELED))
            } else {
                socket.sending = Some(sending);
                return false;
            }
        } else {
            let (count, short) = world.share(rest.min(room), world.faults.short_send);
            world.injected.short_send += u64::from(short);
            let wire = &mut world.wires[socket.wire];
            if wire.peer == Side::Closed {
                wire.break_off();
            } else {
                let mut left = count;
                for piece in sending.block.pieces(sending.from) {
                    let taken = &piece[..left.min(piece.len())];
                    wire.to_peer.extend(taken);
                    left -= taken.len();
                }
            }
            if !closing && world.dice.happens(world.faults.late_sent) {
                world.injected.late_sent += 1;
                sending.taken = Some(count);
                sending.due = world.moment();
                socket.sending = Some(sending);
                return false;
            }
            Ok(count)
        }
    };
    let Sending { block, from, .. } = sending;
    if let Ok(octets) = result {
        counters.octets_sent += octets as u64;
        counters.short_sends += u64::from(octets < block.len() - from);
    }
    done.push_back(Done::Sent { key, block, result });
    true
}

/// When something can happen on this socket, as far as is decided.
pub(super) fn next_of(socket: &Socket, world: &World) -> Option<Instant> {
    let wire = &world.wires[socket.wire];
    let closing = socket.closing.map(|(due, _)| due);
    let is_free = closing.is_none() && socket.connecting.is_none();
    let can_receive =
        socket.pausing || socket.receiving && (!wire.to_shard.is_empty() || wire.peer != Side::Open || wire.reset);
    let receive = (is_free && can_receive).then(|| socket.receive_due.unwrap_or(world.now));
    let send = socket.sending.as_ref().filter(|sending| {
        let can_end = closing.is_some() || wire.reset || wire.peer == Side::Closed || wire.shard != Side::Open;
        sending.taken.is_some() || can_end || wire.room_to_peer() > 0
    });
    let close = closing.filter(|_| socket.sending.is_none());
    [socket.connecting.filter(|_| closing.is_none()), receive, send.map(|sending| sending.due), close]
        .into_iter()
        .flatten()
        .min()
}

/// A cancel comes too late: what it was for happens.
fn loses_race(world: &mut World) -> bool {
    let loses = world.dice.happens(world.faults.cancel_race);
    world.injected.cancel_race += u64::from(loses);
    loses
}
