//! The steps of `cargo xtask test`, quick ones first.

use std::ops::Add;

use anyhow::{Result, bail};

use super::{documents, libtest, licences, purity};
use crate::setup::{self, packages};
use crate::{alerts, build, chart, cluster, crdgen, dashboards, demo, generated, kernels, live};

/// How many tests went well, and those that did not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) passed: usize,
    pub(crate) failed: Vec<Failure>,
}

/// A test that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) test: String,
    /// What it said; empty where it said nothing.
    pub(crate) why: String,
}

impl Count {
    /// One test, which passed.
    pub(crate) const PASSED: Self = Self { passed: 1, failed: Vec::new() };

    /// One test, which failed.
    pub(crate) fn failure(test: &str, why: String) -> Self {
        Self { passed: 0, failed: vec![Failure { test: test.to_owned(), why }] }
    }
}

impl Add for Count {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self.failed.extend(other.failed);
        Self { passed: self.passed + other.passed, failed: self.failed }
    }
}

/// One step. An error counts as one failed test.
pub(super) struct Step {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) run: fn(Option<&str>) -> Result<Count>,
}

/// All of them.
pub(super) const STEPS: &[Step] = &[
    Step { name: "fmt", about: "every file is formatted", run: |_| passes(&["fmt", "--all", "--check"]) },
    Step {
        name: "purity",
        about: "convert to plan import neither kube, aya nor tokio",
        run: |_| purity::check().map(one),
    },
    Step {
        name: "docs",
        about: "every link of the documentation leads somewhere",
        run: |_| documents::check().map(one),
    },
    Step {
        name: "licences",
        about: "what is linked comes from crates.io under an allowed licence (deny.toml)",
        run: |_| licences::check().map(one),
    },
    Step {
        name: "generated",
        about: "definitions and their pages, the chart's README and dashboards are what the code says",
        run: |_| crdgen::run(true).and_then(|()| generated::run(true)).map(one),
    },
    Step {
        name: "clippy",
        about: "no warnings",
        run: |_| passes(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    },
    Step { name: "doc", about: "documentation without warnings", run: |_| doc() },
    Step { name: "unit", about: "unit, property and integration tests of all crates", run: |_| unit() },
    Step { name: "loom", about: "the copy-on-write protocol under every interleaving", run: |_| loom() },
    Step { name: "alerts", about: "promtool on every alert: it fires when it should", run: |_| alerts::test() },
    Step { name: "chart", about: "the Helm chart, on a real API server too", run: |_| chart::test() },
    Step {
        name: "dashboards",
        about: "Grafana's schema, and every query on a real Prometheus with live agents",
        run: |_| dashboards::test(),
    },
    Step { name: "live", about: "scenarios on the demo's topology, with real agents and traffic", run: live::run },
    Step { name: "demo", about: "`cargo xtask demo`", run: |_| demo::run(false).map(one) },
    Step {
        name: "cluster",
        about: "scenarios in a real Kubernetes cluster of three nodes, under load",
        run: cluster::scenarios::run,
    },
    Step {
        name: "kernels",
        about: "`cargo xtask kernels`: five other kernels, in QEMU",
        run: |_| kernels::run(&[], false).map(one),
    },
];

const INTERLEAVINGS: &str = "guenon-interleavings";

/// A step that is one test.
fn one<T>(_: T) -> Count {
    Count::PASSED
}

fn passes(args: &[&str]) -> Result<Count> {
    build::cargo(args).show().map(one)
}

fn doc() -> Result<Count> {
    build::cargo(&["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings").show().map(one)
}

fn unit() -> Result<Count> {
    setup::programs(&[packages::DEMO, packages::READERS])?;
    counted(build::cargo(&["test", "--workspace", "--exclude", INTERLEAVINGS, "--no-fail-fast"]))
}

/// crates/interleavings compiles the table writer itself against loom.
fn loom() -> Result<Count> {
    counted(build::cargo(&["test", "--package", INTERLEAVINGS]))
}

/// Runs `cargo test ...` and adds up what its binaries say.
fn counted(command: crate::shell::Cmd) -> Result<Count> {
    let said = command.tee()?;
    let count = libtest::results(&said.stdout);
    if !said.status.success() && count.failed.is_empty() {
        bail!("cargo failed before, or beside, the tests ({})", said.status);
    }
    if count == Count::default() {
        bail!("no test ran");
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_steps_have_one_name() {
        let names: std::collections::BTreeSet<&str> = STEPS.iter().map(|step| step.name).collect();
        assert_eq!(names.len(), STEPS.len());
    }
}
