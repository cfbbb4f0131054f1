//! The relay on glommio, one executor: a task per connection that reads and writes to its targets.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::task::{Poll, Waker};

use super::groups::Groups;
use crate::client::relay::{HELLO_OCTETS, read_hello};
use crate::engine::glommio::{Socket, executor};

/// A connection that others write to, one at a time.
struct Target {
    socket: Socket,
    busy: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

impl Target {
    async fn write_all(&self, octets: &[u8]) -> io::Result<()> {
        poll_fn(|cx| {
            if !self.busy.replace(true) {
                return Poll::Ready(());
            }
            self.waiting.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await;
        let written = self.socket.write_all(octets).await;
        self.busy.set(false);
        self.waiting.take().into_iter().for_each(Waker::wake);
        written
    }
}

/// Listens at `address` and serves until the process ends; glommio makes its listener itself.
pub(super) fn serve(address: &str) -> io::Result<()> {
    executor()?.run(async move {
        let listener = ::glommio::net::TcpListener::bind(address)?;
        super::announce(listener.local_addr()?, super::RelayEngine::Glommio);
        let groups = Groups::default();
        loop {
            let socket = listener.accept().await?;
            socket.set_nodelay(true)?;
            ::glommio::spawn_local(relay(Socket::new(socket), groups.clone())).detach();
        }
    })
}

async fn relay(socket: Socket, groups: Groups<Target>) -> io::Result<()> {
    let mut hello = [0; HELLO_OCTETS];
    let mut got = 0;
    while got < HELLO_OCTETS {
        match socket.read(&mut hello[got..]).await? {
            0 => return Ok(()),
            read => got += read,
        }
    }
    let Some((publishes, group)) = read_hello(&hello) else { return Ok(()) };
    let side = (group, publishes);
    let end = Target { socket: socket.clone(), busy: Cell::new(false), waiting: RefCell::default() };
    let own = groups.join(side, end);
    let mut buffer = vec![0; super::READ_OCTETS];
    loop {
        let received = socket.read(&mut buffer).await.unwrap_or(0);
        if received == 0 {
            groups.leave(side, &own);
            return Ok(());
        }
        for target in groups.opposite(side) {
            let _ = target.write_all(&buffer[..received]).await; // its own task will notice
        }
    }
}
