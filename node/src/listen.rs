//! Opening listening sockets.

use slimline_config::Listen;
use socket2::{Domain, SockAddr, Socket, Type};
use std::io;
use std::os::fd::OwnedFd;

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

/// Opens a listener. A stale socket file is removed first, a live one never (somebody answers on it).
///
/// Errors: the step that failed (`bind error` as upstream says it), with the system's reason as source.
pub(crate) fn listen(at: &Listen, backlog: u32) -> Result<Listener, ListenError> {
    let failed = |step| move |source| ListenError { endpoint: at.to_string(), step, source };
    let socket = match at {
        Listen::Tcp(address) => {
            let socket = Socket::new(Domain::for_address(*address), Type::STREAM, None).map_err(failed("socket"))?;
            socket.set_reuse_address(true).map_err(failed("socket"))?;
            socket.bind(&SockAddr::from(*address)).map_err(failed("bind"))?;
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
