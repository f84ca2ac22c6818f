//! `cargo xtask bench`: builds the benchmark in release and runs it; its own `--help` says what it measures.

mod cluster;
mod pods;

use anyhow::{Context, Result};

use crate::setup::{self, packages};
use crate::shell::{Cmd, cmd};
use crate::{build, progress};

const BENCH: [&str; 5] = ["bench", "--package", "guenon-controller", "--bench", "guenon"];

/// Runs the benchmark with these arguments; where `cluster` is among them, beside a real API server.
pub(crate) fn run(args: &[String]) -> Result<()> {
    setup::root("bench")?;
    setup::building()?;
    setup::programs(&[packages::DEMO])?;
    if args.first().is_some_and(|arg| arg == "pods") {
        return pods::run();
    }
    progress::step("building the benchmark in release (the first time takes some minutes)");
    let wants_help = args.iter().any(|arg| matches!(arg.as_str(), "-h" | "--help"));
    if args.iter().any(|arg| arg == "cluster") && !wants_help {
        return cluster::run(built()?.args(args));
    }
    build::cargo(&BENCH).arg("--").args(args).show()
}

/// The benchmark, built.
fn built() -> Result<Cmd> {
    build::cargo(&BENCH).arg("--no-run").show()?;
    let said = build::cargo(&BENCH).args(["--no-run", "--message-format", "json"]).read()?;
    let messages = said.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut benches = messages.filter(|message| message["target"]["kind"][0] == "bench");
    let file = benches.find_map(|message| message["executable"].as_str().map(str::to_owned));
    Ok(cmd(file.context("cargo did not say where it has put the benchmark")?).arg("--bench").limit(build::LIMIT))
}
