use anyhow::{Context as _, bail};

use super::options::{Pins, StateDir, Sysctls};
use crate::agent_report::AgentReport;
use crate::datapath::{Detached, detach_all};
use crate::node::{NodeKeeper, Permission};

const EXAMPLES: &str = "\
Example:
  systemctl stop guenon && guenon detach
      Traffic goes on when the agent stops; it ends with `guenon detach`.

Refused while an agent runs: it would put everything back.";

/// Takes the data path away and leaves the node as it was
///
/// Takes the data path away and leaves the node as it was: programs, links, maps and their pins, programs on far ends
/// of veths, addresses put on the loopback, sysctls (back to what they were). From then on packets for VIPs go where the
/// node's own stack sends them.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    pins: Pins,

    #[command(flatten)]
    state: StateDir,

    #[command(flatten)]
    sysctls: Sysctls,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let Args { pins: Pins { pin_dir }, state: StateDir { state_dir }, sysctls: Sysctls { sysctl_dir } } = args;
    // The data path first: no packet may be delivered to an address that is gone.
    let Detached { interfaces, maps } = detach_all(&pin_dir, &state_dir)?;
    for interface in &interfaces {
        match interface.strip_prefix("far-") {
            Some(near) => println!("detached from the far end of {near}"),
            None => println!("detached from {interface}"),
        }
    }
    if maps > 0 {
        println!("removed {maps} maps from {}", pin_dir.display());
    }

    let mut keeper = NodeKeeper::open(&state_dir, Permission::Change, &sysctl_dir)?;
    let (addresses, sysctls) = (keeper.record().addresses.len(), keeper.record().sysctls.len());
    let problems = keeper.restore();
    if addresses + sysctls > 0 {
        println!("removed {addresses} addresses from the loopback, restored {sysctls} sysctls");
    }
    AgentReport::remove(&state_dir)
        .with_context(|| format!("cannot remove the status file in {}", state_dir.display()))?;
    if !problems.is_empty() {
        let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
        bail!("not everything could be given back:\n  {}", all.join("\n  "));
    }
    if interfaces.is_empty() && maps == 0 && addresses + sysctls == 0 {
        println!("nothing to do: no data path at {}", pin_dir.display());
    }
    Ok(())
}
