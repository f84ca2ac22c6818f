//! The floor of a cold start: the lists that an agent asks for, read by somebody who does nothing with them.

use std::fmt::Debug;
use std::time::Instant;

use anyhow::{Context as _, bail};
use futures::{AsyncBufReadExt as _, StreamExt as _, pin_mut};
use k8s_openapi::api::core::v1::{Endpoints, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::Request;
use serde::de::DeserializeOwned;

use super::Run;
use crate::harness::median;

const PATHS: [&str; 5] = [
    "/apis/guenon.dev/v1alpha1/virtualservices",
    "/api/v1/services",
    "/apis/discovery.k8s.io/v1/endpointslices",
    "/api/v1/endpoints",
    "/api/v1/nodes",
];
/// What a streamed list ends with.
const END: &str = r#""k8s.io/initial-events-end":"true""#;

/// Milliseconds; bytes.
#[derive(Default)]
pub(super) struct Times {
    bodies: Vec<f64>,
    streamed: Vec<f64>,
    parsed: Vec<f64>,
    bytes: Vec<f64>,
}

pub(super) struct Medians {
    pub(super) bodies: f64,
    pub(super) streamed: f64,
    pub(super) parsed: f64,
    pub(super) bytes: f64,
}

impl Times {
    pub(super) fn medians(self) -> Medians {
        let Self { bodies, streamed, parsed, bytes } = self;
        Medians { bodies: median(bodies), streamed: median(streamed), parsed: median(parsed), bytes: median(bytes) }
    }
}

/// Asks for all lists at once, each way.
pub(super) fn measure(run: &Run<'_>, times: &mut Times) -> anyhow::Result<()> {
    let Run { runtime, client, .. } = run;
    runtime.block_on(async {
        let start = Instant::now();
        let bodies = PATHS.map(|path| tokio::spawn(body(client.clone(), path)));
        let mut bytes = 0;
        for body in bodies {
            bytes += body.await.context("a reader panicked")??;
        }
        times.bodies.push(milliseconds(start));
        times.bytes.push(bytes as f64);

        let start = Instant::now();
        for list in PATHS.map(|path| tokio::spawn(streamed(client.clone(), path, |_| Ok(())))) {
            list.await.context("a reader panicked")??;
        }
        times.streamed.push(milliseconds(start));

        let start = Instant::now();
        let [virtual_services, services, slices, endpoints, nodes] = PATHS;
        let lists = [
            tokio::spawn(streamed(client.clone(), virtual_services, parse::<guenon_crd::VirtualService>)),
            tokio::spawn(streamed(client.clone(), services, parse::<Service>)),
            tokio::spawn(streamed(client.clone(), slices, parse::<EndpointSlice>)),
            tokio::spawn(streamed(client.clone(), endpoints, parse::<Endpoints>)),
            tokio::spawn(streamed(client.clone(), nodes, parse::<Node>)),
        ];
        for list in lists {
            list.await.context("a reader panicked")??;
        }
        times.parsed.push(milliseconds(start));
        Ok(())
    })
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// A list in one answer: its size.
async fn body(client: Client, path: &str) -> anyhow::Result<usize> {
    let any = ListParams { resource_version: Some("0".to_owned()), ..ListParams::default() };
    Ok(client.request_text(Request::new(path).list(&any)?).await?.len())
}

/// A list as a watch tells it.
async fn streamed(client: Client, path: &str, each: fn(&str) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let request = Request::new(path).watch(&WatchParams::default().initial_events(), "0")?;
    let lines = client.request_stream(request).await?.lines();
    pin_mut!(lines);
    while let Some(line) = lines.next().await {
        let line = line?;
        if line.contains(END) {
            return Ok(());
        }
        each(&line)?;
    }
    bail!("{path}: the list ended before its end")
}

fn parse<K: DeserializeOwned + Clone + Debug>(line: &str) -> anyhow::Result<()> {
    let event: WatchEvent<K> = serde_json::from_str(line).with_context(|| format!("cannot read {line}"))?;
    std::hint::black_box(event);
    Ok(())
}
