//! What else is generated in deploy/, beside the CustomResourceDefinitions: the chart's README, and Grafana's dashboards.

use anyhow::{Context, Result, bail};

use crate::{chart, dashboards, paths};

/// Writes it; with `check`, only says what differs.
pub(crate) fn run(check: bool) -> Result<()> {
    let mut files = dashboards::files()?;
    files.push((format!("{}/README.md", chart::DIRECTORY), chart::readme()?));
    let mut differ = Vec::new();
    for (name, content) in files {
        let file = paths::root().join(&name);
        if std::fs::read_to_string(&file).is_ok_and(|committed| committed == content) {
            continue;
        }
        if check {
            differ.push(name);
            continue;
        }
        let directory = file.parent().unwrap_or(paths::root());
        std::fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
        std::fs::write(&file, content).with_context(|| format!("cannot write {}", file.display()))?;
    }
    if !differ.is_empty() {
        bail!("{} would be made otherwise: run `cargo xtask crdgen`", differ.join(", "));
    }
    Ok(())
}
