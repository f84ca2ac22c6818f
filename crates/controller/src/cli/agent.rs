use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::ValueEnum;

use super::options::{Log, Pins, Policy, StateDir, Sysctls, host_name};
use crate::datapath::AttachMode;
use crate::datapath::tables::Capacities;
use crate::metrics::Detail;
use crate::run::{self, Config, KeyChoice, SourceChoice};

const EXAMPLES: &str = "\
Examples:
  guenon agent --manifests /etc/guenon
      A director and decap node on the interface with the default route.
  guenon agent --kubeconfig ~/.kube/config --node n1
      The same with the objects of a cluster.
  guenon agent --manifests /etc/guenon --interface eth0 --interface eth1 --hash-key-file /etc/guenon.key
      Two interfaces; the flow hash has a key of its own (the same file on every director).
  head -c 16 /dev/urandom > /etc/guenon.key
      Makes such a key.

SIGTERM and SIGINT end the agent and leave the data path in force: traffic goes on, and the next agent adopts what \
it finds. `guenon detach` takes it away.";

/// The process that runs on every node: watches, reconciles, exports
///
/// The process that runs on every node: reads VirtualServices and their endpoints, reconciles them into the BPF maps of
/// this node, keeps next hops current, and serves metrics.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Args {
    /// Directory of YAML manifests (VirtualService, Service, EndpointSlice, Endpoints, Node), re-read when it changes.
    /// Without it objects come from the Kubernetes API
    #[arg(long, env = "GUENON_MANIFESTS", value_name = "DIR")]
    manifests: Option<PathBuf>,

    /// How to reach the Kubernetes API. Default: $KUBECONFIG, ~/.kube/config, or the pod's service account
    #[arg(long, env = "GUENON_KUBECONFIG", value_name = "FILE", conflicts_with = "manifests")]
    kubeconfig: Option<PathBuf>,

    /// Interface to attach to, by name or pattern (`*`, `?`); repeatable. Default: the one with the default route
    #[arg(long, env = "GUENON_INTERFACE", value_name = "NAME", value_delimiter = ',')]
    interface: Vec<String>,

    /// Name of this node, as Node objects and EndpointSlices call it. Default: the host name
    #[arg(long, env = "GUENON_NODE", value_name = "NAME")]
    node: Option<String>,

    /// Address for /metrics, /healthz and /readyz
    #[arg(long, env = "GUENON_LISTEN", value_name = "ADDR:PORT", default_value = "127.0.0.1:9478")]
    listen: SocketAddr,

    #[command(flatten)]
    pins: Pins,

    #[command(flatten)]
    state: StateDir,

    #[command(flatten)]
    sysctls: Sysctls,

    /// File with the key of the flow hash: 16 bytes, or 32 hex digits; the same on every director
    ///
    /// File with the key of the flow hash: 16 bytes, or 32 hex digits; the same on every director. Without it
    /// the published default is used, and anyone may craft flows that all land on one endpoint.
    #[arg(long, env = "GUENON_HASH_KEY_FILE", value_name = "FILE")]
    hash_key_file: Option<PathBuf>,

    /// Secret with the key of the flow hash: 16 bytes under `key`, in the namespace that Guenon runs in
    #[arg(long, env = "GUENON_HASH_KEY_SECRET", value_name = "NAME", conflicts_with_all = ["hash_key_file", "manifests"])]
    hash_key_secret: Option<String>,

    /// Namespace that Guenon runs in. Default: the pod's, or that of the kubeconfig
    #[arg(long, env = "GUENON_NAMESPACE", value_name = "NAME", conflicts_with = "manifests")]
    namespace: Option<String>,

    #[command(flatten)]
    policy: Policy,

    /// Address of a director that may send tunnel packets here, beside those of the cluster; repeatable
    #[arg(long, env = "GUENON_DIRECTOR", value_name = "ADDR", value_delimiter = ',')]
    director: Vec<IpAddr>,

    /// Tunnel address of this node; repeatable. Default: the first interface's first global address of each family
    #[arg(long, env = "GUENON_TUNNEL_ADDRESS", value_name = "ADDR", value_delimiter = ',')]
    tunnel_address: Vec<IpAddr>,

    /// UDP destination port of GUE
    #[arg(long, env = "GUENON_GUE_PORT", value_name = "PORT", default_value_t = guenon_ebpf::abi::GUE_PORT,
          value_parser = clap::value_parser!(u16).range(1..))]
    gue_port: u16,

    /// Directory of named network namespaces, to reach the far ends of veths
    #[arg(long, env = "GUENON_NETNS_DIR", value_name = "DIR", default_value = "/run/netns")]
    netns_dir: PathBuf,

    /// How to attach: in the driver, in the kernel's generic path, or the driver first
    #[arg(long, env = "GUENON_XDP_MODE", value_name = "MODE", default_value = "auto")]
    xdp_mode: ModeArg,

    #[command(flatten)]
    log: Log,

    /// How detailed metrics are: per node, also per service and frontend, or also per endpoint
    #[arg(long, env = "GUENON_METRICS_DETAIL", value_name = "DETAIL", default_value = "node")]
    metrics_detail: DetailArg,

    /// Services that the maps can hold
    #[arg(long, env = "GUENON_MAX_SERVICES", value_name = "N", default_value_t = 16_384,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(guenon_ebpf::abi::MAX_SERVICES)))]
    max_services: u32,

    /// Frontends (VIP, protocol, port) that the maps can hold
    #[arg(long, env = "GUENON_MAX_FRONTENDS", value_name = "N", default_value_t = 16_384,
          value_parser = clap::value_parser!(u32).range(1..=1 << 22))]
    max_frontends: u32,

    /// Endpoints that the maps can hold, old and new side by side while services change
    #[arg(long, env = "GUENON_MAX_ENDPOINTS", value_name = "N", default_value_t = 262_144,
          value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    max_endpoints: u32,

    /// Pages of 1,024 forwarding rows that the maps can hold; a service takes one or more
    #[arg(long, env = "GUENON_MAX_ROW_PAGES", value_name = "N", default_value_t = 16_384,
          value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    max_row_pages: u32,

    /// Local deliveries (frontend and endpoint of this node) that the maps can hold
    #[arg(long, env = "GUENON_MAX_LOCALS", value_name = "N", default_value_t = 16_384,
          value_parser = clap::value_parser!(u32).range(1..=1 << 22))]
    max_locals: u32,

    /// Flows of ordinary pods (delivery Nat) of this node that are remembered, 32 bytes each
    #[arg(long, env = "GUENON_MAX_FLOWS", value_name = "N", default_value_t = 262_144,
          value_parser = clap::value_parser!(u32).range(1..=1 << 26))]
    max_flows: u32,

    /// Change nothing on the node but the data path: no addresses, no sysctls, no programs on far ends of veths
    #[arg(long, env = "GUENON_NO_NODE_SETUP", value_parser = clap::builder::FalseyValueParser::new())]
    no_node_setup: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ModeArg {
    /// In the driver where it can, else generic, with a warning
    Auto,
    /// In the driver or not at all
    Native,
    /// In the kernel's generic path: any device, several times slower
    Generic,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DetailArg {
    /// Interfaces, verdicts, reasons
    Node,
    /// Also frontends
    Service,
    /// Also endpoints
    Endpoint,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    args.log.start()?;
    run::run(config(args)?)
}

/// Flags to configuration; no I/O but the host name.
fn config(args: Args) -> anyhow::Result<Config> {
    // Every field by name: a new flag must be handled here.
    let Args {
        manifests,
        kubeconfig,
        interface,
        node,
        listen,
        pins: Pins { pin_dir },
        state: StateDir { state_dir },
        sysctls: Sysctls { sysctl_dir },
        hash_key_file,
        hash_key_secret,
        namespace,
        director,
        policy,
        tunnel_address,
        gue_port,
        netns_dir,
        xdp_mode,
        log: _,
        metrics_detail,
        max_services,
        max_frontends,
        max_endpoints,
        max_row_pages,
        max_locals,
        max_flows,
        no_node_setup,
    } = args;
    Ok(Config {
        source: match manifests {
            Some(directory) => SourceChoice::Files(directory),
            None => SourceChoice::Kubernetes(kubeconfig),
        },
        interfaces: interface,
        node: match node {
            Some(node) => node,
            None => host_name()?,
        },
        listen,
        pin_dir,
        state_dir,
        sysctl_dir,
        hash_key: match (hash_key_file, hash_key_secret) {
            (Some(file), _) => KeyChoice::File(file),
            (None, Some(secret)) => KeyChoice::Secret(secret),
            (None, None) => KeyChoice::Published,
        },
        namespace,
        policy: policy.of(),
        directors: director.into_iter().collect(),
        tunnel_addresses: tunnel_address,
        gue_port,
        netns_dir,
        xdp_mode: match xdp_mode {
            ModeArg::Auto => AttachMode::Auto,
            ModeArg::Native => AttachMode::Native,
            ModeArg::Generic => AttachMode::Generic,
        },
        metrics_detail: match metrics_detail {
            DetailArg::Node => Detail::Node,
            DetailArg::Service => Detail::Service,
            DetailArg::Endpoint => Detail::Endpoint,
        },
        capacities: Capacities {
            services: max_services,
            frontends: max_frontends,
            endpoints: max_endpoints,
            row_pages: max_row_pages,
            locals: max_locals,
            flows: max_flows,
        },
        node_setup: !no_node_setup,
    })
}
