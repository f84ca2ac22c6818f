//! Programs of Debian packages that are unpacked into the cache. Never installed: the packages would start services.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::shell::cmd;
use crate::{paths, progress};

/// A program of a package.
pub(crate) fn program(package: &str, name: &str) -> Result<PathBuf> {
    let dir = paths::cache()?.join(package);
    let own = dir.join("usr/bin").join(name);
    if !own.is_file() {
        fetch(package, &dir).with_context(|| format!("cannot fetch {name}, of Debian's package {package}"))?;
    }
    ensure!(own.is_file(), "Debian's package {package} holds no {name}");
    Ok(own)
}

fn fetch(package: &str, dir: &Path) -> Result<()> {
    if paths::which("apt-get").is_none() {
        bail!("this machine has no apt-get to fetch Debian's package with");
    }
    progress::step(format_args!("fetching Debian's package {package} (once; it is not installed)"));
    let scratch = dir.with_extension("new");
    let _ = std::fs::remove_dir_all(&scratch); // of an interrupted run
    let debs = scratch.join("debs");
    std::fs::create_dir_all(&debs).with_context(|| format!("cannot create {}", debs.display()))?;
    let download = || {
        let command = cmd("apt-get").args(["-qq", "-o", "APT::Sandbox::User=root", "download", package]);
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
