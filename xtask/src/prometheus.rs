//! Prometheus and promtool: where the machine has them, else of Debian's package, unpacked into the cache. Never installed:
//! the package would start a service.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::shell::{Cmd, cmd};
use crate::{paths, progress};

/// A program of the package: `prometheus` or `promtool`.
pub(crate) fn program(name: &str) -> Result<Cmd> {
    if let Some(found) = paths::which(name) {
        return Ok(cmd(found));
    }
    let dir = paths::cache()?.join("prometheus");
    let own = dir.join("usr/bin").join(name);
    if !own.is_file() {
        fetch(&dir).with_context(|| format!("{name} is not on PATH; install Prometheus, or see why this failed"))?;
    }
    ensure!(own.is_file(), "Debian's package prometheus holds no {name}");
    Ok(cmd(own))
}

fn fetch(dir: &PathBuf) -> Result<()> {
    if paths::which("apt-get").is_none() {
        bail!("this machine has no apt-get to fetch Debian's package with");
    }
    progress::step("fetching Debian's package prometheus (once; it is not installed)");
    let scratch = dir.with_extension("new");
    let _ = std::fs::remove_dir_all(&scratch); // of an interrupted run
    let debs = scratch.join("debs");
    std::fs::create_dir_all(&debs).with_context(|| format!("cannot create {}", debs.display()))?;
    let download = || {
        let command = cmd("apt-get").args(["-qq", "-o", "APT::Sandbox::User=root", "download", "prometheus"]);
        command.dir(&debs).limit(Duration::from_secs(600)).run()
    };
    if download().is_err() {
        progress::note("package lists are missing or old: apt-get update");
        cmd("apt-get").args(["update", "-qq"]).limit(Duration::from_secs(300)).run()?;
        download()?;
    }
    for file in std::fs::read_dir(&debs).context("cannot read what was downloaded")? {
        let file = file.context("cannot read what was downloaded")?.path();
        cmd("dpkg").arg("-x").arg(file).arg(&scratch).limit(Duration::from_secs(120)).run()?;
    }
    std::fs::remove_dir_all(&debs).context("cannot remove what was unpacked")?;
    std::fs::rename(&scratch, dir).with_context(|| format!("cannot move {}", scratch.display()))
}
