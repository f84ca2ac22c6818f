//! What runs inside a guest: `xtask guest`, hidden. Each check is reported by a line on the console.

use std::path::Path;

use anyhow::{Result, bail};

use super::TESTS_LIMIT;
use crate::shell::cmd;
use crate::topology::{Plan, Topology};

/// Begins each line of a report.
const MARK: &str = "GUEST: ";
const MANIFESTS: &str = "/test/manifests";
const GUENON: &str = "/test/guenon";
const TESTS: &str = "/test/tests";

/// Gives what there is to say about it.
type Check = fn() -> Result<String>;

/// Runs every check, goes on after a failure.
pub(crate) fn run() -> Result<()> {
    let checks: [(&str, Check); 2] = [("wires", wires), ("packet tests", packet_tests)];
    let mut failed = 0;
    for (name, check) in checks {
        match check() {
            Ok(said) => println!("{MARK}{name}: {said}"),
            Err(error) => {
                failed += 1;
                println!("{MARK}{name} FAILED: {error:#}");
            }
        }
    }
    if failed > 0 {
        bail!("{failed} checks failed");
    }
    Ok(())
}

/// The lines that guests reported.
pub(super) fn reported(console: &str) -> Vec<String> {
    console.lines().filter_map(|line| Some(line.strip_prefix(MARK)?.to_owned())).collect()
}

/// The topology without Guenon: namespaces, veths with pass programs, routes, servers.
fn wires() -> Result<String> {
    let topology = Topology::build(Plan::new("wires", Path::new(GUENON), Path::new(MANIFESTS)))?;
    topology.remove()?;
    Ok("ok".to_owned())
}

/// The test binaries of crates/controller.
fn packet_tests() -> Result<String> {
    let Ok(entries) = std::fs::read_dir(TESTS) else { return Ok("none in this payload".to_owned()) };
    let mut passed = Vec::new();
    for entry in entries {
        let binary = entry?.path();
        let said =
            cmd(&binary).args(["--test-threads", "1"]).env("RUST_BACKTRACE", "0").limit(TESTS_LIMIT).try_read()?;
        let verdict = said.stdout.lines().rev().find(|line| line.starts_with("test result:")).unwrap_or_default();
        if !said.status.success() {
            bail!("{}: {}\n{}\n{}", binary.display(), said.status, said.stdout, said.stderr);
        }
        let name = binary.file_name().unwrap_or_default().to_string_lossy().into_owned();
        passed.push(format!("{name} {}", verdict.trim_start_matches("test result: ")));
    }
    Ok(passed.join(", "))
}
