//! `cargo xtask bench`: builds the benchmark in release and runs it; its own `--help` says what it measures.

use anyhow::Result;

use crate::setup::{self, packages};
use crate::{build, progress};

/// Runs the benchmark with these arguments.
pub(crate) fn run(args: &[String]) -> Result<()> {
    setup::root("bench")?;
    setup::building()?;
    setup::programs(&[packages::DEMO])?;
    progress::step("building the benchmark in release (the first time takes some minutes)");
    let bench = ["bench", "--package", "guenon-controller", "--bench", "guenon", "--"];
    build::cargo(&bench).args(args).show()
}
