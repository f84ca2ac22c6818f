//! What the figures were measured on.

use std::fs;

/// One line: CPU, cores, kernel, JIT.
pub(crate) fn describe() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|text| {
            text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|x| x.1.to_owned()))
        })
        .unwrap_or_else(|| "unknown CPU".to_owned());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let jit = fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").unwrap_or_else(|_| "?".to_owned());
    format!("{cpu}, {cores} cores, Linux {}, bpf_jit_enable {}", kernel.trim(), jit.trim())
}

/// Keeps the calling thread on one CPU, so that per-CPU data and clocks are those of one.
pub(crate) fn pin(cpu: usize) -> anyhow::Result<()> {
    let mut set = nix::sched::CpuSet::new();
    set.set(cpu)?;
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set)?;
    Ok(())
}
