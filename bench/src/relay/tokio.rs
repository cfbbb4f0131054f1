//! The relay on tokio, one thread: a task per connection that reads and writes to its targets.

use std::io;
use std::net::TcpListener;

use ::tokio::io::{AsyncReadExt, AsyncWriteExt};
use ::tokio::net::tcp::OwnedWriteHalf;
use ::tokio::sync::Mutex;

use super::groups::Groups;
use crate::client::relay::{HELLO_OCTETS, read_hello};

/// Serves until the process ends.
pub(super) fn serve(listener: TcpListener) -> io::Result<()> {
    let runtime = ::tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let local = ::tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        listener.set_nonblocking(true)?;
        let listener = ::tokio::net::TcpListener::from_std(listener)?;
        let groups = Groups::default();
        loop {
            let (socket, _) = listener.accept().await?;
            ::tokio::task::spawn_local(relay(socket, groups.clone()));
        }
    })
}

async fn relay(socket: ::tokio::net::TcpStream, groups: Groups<Mutex<OwnedWriteHalf>>) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let (mut read, write) = socket.into_split();
    let mut hello = [0; HELLO_OCTETS];
    read.read_exact(&mut hello).await?;
    let Some((publishes, group)) = read_hello(&hello) else { return Ok(()) };
    let side = (group, publishes);
    let own = groups.join(side, Mutex::new(write));
    let mut buffer = vec![0; super::READ_OCTETS];
    loop {
        let received = read.read(&mut buffer).await.unwrap_or(0);
        if received == 0 {
            groups.leave(side, &own);
            return Ok(());
        }
        for target in groups.opposite(side) {
            let _ = target.lock().await.write_all(&buffer[..received]).await; // its own task will notice
        }
    }
}
