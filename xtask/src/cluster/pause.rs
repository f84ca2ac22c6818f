//! `xtask pause`: the first process of a pod, which keeps its namespaces until it is told to end.

use anyhow::{Context, Result};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

pub(crate) fn run() -> Result<()> {
    let mut signals = Signals::new([SIGCHLD, SIGINT, SIGTERM]).context("cannot take signals")?;
    for signal in signals.forever() {
        if signal != SIGCHLD {
            break;
        }
        // Orphans of a pod whose containers share their processes.
        while waitpid(None, Some(WaitPidFlag::WNOHANG)).is_ok_and(|status| status != WaitStatus::StillAlive) {}
    }
    Ok(())
}
