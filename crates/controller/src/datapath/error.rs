//! What can go wrong between the agent and the kernel.

use std::io;
use std::path::PathBuf;

use crate::netlink::{NamespaceError, NetlinkError};

/// Why the data path could not be set up. Where nothing else is said, nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum DataPathError {
    /// Capabilities are missing.
    #[error(
        "the process lacks {missing}, {why}; run it as root, or grant it (docker run {docker}; systemd: \
         CapabilityBoundingSet= and, for another user than root, AmbientCapabilities=; Kubernetes: \
         securityContext.capabilities.add, {helm})"
    )]
    Capability {
        /// Which.
        missing: String,
        /// What they are for.
        why: &'static str,
        /// The flags that grant them.
        docker: String,
        /// What grants them in the chart.
        helm: &'static str,
    },
    /// The kernel cannot do something.
    #[error("this kernel cannot make {what}: {error}; Guenon needs Linux 5.10 or newer with CONFIG_BPF_SYSCALL{hint}")]
    Kernel {
        /// What was tried.
        what: String,
        /// Its answer.
        #[source]
        error: io::Error,
        /// What else it may be.
        hint: &'static str,
    },
    /// No BPF file system for the pins.
    #[error(
        "{path} is not on a BPF file system: {error}; mount one (`mount -t bpf bpf /sys/fs/bpf`; in Kubernetes a \
         hostPath volume of /sys/fs/bpf), or name a directory on one with --pin-dir"
    )]
    NoBpfFs {
        /// The pin directory.
        path: PathBuf,
        /// Why it could not be mounted.
        error: String,
    },
    /// Another process writes to these pins.
    #[error("{path} is in use by {holder}; only one agent may write to it: end that one, or use another --pin-dir")]
    Locked {
        /// The pin directory.
        path: PathBuf,
        /// Process id and command, as far as known.
        holder: String,
    },
    /// A file or directory.
    #[error("cannot {what} {path}: {error}")]
    File {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        error: io::Error,
    },
    /// A map.
    #[error("cannot {what} map {map}: {error}{hint}")]
    Map {
        /// What was tried.
        what: &'static str,
        /// Its name.
        map: String,
        /// Why not.
        #[source]
        error: io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// Nothing is pinned where it was looked for.
    #[error("no data path is pinned at {0}: is the agent running, or was it, with this --pin-dir?")]
    NotThere(PathBuf),
    /// The pinned maps are another version's.
    #[error(
        "the maps pinned at {path} have layout version {found}, this command reads version {expected}; use the `guenon` \
         of the agent that runs"
    )]
    Version {
        /// The pin directory.
        path: PathBuf,
        /// Theirs.
        found: u32,
        /// Ours.
        expected: u32,
    },
    /// The program was refused.
    #[error("the kernel did not take the program {program}: {error}")]
    Load {
        /// Which.
        program: &'static str,
        /// The loader's words, with the last of the verifier's at the end.
        error: String,
    },
    /// No such interface.
    #[error("there is no interface `{0}` here; see `ip link`, and correct --interface")]
    NoInterface(String),
    /// Somebody else's program is attached.
    #[error(
        "interface {interface} already has an XDP program (id {id}{name}); Guenon does not take it over: detach it first \
         (`ip link set dev {interface} xdp off`, or end whoever holds it: `bpftool link`), or use another interface"
    )]
    Foreign {
        /// The interface.
        interface: String,
        /// The program's id.
        id: u32,
        /// Its name, where it may be read: `, name "x"`.
        name: String,
    },
    /// The interface took no program.
    #[error("cannot attach to interface {interface} in {mode} mode: {error}{hint}")]
    Attach {
        /// The interface.
        interface: String,
        /// How.
        mode: &'static str,
        /// Why not.
        #[source]
        error: io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// The interface's egress took no program.
    #[error("cannot attach to the egress of interface {interface} {how}: {error}{hint}")]
    AttachEgress {
        /// The interface.
        interface: String,
        /// How.
        how: &'static str,
        /// Why not.
        error: String,
        /// What to do.
        hint: &'static str,
    },
    /// More interfaces than there are slots for.
    #[error("no counters left for interface {0}: at most 64 interfaces, ever, have a slot; run `guenon detach` once")]
    NoSlot(String),
    /// The kernel's link table could not be read.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A namespace could not be entered.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
}

impl DataPathError {
    pub(super) fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |error| Self::File { what, path, error }
    }

    pub(super) fn map(what: &'static str, map: &str) -> impl FnOnce(io::Error) -> Self {
        let map = map.to_owned();
        move |error| {
            let hint = match error.raw_os_error() {
                Some(libc::EPERM) => {
                    "; grant CAP_BPF (before kernel 5.11 also raise `ulimit -l`, RLIMIT_MEMLOCK, to unlimited)"
                }
                Some(libc::ENOMEM | libc::E2BIG) => {
                    "; ask for smaller maps (--max-services and the like), or give memory"
                }
                _ => "",
            };
            Self::Map { what, map, error, hint }
        }
    }
}
