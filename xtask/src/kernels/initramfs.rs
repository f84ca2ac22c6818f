//! The guest's root file system: busybox, a few tools of this machine with their libraries, kernel modules, and what
//! is to be run there.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::cpio::Archive;
use super::fetch::Kernel;
use crate::paths;
use crate::shell::cmd;

/// Tools of this machine.
const TOOLS: [&str; 5] = ["ip", "tc", "ethtool", "bpftool", "tcpdump"];

/// Modules that the guest loads, with all that they need. Some are built into some kernels.
const MODULES: [&str; 16] = [
    "virtio_pci",
    "virtio_net",
    "af_packet",
    "ipv6",
    "veth",
    "dummy",
    "8021q",
    "cls_bpf",
    "sch_ingress",
    "fou",
    "fou6",
    "ipip",
    "sit",
    "tunnel4",
    "tunnel6",
    "ip6_tunnel",
];

/// The guest's first process. Whoever reads the console judges by the last line.
const INIT: &str = r#"#!/bin/sh
export PATH=/sbin:/bin:/usr/sbin:/usr/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null
echo "INIT-REACHED $(cat /proc/uptime) $(uname -r)"
ulimit -l unlimited
/sbin/ip link set lo up
for module in $(cat /modules); do modprobe "$module" 2>/dev/null; done
sh /test/run.sh
echo "EXIT-STATUS $?"
sync
poweroff -f
"#;

/// A file to be had in the guest.
pub(super) struct Payload {
    /// Path there.
    pub(super) path: String,
    pub(super) content: PathBuf,
}

/// Everything for one kernel.
pub(super) fn build(kernel: &Kernel, payload: &[Payload], run: &str) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for directory in ["proc", "sys", "dev", "tmp", "run", "root", "etc", "test", "var/run", "var/tmp"] {
        archive.directory(directory);
    }
    archive.file("init", INIT.as_bytes());
    archive.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n");
    archive.file("etc/group", b"root:x:0:\n");
    archive.file("etc/hosts", b"127.0.0.1 localhost\n::1 localhost\n");
    archive.file("modules", MODULES.join("\n").as_bytes());
    busybox(&mut archive)?;
    for tool in TOOLS {
        dynamic(&mut archive, tool)?;
    }
    modules(&mut archive, kernel)?;
    archive.file("test/run.sh", run.as_bytes());
    for file in payload {
        archive.copy(&file.path, &file.content)?;
    }
    Ok(archive.finish())
}

fn busybox(archive: &mut Archive) -> Result<()> {
    let busybox = paths::which("busybox").context("no busybox (package busybox-static)")?;
    archive.copy("bin/busybox", &busybox)?;
    let applets = cmd(&busybox).arg("--list").read()?;
    // Its shell prefers its own applets to what PATH finds: those that we bring are not linked.
    for applet in applets.lines().filter(|name| !TOOLS.contains(name) && *name != "busybox" && *name != "init") {
        archive.link(&format!("bin/{applet}"), "busybox");
    }
    Ok(())
}

/// A program with the libraries that it is linked with.
fn dynamic(archive: &mut Archive, tool: &str) -> Result<()> {
    let file = paths::which(tool).with_context(|| format!("no {tool} on this machine"))?;
    archive.copy(&format!("sbin/{tool}"), &file)?;
    let libraries = cmd("ldd").arg(&file).read()?;
    for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
        archive.copy(library, Path::new(library))?;
    }
    Ok(())
}

/// The modules, decompressed, with all that they depend on.
fn modules(archive: &mut Archive, kernel: &Kernel) -> Result<()> {
    // modprobe wants lib/modules at its root, packages of today have it below usr.
    let root = kernel.dir.join("root");
    let link = root.join("lib/modules").join(&kernel.release);
    if !link.exists() {
        let parent = root.join("lib/modules");
        std::fs::create_dir_all(&parent).with_context(|| format!("cannot create {}", parent.display()))?;
        std::os::unix::fs::symlink(kernel.modules()?, &link)
            .with_context(|| format!("cannot link {}", link.display()))?;
    }
    if !link.join("modules.dep").exists() {
        depmod(&root, &kernel.release)?;
    }
    let scratch = kernel.dir.join("guest");
    let prefix = format!("lib/modules/{}", kernel.release);
    let _ = std::fs::remove_dir_all(&scratch); // of an earlier run
    for module in MODULES {
        // One that is built in is nothing to load; one that is missing shows in the guest, where it is used.
        let said =
            cmd("modprobe").arg("-d").arg(&root).args(["-S", &kernel.release, "--show-depends", module]).try_read()?;
        for file in said.stdout.lines().filter_map(|line| line.strip_prefix("insmod ")?.split_whitespace().next()) {
            let inside = file.rsplit_once(&kernel.release).map_or(file, |(_, rest)| rest).trim_start_matches('/');
            let target = scratch.join(&prefix).join(inside);
            let target = if inside.ends_with(".ko") { target } else { target.with_extension("") };
            if !target.exists() {
                let parent = target.parent().unwrap_or(&scratch);
                std::fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
                decompress(Path::new(file), &target)?;
            }
        }
    }
    std::fs::create_dir_all(scratch.join(&prefix)).with_context(|| format!("cannot create {}", scratch.display()))?;
    depmod(&scratch, &kernel.release)?;
    add_tree(archive, &scratch, Path::new(""))
}

fn depmod(root: &Path, release: &str) -> Result<()> {
    cmd("depmod").arg("-b").arg(root).arg(release).limit(Duration::from_secs(120)).run()
}

fn decompress(from: &Path, to: &Path) -> Result<()> {
    let by = match from.extension().and_then(|e| e.to_str()) {
        Some("xz") => Some("xz -dc"),
        Some("zst") => Some("zstd -dcq"),
        Some(_) | None => None,
    };
    match by {
        None => std::fs::copy(from, to).map(drop).with_context(|| format!("cannot copy {}", from.display())),
        Some(by) => {
            let script = format!("{by} \"$1\" > \"$2\"");
            cmd("sh").args(["-c", &script, "sh"]).arg(from).arg(to).run()
        }
    }
}

fn add_tree(archive: &mut Archive, root: &Path, below: &Path) -> Result<()> {
    let dir = root.join(below);
    let entries = std::fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut names: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
    names.sort();
    for name in names {
        let inside = below.join(name);
        if root.join(&inside).is_dir() {
            add_tree(archive, root, &inside)?;
        } else {
            archive.copy(&inside.to_string_lossy(), &root.join(&inside))?;
        }
    }
    Ok(())
}
