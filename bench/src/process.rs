//! What a process has used: CPU nanoseconds by thread, user and kernel share, memory. Read from /proc.

use std::fs;
use std::ops::Sub;

/// CPU and memory of a process at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Nanoseconds on a CPU of all threads that are alive.
    pub(crate) cpu_ns: u64,
    /// Nanoseconds its threads stood ready and had to wait for a CPU: others' load, not the node's.
    pub(crate) waited_ns: u64,
    /// User time, in the kernel's clock ticks (10 ms): good for a share, not for nanoseconds.
    pub(crate) user_ticks: u64,
    /// Kernel time, likewise.
    pub(crate) system_ticks: u64,
    /// Resident octets.
    pub(crate) rss_octets: u64,
}

impl Usage {
    /// Reads process `pid`; `None` when it is gone.
    ///
    /// Source: proc_pid_schedstat (ns on CPU, ns waiting for one), proc_pid_stat (fields 14, 15), proc_pid_status (VmRSS).
    pub(crate) fn read(pid: u32) -> Option<Self> {
        let (mut cpu_ns, mut waited_ns) = (0, 0);
        for task in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
            let schedstat = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            let mut fields = schedstat.split_whitespace().map(|n| n.parse::<u64>().unwrap_or(0));
            cpu_ns += fields.next().unwrap_or(0);
            waited_ns += fields.next().unwrap_or(0);
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
        Some(Self { cpu_ns, waited_ns, user_ticks, system_ticks, rss_octets: rss_kib * 1024 })
    }

    /// Share of kernel time in the CPU time, 0..1.
    pub(crate) fn system_share(&self) -> f64 {
        let all = self.user_ticks + self.system_ticks;
        if all == 0 { 0.0 } else { self.system_ticks as f64 / all as f64 }
    }
}

impl Sub for Usage {
    type Output = Self;

    /// What was used between two moments; memory stays that of the later one.
    fn sub(self, earlier: Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns.saturating_sub(earlier.cpu_ns),
            waited_ns: self.waited_ns.saturating_sub(earlier.waited_ns),
            user_ticks: self.user_ticks.saturating_sub(earlier.user_ticks),
            system_ticks: self.system_ticks.saturating_sub(earlier.system_ticks),
            rss_octets: self.rss_octets,
        }
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
    use super::*;

    #[test]
    fn our_own_work_shows() {
        let pid = std::process::id();
        let before = Usage::read(pid).unwrap();
        let mut x = 1u64;
        let start = std::time::Instant::now();
        while start.elapsed().as_millis() < 30 {
            x = std::hint::black_box(x.wrapping_mul(3));
        }
        let used = Usage::read(pid).unwrap() - before;
        assert!(used.cpu_ns > 1_000_000, "{used:?}");
        assert!(used.rss_octets > 100_000);
        assert!(Usage::read(u32::MAX - 1).is_none());
        assert!(is_gone(u32::MAX - 1) && !is_gone(pid));
    }
}
