//! `guenon controller`, composed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures::StreamExt as _;
use prometheus::Registry;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use super::book::Book;
use super::controller::Controller;
use super::leadership;
use crate::http::{self, Health, Server};
use crate::kube::{self, Cluster, HashKeySecret, Writer};
use crate::metrics::ControllerMetrics;
use crate::model::{HashKey, Policy};
use crate::source::Source as _;

/// Batches of the source that may wait.
const BATCHES: usize = 64;
/// How often the leader looks whether the hash key's Secret is there.
const KEY_LOOK: Duration = Duration::from_secs(30);
/// How long letting the Lease go may take at the end.
const LET_GO: Duration = Duration::from_secs(3);

/// All that `guenon controller` is told.
#[derive(Clone, Debug)]
pub struct ControllerConfig {
    /// How to reach the API server; `None`: as any client of the cluster finds it.
    pub kubeconfig: Option<PathBuf>,
    /// Namespace that Guenon runs in; `None` = the pod's, or that of the kubeconfig.
    pub namespace: Option<String>,
    /// This replica, among all.
    pub identity: String,
    /// Where metrics and probes are served.
    pub listen: SocketAddr,
    /// The Secret with the hash key.
    pub hash_key_secret: String,
    /// Whether it is made if there is none.
    pub create_hash_key: bool,
    /// Who may be a VIP, and which nodes are directors.
    pub policy: Policy,
}

/// Runs the controller until SIGTERM or SIGINT.
///
/// # Errors
///
/// There is no way to reach a cluster, the address for metrics is taken, or a task ended that should not.
pub fn run(config: ControllerConfig) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?;
    let ended = runtime.block_on(serve(config));
    runtime.shutdown_background();
    ended
}

async fn serve(config: ControllerConfig) -> anyhow::Result<()> {
    let ControllerConfig { kubeconfig, namespace, identity, listen, hash_key_secret, create_hash_key, policy } = config;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let listener = http::bind(listen).await?;
    let client = kube::connect(kubeconfig.as_deref()).await?;
    let namespace = namespace.unwrap_or_else(|| client.default_namespace().to_owned());

    let registry = Registry::new();
    let metrics = ControllerMetrics::register(&registry)?;
    let health = Health::waiting_for("the controller starts");
    let refresh = {
        let metrics = metrics.clone();
        Arc::new(move || metrics.refresh())
    };
    let mut server = tokio::spawn(http::serve(listener, Server { registry, refresh, health: health.clone() }));

    let (sender, batches) = mpsc::channel(BATCHES);
    let source = Cluster::new(client.clone());
    let mut source = tokio::spawn(source.run(sender));
    let (lead, leads) = watch::channel(None);
    let (let_go, going) = watch::channel(false);
    let mut election =
        tokio::spawn(leadership::stand(client.clone(), namespace.clone(), identity.clone(), lead, going));
    let secret = HashKeySecret::new(client.clone(), &namespace, &hash_key_secret);
    if create_hash_key {
        tokio::spawn(keep_key(secret, leads.clone()));
    }
    let learnt = kube::learn(&client, &namespace).boxed();
    let writer = Writer::new(client, &identity);
    let controller = Controller::new(Book::new(policy, Instant::now()), writer, leads, metrics, health);
    tracing::info!(%listen, identity, namespace, "running");
    tokio::select! {
        ended = controller.turn(batches, learnt) => {
            ended?;
            bail!("the source of objects ended");
        }
        ended = &mut source => {
            ended.context("the source of objects panicked")?.context("the source of objects failed")?;
            bail!("the source of objects ended");
        }
        ended = &mut server => {
            ended.context("the metrics server panicked")??;
            bail!("the metrics server ended");
        }
        _ = &mut election => bail!("the election ended"),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("ending");
    let_go.send_replace(true);
    if tokio::time::timeout(LET_GO, election).await.is_err() {
        tracing::warn!("could not let the Lease go; another replica leads when it expires");
    }
    Ok(())
}

/// Makes the Secret with the hash key while this replica leads, if there is none.
async fn keep_key(secret: HashKeySecret, mut leads: watch::Receiver<Option<Instant>>) {
    loop {
        let until = *leads.borrow_and_update();
        if until.is_some_and(|until| until > Instant::now()) {
            match make_key(&secret).await {
                Ok(true) => tracing::info!("made {secret}: the flow hash has a key of its own"),
                Ok(false) => {}
                Err(error) => tracing::warn!("{error:#}"),
            }
            tokio::time::sleep(KEY_LOOK).await;
        } else if leads.changed().await.is_err() {
            return;
        }
    }
}

async fn make_key(secret: &HashKeySecret) -> anyhow::Result<bool> {
    if secret.get().await?.is_some() {
        return Ok(false);
    }
    let mut key = [0; 16];
    let mut random = std::fs::File::open("/dev/urandom").context("cannot open /dev/urandom to make a hash key")?;
    std::io::Read::read_exact(&mut random, &mut key).context("cannot read /dev/urandom")?;
    Ok(secret.create(HashKey(key)).await?)
}
