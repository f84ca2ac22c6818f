//! `/metrics`, `/healthz` and `/readyz`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::{Encoder as _, Registry, TextEncoder};
use tokio::net::TcpListener;

/// A loop that has not turned for so long hangs; it turns at least at every heartbeat.
const HANGS_AFTER: Duration = Duration::from_secs(60);

/// Whether the process is ready, and whether its loop turns.
#[derive(Clone, Debug)]
pub struct Health(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Why the agent is not ready; empty = it is.
    waiting_for: ArcSwap<Vec<String>>,
    turned_at: ArcSwap<Instant>,
}

impl Health {
    /// Alive, and not ready for this reason.
    #[must_use]
    pub fn waiting_for(reason: &str) -> Self {
        let waiting_for = ArcSwap::from_pointee(vec![reason.to_owned()]);
        Self(Arc::new(Inner { waiting_for, turned_at: ArcSwap::from_pointee(Instant::now()) }))
    }

    /// These are all reasons why it is not ready now.
    pub fn set(&self, reasons: Vec<String>) {
        self.0.waiting_for.store(Arc::new(reasons));
    }

    /// Why it is not ready; empty = it is.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        self.0.waiting_for.load().to_vec()
    }

    /// The loop has turned once more.
    pub fn turned(&self) {
        self.0.turned_at.store(Arc::new(Instant::now()));
    }

    /// Whether the loop turns.
    #[must_use]
    pub fn turns(&self) -> bool {
        self.hangs(Instant::now()).is_none()
    }

    /// Since when the loop hangs, if it does.
    fn hangs(&self, now: Instant) -> Option<Duration> {
        Some(now.saturating_duration_since(**self.0.turned_at.load())).filter(|since| *since > HANGS_AFTER)
    }
}

/// What the server serves.
#[derive(Clone)]
pub struct Server {
    /// Where metrics are registered.
    pub registry: Registry,
    /// Refreshes what is read at a scrape.
    pub refresh: Arc<dyn Fn() + Send + Sync>,
    /// What `/healthz` and `/readyz` tell.
    pub health: Health,
}

/// Takes the address, so that one in use is told before anything is changed.
///
/// # Errors
///
/// The address is in use, or not this node's.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address} for metrics: choose another with --listen ADDR:PORT (GUENON_LISTEN)")
    })
}

/// Serves until the future is dropped.
///
/// # Errors
///
/// The listener fails.
pub async fn serve(listener: TcpListener, server: Server) -> anyhow::Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(server);
    axum::serve(listener, router).await.context("the metrics server failed")
}

async fn metrics(State(server): State<Server>) -> Response {
    // Reading the maps takes system calls by the thousand with much detail: off the reactor's threads.
    let text = tokio::task::spawn_blocking(move || {
        (server.refresh)();
        let mut text = Vec::new();
        TextEncoder::new().encode(&server.registry.gather(), &mut text).map(|()| text)
    })
    .await;
    match text {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Ok(Err(error)) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot encode metrics: {error}\n")).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot read metrics: {error}\n")).into_response(),
    }
}

async fn healthz(State(server): State<Server>) -> Response {
    match server.health.hangs(Instant::now()) {
        None => "ok\n".into_response(),
        Some(since) => {
            let text = format!("the loop has not turned for {} s\n", since.as_secs());
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
    }
}

async fn readyz(State(server): State<Server>) -> Response {
    let reasons = server.health.reasons();
    if reasons.is_empty() {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", reasons.join("; "))).into_response()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;
    use crate::metrics::AgentMetrics;

    async fn get(address: SocketAddr, path: &'static str) -> String {
        let ask = move || {
            let mut stream = std::net::TcpStream::connect(address).expect("the server listens");
            write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("the request is sent");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("the answer is read");
            answer
        };
        tokio::task::spawn_blocking(ask).await.expect("no panic")
    }

    #[tokio::test]
    async fn readiness_says_what_is_waited_for() {
        let registry = Registry::new();
        let metrics = AgentMetrics::register(&registry, "files").expect("metrics register");
        let health = Health::waiting_for("the first revision is not in force");
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let server = tokio::spawn(serve(
            listener,
            Server { registry, refresh: Arc::new(move || metrics.refresh()), health: health.clone() },
        ));

        let answer = get(address, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.ends_with("not ready: the first revision is not in force\n"), "{answer}");
        health.set(Vec::new());
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        assert!(get(address, "/healthz").await.ends_with("ok\n"));
        assert!(get(address, "/metrics").await.contains("guenon_build_info{abi="));
        server.abort();
    }

    #[test]
    fn a_loop_that_does_not_turn_is_told() {
        let health = Health::waiting_for("the start");
        let now = Instant::now();
        assert_eq!(health.hangs(now), None);
        assert!(health.hangs(now + 2 * HANGS_AFTER).is_some());
    }

    #[tokio::test]
    async fn a_port_in_use_is_told_with_the_flag() {
        let first = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a free port");
        let taken = first.local_addr().expect("an address");
        let error = bind(taken).await.expect_err("the port is taken");
        let text = format!("{error:#}");
        assert!(text.contains(&taken.to_string()) && text.contains("--listen"), "{text}");
        assert!(text.contains("in use"), "{text}");
    }
}
