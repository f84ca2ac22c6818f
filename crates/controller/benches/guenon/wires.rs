//! Two network namespaces with a veth between them.

use std::fs::File;
use std::process::Command;

use anyhow::{Context as _, ensure};
use nix::sched::{CloneFlags, setns};

/// Traffic starts here, on device [`NEAR`].
pub(crate) const GENERATOR: &str = "guenon-bench-gen";
/// The measured node, with device [`FAR`].
pub(crate) const NODE: &str = "guenon-bench-node";
/// The two ends of the veth. (`ip` reads a device named `a` as the word "address".)
pub(crate) const NEAR: &str = "near0";
pub(crate) const FAR: &str = "far0";

/// Gone when dropped.
pub(crate) struct Wires;

impl Wires {
    pub(crate) fn lay() -> anyhow::Result<Self> {
        let wires = Self;
        for namespace in [GENERATOR, NODE] {
            ip(&["netns", "add", namespace])?;
            ip(&["-n", namespace, "link", "set", "lo", "up"])?;
        }
        ip(&["link", "add", "name", NEAR, "netns", GENERATOR, "type", "veth", "peer", "name", FAR, "netns", NODE])?;
        ip(&["-n", GENERATOR, "link", "set", NEAR, "up"])?;
        ip(&["-n", NODE, "link", "set", FAR, "up"])?;
        Ok(wires)
    }
}

impl Drop for Wires {
    fn drop(&mut self) {
        for namespace in [GENERATOR, NODE] {
            if let Err(error) = ip(&["netns", "del", namespace]) {
                eprintln!("{error:#}");
            }
        }
    }
}

/// Moves the calling thread into a namespace.
pub(crate) fn enter(namespace: &str) -> anyhow::Result<()> {
    let path = format!("/run/netns/{namespace}");
    let file = File::open(&path).with_context(|| format!("cannot open {path}"))?;
    setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter {path}"))
}

pub(crate) fn ip(args: &[&str]) -> anyhow::Result<()> {
    let status = Command::new("ip").args(args).status().context("cannot run `ip` (package iproute2)")?;
    ensure!(status.success(), "`ip {}` failed", args.join(" "));
    Ok(())
}
