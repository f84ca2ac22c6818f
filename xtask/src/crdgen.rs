//! `cargo xtask crdgen`: the CustomResourceDefinitions, made from the types of crates/crd, for `kubectl apply` and for the chart.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::{build, paths};

/// Where they are committed. What lies in a chart's own `crds` is never upgraded: the chart's copy is elsewhere.
const COMMITTED: [&str; 2] = ["deploy/crds", "deploy/helm/guenon/files/crds"];

/// Writes them; with `check`, only says which differ.
pub(crate) fn run(check: bool) -> Result<()> {
    if !check {
        return COMMITTED.iter().try_for_each(|directory| generate(&paths::root().join(directory)));
    }
    let made = build::target().join("crds");
    if made.exists() {
        std::fs::remove_dir_all(&made).with_context(|| format!("cannot remove {}", made.display()))?;
    }
    generate(&made)?;
    for directory in COMMITTED {
        let committed = paths::root().join(directory);
        let differs: Vec<String> = names(&made)?
            .union(&names(&committed)?)
            .filter(|name| std::fs::read(made.join(name)).ok() != std::fs::read(committed.join(name)).ok())
            .cloned()
            .collect();
        if !differs.is_empty() {
            bail!("{directory} is not what crates/crd says ({}): run `cargo xtask crdgen`", differs.join(", "));
        }
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
