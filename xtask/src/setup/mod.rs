//! Installs or builds what the machine lacks. Each command asks for what it needs, no more.

mod linker;
pub(crate) mod packages;
mod toolchain;
pub(crate) mod unpacked;

use anyhow::{Result, bail};

use crate::progress;
use packages::Need;

/// `cargo xtask setup`: everything that any command of xtask needs.
pub(crate) fn everything() -> Result<()> {
    building()?;
    packages::ensure(
        &[packages::DEMO, packages::READERS, packages::MARKING, packages::CLUSTER, packages::KERNELS].concat(),
    )?;
    progress::step("ready: `cargo xtask demo`, `cargo xtask cluster`, `cargo xtask test`, `cargo xtask kernels`");
    Ok(())
}

/// What a build of the workspace needs.
pub(crate) fn building() -> Result<()> {
    packages::ensure(packages::BUILD)?;
    toolchain::ensure()?;
    linker::ensure()
}

/// Programs of these packages.
pub(crate) fn programs(needs: &[&[Need]]) -> Result<()> {
    packages::ensure(&needs.concat())
}

/// An error that says how to become root, unless we are.
pub(crate) fn root(command: &str) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "`cargo xtask {command}` makes network namespaces and loads XDP programs, which only root may do.\n\
             Try: sudo -E env \"PATH=$PATH\" cargo xtask {command}"
        );
    }
    Ok(())
}
