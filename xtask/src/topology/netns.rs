//! Network namespaces by name, as `ip netns` keeps them.

use std::fs::File;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::shell::cmd;

/// Where `ip netns` keeps them.
pub(crate) const DIR: &str = "/run/netns";

/// Makes one.
pub(crate) fn add(name: &str) -> Result<()> {
    cmd("ip").args(["netns", "add", name]).run()
}

/// Removes one with all devices in it; none is fine.
pub(crate) fn remove(name: &str) -> Result<()> {
    if path(name).exists() { cmd("ip").args(["netns", "del", name]).run() } else { Ok(()) }
}

/// Whether there is one with this name.
pub(crate) fn exists(name: &str) -> bool {
    path(name).exists()
}

/// Asks every process in one to end.
pub(crate) fn end_all(name: &str) -> Result<()> {
    for pid in cmd("ip").args(["netns", "pids", name]).read()?.split_whitespace() {
        let pid = pid.parse().with_context(|| format!("`ip netns pids {name}` says {pid:?}"))?;
        // It may have ended meanwhile.
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    Ok(())
}

/// Does something inside. A thread of its own enters, so that the caller stays where it is. Only the network
/// differs there: mounts are the caller's, so /sys/fs/bpf is (under `ip netns exec` it would be hidden).
pub(crate) fn inside<T: Send>(name: &str, what: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let file = File::open(path(name)).with_context(|| format!("no network namespace {name}"))?;
    std::thread::scope(|scope| {
        let work = scope.spawn(move || {
            setns(file, CloneFlags::CLONE_NEWNET)
                .with_context(|| format!("cannot enter network namespace {name} (root?)"))?;
            what()
        });
        work.join().map_err(|_| anyhow!("something panicked in network namespace {name}"))?
    })
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(DIR).join(name)
}
