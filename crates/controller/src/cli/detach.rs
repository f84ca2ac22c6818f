use super::options::{Pins, StateDir};

/// Takes the data path away and leaves the node as it was
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    pins: Pins,

    #[command(flatten)]
    state: StateDir,
}

pub(super) fn run(_args: Args) -> anyhow::Result<()> {
    anyhow::bail!("the data path is not composed yet")
}
