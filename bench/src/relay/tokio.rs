//! The relay on tokio, one thread: a task per connection that reads and writes to its targets.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;

use ::tokio::io::{AsyncReadExt, AsyncWriteExt};
use ::tokio::net::tcp::OwnedWriteHalf;
use ::tokio::sync::Mutex;

use crate::client::relay::{HELLO_OCTETS, read_hello};

type Targets = Rc<RefCell<HashMap<(u32, bool), Vec<Rc<Mutex<OwnedWriteHalf>>>>>>;

/// Serves until the process ends.
pub(super) fn serve(listener: TcpListener) -> io::Result<()> {
    let runtime = ::tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let local = ::tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        listener.set_nonblocking(true)?;
        let listener = ::tokio::net::TcpListener::from_std(listener)?;
        let targets = Targets::default();
        loop {
            let (socket, _) = listener.accept().await?;
            ::tokio::task::spawn_local(relay(socket, targets.clone()));
        }
    })
}

async fn relay(socket: ::tokio::net::TcpStream, targets: Targets) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let (mut read, write) = socket.into_split();
    let mut hello = [0; HELLO_OCTETS];
    read.read_exact(&mut hello).await?;
    let Some((publishes, group)) = read_hello(&hello) else { return Ok(()) };
    let own = Rc::new(Mutex::new(write));
    targets.borrow_mut().entry((group, publishes)).or_default().push(own.clone());
    let mut buffer = vec![0; super::READ_OCTETS];
    loop {
        let received = read.read(&mut buffer).await.unwrap_or(0);
        if received == 0 {
            if let Some(side) = targets.borrow_mut().get_mut(&(group, publishes)) {
                side.retain(|target| !Rc::ptr_eq(target, &own));
            }
            return Ok(());
        }
        let to = targets.borrow().get(&(group, !publishes)).cloned().unwrap_or_default();
        for target in to {
            let _ = target.lock().await.write_all(&buffer[..received]).await; // its own task will notice
        }
    }
}
