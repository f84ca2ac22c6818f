//! Flags that several subcommands share.

use std::path::PathBuf;

use anyhow::Context as _;
use ipnet::IpNet;

use crate::logging::{self, LogFormat};
use crate::model::{self, Selector};

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

/// Where the cluster is.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Server {
    /// How to reach the Kubernetes API. Default: $KUBECONFIG, ~/.kube/config, or the pod's service account
    #[arg(long, env = "GUENON_KUBECONFIG", value_name = "FILE")]
    pub(super) kubeconfig: Option<PathBuf>,

    /// Namespace that Guenon runs in. Default: the pod's, or that of the kubeconfig
    #[arg(long, env = "GUENON_NAMESPACE", value_name = "NAME")]
    pub(super) namespace: Option<String>,
}

/// What the cluster's operator has decided: the same for every agent and controller.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Policy {
    /// Range that VIPs may come from; repeatable. Default: any address that no node, Service or endpoint has
    #[arg(long, env = "GUENON_VIP_RANGE", value_name = "CIDR", value_delimiter = ',')]
    vip_range: Vec<IpNet>,

    /// Which nodes are directors, by labels of their Node objects, as `kubectl -l` takes them; every node without
    ///
    /// Which nodes are directors, by labels of their Node objects, as `kubectl -l` takes them; every node without. Only
    /// directors may send tunnel packets. Best a label that a kubelet may not give its own node:
    /// `node-restriction.kubernetes.io/guenon-director=true`.
    #[arg(
        long,
        env = "GUENON_DIRECTOR_SELECTOR",
        value_name = "SELECTOR",
        default_value = "",
        hide_default_value = true
    )]
    director_selector: Selector,
}

impl Policy {
    pub(super) fn of(self) -> model::Policy {
        let Self { vip_range, director_selector } = self;
        model::Policy { vip_ranges: vip_range, directors: director_selector }
    }
}

/// How much is logged, and in which form.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Log {
    /// Format of the log on standard error
    #[arg(long, env = "GUENON_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    log_format: LogFormatArg,

    /// Least level that is logged: error, warn, info, debug, trace, or a filter such as `info,guenon_controller=debug`
    #[arg(long, env = "GUENON_LOG_LEVEL", value_name = "LEVEL", default_value = "info")]
    log_level: String,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum LogFormatArg {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

impl Log {
    pub(super) fn start(&self) -> anyhow::Result<()> {
        let format = match self.log_format {
            LogFormatArg::Text => LogFormat::Text,
            LogFormatArg::Json => LogFormat::Json,
        };
        logging::start(format, &self.log_level)
    }
}

/// The machine's name; in a pod without host network that of the pod.
pub(super) fn host_name() -> anyhow::Result<String> {
    const FILE: &str = "/proc/sys/kernel/hostname";
    let name = std::fs::read_to_string(FILE)
        .with_context(|| format!("cannot read the host name from {FILE}; give a name (--node, --identity)"))?;
    Ok(name.trim().to_owned())
}
