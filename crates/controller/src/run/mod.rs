//! `guenon agent`: composes source, core, data path and node, and runs until it is told to end.

mod agent;
mod attachments;
mod config;
mod node_side;
mod path_mtus;
mod preflight;
mod problem_log;
mod reconciler;
mod refused;
mod report;
mod too_big;

use std::time::Instant;

use anyhow::{Context as _, bail};
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

pub use self::config::{Config, SourceChoice, hash_key};
use self::report::Reporter;
use crate::files::Manifests;
use crate::http::{self, Health, Server};
use crate::kube::{self, Cluster};
use crate::metrics::AgentMetrics;
use crate::source::Source;

/// Batches of the source that may wait.
const BATCHES: usize = 64;

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
    let ended = runtime.block_on(async {
        match config.source.clone() {
            SourceChoice::Files(directory) => serve(config, Manifests::new(directory)).await,
            SourceChoice::Kubernetes(kubeconfig) => {
                let client = kube::connect(kubeconfig.as_deref()).await?;
                serve(config, Cluster::new(client)).await
            }
        }
    });
    // A scrape that is being served does not keep the process.
    runtime.shutdown_background();
    ended
}

async fn serve<S: Source + 'static>(config: Config, source: S) -> anyhow::Result<()> {
    // Signals first: one that comes while the agent starts must not leave it half done.
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let listener = http::bind(config.listen).await?;

    let name = source.name();
    // Objects are read while the data path is made ready.
    let (sender, mut batches) = mpsc::channel(BATCHES);
    let mut source = tokio::spawn(source.run(sender));

    let registry = Registry::new();
    let metrics = AgentMetrics::register(&registry, name)?;
    let health = Health::waiting_for("the agent starts");
    let reporter = Reporter::new(config.state_dir.clone(), config.node.clone(), name, metrics.clone(), health.clone());
    let (mut agent, mut too_big) = preflight::start(&config, reporter, &registry)?;
    let mut server = spawn_server(listener, Server { registry, metrics, health });

    let started = Instant::now();
    agent.round(started);
    agent.release_interfaces();
    agent.report();
    tracing::info!(listen = %config.listen, node = config.node, "running");
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
            ended = &mut source => {
                ended.context("the source of objects panicked")?.context("the source of objects failed")?;
                bail!("the source of objects ended; what is in force stays");
            }
            ended = &mut server => {
                ended.context("the metrics server panicked")??;
                bail!("the metrics server ended");
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
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
        agent.report();
    }
    tracing::info!("ending; the data path stays in force (`guenon detach` takes it away)");
    Ok(())
}

fn spawn_server(listener: TcpListener, server: Server) -> tokio::task::JoinHandle<anyhow::Result<()>> {
    tokio::spawn(http::serve(listener, server))
}
