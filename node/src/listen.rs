//! Opening listening sockets.

use slimline_config::Listen;
use socket2::{Domain, SockAddr, Socket, Type};
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// A listening socket and where it can be reached.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) socket: OwnedFd,
    pub(crate) endpoint: String,
}

/// A listener that could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("{endpoint}: {step} error")]
pub struct ListenError {
    endpoint: String,
    step: &'static str,
    source: io::Error,
}

/// How long a busy port is tried again: the kernel takes down a killed process's rings after the process itself is gone,
/// and a supervisor that restarts at once would find the port still taken.
const BUSY_PORT_PATIENCE: Duration = Duration::from_secs(1);

fn bind_patiently(socket: &Socket, address: &SockAddr) -> io::Result<()> {
    let deadline = Instant::now() + BUSY_PORT_PATIENCE;
    let mut told = false;
    loop {
        match socket.bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(?address, "address in use: trying again for a second");
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            other => return other,
        }
    }
}

/// Opens a listener. A stale socket file is removed first, a live one never (somebody answers on it).
///
/// Errors: the step that failed (`bind error` as upstream says it), with the system's reason as source.
pub(crate) fn listen(at: &Listen, backlog: u32) -> Result<Listener, ListenError> {
    let failed = |step| move |source| ListenError { endpoint: at.to_string(), step, source };
    let socket = match at {
        Listen::Tcp(address) => {
            let socket = Socket::new(Domain::for_address(*address), Type::STREAM, None).map_err(failed("socket"))?;
            socket.set_reuse_address(true).map_err(failed("socket"))?;
            bind_patiently(&socket, &SockAddr::from(*address)).map_err(failed("bind"))?;
            socket
        }
        Listen::Unix(path) => {
            let address = SockAddr::unix(path).map_err(failed("bind"))?;
            let probe = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed("socket"))?;
            match probe.connect(&address) {
                Ok(()) => return Err(failed("bind")(io::Error::from(io::ErrorKind::AddrInUse))),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path).map_err(failed("bind"))?;
                }
                Err(_) => {}
            }
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed("socket"))?;
            socket.bind(&address).map_err(failed("bind"))?;
            socket
        }
    };
    socket.set_nonblocking(true).map_err(failed("socket"))?;
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    socket.listen(backlog).map_err(failed("listen"))?;
    let endpoint = match at {
        Listen::Tcp(address) => {
            socket.local_addr().ok().and_then(|bound| bound.as_socket()).unwrap_or(*address).to_string()
        }
        Listen::Unix(_) => at.to_string(),
    };
    Ok(Listener { socket: socket.into(), endpoint })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_frees_itself_soon_is_waited_for_and_a_busy_one_refused() {
        let first = listen(&Listen::Tcp("127.0.0.1:0".parse().expect("an address")), 8).expect("a free port");
        let address = first.endpoint.parse().expect("an address");
        let closing = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            drop(first);
        });
        let second = listen(&Listen::Tcp(address), 8).expect("free after 50 ms");
        closing.join().expect("closed");
        let refused = listen(&Listen::Tcp(address), 8).expect_err("in use for good");
        assert_eq!(refused.to_string(), format!("{address}: bind error"));
        drop(second);
    }

    #[test]
    fn as_many_callers_wait_as_configured() {
        for (backlog, callers) in [(2, 2), (64, 40)] {
            let listener =
                listen(&Listen::Tcp("127.0.0.1:0".parse().expect("an address")), backlog).expect("a free port");
            let address: std::net::SocketAddr = listener.endpoint.parse().expect("an address");
            let call = |patience| std::net::TcpStream::connect_timeout(&address, patience);
            let waiting: Vec<_> = (0..callers).map(|_| call(Duration::from_secs(20)).expect("a place")).collect();
            if backlog < 10 {
                // The kernel takes one more than it was told, and lets the next ones try again until they give up.
                let more = (0..3).filter(|_| call(Duration::from_millis(300)).is_ok()).count();
                assert!(more <= 1, "{more} more than {backlog}");
            }
            drop(waiting);
        }
    }

    #[test]
    fn a_stale_socket_file_is_replaced_and_a_live_one_never() {
        let directory = std::env::temp_dir().join(format!("slimline-listen-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let at = Listen::Unix(directory.join("node.sock"));
        let live = listen(&at, 8).expect("free");
        let refused = listen(&at, 8).expect_err("somebody answers there");
        assert!(refused.to_string().ends_with("bind error"), "{refused}");
        drop(live); // the file stays
        listen(&at, 8).expect("stale: replaced");
        std::fs::remove_dir_all(directory).expect("removed");
    }
}
