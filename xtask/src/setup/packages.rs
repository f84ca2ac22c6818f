//! Programs from Debian packages, installed only where one is missing.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::shell::cmd;
use crate::{paths, progress};

/// Something that a package brings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Need {
    what: What,
    package: &'static str,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Program(&'static str),
    File(&'static str),
}

const fn program(name: &'static str, package: &'static str) -> Need {
    Need { what: What::Program(name), package }
}

const fn file(path: &'static str, package: &'static str) -> Need {
    Need { what: What::File(path), package }
}

/// For building.
pub(crate) const BUILD: &[Need] = &[program("cc", "gcc"), file("/usr/include/stdio.h", "libc6-dev")];
/// For topologies in network namespaces.
pub(crate) const DEMO: &[Need] = &[program("ip", "iproute2"), program("ethtool", "ethtool"), program("curl", "curl")];
/// Independent readers of packets, for tests.
pub(crate) const READERS: &[Need] = &[
    program("tcpdump", "tcpdump"),
    program("tshark", "tshark"),
    program("python3", "python3"),
    file("/usr/lib/python3/dist-packages/scapy/__init__.py", "python3-scapy"),
];
/// A router that marks congestion, for tests.
pub(crate) const MARKING: &[Need] = &[program("nft", "nftables")];
/// A hand on what the kernel remembers of connections, for tests.
pub(crate) const FORGETTING: &[Need] = &[program("nft", "nftables"), program("conntrack", "conntrack")];
/// A C compiler for static binaries.
pub(crate) const MUSL: &[Need] = &[program("musl-gcc", "musl-tools")];
/// Keys of an API server.
pub(crate) const API: &[Need] = &[program("openssl", "openssl")];
/// For nodes of a cluster.
pub(crate) const CLUSTER: &[Need] = &[
    program("openssl", "openssl"),
    program("nft", "nftables"),
    program("iptables", "iptables"),
    program("runc", "runc"),
    program("nsenter", "util-linux"),
    file("/usr/lib/cni/ptp", "containernetworking-plugins"),
];
/// For other kernels in QEMU.
pub(crate) const KERNELS: &[Need] = &[
    program("qemu-system-x86_64", "qemu-system-x86"),
    program("busybox", "busybox-static"),
    program("modprobe", "kmod"),
    program("xz", "xz-utils"),
    program("zstd", "zstd"),
    program("bpftool", "bpftool"),
    program("tcpdump", "tcpdump"),
    program("ip", "iproute2"),
    program("ethtool", "ethtool"),
    file("/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring"),
];

/// Installs what is missing, or says what to install.
pub(crate) fn ensure(needs: &[Need]) -> Result<()> {
    let missing: BTreeSet<&str> = needs.iter().filter(|need| !need.met()).map(|need| need.package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.iter().copied().collect::<Vec<_>>().join(" ");
    if paths::which("apt-get").is_none() {
        bail!("missing: {list} (Debian's names), and this machine has no apt-get. Install them by its own means.");
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("missing: {list}. Install them as root: apt-get install --no-install-recommends {list}");
    }
    progress::step(format_args!("installing Debian packages: {list}"));
    let install = || {
        cmd("apt-get")
            .args(["install", "-y", "-qq", "--no-install-recommends"])
            .args(&missing)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .limit(Duration::from_secs(900))
            .read()
    };
    if install().is_err() {
        progress::note("package lists are missing or old: apt-get update");
        cmd("apt-get").args(["update", "-qq"]).limit(Duration::from_secs(300)).run()?;
        install().with_context(|| format!("cannot install {list}; try it by hand to see more"))?;
    }
    if let Some(need) = needs.iter().find(|need| !need.met()) {
        bail!("package {} is installed, but {:?} is not there: is PATH right?", need.package, need.what);
    }
    Ok(())
}

impl Need {
    fn met(&self) -> bool {
        match self.what {
            What::Program(name) => paths::which(name).is_some(),
            What::File(path) => Path::new(path).exists(),
        }
    }
}
