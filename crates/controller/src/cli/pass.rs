use super::options::Pins;

/// Attaches a program that passes everything
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    pins: Pins,
}

pub(super) fn run(_args: Args) -> anyhow::Result<()> {
    anyhow::bail!("the data path is not composed yet")
}
