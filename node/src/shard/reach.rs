//! How far a panic reaches: while one transport's octets are read, that transport; anywhere else, the process.
//!
//! Reading (frames, gRPC messages, SLIM messages, keys) changes nothing but what the transport itself owns. What is done with
//! what was read changes tables others rely on, and cannot be trusted half done.

use super::core::Core;
use crate::conn::transport::Tx;
use slimline_wire::h2::Code;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Instant;

/// Whether a peer's octets are being read at this moment.
#[derive(Debug, Default)]
pub(crate) struct Reading(bool);

impl Reading {
    /// Reads: a panic in here costs the transport whose octets these are.
    #[inline]
    pub(crate) fn run<T>(&mut self, read: impl FnOnce() -> T) -> T {
        self.0 = true;
        let outcome = read();
        self.0 = false;
        outcome
    }
}

impl Core {
    /// Does a step that reads octets of a transport; `None` if the reading panicked, and the caller has to close it.
    ///
    /// A panic in what the step does with what it read goes on, and ends the process.
    #[inline]
    pub(crate) fn contain<T>(&mut self, step: impl FnOnce(&mut Self) -> T) -> Option<T> {
        match catch_unwind(AssertUnwindSafe(|| step(self))) {
            Ok(outcome) => Some(outcome),
            Err(_) if std::mem::take(&mut self.reading.0) => {
                self.counters.panics += 1;
                None
            }
            Err(panic) => resume_unwind(panic),
        }
    }

    /// As [`Core::with_tx`], for what a peer says about its windows and settings.
    pub(crate) fn read_with_tx(&mut self, slot: u32, generation: u32, read: impl FnOnce(&mut Tx)) {
        self.reading.0 = true;
        self.with_tx(slot, generation, read);
        self.reading.0 = false;
    }

    /// Closes a transport whose octets made us panic; its receive half is back in its place.
    #[cold]
    pub(crate) fn close_after_panic(&mut self, slot: u32, generation: u32, now: Instant) {
        tracing::error!(transport = slot, "internal error while reading from a peer: its transport is closed");
        self.fail_transport(slot, generation, Code::INTERNAL_ERROR, "internal error while reading", now);
    }

    /// As [`Core::close_after_panic`], of a connection whose parked message it was; it may be over already.
    #[cold]
    pub(crate) fn close_parked(&mut self, slot: u32, generation: u32, now: Instant) {
        let Some(connection) = self.connections.get(slot, generation) else { return };
        let (transport, life) = connection.transport;
        self.close_after_panic(transport, life, now);
        self.remove_connection(slot, generation);
    }
}

/// Runs a thread the node cannot do without; if that panics, the process ends, because its state can no longer be trusted.
pub(crate) fn or_abort<T>(what: &str, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| {
        tracing::error!("internal error in {what}: the process ends, its supervisor may start it anew");
        std::process::abort()
    })
}

/// Panics on purpose, for tests of the above: octets that spring them, in builds of tests only.
#[cfg(test)]
pub(crate) mod trap {
    /// The payload of a PING.
    pub(crate) const IN_FRAMES: [u8; 8] = *b"trap: h2";
    /// A message.
    pub(crate) const IN_MESSAGES: &[u8] = b"trap: message";
    /// The application a publish is for.
    pub(crate) const IN_FORWARDING: &str = "trap-forwarding";

    pub(crate) fn spring(is_sprung: bool) {
        assert!(!is_sprung, "a trap was sprung");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Set where this program is the one that shall end.
    const CHILD: &str = "SLIMLINE_TEST_ABORTS";

    #[test]
    fn a_panic_in_a_thread_of_the_node_ends_the_process_and_says_why() {
        if std::env::var_os(CHILD).is_some() {
            tracing_subscriber::fmt().init();
            or_abort("shard 3", || panic!("the reason"));
        }
        let own = std::env::current_exe().expect("this program");
        let name = "shard::reach::tests::a_panic_in_a_thread_of_the_node_ends_the_process_and_says_why";
        let ended = Command::new(own).args(["--exact", name, "--nocapture"]).env(CHILD, "1").output().expect("it runs");
        let said = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned();
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(ended.status.signal(), Some(libc::SIGABRT), "{said}");
        assert!(said.contains("the reason"), "{said}");
        assert!(said.contains("internal error in shard 3: the process ends"), "{said}");
    }
}
