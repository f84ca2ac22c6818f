//! Live tests: scenarios on the demo's topology, with real agents and real traffic. Each lays out a topology of its
//! own, and ends with the ledger: every packet that a program received left it under one verdict.

mod capture;
mod changes;
mod cluster;
mod controller;
mod dissect;
mod failures;
pub(crate) mod ledger;
mod lessons;
mod load;
pub(crate) mod nat;
mod nat_conntrack;
mod nat_flows;
mod nat_offload;
mod nat_wire;
mod traffic;

pub(crate) use traffic::everybody_answers as answers;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::test::{self, Count};
use crate::topology::layout::Host;
use crate::topology::{Plan, Topology};
use crate::{build, demo, interrupt, paths, progress, setup};
use setup::packages;

/// A scenario: what is given, and what must then hold.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Whether it is run on other kernels too.
    pub(crate) in_guests: bool,
    /// Whether the agents run when it begins.
    agents: bool,
    /// Changes the topology before it is built.
    plan: fn(&mut Plan),
    then: fn(&mut Topology) -> Result<()>,
}

const fn scenario(name: &'static str, then: fn(&mut Topology) -> Result<()>) -> Scenario {
    Scenario { name, in_guests: false, agents: true, plan: |_| (), then }
}

const fn everywhere(name: &'static str, then: fn(&mut Topology) -> Result<()>) -> Scenario {
    Scenario { name, in_guests: true, agents: true, plan: |_| (), then }
}

/// With an API server, which the scenario starts before the agents.
const fn cluster(name: &'static str, then: fn(&mut Topology) -> Result<()>) -> Scenario {
    Scenario { name, in_guests: false, agents: false, plan: |_| (), then }
}

/// All of them.
pub(crate) const SCENARIOS: &[Scenario] = &[
    everywhere("all endpoints answer on TCP and UDP", traffic::everybody_answers),
    everywhere("long transfers arrive whole in both directions", traffic::long_transfers),
    Scenario {
        name: "long transfers arrive over an underlay of 1500 bytes (lesson 12)",
        in_guests: true,
        agents: true,
        plan: |plan| plan.underlay_mtu = 1500,
        then: traffic::long_transfers_over_a_small_underlay,
    },
    everywhere("a VIP answers pings", traffic::pings),
    everywhere("datagrams in fragments reach one endpoint", traffic::fragments),
    scenario("other ports of a VIP are dropped as no_frontend", traffic::other_ports),
    scenario("tshark has no complaint, and inner packets are what the director was given", capture::wire_format),
    everywhere("a client on the director hears every endpoint (lesson 6)", lessons::client_on_the_director),
    scenario("congestion marked on the way reaches the endpoint", lessons::congestion),
    scenario("answers keep the VLAN tags of questions", lessons::vlan),
    everywhere("agents killed under load lose no packet", failures::killed_under_load),
    scenario("agents restarted under load lose no packet", failures::restarted_under_load),
    scenario(
        "agents restarted with other tables of flows break no connection of pods",
        failures::another_number_of_flows,
    ),
    scenario("an interface that goes down and up works again", failures::flap),
    scenario("an interface that is replaced works again", failures::replaced),
    scenario("an endpoint that is removed gets no new flows", changes::endpoint_removed),
    scenario("a bad manifest is reported and disturbs nothing", changes::bad_manifest),
    scenario("an endpoint without a route is named, and the others serve", changes::endpoint_without_a_route),
    scenario("a directory that vanishes leaves what is in force", changes::directory_vanishes),
    everywhere("ordinary pods answer, and see the client itself", nat::pods_answer),
    scenario("long transfers with pods over a path of 1400 bytes", nat::long_transfers),
    everywhere("datagrams in fragments to and from pods", nat::fragments),
    scenario("agents killed under load lose no packet of pods", nat::killed_under_load),
    scenario("pods behind masquerading nodes", nat::masqueraded),
    scenario("a client on the pod's own node is refused as hairpin", nat::hairpin),
    scenario("what is for a pod that is gone never leaves its node again", nat::pod_removed),
    scenario("a pod's refusal reaches the client", nat::refused_by_the_pod),
    scenario("one client port in several roles towards one pod", nat_flows::one_port_in_several_roles),
    scenario("datagrams of one client port in several roles", nat_flows::datagrams_from_one_port),
    scenario("a thousand UDP clients of one pod", nat_flows::a_thousand_datagram_clients),
    scenario("ten thousand connections to one pod", nat_flows::ten_thousand_connections),
    scenario("tshark finds pods' conversations in order, and one and the same on both sides", nat_wire::conversations),
    scenario("tshark finds ICMP errors about pods' flows in order", nat_wire::errors),
    scenario("pods leave checksums and segmentation to others", nat_offload::left_to_others),
    scenario("a connection that conntrack forgets, and the pod speaks first", nat_conntrack::forgotten),
    cluster("kubectl refuses bad objects and says why", cluster::bad_objects_are_refused),
    cluster("agents follow the API server", cluster::agents_follow),
    Scenario {
        plan: |plan| plan.old_etcd = true,
        ..cluster("lists are read in pages where storage cannot stream them", cluster::lists_in_pages)
    },
    cluster("an API server that is away changes nothing", cluster::server_away),
    cluster("rights that are taken away are named", cluster::rights_taken_away),
    cluster("a definition that is deleted takes nothing out of force", cluster::definition_deleted),
    cluster("another certificate and an expired token are named, and mended", cluster::credentials_change),
    cluster("kubectl shows what is in force, what is wrong and why", controller::statuses),
    cluster("a controller that dies is replaced within 20 s", controller::failover),
    cluster("a node whose agent dies is not shown healthy", controller::agent_lost),
    cluster("an agent restarted without API server goes on", controller::restarted_alone),
    cluster("directors are chosen by label", controller::directors_by_label),
    cluster("uninstall gives every node back", controller::uninstall),
    everywhere("detach leaves the node as it was", changes::detach),
];

/// What scenarios run on.
pub(crate) struct Ground {
    pub(crate) guenon: PathBuf,
    pub(crate) manifests: PathBuf,
}

/// `cargo xtask test --only live [--scenario TEXT]`
pub(crate) fn run(named: Option<&str>) -> Result<Count> {
    setup::programs(&[packages::DEMO])?;
    let ground = Ground { guenon: build::guenon()?, manifests: paths::root().join("examples/demo") };
    let mut count = Count::default();
    for scenario in SCENARIOS.iter().filter(|scenario| scenario.name.contains(named.unwrap_or_default())) {
        count = count + test::count(scenario.name, || scenario.run(&ground));
        interrupt::check()?;
    }
    if count == Count::default() {
        bail!("no scenario has {:?} in its name", named.unwrap_or_default());
    }
    Ok(count)
}

impl Scenario {
    /// Lays out the topology, runs the scenario, balances the ledger, removes everything.
    pub(crate) fn run(&self, ground: &Ground) -> Result<()> {
        let mut plan = Plan::new("live", &ground.guenon, &ground.manifests);
        (self.plan)(&mut plan);
        progress::note(self.name);
        let mut topology = if self.agents { demo::up(plan)? } else { Topology::build(plan)? };
        let verdict = (self.then)(&mut topology).and_then(|()| ledger::balanced(&topology));
        let verdict = verdict.with_context(|| {
            let mut logs: Vec<String> = Host::NODES
                .iter()
                .map(|&host| format!("--- the agent of {} said\n{}", host.name(), topology.log_tail(host)))
                .collect();
            for replica in ["controller-a", "controller-b", "controller-c"] {
                let said = std::fs::read_to_string(topology.log(replica)).unwrap_or_default();
                if !said.is_empty() {
                    logs.push(format!("--- {replica} said\n{said}"));
                }
            }
            format!("{}\n--- and this failed", logs.join("\n"))
        });
        let removed = topology.remove();
        verdict.and(removed)
    }
}

/// An error unless it holds.
fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { bail!(otherwise()) }
}
