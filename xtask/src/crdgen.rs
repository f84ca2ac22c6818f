//! `cargo xtask crdgen`: the CustomResourceDefinitions in deploy/crds, made from the types of crates/crd.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::{build, paths};

const COMMITTED: &str = "deploy/crds";

/// Writes them; with `check`, only says which differ.
pub(crate) fn run(check: bool) -> Result<()> {
    if !check {
        return generate(&paths::root().join(COMMITTED));
    }
    let made = build::target().join("crds");
    if made.exists() {
        std::fs::remove_dir_all(&made).with_context(|| format!("cannot remove {}", made.display()))?;
    }
    generate(&made)?;
    let committed = paths::root().join(COMMITTED);
    let differs: Vec<String> = names(&made)?
        .union(&names(&committed)?)
        .filter(|name| std::fs::read(made.join(name)).ok() != std::fs::read(committed.join(name)).ok())
        .cloned()
        .collect();
    if !differs.is_empty() {
        bail!("{COMMITTED} is not what crates/crd says ({}): run `cargo xtask crdgen`", differs.join(", "));
    }
    Ok(())
}

fn generate(directory: &Path) -> Result<()> {
    let run = ["run", "--quiet", "--package", "guenon-crd", "--bin", "crdgen", "--"];
    build::cargo(&run).arg(directory).show()
}

fn names(directory: &Path) -> Result<BTreeSet<String>> {
    let entries = std::fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}
