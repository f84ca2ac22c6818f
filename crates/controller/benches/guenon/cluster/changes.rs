//! One endpoint of one service changed in its EndpointSlice, until that is in force on the node.

use std::net::IpAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use aya::maps::{Array, MapData};
use futures::{AsyncBufReadExt as _, StreamExt as _, pin_mut};
use guenon_ebpf::abi::map;
use kube::Client;
use kube::api::{Patch, PatchParams, WatchParams};
use kube::core::Request;
use serde_json::json;

use super::objects::{NAMESPACE, SLICES};
use super::{Run, SUBJECT, plain};
use crate::harness::median;
use crate::process::{Guenon, pinned, service_id};
use crate::report::{Figure, Report};

/// The service whose slice is changed.
const SERVICE: u32 = 7;
/// How often the map is looked at.
const LOOK: Duration = Duration::from_micros(50);
const LIMIT: Duration = Duration::from_secs(20);
/// Between changes: grace periods and watches of one are not to be counted to the next.
const PAUSE: Duration = Duration::from_millis(50);

pub(super) fn measure(report: &mut Report, run: &Run<'_>, agent: &Guenon) -> anyhow::Result<()> {
    let Run { bed, size, runtime, client, audit, quick } = run;
    let rounds = if *quick { 100 } else { 500 };
    let descriptors: Array<MapData, u64> = pinned(&bed.pins, map::SERVICES)?;
    let id = service_id(&bed.pins, &format!("{NAMESPACE}/s{SERVICE}"))?;
    let (sender, seen) = channel();
    let watcher = runtime.spawn(watch(client.clone(), sender));
    thread::sleep(Duration::from_secs(1));
    let revision = agent.metric("guenon_revision")?;
    let mark = audit.mark()?;

    let (mut all, mut theirs, mut ours, mut answers) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 1..=rounds {
        let address = size.endpoint(size.services + round, 0);
        let patch = json!({"endpoints": size.endpoints(SERVICE, Some(address))});
        let request =
            Request::new(SLICES).patch(&format!("s{SERVICE}-1"), &PatchParams::default(), &Patch::Merge(&patch))?;
        let before = descriptors.get(&id, 0)?;
        let start = Instant::now();
        let asking = client.clone();
        let answered = runtime.spawn(async move { asking.request_text(request).await.map(|_| Instant::now()) });
        while descriptors.get(&id, 0)? == before {
            ensure!(start.elapsed() < LIMIT, "change {round} did not come into force within {} s", LIMIT.as_secs());
            // Everybody else wants the cores too.
            thread::sleep(LOOK);
        }
        let in_force = Instant::now();
        let event = event_of(address, &seen)?;
        let answered = runtime.block_on(answered).context("the change panicked")??;
        let since = |later: Instant, earlier: Instant| {
            let (after, before) = (later.saturating_duration_since(earlier), earlier.saturating_duration_since(later));
            (after.as_secs_f64() - before.as_secs_f64()) * 1e3
        };
        all.push(since(in_force, start));
        theirs.push(since(event, start));
        ours.push(since(in_force, event));
        answers.push(since(answered, start));
        thread::sleep(PAUSE);
    }
    watcher.abort();
    ensure!(
        agent.metric("guenon_revision")? - revision >= f64::from(rounds),
        "the agent counted fewer revisions than changes"
    );

    for (name, times, aim) in [
        ("one endpoint changed, patch sent to in force", all, false),
        ("  until the API server has answered the patch", answers, false),
        ("  until another, bare watcher has seen it: the API server's part", theirs, false),
        ("  from then until in force: our part", ours, true),
    ] {
        plain(report, format!("{name}, median"), median(times.clone()), "ms");
        let p99 = p99(times);
        let aim = aim.then(|| ("<= 10 ms".to_owned(), p99 <= 10.0));
        report.add(Figure { subject: SUBJECT, name: format!("{name}, p99"), value: p99, unit: "ms", floor: None, aim });
    }
    let asked = audit.since(&mark)?;
    for who in ["agent", "controller"] {
        let name = format!("{who}'s requests for {rounds} changes in half a minute ({})", asked.kinds(who));
        plain(report, name, asked.of(who) as f64, "");
    }
    Ok(())
}

/// When the watcher saw this address.
fn event_of(address: IpAddr, seen: &Receiver<(Instant, String)>) -> anyhow::Result<Instant> {
    let address = format!("\"{address}\"");
    loop {
        let (at, line) = seen.recv_timeout(LIMIT).context("another watcher did not see the change")?;
        if line.contains(&address) {
            return Ok(at);
        }
    }
}

/// Follows all slices, as an agent does, and looks at nothing but the time.
async fn watch(client: Client, seen: Sender<(Instant, String)>) -> anyhow::Result<()> {
    let request = Request::new("/apis/discovery.k8s.io/v1/endpointslices").watch(&WatchParams::default(), "0")?;
    let lines = client.request_stream(request).await?.lines();
    pin_mut!(lines);
    while let Some(line) = lines.next().await {
        let line = line?;
        if line.starts_with("{\"type\":\"MODIFIED\"") {
            seen.send((Instant::now(), line))?;
        }
    }
    Ok(())
}

fn p99(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[(times.len() * 99).div_ceil(100) - 1]
}
