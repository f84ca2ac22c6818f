//! Flags that several subcommands share.

use std::path::PathBuf;

/// Where the data path is pinned.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Pins {
    /// Directory on a BPF file system where programs, links and maps are pinned
    #[arg(long, env = "GUENON_PIN_DIR", value_name = "DIR", default_value = "/sys/fs/bpf/guenon")]
    pub(super) pin_dir: PathBuf,
}

/// Where the node's network is set up.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Sysctls {
    /// Directory of the node's network sysctls. In a pod /proc/sys/net is read-only: the node's is mounted elsewhere
    #[arg(long, env = "GUENON_SYSCTL_DIR", value_name = "DIR", default_value = "/proc/sys/net")]
    pub(super) sysctl_dir: PathBuf,
}

/// Where the agent keeps what must outlive it but not a reboot.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct StateDir {
    /// Directory for what must be undone later: previous sysctl values, addresses put on the loopback
    #[arg(long, env = "GUENON_STATE_DIR", value_name = "DIR", default_value = "/run/guenon")]
    pub(super) state_dir: PathBuf,
}
