//! Where a number was made: the environment block of every report, and what this process may use.

use std::collections::BTreeMap;
use std::fs;

use rustix::process::{Resource, getrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::{Deserialize, Serialize};

use crate::error::{BenchError, Result};

/// The machine and the settings that sway results.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) host: String,
    pub(crate) cpu: String,
    pub(crate) cpus: u32,
    pub(crate) memory_mib: u64,
    pub(crate) kernel: String,
    pub(crate) virtual_machine: bool,
    pub(crate) governor: String,
    pub(crate) clock_source: String,
    /// Kernel mitigations and sysctls that matter for loopback TCP.
    pub(crate) settings: BTreeMap<String, String>,
}

/// How busy the machine was before the run, apart from us.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Load {
    pub(crate) average_1min: f64,
}

/// First line of a small system file.
fn line(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.lines().next()?.trim().to_owned())
}

/// The value of `key` in a `key : value` file.
fn field(path: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.split(':').next().is_some_and(|k| k.trim() == key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

impl Machine {
    /// Reads this machine's block.
    pub(crate) fn read() -> Self {
        let memory_kib: u64 = field("/proc/meminfo", "MemTotal")
            .and_then(|text| text.split_whitespace().next().and_then(|n| n.parse().ok()))
            .unwrap_or(0);
        let sysctls = [
            ("tcp_rmem", "/proc/sys/net/ipv4/tcp_rmem"),
            ("tcp_wmem", "/proc/sys/net/ipv4/tcp_wmem"),
            ("tcp_congestion_control", "/proc/sys/net/ipv4/tcp_congestion_control"),
            ("io_uring_disabled", "/proc/sys/kernel/io_uring_disabled"),
            ("smt", "/sys/devices/system/cpu/smt/active"),
            ("boost", "/sys/devices/system/cpu/cpufreq/boost"),
        ];
        let settings = sysctls
            .into_iter()
            .filter_map(|(name, path)| Some((name.to_owned(), line(path)?.replace('\t', " "))))
            .collect();
        Self {
            // The machine's name in a report is what people call it, not where it stands: see `machines/*.toml`.
            host: std::env::var("SLIMLOAD_MACHINE").unwrap_or_else(|_| "unnamed".into()),
            cpu: field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.into()),
            cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
            memory_mib: memory_kib / 1024,
            kernel: line("/proc/sys/kernel/osrelease").unwrap_or_default(),
            virtual_machine: field("/proc/cpuinfo", "flags").is_some_and(|f| f.split(' ').any(|f| f == "hypervisor")),
            governor: line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").unwrap_or_else(|| "unknown".into()),
            clock_source: line("/sys/devices/system/clocksource/clocksource0/current_clocksource")
                .unwrap_or_else(|| "unknown".into()),
            settings,
        }
    }
}

impl Load {
    /// Reads the load average.
    pub(crate) fn read() -> Self {
        let average = line("/proc/loadavg").and_then(|l| l.split(' ').next().and_then(|n| n.parse().ok()));
        Self { average_1min: average.unwrap_or(0.0) }
    }
}

/// Files this process may have open.
pub(crate) fn files_allowed() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Whether this process may run on `cpu`.
pub(crate) fn may_use(cpu: u32) -> bool {
    let cpu = cpu as usize;
    cpu < CpuSet::MAX_CPU && sched_getaffinity(None).is_ok_and(|set| set.is_set(cpu))
}

/// Refuses a CPU this process may not run on, as `option` names it.
pub(crate) fn expect_use(option: &str, cpu: u32) -> Result<()> {
    if may_use(cpu) {
        return Ok(());
    }
    Err(BenchError::Plan(format!("{option} {cpu}: this process may not run on CPU {cpu} (see taskset -p $$)")))
}

/// Binds the calling thread to `cpu`.
pub(crate) fn pin(cpu: u32) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu as usize);
    sched_setaffinity(None, &set).map_err(|error| BenchError::system(format!("pin to CPU {cpu}"))(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_names_the_kernel_and_the_cpus() {
        let machine = Machine::read();
        assert!(machine.cpus >= 1 && machine.kernel.contains('.'));
        assert!(may_use(0) || machine.cpus < 64);
        assert!(!may_use(u32::MAX));
    }
}
