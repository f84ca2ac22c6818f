use std::net::SocketAddr;

use super::options::{Log, Policy, Server, host_name};
use crate::status::{self, ControllerConfig};

const EXAMPLES: &str = "\
Examples:
  guenon controller --kubeconfig ~/.kube/config --namespace guenon-system
      Outside of the cluster, against it.
  kubectl -n guenon-system get lease guenon-controller
      Which replica leads.

It needs no privileges on its node. Several replicas may run: all watch, one writes; one that dies is replaced within 20 s.
VirtualServices are in force without it; what is missing then is their status.";

/// The cluster's one writer of status: elected among replicas
///
/// Watches VirtualServices, what is behind them and what agents say of their nodes; writes conditions, columns and events,
/// marks nodes whose agents are not heard any more, and makes the hash key's Secret.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    server: Server,

    /// Name of this replica, which no other has. Default: the host name
    #[arg(long, env = "GUENON_IDENTITY", value_name = "NAME")]
    identity: Option<String>,

    /// Address for /metrics, /healthz and /readyz
    #[arg(long, env = "GUENON_LISTEN", value_name = "ADDR:PORT", default_value = "127.0.0.1:9479")]
    listen: SocketAddr,

    /// Secret with the key of the flow hash: 16 bytes under `key`
    #[arg(long, env = "GUENON_HASH_KEY_SECRET", value_name = "NAME", default_value = "guenon-hash-key")]
    hash_key_secret: String,

    /// Make that Secret, immutable, if there is none
    #[arg(long, env = "GUENON_CREATE_HASH_KEY", value_parser = clap::builder::FalseyValueParser::new())]
    create_hash_key: bool,

    #[command(flatten)]
    policy: Policy,

    #[command(flatten)]
    log: Log,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let Args {
        server: Server { kubeconfig, namespace },
        identity,
        listen,
        hash_key_secret,
        create_hash_key,
        policy,
        log,
    } = args;
    log.start()?;
    status::run(ControllerConfig {
        kubeconfig,
        namespace,
        identity: match identity {
            Some(identity) => identity,
            None => host_name()?,
        },
        listen,
        hash_key_secret,
        create_hash_key,
        policy: policy.of(),
    })
}
