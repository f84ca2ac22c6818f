//! Builds parts of the workspace.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::kernels::Static;
use crate::shell::{Cmd, cmd};
use crate::{paths, progress};

/// A first build takes minutes; the machine may be slow.
pub(crate) const LIMIT: Duration = Duration::from_secs(45 * 60);

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

/// The target that static binaries are built for: named even though it is this machine's, so that RUSTFLAGS reach
/// neither build scripts nor procedural macros.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// Builds xtask, guenon and test binaries of crates/controller without any dynamic library.
pub(crate) fn statically(tests: &[&str]) -> Result<Static> {
    let flags = "-C target-feature=+crt-static -C strip=symbols";
    let with_flags = |args: &[&str]| cargo(args).env("RUSTFLAGS", flags).args(["--target", TRIPLE]);
    with_flags(&["build", "--package", "xtask", "--package", "guenon-controller", "--bins"]).show()?;
    let dir = target().join(TRIPLE).join("debug");
    let mut built = Static { xtask: built(dir.join("xtask"))?, guenon: built(dir.join("guenon"))?, tests: Vec::new() };
    for test in tests {
        let build = ["test", "--no-run", "--message-format", "json-render-diagnostics"];
        let said = with_flags(&build).args(["--package", "guenon-controller", "--test", test]).read()?;
        let file = said
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter(|message| message["target"]["name"] == **test)
            .find_map(|message| message["executable"].as_str().map(PathBuf::from))
            .with_context(|| format!("cargo did not say where it has put the test binary {test}"))?;
        built.tests.push(((*test).to_owned(), file));
    }
    Ok(built)
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
