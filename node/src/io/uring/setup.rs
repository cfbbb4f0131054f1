//! Making a ring with as much as this kernel gives: the ladder, and why there is none.

use std::fs;
use std::io;

use io_uring::{IoUring, Probe, opcode, types};
use rustix::process::{Resource, getrlimit};

use super::super::buf_ring::BufRing;
use super::super::options::{EngineKind, Features, IoOptions};
use super::ring::Ring;
use super::{BUFFER_GROUP, Mode, probe};

/// A ring ready for use, and what it can do.
pub(super) struct Ready {
    pub(super) ring: Ring,
    pub(super) buffers: BufRing,
    pub(super) features: Features,
    pub(super) mode: Mode,
}

/// Makes the ring, its buffers and everything optional, best first.
///
/// Errors: the text says what is missing and what an operator can do about it.
pub(super) fn open(options: &IoOptions) -> io::Result<Ready> {
    let (ring, rung) = make(options)?;
    check_required(&ring)?;
    let mut features = Features {
        defer_taskrun: rung.defer_taskrun,
        coop_taskrun: rung.coop_taskrun,
        ring_entries: ring.params().sq_entries(),
        cq_entries: ring.params().cq_entries(),
        ..Features::none(EngineKind::Uring, options.recv_buf_count, options.recv_buf_octets)
    };
    let has_bundles = ring.params().is_feature_recvsend_bundle() && kernel() >= BUNDLES_SINCE;
    let mut ring = Ring::new(ring, rung.defer_taskrun || rung.coop_taskrun);
    features.registered_ring = ring.register_self();
    features.registered_files = register_files(&mut ring, options);

    let mut buffers = BufRing::new(options.recv_buf_count, options.recv_buf_octets)?;
    features.incremental = register_buffers(&mut ring, &mut buffers, options)?;

    let off = options.disable;
    let modes = [
        (Mode::Bundle, has_bundles && !off.bundles && !off.multishot),
        (Mode::Multishot, !off.multishot),
        (Mode::Single, true),
    ];
    for (mode, _) in modes.into_iter().filter(|(_, allowed)| *allowed) {
        if probe::receives(&mut ring, &mut buffers, mode)? {
            features.bundles = mode == Mode::Bundle;
            features.multishot = mode != Mode::Single;
            return Ok(Ready { ring, buffers, features, mode });
        }
    }
    Err(io::Error::other(
        "this kernel's io_uring does not receive into provided buffers as it should (Linux 5.19 does)",
    ))
}

/// One way to set a ring up; each asks for less than the one before.
#[derive(Clone, Copy)]
struct Rung {
    single_issuer: bool,
    defer_taskrun: bool,
    coop_taskrun: bool,
    no_sqarray: bool,
    submit_all: bool,
}

const LADDER: [Rung; 6] = {
    let best = Rung {
        single_issuer: true,
        defer_taskrun: true,
        coop_taskrun: false,
        no_sqarray: true, // Linux 6.6
        submit_all: true,
    };
    let deferred = Rung { no_sqarray: false, ..best }; // Linux 6.1
    let cooperative = Rung { defer_taskrun: false, coop_taskrun: true, ..best };
    let issuer = Rung { no_sqarray: false, ..cooperative }; // Linux 6.0
    let plain = Rung { single_issuer: false, ..issuer }; // Linux 5.19
    let bare = Rung { coop_taskrun: false, submit_all: false, ..plain };
    [best, deferred, cooperative, issuer, plain, bare]
};

fn make(options: &IoOptions) -> io::Result<(IoUring, Rung)> {
    let mut refused = io::Error::from_raw_os_error(libc::EINVAL);
    for rung in LADDER {
        if rung.defer_taskrun && options.disable.defer_taskrun {
            continue;
        }
        let (mut entries, mut completions) = (options.ring_entries, options.cq_entries);
        loop {
            let error = match build(rung, entries, completions) {
                Ok(ring) => return Ok((ring, rung)),
                Err(error) => error,
            };
            match error.raw_os_error() {
                Some(libc::ENOMEM) if completions > COMPLETIONS_MIN => {
                    completions /= 2;
                    entries = entries.min(completions / 2);
                }
                Some(libc::EINVAL) => {
                    refused = error;
                    break;
                }
                _ => return Err(explain(error)),
            }
        }
    }
    Err(explain(refused))
}

fn build(rung: Rung, entries: u32, completions: u32) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.dontfork().setup_clamp().setup_cqsize(completions);
    if rung.submit_all {
        builder.setup_submit_all();
    }
    if rung.single_issuer {
        builder.setup_single_issuer();
    }
    if rung.defer_taskrun {
        builder.setup_defer_taskrun();
    }
    if rung.coop_taskrun {
        builder.setup_coop_taskrun();
    }
    if rung.defer_taskrun || rung.coop_taskrun {
        builder.setup_taskrun_flag();
    }
    if rung.no_sqarray {
        builder.setup_no_sqarray();
    }
    builder.build(entries)
}

/// Says what is in the way and what helps.
fn explain(error: io::Error) -> io::Error {
    let text = match error.raw_os_error() {
        Some(libc::ENOMEM) => format!(
            "no memory for an io_uring of even {COMPLETIONS_MIN} completions: RLIMIT_MEMLOCK is {}; raise it \
             (ulimit -l, LimitMEMLOCK= in systemd, --ulimit memlock= in containers)",
            getrlimit(Resource::Memlock)
                .current
                .map_or_else(|| "unlimited".to_owned(), |octets| format!("{octets} octets")),
        ),
        Some(libc::ENOSYS) => "this kernel has no io_uring (Linux 5.19 or later is needed)".to_owned(),
        Some(libc::EPERM | libc::EACCES) => {
            let setting = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
            match setting.trim() {
                "" | "0" => "io_uring is denied to this process, most likely by the seccomp profile of its container \
                             (allow io_uring_setup, io_uring_enter and io_uring_register)"
                    .to_owned(),
                level => format!("io_uring is denied: the sysctl kernel.io_uring_disabled is {level} (0 allows it)"),
            }
        }
        Some(libc::EINVAL) => "this kernel's io_uring is too old (Linux 5.19 or later is needed)".to_owned(),
        Some(libc::EMFILE | libc::ENFILE) => "no file descriptor is left for an io_uring (RLIMIT_NOFILE)".to_owned(),
        _ => format!("io_uring cannot be set up: {error}"),
    };
    io::Error::new(error.kind(), text)
}

/// What no rung does without.
fn check_required(ring: &IoUring) -> io::Result<()> {
    let too_old = || explain(io::Error::from_raw_os_error(libc::EINVAL));
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(|_| too_old())?;
    let needed = [
        opcode::Recv::CODE,
        opcode::Send::CODE,
        opcode::SendMsg::CODE,
        opcode::Accept::CODE,
        opcode::Connect::CODE,
        opcode::Close::CODE,
        opcode::PollAdd::CODE,
        opcode::AsyncCancel::CODE,
    ];
    let has_all = needed.into_iter().all(|code| probe.is_supported(code));
    let waits = ring.params().is_feature_ext_arg() && ring.params().is_feature_nodrop();
    if has_all && waits && ring.params().is_feature_fast_poll() { Ok(()) } else { Err(too_old()) }
}

/// A table for sockets; its size, 0 = none. The kernel bounds it by RLIMIT_NOFILE.
fn register_files(ring: &mut Ring, options: &IoOptions) -> u32 {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let count = options.registered_files.min(u32::try_from(limit).unwrap_or(u32::MAX));
    if count == 0 || options.disable.registered_files {
        return 0;
    }
    match ring.submitter().register_files_sparse(count) {
        Ok(()) => count,
        Err(_) => 0,
    }
}

/// Gives the buffers to the kernel; true = it fills them piece by piece.
fn register_buffers(ring: &mut Ring, buffers: &mut BufRing, options: &IoOptions) -> io::Result<bool> {
    let address = buffers.address();
    let count = options.recv_buf_count;
    let mut register = |flags| {
        // SAFETY: ring memory and buffers live in `BufRing`, which the engine drops only after the kernel is done with
        // everything in flight and the ring is closed (`Uring`'s drop), or leaks.
        unsafe { ring.submitter().register_buf_ring_with_flags(address, count, BUFFER_GROUP, flags) }
    };
    #[expect(clippy::cast_possible_truncation, reason = "16 bits wide in the call, 32 in the header; its value is 2")]
    const INCREMENTAL: u16 = types::IOU_PBUF_RING_INC as u16;
    if !options.disable.incremental && kernel() >= INCREMENTAL_SINCE && register(INCREMENTAL).is_ok() {
        buffers.set_incremental();
        return Ok(true);
    }
    register(0).map_err(|error| {
        let text = format!("io_uring gives no ring of receive buffers (Linux 5.19 or later is needed): {error}");
        io::Error::new(error.kind(), text)
    })?;
    Ok(false)
}

/// The running kernel's version, (0, 0) when it does not say.
fn kernel() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    version(&release).unwrap_or_default()
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Bundles came with Linux 6.10; used from a version on that is past the fixes they needed at first.
const BUNDLES_SINCE: (u32, u32) = (6, 16);
/// Incremental buffers came with Linux 6.12; likewise.
const INCREMENTAL_SINCE: (u32, u32) = (6, 17);
/// Below this a ring is not worth having.
const COMPLETIONS_MIN: u32 = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_versions_compare_by_number() {
        assert_eq!(version("6.18.44-fc"), Some((6, 18)));
        assert_eq!(version("5.4"), Some((5, 4)));
        assert!(version("10.1.0").unwrap() > (9, 99));
        assert_eq!(version("unknown"), None);
    }

    #[test]
    #[cfg_attr(miri, ignore = "asks the kernel for limits")]
    fn refusals_name_what_helps() {
        let text = |code| explain(io::Error::from_raw_os_error(code)).to_string();
        assert!(text(libc::ENOMEM).contains("RLIMIT_MEMLOCK is"));
        assert!(text(libc::EPERM).contains("io_uring is denied"));
        assert!(text(libc::ENOSYS).contains("no io_uring"));
        assert!(text(libc::EINVAL).contains("5.19"));
        assert!(text(libc::EIO).contains("cannot be set up"));
    }
}
