//! The connection to the API server.

use std::path::{Path, PathBuf};

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The file that was named cannot be used.
    #[error(
        "cannot use the kubeconfig {file} (--kubeconfig): {error}; name one that `kubectl --kubeconfig {file}` works with"
    )]
    Kubeconfig {
        /// The file.
        file: String,
        /// What is wrong with it.
        error: String,
    },
    /// None was named, and none was found.
    #[error(
        "cannot find a cluster: {0}; in a pod the service account must be mounted (automountServiceAccountToken), \
         elsewhere name a kubeconfig with --kubeconfig, or read manifests from files with --manifests"
    )]
    Infer(String),
    /// Certificates or addresses that no connection can be made with.
    #[error("cannot set up the connection to the cluster: {0}; correct certificates and server in the kubeconfig")]
    Client(#[source] kube::Error),
}

/// The file of the certificate authority in the current context, which is then read again from time to time, as tokens are.
fn authority(config: &Kubeconfig) -> Option<PathBuf> {
    let context = config.contexts.iter().find(|context| Some(&context.name) == config.current_context.as_ref())?;
    let cluster = &context.context.as_ref()?.cluster;
    let cluster = config.clusters.iter().find(|named| named.name == *cluster)?.cluster.as_ref()?;
    let has_data = cluster.certificate_authority_data.is_some();
    cluster.certificate_authority.as_ref().filter(|_| !has_data).map(PathBuf::from)
}

/// A client by this kubeconfig; without one by `$KUBECONFIG`, `~/.kube/config`, or as a pod's service account. The server is
/// not asked yet.
///
/// # Errors
///
/// [`ConnectError`].
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Client, ConnectError> {
    let config = match kubeconfig {
        Some(file) => {
            let refused = |error: &dyn std::fmt::Display| ConnectError::Kubeconfig {
                file: file.display().to_string(),
                error: error.to_string(),
            };
            let read = Kubeconfig::read_from(file).map_err(|error| refused(&error))?;
            let authority = authority(&read);
            let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await;
            let mut config = config.map_err(|error| refused(&error))?;
            config.root_cert_file = authority;
            config
        }
        None => Config::infer().await.map_err(|error| ConnectError::Infer(error.to_string()))?,
    };
    Client::try_from(config).map_err(ConnectError::Client)
}
