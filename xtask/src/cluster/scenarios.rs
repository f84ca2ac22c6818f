//! The cluster test: what must hold in a real cluster, under load. Scenarios share one cluster, one after the other.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::control::Part;
use super::guenon::{NAMESPACE, RELEASE};
use super::image::TAGS;
use super::layout::Node;
use super::load::{Load, Loss, Report};
use super::{Cluster, agents, ledger, traffic};
use crate::test::Count;
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
    Scenario { name: "a Deployment scaled down and up", then: scaled },
    Scenario { name: "an endpoint's pod deleted", then: endpoint_deleted },
    Scenario { name: "agents killed under load", then: agents_killed },
    Scenario { name: "agents' pods deleted under load", then: agents_deleted },
    Scenario { name: "the DaemonSet rolled to a new version under load", then: rolled },
    Scenario { name: "the API server stopped and started under load", then: api_away },
    Scenario { name: "a node killed and back", then: node_killed },
    Scenario { name: "helm upgrade with changed values and rollback under load", then: upgraded },
];

/// `cargo xtask test --only cluster [--scenario TEXT]`
pub(crate) fn run(named: Option<&str>) -> Result<Count> {
    setup::root("test --only cluster")?;
    let mut cluster = Cluster::up("cluster-test")?;
    cluster.install()?;
    cluster.example("deployment.yaml")?;
    traffic::in_force(&cluster).inspect_err(|_| cluster.complain())?;
    let mut count = Count::default();
    for scenario in SCENARIOS.iter().filter(|scenario| scenario.name.contains(named.unwrap_or_default())) {
        progress::note(scenario.name);
        let begin = Instant::now();
        let result = (scenario.then)(&mut cluster).and_then(|said| ledger::balanced(&cluster).map(|()| said));
        interrupt::check()?;
        match result {
            Ok(said) => {
                println!("test {} ... ok ({:.0} s): {said}", scenario.name, begin.elapsed().as_secs_f64());
                count.passed += 1;
            }
            Err(error) => {
                println!("test {} ... FAILED\n{error:#}\n", scenario.name);
                cluster.complain();
                count.failed += 1;
            }
        }
    }
    cluster.remove()?;
    Ok(count)
}

fn answered(cluster: &mut Cluster) -> Result<String> {
    cluster.agents_ready()?;
    cluster.agents_have_no_more_rights()?;
    let round = traffic::send(cluster)?;
    round.judge()?;
    Ok("200 of 200 answered".to_owned())
}

/// What is lost while something happens.
fn meanwhile(cluster: &mut Cluster, happens: impl FnOnce(&mut Cluster) -> Result<()>) -> Result<Report> {
    traffic::in_force(cluster).context("before anything happened")?;
    let load = Load::start(cluster);
    std::thread::sleep(WHILE);
    let result = happens(cluster);
    std::thread::sleep(WHILE);
    let report = load.finish()?;
    result.with_context(|| report.to_string())?;
    Ok(report)
}

fn scaled(cluster: &mut Cluster) -> Result<String> {
    let mut gone = None;
    let report = meanwhile(cluster, |cluster| {
        cluster.kubectl(&["scale", "deployment/echo", "--replicas=1"]).run()?;
        let left = eventually_alone(cluster)?;
        gone = Node::ENDPOINTS.into_iter().find(|node| *node != left);
        traffic::answered_by(cluster, &[left])?;
        cluster.kubectl(&["scale", "deployment/echo", "--replicas=2"]).run()?;
        traffic::in_force(cluster)
    })?;
    let gone = gone.context("no endpoint went")?;
    report.nothing_lost_but(|loss| of(loss, gone))?;
    Ok(report.to_string())
}

/// The node of the only endpoint that is left.
fn eventually_alone(cluster: &Cluster) -> Result<Node> {
    super::eventually(WHILE * 15, || {
        let path = "jsonpath={.items[*].spec.nodeName}";
        let said = cluster.kubectl(&["get", "pods", "--selector=app=echo", "-o", path]).read()?;
        let found = Node::ENDPOINTS.into_iter().find(|node| said.trim() == node.name());
        found.with_context(|| format!("pods are on {said}"))
    })
}

/// Whether a flow that was lost had this node's endpoint.
fn of(loss: &Loss, node: Node) -> bool {
    loss.by.as_deref() == Some(node.name())
}

fn endpoint_deleted(cluster: &mut Cluster) -> Result<String> {
    let report = meanwhile(cluster, |cluster| {
        let on = format!("spec.nodeName={}", Node::N3.name());
        cluster.kubectl(&["delete", "pod", "--selector=app=echo", "--field-selector", &on]).run()?;
        cluster.kubectl(&["rollout", "status", "--timeout=120s", "deployment/echo"]).run()?;
        traffic::in_force(cluster)
    })?;
    report.nothing_lost_but(|loss| of(loss, Node::N3))?;
    Ok(report.to_string())
}

fn agents_killed(cluster: &mut Cluster) -> Result<String> {
    let report = meanwhile(cluster, |cluster| {
        for node in Node::ALL {
            cluster.kill_agent(node)?;
        }
        cluster.agents_ready()
    })?;
    report.nothing_lost()?;
    Ok(report.to_string())
}

fn agents_deleted(cluster: &mut Cluster) -> Result<String> {
    let report = meanwhile(cluster, |cluster| {
        cluster.kubectl(&["--namespace", NAMESPACE, "delete", "pods", "--selector", agents::AGENTS]).run()?;
        cluster.agents_ready()
    })?;
    report.nothing_lost()?;
    Ok(report.to_string())
}

fn rolled(cluster: &mut Cluster) -> Result<String> {
    let report = meanwhile(cluster, |cluster| {
        cluster.chart("upgrade", &[&format!("image.tag={}", TAGS[1])])?;
        cluster.agents_ready()?;
        let images = cluster.agent_images()?;
        ensure!(
            images.len() == Node::ALL.len() && images.values().all(|image| image.ends_with(TAGS[1])),
            "agents run {images:?}"
        );
        Ok(())
    })?;
    report.nothing_lost()?;
    Ok(report.to_string())
}

fn api_away(cluster: &mut Cluster) -> Result<String> {
    let report = meanwhile(cluster, |cluster| {
        cluster.stop_part(Part::ApiServer)?;
        std::thread::sleep(WHILE * 3);
        cluster.start_part(Part::ApiServer)?;
        std::thread::sleep(WHILE);
        cluster.agents_ready()
    })?;
    report.nothing_lost()?;
    Ok(report.to_string())
}

fn node_killed(cluster: &mut Cluster) -> Result<String> {
    const GONE: Node = Node::N3;
    let mut between = (Duration::ZERO, Duration::ZERO);
    traffic::in_force(cluster)?;
    let load = Load::start(cluster);
    std::thread::sleep(WHILE);
    between.0 = load.begin.elapsed();
    let result = (|| {
        cluster.kill_node(GONE)?;
        let left: Vec<Node> = Node::ENDPOINTS.into_iter().filter(|node| *node != GONE).collect();
        traffic::answered_by(cluster, &left)?;
        between.1 = load.begin.elapsed();
        std::thread::sleep(WHILE);
        cluster.start_node(GONE)?;
        cluster.wait_for_nodes()?;
        cluster.agents_ready()?;
        traffic::in_force(cluster)
    })();
    std::thread::sleep(WHILE);
    let report = load.finish()?;
    result.with_context(|| report.to_string())?;
    let dead = |loss: &Loss| (between.0..between.1).contains(&loss.at);
    report.nothing_lost_but(|loss| of(loss, GONE) || (loss.by.is_none() && dead(loss)))?;
    let last = report.losses().filter(|loss| loss.by.is_none()).map(|loss| loss.at).max().unwrap_or(between.0);
    let known = last.saturating_sub(between.0);
    Ok(format!("{report}; the last new flow was lost {:.1} s after the node", known.as_secs_f64()))
}

fn upgraded(cluster: &mut Cluster) -> Result<String> {
    let report = meanwhile(cluster, |cluster| {
        // Other capacities are other maps: built beside the old ones, and put in their place.
        cluster.chart("upgrade", &["agent.logLevel=debug", "agent.capacity.services=8192"])?;
        cluster.agents_ready()?;
        cluster.helm(&["rollback", RELEASE, "--namespace", NAMESPACE, "--wait", "--timeout", "180s"]).run()?;
        cluster.agents_ready()
    })?;
    report.nothing_lost()?;
    Ok(report.to_string())
}
