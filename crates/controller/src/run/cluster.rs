//! The agent's side of a cluster: what is told of the node there, and what is wanted of it.

use std::path::Path;
use std::time::Duration;

use guenon_crd::{GuenonNodeStatus, NodeState};
use kube::Client;
use tokio::sync::watch;

use super::config::{Config, KeyChoice};
use crate::http::Health;
use crate::kube::{self as api, HashKeySecret, NodeReporter};

/// How long is waited for what is wanted of the node, before that it takes part is taken for granted.
const LIMIT: Duration = Duration::from_secs(5);

/// The ways to and from the cluster.
pub(super) struct ClusterSide {
    pub(super) client: Client,
    pub(super) secret: Option<HashKeySecret>,
    /// Reports of the node.
    pub(super) reports: watch::Sender<Option<GuenonNodeStatus>>,
    /// What is wanted of it.
    pub(super) wanted: watch::Receiver<NodeState>,
    reporter: tokio::task::JoinHandle<()>,
}

impl ClusterSide {
    /// Connects, and begins to report. The server need not be there.
    ///
    /// # Errors
    ///
    /// There is no way to know where the server is.
    pub(super) async fn connect(config: &Config, kubeconfig: Option<&Path>, health: Health) -> anyhow::Result<Self> {
        let client = api::connect(kubeconfig).await?;
        let namespace = config.namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
        let secret = match &config.hash_key {
            KeyChoice::Secret(name) => Some(HashKeySecret::new(client.clone(), &namespace, name)),
            KeyChoice::Published | KeyChoice::File(_) => None,
        };
        let (reports, reported) = watch::channel(None);
        let (want, wanted) = watch::channel(NodeState::Active);
        if let Ok(Some(state)) = tokio::time::timeout(LIMIT, api::wanted_state(&client, &config.node)).await {
            want.send_replace(state);
        }
        let reporter = NodeReporter::new(client.clone(), namespace, config.node.clone(), health);
        let reporter = tokio::spawn(reporter.run(reported, want));
        Ok(Self { client, secret, reports, wanted, reporter })
    }
}

impl Drop for ClusterSide {
    fn drop(&mut self) {
        self.reporter.abort();
    }
}
