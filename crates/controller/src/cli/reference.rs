use std::path::PathBuf;

use anyhow::Context as _;

use crate::metrics::{drop_reasons_reference, metrics_reference};

/// Writes the references of docs/ that are made of the code
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Directory to write metrics.md and drop-reasons.md to
    #[arg(long, value_name = "DIR", default_value = "docs")]
    write: PathBuf,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.write).with_context(|| format!("cannot create {}", args.write.display()))?;
    for (name, text) in [("metrics.md", metrics_reference()), ("drop-reasons.md", drop_reasons_reference())] {
        let path = args.write.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}
