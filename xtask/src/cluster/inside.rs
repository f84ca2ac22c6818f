//! `xtask node`: what a node consists of, seen from inside. The outer process enters its control group, makes new
//! namespaces and waits; the inner one is their first process, and with it all others end.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, wait};

use super::node::Spec;
use super::settings;
use crate::shell::{Cmd, cmd};
use crate::topology::cgroup;

/// Where containerd listens.
const SOCKET: &str = "/run/containerd/containerd.sock";
/// How long it may take to do so.
const LIMIT: Duration = Duration::from_secs(60);
/// What kubelet sets for the whole machine; it is given files instead, so that the machine keeps its own values.
const MACHINE_WIDE: [(&str, &str); 3] =
    [("vm/overcommit_memory", "1\n"), ("kernel/panic", "10\n"), ("kernel/panic_on_oops", "1\n")];

/// Never returns while the node is up.
pub(crate) fn run(file: &Path, first: bool) -> Result<()> {
    let text = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let spec: Spec = serde_json::from_slice(&text).with_context(|| format!("{} is no node", file.display()))?;
    if first { inner(&spec) } else { outer(&spec, file) }
}

fn outer(spec: &Spec, file: &Path) -> Result<()> {
    cgroup::enter(&spec.cgroup)?;
    let all = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWCGROUP
        | CloneFlags::CLONE_NEWPID;
    unshare(all).context("cannot make namespaces for a node (root?)")?;
    let itself = std::env::current_exe().context("cannot tell where xtask itself is")?;
    let mut child = Command::new(itself)
        .args(["node", "--first"])
        .arg(file)
        .stdin(Stdio::null())
        .spawn()
        .context("cannot start a node's first process")?;
    let (pid, new) = (spec.own.join("pid"), spec.own.join("pid.new"));
    std::fs::write(&new, child.id().to_string())
        .and_then(|()| std::fs::rename(&new, &pid))
        .with_context(|| format!("cannot write {}", pid.display()))?;
    let status = child.wait().context("cannot wait for a node's first process")?;
    bail!("the node's first process ended ({status})")
}

fn inner(spec: &Spec) -> Result<()> {
    // With the outer process, which others know, the node ends.
    prctl::set_pdeathsig(Signal::SIGKILL).context("prctl")?;
    nix::unistd::sethostname(&spec.name).context("cannot set the host name")?;
    mounts(spec)?;
    let path = path(spec)?;
    let log = |name: &str| spec.own.join(format!("{name}.log"));
    let begin = |command: Cmd, name: &str| command.env("PATH", &path).background(&log(name));
    let programs = &spec.programs;
    let containerd = begin(cmd(&programs.containerd).arg("-c").arg(spec.own.join(settings::CONTAINERD)), "containerd")?;
    import(spec)?;
    let kubelet = cmd(&programs.kubelet)
        .arg("--config")
        .arg(spec.own.join(settings::KUBELET))
        .arg("--kubeconfig")
        .arg(&spec.kubeconfig)
        .arg("--root-dir")
        .arg(spec.own.join("kubelet"))
        .args(["--hostname-override", &spec.name, "--node-ip", &spec.address]);
    let kubelet = begin(kubelet, "kubelet")?;
    let proxy = begin(cmd(&programs.proxy).arg("--config").arg(spec.own.join(settings::PROXY)), "kube-proxy")?;
    reap(&[("containerd", containerd), ("kubelet", kubelet), ("kube-proxy", proxy)])
}

/// Where programs are looked for: containerd its shim, kubelet and kube-proxy those of the machine.
fn path(spec: &Spec) -> Result<String> {
    let shim = spec.programs.shim.parent().context("the shim is in no directory")?;
    Ok(format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", shim.display()))
}

/// The machine's files, but a /sys, /run, /var/lib and /var/log of its own.
fn mounts(spec: &Spec) -> Result<()> {
    let none = None::<&str>;
    let flags = |what: &Path, flags: MsFlags| {
        mount(none, what, none, flags, none).with_context(|| format!("cannot change how {} is shared", what.display()))
    };
    // Nothing reaches the machine; pods see what is mounted later.
    flags(Path::new("/"), MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
    flags(Path::new("/"), MsFlags::MS_REC | MsFlags::MS_SHARED)?;
    fresh("proc", "/proc", "")?;
    fresh("sysfs", "/sys", "")?;
    fresh("bpf", "/sys/fs/bpf", "")?;
    if Path::new("/sys/kernel/tracing").exists() {
        fresh("tracefs", "/sys/kernel/tracing", "")?;
    }
    control_groups()?;
    // What is below /run and /var/lib is hidden, but for the cluster's own directory.
    fresh("tmpfs", "/run", "mode=755")?;
    bind(&spec.shared, Path::new("/run/shared"))?;
    fresh("tmpfs", "/var/lib", "mode=755")?;
    bind(Path::new("/run/shared"), &spec.shared)?;
    fresh("tmpfs", "/var/log", "mode=755")?;
    let own = spec.own.join("sysctl");
    std::fs::create_dir_all(&own).with_context(|| format!("cannot create {}", own.display()))?;
    for (name, value) in MACHINE_WIDE {
        let file = own.join(name.replace('/', "."));
        std::fs::write(&file, value).with_context(|| format!("cannot write {}", file.display()))?;
        let target = Path::new("/proc/sys").join(name);
        mount(Some(&file), &target, none, MsFlags::MS_BIND, none)
            .with_context(|| format!("cannot cover {}", target.display()))?;
    }
    Ok(())
}

/// The controllers that this machine has, below the node's own group.
fn control_groups() -> Result<()> {
    if cgroup::unified() {
        fresh("cgroup2", cgroup::DIR, "")?;
        // A group with processes of its own may have no controllers for others.
        let leaf = Path::new(cgroup::DIR).join("node");
        std::fs::create_dir_all(&leaf).context("cannot make a control group")?;
        std::fs::write(leaf.join("cgroup.procs"), "1").context("cannot enter a control group")?;
        let file = Path::new(cgroup::DIR).join("cgroup.subtree_control");
        return std::fs::write(&file, "+cpu +cpuset +memory +pids +io")
            .with_context(|| format!("cannot write {}", file.display()));
    }
    let own = std::fs::read_to_string("/proc/self/cgroup").context("cannot read /proc/self/cgroup")?;
    fresh("tmpfs", cgroup::DIR, "mode=755")?;
    // 4:cpu,cpuacct:/ or 1:name=systemd:/
    for controllers in own.lines().filter_map(|line| line.split(':').nth(1)).filter(|name| !name.is_empty()) {
        let (options, name) = match controllers.strip_prefix("name=") {
            Some(name) => (format!("none,{controllers}"), name),
            None => (controllers.to_owned(), controllers),
        };
        let dir = Path::new(cgroup::DIR).join(name);
        std::fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        fresh("cgroup", &dir.to_string_lossy(), &options)?;
        for alone in name.split(',').filter(|alone| *alone != name) {
            std::os::unix::fs::symlink(name, Path::new(cgroup::DIR).join(alone)).context("cannot link a controller")?;
        }
    }
    Ok(())
}

fn fresh(kind: &str, target: &str, options: &str) -> Result<()> {
    mount(Some(kind), target, Some(kind), MsFlags::empty(), Some(options))
        .with_context(|| format!("cannot mount {kind} at {target}"))
}

fn bind(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .with_context(|| format!("cannot mount {} at {}", from.display(), to.display()))
}

fn import(spec: &Spec) -> Result<()> {
    let ctr = || cmd(&spec.programs.ctr).args(["--address", SOCKET, "--namespace", "k8s.io"]);
    let begin = Instant::now();
    while !ctr().arg("version").try_read()?.status.success() {
        if begin.elapsed() > LIMIT {
            bail!("containerd does not answer after {} s; see containerd.log", LIMIT.as_secs());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    for image in &spec.images {
        ctr().args(["images", "import"]).arg(image).limit(LIMIT).run()?;
    }
    Ok(())
}

/// Waits for what has ended, whoever's child it was; a first process inherits orphans.
fn reap(own: &[(&str, Child)]) -> Result<()> {
    loop {
        let status = wait().context("nothing is left to wait for")?;
        let name =
            own.iter().find(|(_, child)| status.pid().is_some_and(|pid| pid.as_raw().cast_unsigned() == child.id()));
        if let (Some((name, _)), WaitStatus::Exited(..) | WaitStatus::Signaled(..)) = (name, status) {
            bail!("{name} ended: {status:?}");
        }
    }
}
