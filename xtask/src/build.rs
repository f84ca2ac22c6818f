//! Builds parts of the workspace.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::shell::{Cmd, cmd};
use crate::{paths, progress};

/// A first build takes minutes; the machine may be slow.
const LIMIT: Duration = Duration::from_secs(45 * 60);

/// `cargo ...` in the clone, shown.
pub(crate) fn cargo(args: &[&str]) -> Cmd {
    cmd(paths::cargo()).args(args).dir(paths::root()).limit(LIMIT)
}

/// Builds `guenon` (the data path is always optimised, the rest is not) and gives its path. `$GUENON_BINARY` names
/// one that is there already.
pub(crate) fn guenon() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("GUENON_BINARY") {
        return built(named.into());
    }
    progress::step("building guenon (the first time takes some minutes)");
    cargo(&["build", "--package", "guenon-controller", "--bin", "guenon"]).show()?;
    built(target().join("debug/guenon"))
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| paths::root().join("target"), |dir| paths::root().join(dir))
}

fn built(file: PathBuf) -> Result<PathBuf> {
    if !file.is_file() {
        bail!("{} is not there; is another build.target-dir or build.target configured?", file.display());
    }
    Ok(file)
}
