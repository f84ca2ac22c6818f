use anyhow::bail;

use super::options::{Pins, StateDir, Sysctls};
use crate::run::{TakenOff, detach};

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
    let TakenOff { interfaces, maps, addresses, sysctls, problems } = detach(&pin_dir, &state_dir, &sysctl_dir)?;
    for interface in &interfaces {
        match interface.strip_prefix("far-") {
            Some(near) => println!("detached from the far end of {near}"),
            None => println!("detached from {interface}"),
        }
    }
    if maps > 0 {
        println!("removed {maps} maps from {}", pin_dir.display());
    }
    if addresses + sysctls > 0 {
        println!("removed {addresses} addresses from the loopback, restored {sysctls} sysctls");
    }
    if !problems.is_empty() {
        bail!("not everything could be given back:\n  {}", problems.join("\n  "));
    }
    if interfaces.is_empty() && maps == 0 && addresses + sysctls == 0 {
        println!("nothing to do: no data path at {}", pin_dir.display());
    }
    Ok(())
}
