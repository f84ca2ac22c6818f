//! Flags that several subcommands share.

use std::path::PathBuf;

/// Where the data path is pinned.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Pins {
    /// Directory on a BPF file system where programs, links and maps are pinned
    #[arg(long, env = "GUENON_PIN_DIR", value_name = "DIR", default_value = "/sys/fs/bpf/guenon")]
    pub(super) pin_dir: PathBuf,
}

/// Where the agent keeps what must outlive it but not a reboot.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct StateDir {
    /// Directory for what must be undone later: previous sysctl values, addresses put on the loopback
    #[arg(long, env = "GUENON_STATE_DIR", value_name = "DIR", default_value = "/run/guenon")]
    pub(super) state_dir: PathBuf,
}
