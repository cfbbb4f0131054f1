//! What a process has used: CPU nanoseconds by thread, user and kernel share, memory. Read from /proc.

use std::collections::BTreeMap;
use std::fs;
use std::ops::AddAssign;

/// CPU and memory of a process between two moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Nanoseconds on a CPU.
    pub(crate) cpu_ns: u64,
    /// Nanoseconds its threads stood ready and had to wait for a CPU: others' load, not the node's.
    pub(crate) waited_ns: u64,
    /// User time, in the kernel's clock ticks (10 ms): good for a share, not for nanoseconds.
    pub(crate) user_ticks: u64,
    /// Kernel time, likewise.
    pub(crate) system_ticks: u64,
    /// Resident octets at the later moment.
    pub(crate) rss_octets: u64,
}

/// What a process has used since it began, at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reading {
    /// Nanoseconds on a CPU, and waiting for one, of each thread that is alive: a thread's count goes with it.
    threads: BTreeMap<String, [u64; 2]>,
    user_ticks: u64,
    system_ticks: u64,
    pub(crate) rss_octets: u64,
}

impl Reading {
    /// Reads process `pid`; `None` when it is gone.
    ///
    /// Source: proc_pid_schedstat (ns on CPU, ns waiting for one), proc_pid_stat (fields 14, 15), proc_pid_status (VmRSS).
    pub(crate) fn take(pid: u32) -> Option<Self> {
        let mut threads = BTreeMap::new();
        for task in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
            let schedstat = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            let mut fields = schedstat.split_whitespace().map(|n| n.parse::<u64>().unwrap_or(0));
            let counts = [fields.next().unwrap_or(0), fields.next().unwrap_or(0)];
            threads.insert(task.file_name().to_string_lossy().into_owned(), counts);
        }
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the command in parentheses and may hold anything: count from its end.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |field: usize| fields.get(field - 3).and_then(|n| n.parse().ok()).unwrap_or(0);
        let (user_ticks, system_ticks) = (ticks(14), ticks(15));
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let rss_kib: u64 = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.split_whitespace().next().and_then(|n| n.parse().ok()))
            .unwrap_or(0);
        Some(Self { threads, user_ticks, system_ticks, rss_octets: rss_kib * 1024 })
    }

    /// What was used since `earlier`, thread by thread: one that has ended meanwhile takes nothing from the others.
    pub(crate) fn since(&self, earlier: &Self) -> Usage {
        let mut usage = Usage {
            user_ticks: self.user_ticks.saturating_sub(earlier.user_ticks),
            system_ticks: self.system_ticks.saturating_sub(earlier.system_ticks),
            rss_octets: self.rss_octets,
            ..Usage::default()
        };
        for (thread, [cpu_ns, waited_ns]) in &self.threads {
            let [cpu_before_ns, waited_before_ns] = earlier.threads.get(thread).copied().unwrap_or_default();
            usage.cpu_ns += cpu_ns.saturating_sub(cpu_before_ns);
            usage.waited_ns += waited_ns.saturating_sub(waited_before_ns);
        }
        usage
    }
}

impl Usage {
    /// Share of kernel time in the CPU time, 0..1.
    pub(crate) fn system_share(&self) -> f64 {
        let all = self.user_ticks + self.system_ticks;
        if all == 0 { 0.0 } else { self.system_ticks as f64 / all as f64 }
    }
}

impl AddAssign for Usage {
    /// What was used after, memory being that of the later moment.
    fn add_assign(&mut self, later: Self) {
        self.cpu_ns += later.cpu_ns;
        self.waited_ns += later.waited_ns;
        self.user_ticks += later.user_ticks;
        self.system_ticks += later.system_ticks;
        self.rss_octets = later.rss_octets;
    }
}

/// Whether a process has ended, be it that nobody has asked for its exit code yet.
pub(crate) fn is_gone(pid: u32) -> bool {
    let dead = |stat: String| stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']));
    fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, dead)
}

/// The command name and executable of a process, for the report.
pub(crate) fn describe(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn use_is_reckoned_thread_by_thread() {
        let reading = |threads: &[(&str, [u64; 2])]| Reading {
            threads: threads.iter().map(|&(thread, counts)| (thread.to_owned(), counts)).collect(),
            user_ticks: 0,
            system_ticks: 0,
            rss_octets: 7,
        };
        let before = reading(&[("stays", [100, 10]), ("ends", [5000, 500])]);
        let used = reading(&[("stays", [130, 14]), ("begins", [20, 2])]).since(&before);
        assert_eq!((used.cpu_ns, used.waited_ns, used.rss_octets), (50, 6, 7));
    }

    /// Uses a CPU for so long.
    fn work(time: Duration) {
        let (start, mut x) = (Instant::now(), 1u64);
        while start.elapsed() < time {
            x = std::hint::black_box(x.wrapping_mul(3));
        }
    }

    #[test]
    fn our_own_work_shows_though_another_thread_ends() {
        let pid = std::process::id();
        let (has_worked, end) = (Barrier::new(2), Barrier::new(2));
        let used = std::thread::scope(|scope| {
            // Its count before it ends is larger than what we use after.
            scope.spawn(|| {
                work(Duration::from_millis(200));
                has_worked.wait();
                end.wait();
            });
            has_worked.wait();
            let before = Reading::take(pid).unwrap();
            end.wait();
            work(Duration::from_millis(60));
            Reading::take(pid).unwrap().since(&before)
        });
        assert!(used.cpu_ns > 1_000_000, "{used:?}");
        assert!(used.rss_octets > 100_000);
        assert!(Reading::take(u32::MAX - 1).is_none());
        assert!(is_gone(u32::MAX - 1) && !is_gone(pid));
    }
}
