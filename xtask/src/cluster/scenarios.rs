//! The cluster test: what must hold in a real cluster, under load. Scenarios share one cluster, one after the other.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::control::Part;
use super::guenon::{NAMESPACE, RELEASE};
use super::image::TAGS;
use super::layout::{Node, http};
use super::ledger::Drops;
use super::load::{Excuse, Load, Loss, Report};
use super::{Cluster, agents, eventually, ledger, traffic};
use crate::test::{self, Count};
use crate::topology::line::Line;
use crate::{interrupt, progress, setup};

/// Traffic before and after what happens.
const WHILE: Duration = Duration::from_secs(2);

struct Scenario {
    name: &'static str,
    /// Says what was lost.
    then: fn(&mut Cluster) -> Result<String>,
}

const SCENARIOS: &[Scenario] = &[
    Scenario { name: "agents are ready with three capabilities, and 100 of 100 are answered", then: answered },
    Scenario { name: "a NodePort and the VIP from one client port", then: node_port },
    Scenario { name: "a Deployment scaled down and up", then: scaled },
    Scenario { name: "an endpoint's pod deleted", then: endpoint_deleted },
    Scenario { name: "a Deployment rolled", then: deployment_rolled },
    Scenario { name: "a node drained", then: drained },
    Scenario { name: "agents killed under load", then: agents_killed },
    Scenario { name: "agents' pods deleted under load", then: agents_deleted },
    Scenario { name: "the DaemonSet rolled to a new version under load", then: rolled },
    Scenario { name: "the API server stopped and started under load", then: api_away },
    Scenario { name: "a node killed and back", then: node_killed },
    Scenario { name: "helm upgrade with changed values and rollback under load", then: upgraded },
    Scenario { name: "helm uninstall leaves every node as it was", then: uninstalled },
];

/// `cargo xtask test --only cluster [--scenario TEXT]`
pub(crate) fn run(named: Option<&str>) -> Result<Count> {
    setup::root("test --only cluster")?;
    let mut cluster = Cluster::up("cluster-test")?;
    let begun = cluster.install().and_then(|()| cluster.example("deployment.yaml"));
    begun.and_then(|()| traffic::in_force(&cluster)).inspect_err(|_| cluster.complain())?;
    let mut count = Count::default();
    for scenario in SCENARIOS.iter().filter(|scenario| scenario.name.contains(named.unwrap_or_default())) {
        progress::note(scenario.name);
        let one = test::told(scenario.name, || (scenario.then)(&mut cluster));
        interrupt::check()?;
        if !one.failed.is_empty() {
            cluster.complain();
        }
        count = count + one;
    }
    cluster.remove()?;
    Ok(count)
}

fn answered(cluster: &mut Cluster) -> Result<String> {
    cluster.agents_ready()?;
    cluster.agents_have_no_more_rights()?;
    cluster.kubectl(&["wait", "guenonnodes", "--all", "--for=condition=Ready", "--timeout=60s"]).run()?;
    let round = traffic::send(cluster)?;
    round.judge()?;
    ledger::balanced(cluster)?;
    Ok("200 of 200 answered".to_owned())
}

/// One client port, used to the VIP and to a NodePort of the same pod at the same time, in either order.
fn node_port(cluster: &mut Cluster) -> Result<String> {
    const PORT: u16 = 30_080;
    const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: echo-node}\nspec:\n  type: NodePort\n  \
        externalTrafficPolicy: Local\n  selector: {app: echo}\n  ports: [{port: 80, targetPort: http, nodePort: 30080}]\n";
    cluster.kubectl(&["apply", "-f", "-"]).input(SERVICE).run()?;
    let netns = cluster.client_netns();
    let direct = |port: u16, node: Node| {
        eventually(WHILE * 5, || Line::open(&netns, port, SocketAddr::new(node.address().into(), PORT)))
    };
    let mut met = std::collections::BTreeSet::new();
    for port in 50_000..50_040 {
        let vip_first = port % 2 == 0;
        // Which node it will be is not known before.
        let mut lines = Vec::new();
        if !vip_first {
            lines.extend(Node::ENDPOINTS.into_iter().map(|node| direct(port, node)).collect::<Result<Vec<_>>>()?);
        }
        let through = Line::open(&netns, port, http()).context("the VIP")?;
        let node = Node::ENDPOINTS.into_iter().find(|node| node.name() == through.name()).context("nobody's name")?;
        if vip_first {
            lines.push(direct(port, node)?);
        }
        lines.push(through);
        for _ in 0..3 {
            lines.iter_mut().try_for_each(Line::goes_on)?;
        }
        met.insert((node, vip_first));
    }
    cluster.kubectl(&["delete", "service", "echo-node"]).run()?;
    ensure!(met.len() == 4, "40 ports met {met:?} alone");
    Ok("40 ports, each for both".to_owned())
}

/// What is lost while something happens.
fn meanwhile(cluster: &mut Cluster, happens: impl FnOnce(&mut Cluster, &Load) -> Result<()>) -> Result<Report> {
    traffic::in_force(cluster).context("before anything happened")?;
    let before = Drops::now(cluster);
    let load = Load::start(cluster);
    std::thread::sleep(WHILE);
    let result = happens(cluster, &load);
    std::thread::sleep(WHILE);
    let mut report = load.finish()?;
    report.drops = Drops::now(cluster).since(&before);
    result.with_context(|| report.to_string())?;
    ledger::balanced(cluster)?;
    Ok(report)
}

/// An endpoint that goes takes its own flows with it; whose a request was that breaks in the middle, nobody knows.
fn gone(node: Node, times: Range<Duration>) -> Excuse<'static> {
    Excuse {
        why: "were of the endpoint that went",
        covers: Box::new(move |loss| of(loss, node) || loss.by.is_none() && loss.accepted && loss.during(&times)),
    }
}

/// When an endpoint joins, some rows become its own, and with them connections of others: no second chance yet
/// (ARCHITECTURE.md). It is in force a little later than a few answers show.
fn moved(times: Range<Duration>) -> Excuse<'static> {
    let times = times.start..times.end + WHILE / 2;
    Excuse {
        why: "were moved to the endpoint that joined",
        covers: Box::new(move |loss| loss.accepted && loss.during(&times)),
    }
}

/// Kubernetes says that an endpoint is ready to all nodes at once, and a director may be quicker than the endpoint's own
/// node, which then has no VIP on its loopback, or, after it was away, no agent yet.
fn early(times: Range<Duration>) -> Excuse<'static> {
    let times = times.start..times.end + WHILE / 2;
    Excuse {
        why: "were sent to the endpoint that joined before its node was as far",
        covers: Box::new(move |loss| !loss.accepted && loss.during(&times)),
    }
}

/// Whether a flow that was lost had this node's endpoint.
fn of(loss: &Loss, node: Node) -> bool {
    loss.by.as_deref() == Some(node.name())
}

fn scaled(cluster: &mut Cluster) -> Result<String> {
    let (mut went, mut goes, mut joins) = (None, Range::default(), Range::default());
    let report = meanwhile(cluster, |cluster, load| {
        goes.start = load.now();
        cluster.kubectl(&["scale", "deployment/echo", "--replicas=1"]).run()?;
        let left = eventually_alone(cluster)?;
        went = Node::ENDPOINTS.into_iter().find(|node| *node != left);
        traffic::answered_by(cluster, &[left])?;
        (goes.end, joins.start) = (load.now(), load.now());
        cluster.kubectl(&["scale", "deployment/echo", "--replicas=2"]).run()?;
        traffic::in_force(cluster)?;
        joins.end = load.now();
        Ok(())
    })?;
    report.judge(&[gone(went.context("no endpoint went")?, goes), moved(joins.clone()), early(joins)])
}

/// The node of the only endpoint that is left.
fn eventually_alone(cluster: &Cluster) -> Result<Node> {
    eventually(WHILE * 15, || {
        let path = "jsonpath={.items[*].spec.nodeName}";
        let said = cluster.kubectl(&["get", "pods", "--selector=app=echo", "-o", path]).read()?;
        let found = Node::ENDPOINTS.into_iter().find(|node| said.trim() == node.name());
        found.with_context(|| format!("pods are on {said}"))
    })
}

fn endpoint_deleted(cluster: &mut Cluster) -> Result<String> {
    let (mut goes, mut joins) = (Range::default(), Range::default());
    let report = meanwhile(cluster, |cluster, load| {
        goes.start = load.now();
        let on = format!("spec.nodeName={}", Node::N3.name());
        cluster.kubectl(&["delete", "pod", "--selector=app=echo", "--field-selector", &on]).run()?;
        // Another takes its place, maybe before kubectl has seen it go.
        (goes.end, joins.start) = (load.now(), goes.start);
        cluster.kubectl(&["rollout", "status", "--timeout=120s", "deployment/echo"]).run()?;
        traffic::in_force(cluster)?;
        joins.end = load.now();
        Ok(())
    })?;
    report.judge(&[gone(Node::N3, goes), moved(joins.clone()), early(joins)])
}

/// Every pod goes and another comes, one node after the other.
fn deployment_rolled(cluster: &mut Cluster) -> Result<String> {
    let mut times = Range::default();
    let report = meanwhile(cluster, |cluster, load| {
        times.start = load.now();
        cluster.kubectl(&["rollout", "restart", "deployment/echo"]).run()?;
        cluster.kubectl(&["rollout", "status", "--timeout=180s", "deployment/echo"]).run()?;
        traffic::in_force(cluster)?;
        times.end = load.now();
        Ok(())
    })?;
    let [first, second] = Node::ENDPOINTS;
    report.judge(&[gone(first, times.clone()), gone(second, times.clone()), moved(times.clone()), early(times)])
}

/// `kubectl drain`, and back.
fn drained(cluster: &mut Cluster) -> Result<String> {
    let (mut goes, mut joins) = (Range::default(), Range::default());
    let report = meanwhile(cluster, |cluster, load| {
        goes.start = load.now();
        let drain = ["drain", Node::N3.name(), "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=120s"];
        cluster.kubectl(&drain).run()?;
        traffic::answered_by(cluster, &[Node::N2])?;
        (goes.end, joins.start) = (load.now(), load.now());
        cluster.kubectl(&["uncordon", Node::N3.name()]).run()?;
        cluster.kubectl(&["rollout", "status", "--timeout=120s", "deployment/echo"]).run()?;
        traffic::in_force(cluster)?;
        joins.end = load.now();
        Ok(())
    })?;
    report.judge(&[gone(Node::N3, goes), moved(joins.clone()), early(joins)])
}

fn agents_killed(cluster: &mut Cluster) -> Result<String> {
    let report = meanwhile(cluster, |cluster, _| {
        for node in Node::ALL {
            cluster.kill_agent(node)?;
        }
        cluster.agents_ready()
    })?;
    report.judge(&[])
}

fn agents_deleted(cluster: &mut Cluster) -> Result<String> {
    let report = meanwhile(cluster, |cluster, _| {
        cluster.kubectl(&["--namespace", NAMESPACE, "delete", "pods", "--selector", agents::AGENTS]).run()?;
        cluster.agents_ready()
    })?;
    report.judge(&[])
}

fn rolled(cluster: &mut Cluster) -> Result<String> {
    let report = meanwhile(cluster, |cluster, _| {
        cluster.chart("upgrade", &[&format!("image.tag={}", TAGS[1])])?;
        cluster.agents_ready()?;
        let images = cluster.agent_images()?;
        ensure!(
            images.len() == Node::ALL.len() && images.values().all(|image| image.ends_with(TAGS[1])),
            "agents run {images:?}"
        );
        Ok(())
    })?;
    report.judge(&[])
}

fn api_away(cluster: &mut Cluster) -> Result<String> {
    let report = meanwhile(cluster, |cluster, _| {
        cluster.stop_part(Part::ApiServer)?;
        std::thread::sleep(WHILE * 3);
        cluster.start_part(Part::ApiServer)?;
        std::thread::sleep(WHILE);
        cluster.agents_ready()
    })?;
    report.judge(&[])
}

fn node_killed(cluster: &mut Cluster) -> Result<String> {
    const GONE: Node = Node::N3;
    let (mut dead, mut joins) = (Range::default(), Range::default());
    let report = meanwhile(cluster, |cluster, load| {
        dead.start = load.now();
        cluster.kill_node(GONE)?;
        let left: Vec<Node> = Node::ENDPOINTS.into_iter().filter(|node| *node != GONE).collect();
        traffic::answered_by(cluster, &left)?;
        dead.end = load.now();
        std::thread::sleep(WHILE);
        joins.start = load.now();
        cluster.start_node(GONE)?;
        cluster.wait_for_nodes()?;
        cluster.agents_ready()?;
        traffic::in_force(cluster)?;
        joins.end = load.now();
        Ok(())
    })?;
    let new = |loss: &Loss| loss.by.is_none() && !loss.accepted;
    let last = report.losses().filter(|loss| new(loss) && loss.during(&dead)).map(|loss| loss.from).max();
    let seconds = (last.unwrap_or(dead.start).max(dead.start) - dead.start).as_secs_f64();
    let said = report.judge(&[
        gone(GONE, dead.clone()),
        Excuse {
            why: "were new flows to the node before Kubernetes said that it is dead",
            covers: Box::new(|loss| new(loss) && loss.during(&dead)),
        },
        moved(joins.clone()),
        early(joins),
    ])?;
    Ok(format!("{said}; the last new flow was lost {seconds:.1} s after the node"))
}

fn upgraded(cluster: &mut Cluster) -> Result<String> {
    let report = meanwhile(cluster, |cluster, _| {
        // Other capacities are other maps: built beside the old ones, and put in their place.
        cluster.chart("upgrade", &["agent.logLevel=debug", "agent.capacity.services=8192"])?;
        cluster.agents_ready()?;
        cluster.helm(&["rollback", RELEASE, "--namespace", NAMESPACE, "--wait", "--timeout", "180s"]).run()?;
        cluster.agents_ready()
    })?;
    report.judge(&[])
}

fn uninstalled(cluster: &mut Cluster) -> Result<String> {
    cluster.helm(&["uninstall", RELEASE, "--namespace", NAMESPACE, "--wait", "--timeout", "180s"]).run()?;
    cluster
        .kubectl(&["--namespace", NAMESPACE, "wait", "--for=delete", "pods", "--timeout=60s"])
        .args(["--selector", agents::AGENTS])
        .run()?;
    // Until the chart does it, it is done by hand, as docs say.
    let by_hand = !cluster.detaches_by_itself()?;
    if by_hand {
        cluster.detach()?;
    }
    cluster.nodes_are_as_before()?;
    // Definitions stay, and with them what people wrote.
    cluster.kubectl(&["get", "virtualservice", "echo"]).run()?;
    Ok(if by_hand { "with `guenon detach` on each node".to_owned() } else { "by its hook".to_owned() })
}
