//! `cargo xtask crdgen`: the CustomResourceDefinitions, made from the types of crates/crd, for `kubectl apply` and for the chart,
//! and a page on each in docs.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::{build, paths};

/// Where they are committed. What lies in a chart's own `crds` is never upgraded: the chart's copy is elsewhere.
const COMMITTED: [&str; 2] = ["deploy/crds", "deploy/helm/guenon/files/crds"];
/// Pages stand among those that people write.
const DOCS: &str = "docs";

/// Writes them; with `check`, only says which differ.
pub(crate) fn run(check: bool) -> Result<()> {
    if !check {
        COMMITTED.iter().try_for_each(|directory| generate(&[], &paths::root().join(directory)))?;
        return generate(&["--docs"], &paths::root().join(DOCS));
    }
    let (made, pages) = (build::target().join("crds"), build::target().join("crd-docs"));
    for directory in [&made, &pages].into_iter().filter(|directory| directory.exists()) {
        std::fs::remove_dir_all(directory).with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    generate(&[], &made)?;
    generate(&["--docs"], &pages)?;
    for directory in COMMITTED {
        let committed = paths::root().join(directory);
        compare(&made, &committed, names(&made)?.union(&names(&committed)?))?;
    }
    compare(&pages, &paths::root().join(DOCS), &names(&pages)?)
}

/// Whether these files are the same in both.
fn compare<'a>(made: &Path, committed: &Path, names: impl IntoIterator<Item = &'a String>) -> Result<()> {
    let same = |name: &&String| std::fs::read(made.join(name)).ok() == std::fs::read(committed.join(name)).ok();
    let differs: Vec<&str> = names.into_iter().filter(|name| !same(name)).map(String::as_str).collect();
    if !differs.is_empty() {
        let committed = committed.display();
        bail!("{committed} is not what crates/crd says ({}): run `cargo xtask crdgen`", differs.join(", "));
    }
    Ok(())
}

fn generate(options: &[&str], directory: &Path) -> Result<()> {
    let run = ["run", "--quiet", "--package", "guenon-crd", "--bin", "crdgen", "--"];
    build::cargo(&run).args(options).arg(directory).show()
}

fn names(directory: &Path) -> Result<BTreeSet<String>> {
    let entries = std::fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}
