//! Keeps a test on one CPU, where the program's state is per CPU.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Back on all CPUs when dropped.
pub struct Pinned(CpuSet);

impl Pinned {
    pub fn new() -> Self {
        let this_thread = Pid::from_raw(0);
        let all = sched_getaffinity(this_thread).expect("this thread's CPUs");
        let first = (0..CpuSet::count()).find(|cpu| all.is_set(*cpu).unwrap_or(false)).expect("a CPU");
        let mut one = CpuSet::new();
        one.set(first).expect("a CPU of the set");
        sched_setaffinity(this_thread, &one).expect("its own CPU");
        Self(all)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // Best effort: the thread ends with its test.
        let _ = sched_setaffinity(Pid::from_raw(0), &self.0);
    }
}
