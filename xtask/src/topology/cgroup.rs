//! Control groups by name, in the hierarchies of version 1 or the one of version 2.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Where they are mounted.
pub(crate) const DIR: &str = "/sys/fs/cgroup";
/// How long a control group may take to be empty after the last process has ended.
const LIMIT: Duration = Duration::from_secs(10);

/// Whether this machine has version 2 alone.
pub(crate) fn unified() -> bool {
    Path::new(DIR).join("cgroup.controllers").exists()
}

/// Makes one, in every hierarchy.
pub(crate) fn add(name: &str) -> Result<()> {
    for root in roots()? {
        let dir = root.join(name);
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        // In a hierarchy of CPUs, a group has none until it is told.
        for file in ["cpuset.cpus", "cpuset.mems"].into_iter().filter(|_| !unified()) {
            if let Ok(all) = std::fs::read(root.join(file)) {
                std::fs::write(dir.join(file), all)
                    .with_context(|| format!("cannot write {file} in {}", dir.display()))?;
            }
        }
    }
    Ok(())
}

/// Moves this process into one.
pub(crate) fn enter(name: &str) -> Result<()> {
    for root in roots()? {
        let file = root.join(name).join("cgroup.procs");
        std::fs::write(&file, std::process::id().to_string())
            .with_context(|| format!("cannot write to {}", file.display()))?;
    }
    Ok(())
}

/// Removes one with all in it; waits until its processes have ended. None is fine.
pub(crate) fn remove(name: &str) -> Result<()> {
    let begin = Instant::now();
    for root in roots()? {
        let dir = root.join(name);
        while dir.exists() {
            let removed = remove_tree(&dir);
            if begin.elapsed() > LIMIT {
                removed.with_context(|| format!("cannot remove the control group {}", dir.display()))?;
                bail!("the control group {} comes back", dir.display());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

/// The root of each hierarchy. Names such as `cpu` may be links to `cpu,cpuacct`.
fn roots() -> Result<Vec<PathBuf>> {
    if unified() {
        return Ok(vec![DIR.into()]);
    }
    let mut roots = Vec::new();
    for entry in std::fs::read_dir(DIR).with_context(|| format!("cannot read {DIR}"))? {
        let entry = entry.with_context(|| format!("cannot read {DIR}"))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) && entry.path().join("cgroup.procs").exists() {
            roots.push(entry.path());
        }
    }
    Ok(roots)
}

/// Innermost first: the files in them are the kernel's.
fn remove_tree(dir: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    std::fs::remove_dir(dir)
}
