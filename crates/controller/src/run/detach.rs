//! Everything of Guenon taken off a node.

use std::path::Path;

use anyhow::Context as _;

use super::hash_key;
use crate::agent_report::AgentReport;
use crate::datapath::{Detached, detach_all};
use crate::node::{NodeKeeper, Permission};

/// What was taken off a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TakenOff {
    /// Interfaces that had the program; `far-NAME`: the far end of that veth.
    pub interfaces: Vec<String>,
    /// Pinned maps.
    pub maps: usize,
    /// Addresses on the loopback.
    pub addresses: usize,
    /// Sysctls that were set back.
    pub sysctls: usize,
    /// What could not be given back, and why.
    pub problems: Vec<String>,
}

/// Takes the data path away, and what was set on the node for it. No agent may run.
///
/// # Errors
///
/// An agent runs, or the data path cannot be taken away.
pub fn detach(pin_dir: &Path, state_dir: &Path, sysctl_dir: &Path) -> anyhow::Result<TakenOff> {
    // The data path first: no packet may be delivered to an address that is gone.
    let Detached { interfaces, maps } = detach_all(pin_dir, state_dir)?;
    let mut keeper = NodeKeeper::open(state_dir, Permission::Change, sysctl_dir)?;
    let (addresses, sysctls) = (keeper.record().addresses.len(), keeper.record().sysctls.len());
    let problems = keeper.restore().iter().map(ToString::to_string).collect();
    AgentReport::remove(state_dir)
        .with_context(|| format!("cannot remove the status file in {}", state_dir.display()))?;
    hash_key::forget(state_dir).with_context(|| format!("cannot remove the hash key in {}", state_dir.display()))?;
    Ok(TakenOff { interfaces, maps, addresses, sysctls, problems })
}
