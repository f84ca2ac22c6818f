//! What a cluster costs: a real API server that holds many headless Services with EndpointSlices and a VirtualService for each, one
//! real agent that follows it, and the controller. `cargo xtask bench cluster` lays out network and server, and says where they are.

mod audit;
mod changes;
mod lists;
mod objects;
mod statuses;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use aya::maps::{Array, MapData};
use guenon_ebpf::abi::map;
use kube::Client;
use serde::Deserialize;
use tokio::runtime::Runtime;

use crate::harness::median;
use crate::process::{Guenon, detach, pinned};
use crate::report::{Figure, Report};
use crate::wires::enter;
use audit::Audit;
pub(crate) use objects::Size;

const SUBJECT: &str = "cluster";
/// How often an agent is started on a data path that has nothing: once at each detail of metrics.
const DETAILS: [&str; 3] = ["node", "service", "endpoint"];

/// Where network and server are; made by xtask.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Bed {
    /// The namespace that the API server is in.
    server_netns: String,
    /// Of who may do everything, of the agent, of the controller.
    admin: PathBuf,
    agent: PathBuf,
    controller: PathBuf,
    audit_log: PathBuf,
    /// The node that the agent runs on: its name, its namespace.
    node: String,
    agent_netns: String,
    /// Where agent and controller serve metrics: reached from the server's namespace.
    agent_metrics: SocketAddr,
    controller_metrics: SocketAddr,
    /// Where Guenon's own objects are, and the Secret with the hash key.
    namespace: String,
    hash_key: String,
    pins: PathBuf,
    /// For logs and the agent's state.
    dir: PathBuf,
}

impl Bed {
    pub(crate) fn read(file: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        serde_json::from_str(&text).with_context(|| format!("cannot read {}", file.display()))
    }

    fn start_agent(&self, detail: &str) -> anyhow::Result<Guenon> {
        let (pins, state, kubeconfig) = (self.pins.to_string_lossy(), self.state(), self.agent.to_string_lossy());
        let state = state.to_string_lossy();
        let args = [
            "agent",
            "--interface",
            "eth0",
            "--node",
            &self.node,
            "--pin-dir",
            &pins,
            "--state-dir",
            &state,
            "--kubeconfig",
            &kubeconfig,
            "--namespace",
            &self.namespace,
            "--hash-key-secret",
            &self.hash_key,
            "--metrics-detail",
            detail,
        ];
        Guenon::start(&args, Some(&self.agent_netns), self.agent_metrics, self.dir.join("bench-agent.log"))
    }

    fn start_controller(&self) -> anyhow::Result<Guenon> {
        let kubeconfig = self.controller.to_string_lossy();
        let args = [
            "controller",
            "--kubeconfig",
            &kubeconfig,
            "--namespace",
            &self.namespace,
            "--hash-key-secret",
            &self.hash_key,
            "--identity",
            "bench",
        ];
        Guenon::start(&args, None, self.controller_metrics, self.dir.join("bench-controller.log"))
    }

    fn state(&self) -> PathBuf {
        self.dir.join("bench-state")
    }

    fn detach(&self) {
        detach(&self.pins, &self.state(), Some(&self.agent_netns));
    }

    /// Services in force, by their descriptors.
    fn in_force(&self) -> anyhow::Result<usize> {
        let descriptors: Array<MapData, u64> = pinned(&self.pins, map::SERVICES)?;
        Ok(descriptors.iter().filter(|descriptor| descriptor.as_ref().is_ok_and(|word| *word != 0)).count())
    }
}

/// Removes what agents have pinned, however the benchmark ends.
struct Pins<'a>(&'a Bed);

impl Drop for Pins<'_> {
    fn drop(&mut self) {
        self.0.detach();
    }
}

/// All that the parts of this benchmark share.
struct Run<'a> {
    bed: &'a Bed,
    size: Size,
    quick: bool,
    runtime: Runtime,
    client: Client,
    audit: Audit,
}

/// Moves the calling thread into the server's namespace.
pub(crate) fn measure(report: &mut Report, bed: &Bed, size: Size, quick: bool) -> anyhow::Result<()> {
    eprintln!("cluster, {size}:");
    enter(&bed.server_netns)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let client = runtime.block_on(guenon_controller::kube::connect(Some(&bed.admin)))?;
    let audit = Audit::new(&bed.audit_log);
    let run = Run { bed, size, quick, runtime, client, audit };

    let loaded = Instant::now();
    run.runtime.block_on(objects::load(&run.client, size, &bed.namespace, &bed.hash_key))?;
    eprintln!("  (the objects were made in {:.0} s)", loaded.elapsed().as_secs_f64());
    let floor = statuses::floor(&run)?;

    let _pins = Pins(bed);
    let agent = bed.start_agent("node")?;
    run.ready(&agent)?;
    statuses::reported(&run)?;
    let controller = bed.start_controller()?;
    statuses::first(report, &run, &controller, floor)?;
    statuses::quiet(&controller)?;
    idle(report, &run, &agent, &controller)?;
    changes::measure(report, &run, &agent)?;
    memory(report, &agent, "agent's peak memory, maps apart, after all of that", Some(200.0))?;
    memory(report, &controller, "controller's peak memory", None)?;
    drop(agent);
    restart(report, &run, &controller)?;
    drop(controller);
    cold(report, &run)
}

impl Run<'_> {
    /// Waits until an agent has all services in force, and gives the time from its start.
    fn ready(&self, agent: &Guenon) -> anyhow::Result<Duration> {
        agent.wait_ready()?;
        loop {
            let (in_force, age) = (self.bed.in_force()?, agent.age());
            if in_force == self.size.services as usize {
                return Ok(age);
            }
            ensure!(
                age < Duration::from_secs(300),
                "{in_force} of {} services in force after {age:?}; the agent's log:\n{}",
                self.size.services,
                agent.log()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn plain(report: &mut Report, name: impl Into<String>, value: f64, unit: &'static str) {
    report.add(Figure { subject: SUBJECT, name: name.into(), value, unit, floor: None, aim: None });
}

fn memory(report: &mut Report, process: &Guenon, name: &str, aim: Option<f64>) -> anyhow::Result<()> {
    let megabytes = process.memory()?.0 / 1e6;
    let aim = aim.map(|aim| (format!("<= {aim:.0} MB"), megabytes <= aim));
    report.add(Figure { subject: SUBJECT, name: name.to_owned(), value: megabytes, unit: "MB", floor: None, aim });
    let now = process.metric("guenon_resident_anonymous_bytes")?;
    plain(report, format!("{name}: what it keeps"), now / 1e6, "MB");
    Ok(())
}

/// What is asked of the API server, and how much CPU is used, while nothing happens. A watch lasts 290 s.
fn idle(report: &mut Report, run: &Run<'_>, agent: &Guenon, controller: &Guenon) -> anyhow::Result<()> {
    let window = Duration::from_secs(if run.quick { 60 } else { 300 });
    let minutes = window.as_secs_f64() / 60.0;
    let cpu = [agent.cpu()?, controller.cpu()?];
    let mark = run.audit.mark()?;
    thread::sleep(window);
    let asked = run.audit.since(&mark)?;
    for ((who, process), before) in [("agent", agent), ("controller", controller)].into_iter().zip(cpu) {
        let name = format!("{who}'s requests a minute while nothing happens ({})", asked.kinds(who));
        plain(report, name, asked.of(who) as f64 / minutes, "");
        let used = (process.cpu()? - before) / window.as_secs_f64();
        plain(report, format!("{who}'s CPU while nothing happens"), used * 1e3, "ms/s");
    }
    Ok(())
}

/// An agent that starts again on what is in force, and what the controller writes because of it.
fn restart(report: &mut Report, run: &Run<'_>, controller: &Guenon) -> anyhow::Result<()> {
    let written = statuses::written(controller)?;
    let agent = run.bed.start_agent("node")?;
    let ready = agent.wait_ready()?;
    plain(report, "agent started again on what is in force: exec to ready", ready.as_secs_f64() * 1e3, "ms");
    statuses::quiet(controller)?;
    let again = statuses::written(controller)? - written;
    plain(report, "statuses that the controller writes because of that", again, "");
    Ok(())
}

/// From nothing to live maps, each time beside its floor; and a scrape at each detail.
fn cold(report: &mut Report, run: &Run<'_>) -> anyhow::Result<()> {
    let (mut times, mut own, mut scrapes, mut peaks) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut floors = lists::Times::default();
    for detail in DETAILS {
        run.bed.detach();
        lists::measure(run, &mut floors)?;
        let agent = run.bed.start_agent(detail)?;
        times.push(run.ready(&agent)?.as_secs_f64() * 1e3);
        own.push(agent.metric("guenon_reconcile_duration_seconds_sum")? * 1e3);
        peaks.push(agent.memory()?.0 / 1e6);
        scrapes.push((detail, Scrape::of(&agent)?));
    }
    let floors = floors.medians();
    plain(report, "all lists, in a body each: bytes", floors.bytes / 1e6, "MB");
    plain(report, "all lists, in a body each, read and not parsed", floors.bodies, "ms");
    plain(report, "all lists, streamed, read and not parsed", floors.streamed, "ms");
    let cold = median(times);
    report.add(Figure {
        subject: SUBJECT,
        name: format!("cold list to live maps, {} (floor: streamed and parsed)", run.size),
        value: cold,
        unit: "ms",
        floor: Some(floors.parsed),
        aim: None,
    });
    plain(report, "cold list to live maps, own work: index, resolve, plan, apply", median(own), "ms");
    let peak = median(peaks);
    let aim = Some(("<= 200 MB".to_owned(), peak <= 200.0));
    let name = "agent's peak memory, maps apart, after a cold list".to_owned();
    report.add(Figure { subject: SUBJECT, name, value: peak, unit: "MB", floor: None, aim });
    for (detail, Scrape { series, bytes, time }) in scrapes {
        plain(report, format!("scrape at detail {detail}: series"), series as f64, "");
        plain(report, format!("scrape at detail {detail}: size"), bytes as f64 / 1e6, "MB");
        plain(report, format!("scrape at detail {detail}: time"), time.as_secs_f64() * 1e3, "ms");
    }
    Ok(())
}

/// What a scrape gives.
struct Scrape {
    series: usize,
    bytes: usize,
    time: Duration,
}

impl Scrape {
    fn of(agent: &Guenon) -> anyhow::Result<Self> {
        let start = Instant::now();
        let text = agent.get("/metrics")?;
        let time = start.elapsed();
        let series = text.lines().filter(|line| line.starts_with("guenon_") || line.starts_with("process_")).count();
        Ok(Self { series, bytes: text.len(), time })
    }
}
