//! What has been made, written down before it is made, so that it can be removed after any crash.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::{cgroup, netns};
use crate::progress;

/// Where records of all topologies are: one directory each, with the logs of what ran in it.
const BASE: &str = "/run/guenon-demo";
/// Where BPF objects are pinned.
const PINS: &str = "/sys/fs/bpf";
/// Where data of topologies are that may be large.
const DATA: &str = "/var/lib/guenon-demo";

/// What a topology consists of.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    name: String,
    owner: Process,
    kept: bool,
    namespaces: Vec<String>,
    processes: Vec<Process>,
    /// Control groups, by name, in whatever hierarchy has them.
    #[serde(default)]
    cgroups: Vec<String>,
    /// Whether there is a directory of data too large for /run.
    #[serde(default)]
    data: bool,
}

/// A process, told from another that got its pid later by when it was started.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Process {
    pid: i32,
    started: u64,
}

impl Record {
    /// Begins one. What a run that crashed has left under this name is removed first.
    pub(crate) fn begin(name: &str) -> Result<Self> {
        let mut record = Self::nothing(name);
        let own = i32::try_from(std::process::id()).context("a pid out of range")?;
        record.owner = Process { pid: own, started: started(own).unwrap_or_default() };
        let dir = record.dir();
        if dir.exists() {
            let mut old = Self::read(name);
            if old.kept {
                bail!("a kept one is up: `cargo xtask demo --clean` removes it");
            }
            if old.owner.alive() {
                bail!("another one is running (pid {}): wait for it, or `cargo xtask demo --clean`", old.owner.pid);
            }
            progress::note("removing what an earlier run has left");
            old.clean()?;
        }
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        record.save()?;
        Ok(record)
    }

    /// Every record there is.
    pub(crate) fn all() -> Result<Vec<Self>> {
        let entries = match std::fs::read_dir(BASE) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e).with_context(|| format!("cannot read {BASE}")),
        };
        let mut records = Vec::new();
        for entry in entries {
            let dir = entry.with_context(|| format!("cannot read {BASE}"))?.path();
            records.push(Self::read(&dir.file_name().unwrap_or_default().to_string_lossy()));
        }
        Ok(records)
    }

    fn nothing(name: &str) -> Self {
        let (namespaces, processes, cgroups) = (Vec::new(), Vec::new(), Vec::new());
        let owner = Process::default();
        Self { name: name.to_owned(), owner, kept: false, namespaces, processes, cgroups, data: false }
    }

    fn read(name: &str) -> Self {
        let nothing = Self::nothing(name);
        let text = std::fs::read(nothing.dir().join("record.json")).unwrap_or_default();
        // One that was cut off before its first write had ended: nothing had been made yet.
        serde_json::from_slice(&text).unwrap_or(nothing)
    }

    /// What people call it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// It stays when its owner ends.
    pub(crate) fn keep(&mut self) -> Result<()> {
        self.kept = true;
        self.save()
    }

    /// Logs, agents' state, manifests of this run.
    pub(crate) fn dir(&self) -> PathBuf {
        Path::new(BASE).join(&self.name)
    }

    /// Where this topology pins.
    pub(crate) fn pins(&self) -> PathBuf {
        Path::new(PINS).join(format!("guenon-demo-{}", self.name))
    }

    /// Where what may be large goes; made if it is not there.
    pub(crate) fn data(&mut self) -> Result<PathBuf> {
        self.data = true;
        self.save()?;
        let dir = Path::new(DATA).join(&self.name);
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(dir)
    }

    /// A control group that is about to be made.
    pub(crate) fn cgroup(&mut self, name: &str) -> Result<()> {
        self.cgroups.push(name.to_owned());
        self.save()
    }

    /// A namespace that is about to be made.
    pub(crate) fn namespace(&mut self, name: &str) -> Result<()> {
        self.namespaces.push(name.to_owned());
        self.save()
    }

    /// A process that has been started.
    pub(crate) fn process(&mut self, pid: u32) -> Result<()> {
        let pid = i32::try_from(pid).context("a pid out of range")?;
        self.processes.push(Process { pid, started: started(pid).unwrap_or_default() });
        self.save()
    }

    /// Removes everything. Goes on after an error and gives the first.
    pub(crate) fn clean(&mut self) -> Result<()> {
        let mut first = Ok(());
        let mut keep = |result: Result<()>| {
            if first.is_ok() {
                first = result;
            }
        };
        end(&self.processes);
        keep(remove_all(&self.pins()));
        for name in &self.namespaces {
            keep(netns::remove(name));
        }
        for name in &self.cgroups {
            keep(cgroup::remove(name));
        }
        if self.data {
            keep(remove_all(&Path::new(DATA).join(&self.name)));
            let _ = std::fs::remove_dir(DATA);
        }
        let dir = self.dir();
        keep(std::fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display())));
        // Others' records may be there; then it stays.
        let _ = std::fs::remove_dir(BASE);
        first
    }

    fn save(&self) -> Result<()> {
        let (file, new) = (self.dir().join("record.json"), self.dir().join("record.new"));
        let text = serde_json::to_vec_pretty(self).context("cannot write a record as JSON")?;
        std::fs::write(&new, text)
            .and_then(|()| std::fs::rename(&new, &file))
            .with_context(|| format!("cannot write {}", file.display()))
    }
}

impl Process {
    fn alive(&self) -> bool {
        self.started != 0 && started(self.pid) == Some(self.started)
    }
}

/// When a process was started, in ticks since boot; `None` if it is gone (or only waits to be reaped).
fn started(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; state is the first field after it, start time the 20th.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if fields.next() == Some("Z") { None } else { fields.nth(18)?.parse().ok() }
}

/// Ends processes: asks first, insists after two seconds.
fn end(processes: &[Process]) {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        for process in processes.iter().filter(|p| p.alive()) {
            // It may end between the look and the signal.
            let _ = kill(Pid::from_raw(process.pid), signal);
        }
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(2) && processes.iter().any(Process::alive) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn remove_all(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("cannot remove {}", dir.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
