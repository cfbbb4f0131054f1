//! TCP_NODELAY from outside: a running node's sockets are duplicated into this process and told not to wait.
//!
//! A peer that leaves Nagle's algorithm on is measured as shipped; this shows what it would do without. A listener
//! hands the option on to what it accepts, and as a node may set it back, every new socket is looked at again and again.

use anyhow::{Context, Result, ensure};
use rustix::net::sockopt;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use std::collections::HashSet;
use std::fs;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How often new sockets are looked for.
const PAUSE: Duration = Duration::from_millis(20);

/// Sets the option on a process's TCP sockets, those to come included, until it is dropped.
pub(super) struct Nodelay {
    stop: Arc<AtomicBool>,
    /// Sockets that have it by our doing.
    set: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Nodelay {
    /// Begins with process `pid`, which is to listen already.
    ///
    /// Errors: the kernel does not let us have its sockets (it needs Linux 5.6, the same user, and ptrace allowed).
    pub(super) fn watch(pid: u32) -> Result<Self> {
        let process = i32::try_from(pid).ok().and_then(Pid::from_raw).context("a process id")?;
        let door = pidfd_open(process, PidfdFlags::empty()).context("pidfd_open")?;
        let mut sockets = Sockets { pid, door, seen: HashSet::new() };
        let first =
            sockets.set_new().context("cannot duplicate the node's sockets (pidfd_getfd: is ptrace allowed?)")?;
        ensure!(first > 0, "process {pid} has no TCP socket");
        let (stop, set) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(first)));
        let (is_over, counted) = (Arc::clone(&stop), Arc::clone(&set));
        let thread = thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                thread::sleep(PAUSE);
                // The process may end at any moment; then there is nothing to set.
                counted.fetch_add(sockets.set_new().unwrap_or(0), Ordering::Relaxed);
            }
        });
        Ok(Self { stop, set, thread: Some(thread) })
    }

    /// Sockets that were given the option so far.
    pub(super) fn sockets(&self) -> usize {
        self.set.load(Ordering::Relaxed)
    }
}

impl Drop for Nodelay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A process and what of it has been dealt with.
struct Sockets {
    pid: u32,
    door: OwnedFd,
    /// What `/proc/<pid>/fd` calls them: a descriptor's number is used again, an inode of a socket is not.
    seen: HashSet<String>,
}

impl Sockets {
    /// Sets the option on every socket not seen before; how many TCP sockets these were.
    fn set_new(&mut self) -> rustix::io::Result<usize> {
        let mut count = 0;
        for entry in fs::read_dir(format!("/proc/{}/fd", self.pid)).into_iter().flatten().flatten() {
            let target = fs::read_link(entry.path()).unwrap_or_default().to_string_lossy().into_owned();
            let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
            let Some(number) = number.filter(|_| target.starts_with("socket:") && !self.seen.contains(&target)) else {
                continue;
            };
            let socket = match pidfd_getfd(&self.door, number, PidfdGetfdFlags::empty()) {
                Ok(socket) => socket,
                Err(rustix::io::Errno::BADF | rustix::io::Errno::SRCH) => continue, // closed meanwhile
                Err(error) => return Err(error),
            };
            // A socket that is not TCP refuses, and need not be asked again.
            count += usize::from(sockopt::set_tcp_nodelay(&socket, true).is_ok());
            self.seen.insert(target);
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::time::Instant;

    #[test]
    fn sockets_of_a_process_are_told() {
        // Our own process stands for the node: its sockets are duplicated all the same.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let watch = Nodelay::watch(std::process::id()).unwrap();
        assert!(watch.sockets() >= 1);
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert!(accepted.nodelay().unwrap(), "the listener hands it on");
        let patience = Instant::now() + Duration::from_secs(10);
        while !client.nodelay().unwrap() {
            assert!(Instant::now() < patience, "a socket that came later is found");
            thread::sleep(PAUSE);
        }
    }
}
