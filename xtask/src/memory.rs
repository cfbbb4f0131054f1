//! The deep stages that watch memory: Miri where there are no system calls, AddressSanitizer where the kernel writes.

use crate::ci::Run;
use crate::tally::Tally;
use crate::tools;
use anyhow::Result;

/// What Miri runs, a package, its targets and the names of their tests: everything unsafe that does not call the kernel, and
/// the views that borrow from what strangers sent, with their rewriting.
const UNDER_MIRI: &[(&str, &[&str], &[&str])] = &[
    (
        "slimline-node",
        &["--lib"],
        &["mesh::", "io::block", "io::buf_ring", "io::packer", "io::pool", "io::token", "io::uring::gather"],
    ),
    (
        "slimline-wire",
        &["--lib"],
        &["message::", "name::", "proto::", "grpc::", "h2::head", "h2::streams", "hpack::dynamic"],
    ),
    ("slimline-wire", &["--test", "message_errors"], &[]),
    (
        "slimline-wire",
        &["--test", "message_props"],
        &["what_nothing_is_wrong_with", "rewriting_is_decode_modify_encode"],
    ),
];

/// What AddressSanitizer runs: nodes and engines on real sockets, io_uring included, so that the kernel's writes into our
/// buffers are among what is watched.
const UNDER_ASAN: &[&str] = &["io_engines", "io_sim", "loopback", "bad_input", "slow_reader"];

/// Undefined behaviour, seen by an interpreter.
pub(crate) fn miri(run: &Run<'_>) -> Result<Tally> {
    let mut tally = Tally::default();
    for (package, targets, names) in UNDER_MIRI {
        let mut command = tools::nightly(run.workspace, "miri")?;
        command.args(["miri", "test", "--package", package]).args(*targets).arg("--").args(*names);
        command.env("MIRIFLAGS", "-Zmiri-disable-isolation").env("PROPTEST_CASES", "4");
        command.env("CARGO_TARGET_DIR", run.workspace.target.join("miri"));
        tally += some(run.tests(&mut command)?);
    }
    Ok(tally)
}

/// Stray reads and writes, seen by the compiler's sanitizer.
pub(crate) fn asan(run: &Run<'_>) -> Result<Tally> {
    let mut command = tools::nightly(run.workspace, "rustc")?;
    // With the target named, build scripts and macros are compiled without the sanitizer.
    command.args(["test", "--package", "slimline-node", "--target", &tools::host(run.workspace)?, "--no-fail-fast"]);
    command.arg("--lib").args(UNDER_ASAN.iter().flat_map(|name| ["--test", name]));
    command.env("RUSTFLAGS", "-Zsanitizer=address");
    command.env("CARGO_TARGET_DIR", run.workspace.target.join("asan"));
    Ok(some(run.tests(&mut command)?))
}

/// No test is no proof: a name that matches nothing any more fails.
fn some(tally: Tally) -> Tally {
    if tally == Tally::default() { Tally::FAILED } else { tally }
}
