//! The door over glommio: its executor, its reactor, its sockets. A task per connection reads; the worker's wait is
//! the executor's main future, so the load is the same and only what drives the sockets differs.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::net::TcpStream;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{self, Context, Poll};
use std::time::Duration;

use ::glommio::{LocalExecutor, LocalExecutorBuilder, Placement, Task, spawn_local};
use futures_io::{AsyncRead, AsyncWrite};

use super::{Arrival, Door, Outbox, Waker};

/// Octets taken from one socket at once; as much as the door over epoll takes.
const RECEIVE_OCTETS: usize = 256 * 1024;
/// Locked memory one executor asks for; the rest of its rings comes on top.
const IO_MEMORY_OCTETS: usize = 1024 * 1024;

/// A connected socket, which one task reads and another may write at the same time.
#[derive(Clone)]
pub(crate) struct Socket(Rc<RefCell<::glommio::net::TcpStream>>);

impl Socket {
    /// Takes a socket over; only inside an executor.
    pub(crate) fn new(stream: ::glommio::net::TcpStream) -> Self {
        Self(Rc::new(RefCell::new(stream)))
    }

    /// Reads what is there, at most `into`.
    pub(crate) async fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| Pin::new(&mut *self.0.borrow_mut()).poll_read(cx, into)).await
    }

    fn poll_write(&self, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_write(cx, octets)
    }

    /// Writes all of `octets`.
    pub(crate) async fn write_all(&self, mut octets: &[u8]) -> io::Result<()> {
        while !octets.is_empty() {
            let written = poll_fn(|cx| self.poll_write(cx, octets)).await?;
            octets = &octets[written..];
        }
        Ok(())
    }
}

/// Wakes the main future, from any thread.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: AtomicBool,
    waiting: Mutex<Option<task::Waker>>,
}

impl Bell {
    fn waiting(&self) -> std::sync::MutexGuard<'_, Option<task::Waker>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a wait, or lets the next one return at once.
    pub(crate) fn ring(&self) {
        self.rung.store(true, Ordering::SeqCst);
        if let Some(waker) = self.waiting().take() {
            waker.wake();
        }
    }
}

/// A connection: its slot, and how many have had it before.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Seat {
    slot: u32,
    life: u32,
}

enum What {
    Octets(Vec<u8>, usize),
    Ended(Option<io::Error>),
    Writable,
}

/// Where tasks leave what happened for the worker.
#[derive(Default)]
struct Hall {
    arrived: RefCell<VecDeque<(Seat, What)>>,
    waiting: Cell<Option<task::Waker>>,
    /// Readers whose octets the worker has not taken yet: one read per socket and turn.
    readers: RefCell<Vec<task::Waker>>,
    /// Turns so far; a reader reads once in each.
    turn: Cell<u64>,
    spare: RefCell<Vec<Vec<u8>>>,
}

impl Hall {
    fn tell(&self, seat: Seat, what: What) {
        self.arrived.borrow_mut().push_back((seat, what));
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }

    /// Reads from `socket` until it ends.
    async fn receive(self: Rc<Self>, seat: Seat, socket: Socket) {
        loop {
            // Buffers are taken only while there is something to read: idle connections hold none.
            let read = poll_fn(|cx| {
                let mut buffer = self.spare.borrow_mut().pop().unwrap_or_else(|| vec![0; RECEIVE_OCTETS]);
                let read = pin!(socket.read(&mut buffer)).poll(cx);
                match read {
                    Poll::Ready(Ok(received)) if received > 0 => Poll::Ready(Ok((buffer, received))),
                    other => {
                        self.spare.borrow_mut().push(buffer);
                        other.map(|read| Err(read.err()))
                    }
                }
            });
            match read.await {
                Ok((buffer, received)) => self.tell(seat, What::Octets(buffer, received)),
                Err(reason) => return self.tell(seat, What::Ended(reason)),
            }
            let turn = self.turn.get();
            poll_fn(|cx| {
                if self.turn.get() > turn {
                    return Poll::Ready(());
                }
                self.readers.borrow_mut().push(cx.waker().clone());
                Poll::Pending
            })
            .await;
        }
    }

    /// Sends what `socket` did not take at once.
    async fn send(self: Rc<Self>, seat: Seat, socket: Socket, octets: Vec<u8>, from: usize) {
        match socket.write_all(&octets[from..]).await {
            Ok(()) => self.tell(seat, What::Writable),
            Err(error) => self.tell(seat, What::Ended(Some(error))),
        }
    }

    /// Ready when something has arrived, the bell rang or the time is over.
    async fn wait(&self, wait: Duration, bell: &Bell) {
        let mut timer = pin!((!wait.is_zero()).then(|| ::glommio::timer::Timer::new(wait)));
        poll_fn(|cx| {
            *bell.waiting() = Some(cx.waker().clone());
            if bell.rung.swap(false, Ordering::SeqCst) || !self.arrived.borrow().is_empty() {
                return Poll::Ready(());
            }
            self.waiting.set(Some(cx.waker().clone()));
            match timer.as_mut().as_pin_mut() {
                Some(timer) => timer.poll(cx).map(|_| ()),
                None => Poll::Ready(()),
            }
        })
        .await;
        self.waiting.take();
        bell.waiting().take();
    }
}

struct Link {
    seat: Seat,
    socket: Socket,
    _receive: Task<()>,
}

/// See the module.
pub(crate) struct Glommio {
    hall: Rc<Hall>,
    links: Vec<Option<Link>>,
    /// How often each slot has been taken.
    lives: Vec<u32>,
    unsent: Vec<(u32, Vec<u8>)>,
    /// Blocks that were sent, for the next outbox.
    blocks: Vec<Vec<u8>>,
    bell: Arc<Bell>,
    executor: LocalExecutor,
}

impl Glommio {
    /// Starts an executor on the calling thread.
    ///
    /// Errors: io_uring is denied, or less memory may be locked than it wants.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            hall: Rc::default(),
            links: Vec::new(),
            lives: Vec::new(),
            unsent: Vec::new(),
            blocks: Vec::new(),
            bell: Arc::default(),
            executor: executor()?,
        })
    }
}

/// An executor on the calling thread, wherever that may run.
pub(crate) fn executor() -> io::Result<LocalExecutor> {
    LocalExecutorBuilder::new(Placement::Unbound).io_memory(IO_MEMORY_OCTETS).make().map_err(|error| {
        io::Error::other(format!("{error}; it wants io_uring and 512 KiB of locked memory (ulimit -l)"))
    })
}

impl Door for Glommio {
    fn adopt(&mut self, slot: u32, socket: TcpStream) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        let at = slot as usize;
        if self.links.len() <= at {
            self.links.resize_with(at + 1, || None);
            self.lives.resize(at + 1, 0);
        }
        self.lives[at] = self.lives[at].wrapping_add(1);
        let seat = Seat { slot, life: self.lives[at] };
        let hall = self.hall.clone();
        self.links[at] = Some(self.executor.run(async move {
            let socket = Socket::new(socket2::Socket::from(socket).into());
            Link { seat, socket: socket.clone(), _receive: spawn_local(hall.receive(seat, socket)) }
        }));
        Ok(())
    }

    fn leave(&mut self, slot: u32, out: &mut Outbox) {
        let Some(link) = self.links.get_mut(slot as usize).and_then(Option::take) else { return };
        let mut last_words = Vec::new();
        self.unsent.retain_mut(|(of, octets)| *of != slot || (last_words.append(octets), false).1);
        last_words.extend_from_slice(&out.octets);
        let hall = self.hall.clone();
        self.executor.run(async move {
            // The task has the socket until they are gone.
            spawn_local(hall.send(link.seat, link.socket.clone(), last_words, 0)).detach();
            drop(link);
        });
    }

    fn send(&mut self, slot: u32, out: &mut Outbox) -> io::Result<()> {
        if !out.blocked && !out.is_empty() {
            let octets = out.take(self.blocks.pop().unwrap_or_default());
            self.unsent.push((slot, octets));
            out.blocked = true; // one send at a time; more may gather meanwhile
        }
        Ok(())
    }

    fn wait(&mut self, wait: Duration, tell: &mut dyn FnMut(u32, Arrival<'_>)) -> io::Result<()> {
        let Self { hall, links, unsent, blocks, bell, executor, .. } = self;
        executor.run(async {
            hall.turn.set(hall.turn.get() + 1);
            hall.readers.take().into_iter().for_each(task::Waker::wake);
            for (slot, mut octets) in unsent.drain(..) {
                let Some(Some(link)) = links.get(slot as usize) else { continue };
                let (seat, socket) = (link.seat, link.socket.clone());
                match socket.poll_write(&mut Context::from_waker(task::Waker::noop()), &octets) {
                    Poll::Ready(Ok(sent)) if sent == octets.len() => {
                        octets.clear();
                        blocks.push(octets);
                        hall.tell(seat, What::Writable);
                    }
                    Poll::Ready(Err(error)) => hall.tell(seat, What::Ended(Some(error))),
                    other => {
                        let sent = if let Poll::Ready(Ok(sent)) = other { sent } else { 0 };
                        spawn_local(hall.clone().send(seat, socket, octets, sent)).detach();
                    }
                }
            }
            hall.wait(wait, bell).await;
        });
        while let Some((seat, what)) = { self.hall.arrived.borrow_mut().pop_front() } {
            let Seat { slot, .. } = seat;
            let is_there = self.links.get(slot as usize).is_some_and(|l| l.as_ref().is_some_and(|l| l.seat == seat));
            match what {
                What::Octets(buffer, received) => {
                    if is_there {
                        tell(slot, Arrival::Octets(&buffer[..received]));
                    }
                    self.hall.spare.borrow_mut().push(buffer);
                }
                What::Ended(reason) if is_there => tell(slot, Arrival::Ended(reason)),
                What::Writable if is_there => tell(slot, Arrival::Writable),
                What::Ended(_) | What::Writable => {}
            }
        }
        Ok(())
    }

    fn waker(&self) -> Waker {
        Waker::Bell(self.bell.clone())
    }
}

impl Drop for Glommio {
    /// Sockets and timers end inside the executor that drives them.
    fn drop(&mut self) {
        let links = std::mem::take(&mut self.links);
        self.executor.run(async move { drop(links) });
    }
}
