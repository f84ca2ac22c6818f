use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use crate::datapath::AttachMode;
use crate::datapath::tables::Capacities;
use crate::metrics::Detail;
use crate::model::Policy;

/// Where objects come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceChoice {
    /// This directory of manifests.
    Files(PathBuf),
    /// The Kubernetes API, by this kubeconfig; without one as any client of the cluster finds it.
    Kubernetes(Option<PathBuf>),
}

/// Where the flow hash's key comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyChoice {
    /// The published default.
    Published,
    /// This file.
    File(PathBuf),
    /// The Secret of this name.
    Secret(String),
}

/// All that `guenon agent` is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where objects come from.
    pub source: SourceChoice,
    /// Interfaces to attach to; empty = the one with the default route.
    pub interfaces: Vec<String>,
    /// The node's name.
    pub node: String,
    /// Where metrics are served.
    pub listen: SocketAddr,
    /// Where the data path is pinned.
    pub pin_dir: PathBuf,
    /// What must be undone later.
    pub state_dir: PathBuf,
    /// The node's network sysctls.
    pub sysctl_dir: PathBuf,
    /// Where the flow hash's key comes from.
    pub hash_key: KeyChoice,
    /// Namespace that Guenon runs in; `None` = the pod's, or that of the kubeconfig.
    pub namespace: Option<String>,
    /// Who may be a VIP, and which nodes are directors.
    pub policy: Policy,
    /// Directors beside those of the cluster.
    pub directors: BTreeSet<IpAddr>,
    /// Tunnel addresses; empty = the first global one of each family on the first interface.
    pub tunnel_addresses: Vec<IpAddr>,
    /// UDP destination port of GUE.
    pub gue_port: u16,
    /// Named network namespaces.
    pub netns_dir: PathBuf,
    /// How to attach.
    pub xdp_mode: AttachMode,
    /// How detailed metrics are.
    pub metrics_detail: Detail,
    /// What the maps can hold.
    pub capacities: Capacities,
    /// Whether the node's addresses, sysctls and far ends of veths are set.
    pub node_setup: bool,
}
