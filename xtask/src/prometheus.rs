//! Prometheus and promtool: where the machine has them, else of Debian's package.

use anyhow::{Context, Result};

use crate::paths;
use crate::setup::unpacked;
use crate::shell::{Cmd, cmd};

/// A program of the package: `prometheus` or `promtool`.
pub(crate) fn program(name: &str) -> Result<Cmd> {
    if let Some(found) = paths::which(name) {
        return Ok(cmd(found));
    }
    let program = unpacked::program("prometheus", name);
    program.map(cmd).with_context(|| format!("{name} is not on PATH; install Prometheus, or see why this failed"))
}
