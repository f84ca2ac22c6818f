//! How fast the controller writes statuses.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use guenon_crd::{Condition, ConditionStatus, GuenonNode, VirtualService, conditions};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::core::Request;
use serde_json::{Value, json};

use super::objects::{NAMESPACE, VIRTUAL_SERVICES, create, virtual_service};
use super::{Run, SUBJECT, plain};
use crate::process::Guenon;
use crate::report::{Figure, Report};

/// How many statuses the floor writes, and how many are under way at a time, as in the controller.
const FLOOR: u32 = 500;
const AT_A_TIME: usize = 8;
const LIMIT: Duration = Duration::from_secs(900);
/// Longer than an agent waits at most with a report that only moves its version.
const QUIET: Duration = Duration::from_secs(40);

/// Statuses a second that the server takes from somebody who does nothing else; of objects that are then deleted.
pub(super) fn floor(run: &Run<'_>) -> anyhow::Result<f64> {
    let Run { runtime, client, size, .. } = run;
    let count = FLOOR.min(size.services);
    // Beyond those that stay.
    let numbers = size.services..size.services + count;
    let request = Request::new(VIRTUAL_SERVICES);
    let apply = PatchParams::apply("guenon-controller").force();
    let write = |number: u32| {
        let name = format!("s{number}");
        let request = request.patch_subresource("status", &name, &apply, &Patch::Apply(&status(&name)));
        async { client.request_text(request?).await.context("cannot write a status") }
    };
    runtime.block_on(async {
        create(client, VIRTUAL_SERVICES, numbers.clone().map(virtual_service)).await?;
        let start = Instant::now();
        let writes = stream::iter(numbers.clone()).map(write).buffer_unordered(AT_A_TIME);
        writes.try_for_each(|_| std::future::ready(Ok(()))).await?;
        let rate = f64::from(count) / start.elapsed().as_secs_f64();
        let api: Api<VirtualService> = Api::namespaced(client.clone(), NAMESPACE);
        for number in numbers {
            api.delete(&format!("s{number}"), &DeleteParams::default()).await?;
        }
        Ok(rate)
    })
}

/// A status of the usual size.
fn status(name: &str) -> Value {
    let condition = |type_: &str| {
        json!({
            "type": type_, "status": "True", "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z",
            "reason": type_, "message": "so many words as a condition has, more or less",
        })
    };
    let types = [conditions::ACCEPTED, conditions::RESOLVED_REFS, conditions::PROGRAMMED, conditions::READY];
    json!({
        "apiVersion": "guenon.dev/v1alpha1",
        "kind": "VirtualService",
        "metadata": {"name": name},
        "status": {"observedGeneration": 1, "conditions": types.map(condition)},
    })
}

/// Waits until the agent has told that its node is ready.
pub(super) fn reported(run: &Run<'_>) -> anyhow::Result<()> {
    let nodes: Api<GuenonNode> = Api::all(run.client.clone());
    let start = Instant::now();
    loop {
        let node = run.runtime.block_on(nodes.get_opt(&run.bed.node))?;
        let status = node.and_then(|node| node.status).unwrap_or_default();
        if is_ready(&status.conditions) {
            return Ok(());
        }
        ensure!(start.elapsed() < LIMIT, "GuenonNode {} is not ready: {:?}", run.bed.node, status.conditions);
        thread::sleep(Duration::from_millis(100));
    }
}

fn is_ready(all: &[Condition]) -> bool {
    all.iter().any(|one| one.type_ == conditions::READY && one.status == ConditionStatus::True)
}

/// From the start of a controller until every VirtualService, none of which has a status, says that it is ready.
pub(super) fn first(report: &mut Report, run: &Run<'_>, controller: &Guenon, floor: f64) -> anyhow::Result<()> {
    let services = f64::from(run.size.services);
    controller.wait_ready()?;
    while written(controller)? == 0.0 {
        ensure!(controller.age() < LIMIT, "no status after {} s:\n{}", LIMIT.as_secs(), controller.log());
        thread::sleep(Duration::from_millis(20));
    }
    let begun = controller.age();
    loop {
        let (done, waiting) = (written(controller)?, controller.metric("guenon_controller_status_waiting")?);
        if done >= services && waiting == 0.0 && ready(run)? == run.size.services as usize {
            break;
        }
        ensure!(controller.age() < LIMIT, "{done} statuses after {} s, {waiting} wait", LIMIT.as_secs());
        thread::sleep(Duration::from_millis(100));
    }
    let (all, done) = (controller.age(), written(controller)?);
    let rate = done / (all - begun).as_secs_f64();
    plain(report, format!("{services} fresh VirtualServices, controller's exec to all ready"), all.as_secs_f64(), "s");
    plain(report, "  of that until the first status is written", begun.as_secs_f64(), "s");
    plain(report, "  writes of statuses for that", done, "");
    report.add(Figure {
        subject: SUBJECT,
        name: "  statuses written a second (floor: the same writes, nothing else)".to_owned(),
        value: rate,
        unit: "/s",
        floor: Some(floor),
        aim: None,
    });
    Ok(())
}

/// Waits until nothing is written any more.
pub(super) fn quiet(controller: &Guenon) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut last = (written(controller)?, Instant::now());
    while last.1.elapsed() < QUIET {
        ensure!(start.elapsed() < LIMIT, "statuses are still written after {} s", LIMIT.as_secs());
        thread::sleep(Duration::from_millis(500));
        let now = written(controller)?;
        if now.total_cmp(&last.0).is_ne() {
            last = (now, Instant::now());
        }
    }
    Ok(())
}

/// Statuses written so far.
pub(super) fn written(controller: &Guenon) -> anyhow::Result<f64> {
    controller.metric("guenon_controller_status_writes_total{result=\"ok\"}")
}

/// VirtualServices that are ready.
fn ready(run: &Run<'_>) -> anyhow::Result<usize> {
    let api: Api<VirtualService> = Api::namespaced(run.client.clone(), NAMESPACE);
    let all =
        run.runtime.block_on(api.list(&ListParams { resource_version: Some("0".into()), ..Default::default() }))?;
    let ready = |object: &&VirtualService| object.status.as_ref().is_some_and(|status| is_ready(&status.conditions));
    Ok(all.items.iter().filter(ready).count())
}
