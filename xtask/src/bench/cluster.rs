//! What `bench cluster` runs in: the topology with a real API server, one of whose nodes gets an agent from the benchmark.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;

use crate::apiserver::{ApiServer, HASH_KEY, User};
use crate::chart::NAMESPACE;
use crate::shell::Cmd;
use crate::topology::layout::{Host, addresses};
use crate::topology::{Plan, Topology, netns};
use crate::{interrupt, paths, progress};

/// The node whose agent is measured.
const NODE: Host = Host::T22;

/// Lays it out, runs the benchmark in it, removes it.
pub(super) fn run(bench: Cmd) -> Result<()> {
    progress::step("laying out network namespaces");
    // The benchmark starts its own `guenon`; the demo's manifests are read by nobody.
    let plan = Plan::new("bench", Path::new("guenon"), &paths::root().join("examples/demo"));
    let mut topology = Topology::build(plan)?;
    let measured = measure(&mut topology, bench);
    progress::step("removing everything");
    interrupt::forgive();
    // A benchmark that was interrupted leaves its agent and controller.
    let left = [Host::Switch, NODE].map(|host| netns::end_all(&topology.netns(host)));
    if let Some(error) = left.into_iter().find_map(Result::err) {
        eprintln!("not every process could be ended: {error:#}");
    }
    let removed = topology.remove();
    measured.and(removed)
}

fn measure(topology: &mut Topology, bench: Cmd) -> Result<()> {
    let server = ApiServer::start(topology)?;
    server.tell_addresses(NODE)?;
    // Nobody runs an agent there: it would be a director on which nothing is ever in force.
    for other in Host::NODES.into_iter().filter(|host| *host != NODE) {
        server.kubectl(&["delete", "node", other.name()]).run()?;
    }
    let address = addresses(NODE).next().context("the node has no address")?;
    let bed = json!({
        "server_netns": topology.netns(Host::Switch),
        "admin": server.kubeconfig(User::Admin),
        "agent": server.kubeconfig(User::Agent(NODE)),
        "controller": server.kubeconfig(User::Controller),
        "audit_log": server.audit_file(),
        "node": NODE.name(),
        "agent_netns": topology.netns(NODE),
        "agent_metrics": format!("{address}:9478"),
        "controller_metrics": "127.0.0.1:9479",
        "namespace": NAMESPACE,
        "hash_key": HASH_KEY,
        "pins": topology.pins().join("bench"),
        "dir": topology.dir(),
    });
    let file = topology.dir().join("bed.json");
    std::fs::write(&file, bed.to_string()).with_context(|| format!("cannot write {}", file.display()))?;
    progress::step("measuring (some minutes)");
    bench.arg("--bed").arg(&file).show()
}
