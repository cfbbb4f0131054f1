//! Runs a process under a deadline, its output in a file.

use anyhow::{Context, Result};
use std::collections::HashMap;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How a process came to its end.
pub(crate) enum Ended {
    Exit(ExitStatus),
    /// It ran out of time and was killed, with everything it had started.
    Deadline(Duration),
}

impl Ended {
    pub(crate) fn success(&self) -> bool {
        matches!(self, Self::Exit(status) if status.success())
    }
}

/// Runs `command` to its end or for at most `deadline`; stdout and stderr go to `log`, in the order written.
///
/// The process stays in our process group, so that Ctrl-C reaches it.
/// Errors: the program or the log file cannot be opened.
pub(crate) fn logged(command: &mut Command, deadline: Duration, log: &Path) -> Result<Ended> {
    if let Some(folder) = log.parent() {
        fs::create_dir_all(folder)?;
    }
    let file = File::options().create(true).append(true).open(log).with_context(|| log.display().to_string())?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    until(command, deadline)
}

/// Runs `command` to its end or for at most `deadline`; its output goes where ours goes.
///
/// Errors: the program cannot be started.
pub(crate) fn until(command: &mut Command, deadline: Duration) -> Result<Ended> {
    let mut child = command.spawn().with_context(|| format!("cannot run {}", command.get_program().display()))?;
    wait(&mut child, deadline)
}

/// Waits for `child` to end, for at most `deadline`.
pub(crate) fn wait(child: &mut Child, deadline: Duration) -> Result<Ended> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Ended::Exit(status));
        }
        if started.elapsed() >= deadline {
            kill_tree(child.id());
            child.wait()?;
            return Ok(Ended::Deadline(deadline));
        }
        thread::sleep(POLL);
    }
}

/// Kills a process and all its descendants.
fn kill_tree(root: u32) {
    let mut doomed = vec![root];
    let children = children_by_parent();
    let mut next = 0;
    while let Some(parent) = doomed.get(next) {
        doomed.extend(children.get(parent).into_iter().flatten());
        next += 1;
    }
    // `kill` is a program of its own because calling the kernel directly would take unsafe code.
    let _ = Command::new("kill").arg("-KILL").args(doomed.iter().map(u32::to_string)).stderr(Stdio::null()).status();
}

/// Who started whom, from /proc.
fn children_by_parent() -> HashMap<u32, Vec<u32>> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        if let Some(parent) = parent_in_stat(&stat) {
            children.entry(parent).or_default().push(process);
        }
    }
    children
}

/// The parent's id in a line of `/proc/<id>/stat`.
///
/// Shape: `id (name) state parent …`; the name may hold spaces and parentheses.
/// Source: proc_pid_stat(5).
fn parent_in_stat(stat: &str) -> Option<u32> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(1)?.parse().ok()
}

/// How often we look whether a process has ended.
const POLL: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_found_behind_any_name() {
        assert_eq!(parent_in_stat("42 (cargo) S 7 42 7 0"), Some(7));
        assert_eq!(parent_in_stat("42 (a) b (c) R 9 1 1"), Some(9));
        assert_eq!(parent_in_stat("42"), None);
    }

    #[test]
    fn a_deadline_ends_the_whole_tree() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 600 & echo $! >&2; wait"]).stdin(Stdio::null());
        let log = std::env::temp_dir().join(format!("xtask-run-{}", std::process::id()));
        let ended = logged(&mut command, Duration::from_millis(300), &log).unwrap();
        assert!(matches!(ended, Ended::Deadline(_)));
        let sleeper = fs::read_to_string(&log).unwrap().trim().to_owned();
        fs::remove_file(&log).unwrap();
        let alive = || fs::read_to_string(format!("/proc/{sleeper}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
        let patience = Instant::now() + Duration::from_secs(5); // a kill is delivered soon, not at once
        while alive() && Instant::now() < patience {
            thread::sleep(POLL);
        }
        assert!(!alive(), "the grandchild {sleeper} is still there");
    }
}
