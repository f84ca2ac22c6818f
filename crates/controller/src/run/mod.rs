//! `guenon agent`: composes source, core, data path and node, and runs until it is told to end.

mod agent;
mod attachments;
mod cluster;
mod config;
mod detach;
mod egress;
mod hash_key;
mod node_side;
mod node_status;
mod path_mtus;
mod preflight;
mod problem_log;
mod reconciler;
mod refused;
mod report;
mod too_big;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use guenon_crd::NodeState;
use prometheus::Registry;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

use self::agent::Agent;
use self::cluster::ClusterSide;
pub use self::config::{Config, KeyChoice, SourceChoice};
pub use self::detach::{TakenOff, detach};
pub use self::hash_key::hash_key;
use self::node_status::{NodeReports, detached};
use self::report::Reporter;
use crate::datapath::TunnelTooBig;
use crate::files::Manifests;
use crate::http::{self, Health, Server};
use crate::kube::Cluster;
use crate::metrics::AgentMetrics;
use crate::source::{Source, SourceEvent};

/// Batches of the source that may wait.
const BATCHES: usize = 64;
/// How often a node that is detached looks whether it still is, and tells that it lives.
const LOOK: Duration = Duration::from_secs(10);

/// Runs the agent until SIGTERM or SIGINT. The data path stays in force when it ends, however it ends.
///
/// # Errors
///
/// Something that it needs is missing (told before anything is changed), or its source or server ended.
pub fn run(config: Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?;
    let ended = runtime.block_on(serve(config));
    // A scrape that is being served does not keep the process.
    runtime.shutdown_background();
    ended
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?,
        })
    }

    async fn told(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

async fn serve(config: Config) -> anyhow::Result<()> {
    // Signals first: one that comes while the agent starts must not leave it half done.
    let mut signals = Signals::listen()?;
    let listener = Listener::bind(config.listen).await?;
    loop {
        let health = Health::waiting_for("the agent starts");
        let mut cluster = match &config.source {
            SourceChoice::Files(_) => None,
            SourceChoice::Kubernetes(kubeconfig) => {
                Some(ClusterSide::connect(&config, kubeconfig.as_deref(), health.clone()).await?)
            }
        };
        let ended = match (&config.source, &mut cluster) {
            (SourceChoice::Files(directory), _) => {
                attached(&config, Manifests::new(directory.clone()), &listener, None, &health, &mut signals).await?
            }
            (SourceChoice::Kubernetes(_), Some(side)) => {
                let source = Cluster::new(side.client.clone());
                attached(&config, source, &listener, Some(side), &health, &mut signals).await?
            }
            (SourceChoice::Kubernetes(_), None) => bail!("there is no connection to the cluster"),
        };
        let again = match (ended, &mut cluster) {
            (Ended::Detached, Some(side)) => stay_detached(&config, &listener, side, &health, &mut signals).await?,
            (Ended::Told | Ended::Detached, _) => false,
        };
        if !again {
            return Ok(());
        }
    }
}

/// Why an agent ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// It was told to.
    Told,
    /// The node is to be given back.
    Detached,
}

/// Gives the node back, and waits until it is to take part again: whether it is.
async fn stay_detached(
    config: &Config,
    listener: &Listener,
    side: &mut ClusterSide,
    health: &Health,
    signals: &mut Signals,
) -> anyhow::Result<bool> {
    let registry = Registry::new();
    let metrics = AgentMetrics::register(&registry, "kubernetes")?;
    let _server = listener.serve(registry, metrics, health)?;
    let why = match detach(&config.pin_dir, &config.state_dir, &config.sysctl_dir) {
        Ok(taken) => {
            tracing::warn!(?taken, "spec.state is Detached: nothing of Guenon is in force on this node any more");
            (!taken.problems.is_empty()).then(|| taken.problems.join("; "))
        }
        Err(error) => {
            tracing::error!("spec.state is Detached, and this node cannot be given back: {error:#}");
            Some(format!("{error:#}; run `guenon detach` on the node"))
        }
    };
    side.reports.send_replace(Some(detached(why)));
    health.set(vec!["spec.state of this node's GuenonNode is Detached".to_owned()]);
    loop {
        health.turned();
        tokio::select! {
            changed = side.wanted.changed() => {
                changed.context("the reports to the cluster ended")?;
                if *side.wanted.borrow_and_update() == NodeState::Active {
                    tracing::info!("spec.state is Active: taking part again");
                    return Ok(true);
                }
            }
            () = tokio::time::sleep(LOOK) => {}
            () = signals.told() => return Ok(false),
        }
    }
}

/// Runs an agent with its data path, until it is told to end or to give the node back.
async fn attached<S: Source + 'static>(
    config: &Config,
    source: S,
    listener: &Listener,
    side: Option<&ClusterSide>,
    health: &Health,
    signals: &mut Signals,
) -> anyhow::Result<Ended> {
    preflight::check_manifests(config)?;
    let name = source.name();
    let registry = Registry::new();
    let metrics = AgentMetrics::register(&registry, name)?;
    let mut server = listener.serve(registry.clone(), metrics.clone(), health)?;

    // Objects are read while the data path is made ready.
    let (sender, mut batches) = mpsc::channel(BATCHES);
    let mut source = Ends(tokio::spawn(source.run(sender.clone())));

    let wanted = side.map(|side| side.wanted.clone());
    if wanted.as_ref().is_some_and(|wanted| *wanted.borrow() == NodeState::Detached) {
        return Ok(Ended::Detached);
    }
    let secret = side.and_then(|side| side.secret.clone());
    let key = tokio::select! {
        key = hash_key::obtain(&config.hash_key, secret.as_ref(), &config.state_dir, health) => key?,
        () = signals.told() => return Ok(Ended::Told),
        () = is_detached(wanted.clone()) => return Ok(Ended::Detached),
    };
    metrics.has_hash_key(&key);
    let _watched = secret.map(|secret| Ends(tokio::spawn(hash_key::watch(secret, key, sender.clone()))));
    let told = side.map(|side| NodeReports::new(side.reports.clone(), key));
    let reporter = Reporter::new(config.state_dir.clone(), config.node.clone(), name, metrics, health.clone());
    let (agent, too_big) = preflight::start(config, key, reporter, told, &registry)?;
    tracing::info!(listen = %config.listen, node = config.node, "running");
    let ended = tokio::select! {
        ended = turn(agent, &mut batches, too_big) => match ended {
            Ok(never) => match never {},
            Err(error) => Err(error),
        },
        ended = &mut source.0 => {
            ended.context("the source of objects panicked")?.context("the source of objects failed")?;
            bail!("the source of objects ended; what is in force stays");
        }
        ended = &mut server.0 => {
            ended.context("the metrics server panicked")??;
            bail!("the metrics server ended");
        }
        () = signals.told() => Ok(Ended::Told),
        () = is_detached(wanted) => Ok(Ended::Detached),
    };
    if matches!(ended, Ok(Ended::Told)) {
        tracing::info!("ending; the data path stays in force (`guenon detach` takes it away)");
    }
    ended
}

/// Resolves when the node is to be given back.
async fn is_detached(wanted: Option<watch::Receiver<NodeState>>) {
    match wanted {
        Some(mut wanted) => {
            if wanted.wait_for(|state| *state == NodeState::Detached).await.is_err() {
                std::future::pending().await
            }
        }
        None => std::future::pending().await,
    }
}

/// The agent's loop: whatever is told, a round.
async fn turn(
    mut agent: Agent,
    batches: &mut mpsc::Receiver<Vec<SourceEvent>>,
    mut too_big: mpsc::Receiver<TunnelTooBig>,
) -> anyhow::Result<std::convert::Infallible> {
    agent.round(Instant::now());
    agent.release_interfaces();
    agent.report();
    loop {
        let mut since = None;
        let next = tokio::time::Instant::from_std(agent.next());
        tokio::select! {
            batch = batches.recv() => if let Some(batch) = batch {
                since = Some(Instant::now());
                agent.tell(batch);
            },
            changed = agent.views.changed() => {
                changed.context("the netlink monitor ended")?;
                since = Some(Instant::now());
            }
            told = too_big.recv() => if let Some(told) = told {
                since = agent.tell_too_big(told).then(Instant::now);
            },
            () = tokio::time::sleep_until(next) => {}
        }
        // What has come meanwhile is handled in the same round.
        while let Ok(batch) = batches.try_recv() {
            since.get_or_insert_with(Instant::now);
            agent.tell(batch);
        }
        let now = Instant::now();
        if since.is_some() || agent.round_is_due(now) {
            agent.round(since.unwrap_or(now));
        }
        agent.tick();
        agent.report();
    }
}

/// Where metrics and probes are served: taken once, so that one in use is told before anything is changed.
struct Listener(std::net::TcpListener);

impl Listener {
    async fn bind(address: SocketAddr) -> anyhow::Result<Self> {
        Ok(Self(http::bind(address).await?.into_std().context("cannot keep the address of metrics")?))
    }

    fn serve(
        &self,
        registry: Registry,
        metrics: AgentMetrics,
        health: &Health,
    ) -> anyhow::Result<Ends<anyhow::Result<()>>> {
        let listener = self.0.try_clone().and_then(tokio::net::TcpListener::from_std);
        let server = Server { registry, refresh: Arc::new(move || metrics.refresh()), health: health.clone() };
        let listener = listener.context("cannot serve metrics")?;
        Ok(Ends(tokio::spawn(http::serve(listener, server))))
    }
}

/// A task that ends with its owner.
struct Ends<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for Ends<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
