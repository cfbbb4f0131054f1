//! What the owner asks for, as entries of the ring.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use io_uring::{opcode, types};

use super::super::options::{Features, IoCounters};
use super::super::pool::Lease;
use super::super::socket::{self, Waker};
use super::super::token::Op;
use super::super::{Block, Done, Io, Key};
use super::address::Address;
use super::{Receive, Sending, Uring, towards};

impl Io for Uring {
    fn listen(&mut self, listener: u32, socket: OwnedFd) {
        self.start_listening(listener, socket);
    }

    fn accept(&mut self, listener: u32) {
        self.arm_accept(listener);
    }

    fn unlisten(&mut self, listener: u32) {
        self.stop_listening(listener);
    }

    fn adopt(&mut self, key: Key, socket: OwnedFd) -> io::Result<()> {
        self.ring.counts.kernel_calls += 2;
        socket::prepare(socket.as_fd())?;
        self.insert(key, socket);
        Ok(())
    }

    fn connect(&mut self, key: Key, address: SocketAddr) -> io::Result<()> {
        self.ring.counts.kernel_calls += 3;
        let fd = socket::open(address)?;
        socket::prepare(fd.as_fd())?;
        let socket = self.insert(key, fd);
        let address = Box::new(Address::from(address));
        let (pointer, length) = address.as_kernel();
        socket.connecting = Some(address);
        socket.pending += 1;
        let entry = towards!(key, socket, fd => opcode::Connect::new(fd, pointer, length).build());
        // SAFETY: names the socket and the boxed address, both kept in the row while the entry is pending.
        unsafe { self.push(Op::Connect, key, entry) };
        Ok(())
    }

    fn receive(&mut self, key: Key) {
        let Some(socket) = self.open(key) else { return };
        match socket.receive {
            Receive::Off => self.arm_receive(key),
            Receive::Pausing => socket.receive = Receive::Resuming,
            Receive::On | Receive::Resuming => {}
        }
    }

    fn pause(&mut self, key: Key) {
        let Some(socket) = self.open(key) else { return };
        match socket.receive {
            Receive::On => {
                socket.receive = Receive::Pausing;
                self.cancel(key, Op::Receive);
            }
            Receive::Resuming => socket.receive = Receive::Pausing,
            Receive::Off | Receive::Pausing => {}
        }
    }

    fn send(&mut self, key: Key, block: Block, from: usize) {
        assert!(from < block.len(), "nothing to send");
        if block.in_one_piece(from).is_none() {
            return self.send_gathered(key, block, from);
        }
        let Some(socket) = self.open(key) else {
            return self.ready.push_back(Done::unsent(key, block));
        };
        assert!(socket.sending.is_none(), "{key:?} has a send in flight");
        let rest = block.in_one_piece(from).unwrap_or_default();
        let (pointer, asked) = (rest.as_ptr(), rest.len());
        // The kernel counts in 32 bits; a longer block goes out as a short send.
        let length = u32::try_from(asked).unwrap_or(u32::MAX);
        socket.sending = Some(Sending { block, asked, gather: None });
        socket.pending += 1;
        let entry = towards!(key, socket, fd => {
            opcode::Send::new(fd, pointer, length).flags(libc::MSG_NOSIGNAL).build()
        });
        // SAFETY: names the socket and the block's heap memory (which moving the block does not move); both stay in
        // the row, untouched, while the entry is pending.
        unsafe { self.push(Op::Send, key, entry) };
    }

    fn finish(&mut self, key: Key) {
        if let Some(socket) = self.open(key) {
            socket::finish(socket.fd.as_fd());
            self.ring.counts.kernel_calls += 1;
        }
    }

    fn quick_ack(&mut self, key: Key) {
        if let Some(socket) = self.open(key) {
            socket::quick_ack(socket.fd.as_fd());
            self.ring.counts.kernel_calls += 1;
        }
    }

    fn close(&mut self, key: Key) {
        self.start_closing(key);
    }

    fn reset(&mut self, key: Key) {
        if let Some(socket) = self.open(key) {
            socket::reset_on_close(socket.fd.as_fd());
            self.ring.counts.kernel_calls += 1;
            self.start_closing(key);
        }
    }

    fn octets<'a>(&'a self, lease: &'a Lease) -> &'a [u8] {
        self.buffers.pool().octets(lease)
    }

    fn octets_mut<'a>(&'a mut self, lease: &'a mut Lease) -> &'a mut [u8] {
        self.buffers.pool_mut().octets_mut(lease)
    }

    fn put_back(&mut self, lease: Lease) {
        self.buffers.put_back(lease);
    }

    fn enter(&mut self, wait: Option<Duration>, done: &mut VecDeque<Done>) -> io::Result<()> {
        self.counters.enters += 1;
        let wait = if self.ready.is_empty() { wait } else { Some(Duration::ZERO) };
        self.ring.enter(wait)?;
        self.reap(done)
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn features(&self) -> Features {
        self.features
    }

    fn counters(&self) -> IoCounters {
        let ring = self.ring.counts;
        IoCounters {
            kernel_calls: ring.kernel_calls,
            completions: ring.completions,
            cq_overflow: ring.cq_overflow,
            sq_full: ring.sq_full,
            recv_bufs_lent: u64::from(self.buffers.pool().leases_out()),
            ..self.counters
        }
    }
}
