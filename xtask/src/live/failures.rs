//! What must hold when things fail.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::load::{Load, Transfers};
use super::{ensure, traffic};
use crate::shell::cmd;
use crate::topology::layout::{Host, WIRES, Wire};
use crate::topology::metrics::sums;
use crate::topology::{FAMILIES, NAT_FAMILIES, Topology};

/// Traffic before, between and after what happens.
const WHILE: Duration = Duration::from_millis(1500);

pub(super) fn killed_under_load(topology: &mut Topology) -> Result<()> {
    restart(topology, Signal::SIGKILL)
}

pub(super) fn restarted_under_load(topology: &mut Topology) -> Result<()> {
    restart(topology, Signal::SIGTERM)
}

/// Both agents end, stay away for a while, and come back, under load.
fn restart(topology: &mut Topology, signal: Signal) -> Result<()> {
    for (_, vip) in FAMILIES {
        traffic::answers(topology, vip)?;
    }
    let load = Load::start(topology);
    let transfers = Transfers::start(topology);
    std::thread::sleep(WHILE);
    let before = counters(topology)?;
    end_and_start(topology, signal)?;
    let answered = load.finish()?;
    transfers.finish()?;
    let after = counters(topology)?;
    for (name, count) in &before {
        let now = after.get(name).copied().unwrap_or(0.0);
        ensure(now >= *count, || format!("{name} went back from {count} to {now}"))?;
    }
    let received = |counters: &BTreeMap<String, f64>| counters.get("t22 received").copied().unwrap_or(0.0);
    ensure(received(&after) >= answered as f64, || {
        format!("{answered} datagrams went through t22, which counted {} packets", received(&after))
    })
}

/// The table of flows becomes larger, then smaller, under load.
pub(super) fn another_number_of_flows(topology: &mut Topology) -> Result<()> {
    for (_, vip) in NAT_FAMILIES {
        traffic::answers(topology, vip)?;
    }
    for max_flows in [4 * topology.plan.max_flows, 1024] {
        topology.plan.max_flows = max_flows;
        let transfers = Transfers::on(topology, NAT_FAMILIES);
        std::thread::sleep(WHILE);
        end_and_start(topology, Signal::SIGTERM)?;
        transfers.finish().with_context(|| format!("while agents came back with --max-flows {max_flows}"))?;
        let capacity = sums(&topology.metrics(Host::T33)?, "guenon_flows_capacity", "");
        let wanted = f64::from(max_flows);
        ensure(capacity.values().sum::<f64>() == wanted, || {
            format!("t33 has room for {capacity:?} flows, not {wanted}")
        })?;
    }
    Ok(())
}

/// Both agents are killed, stay away for a while, and come back.
pub(super) fn kill_and_start(topology: &mut Topology) -> Result<()> {
    std::thread::sleep(WHILE);
    end_and_start(topology, Signal::SIGKILL)
}

fn end_and_start(topology: &mut Topology, signal: Signal) -> Result<()> {
    for host in Host::NODES {
        let mut agent = topology.agent(host)?;
        let pid = Pid::from_raw(agent.id().cast_signed());
        kill(pid, signal).with_context(|| format!("cannot send {signal} to the agent of {}", host.name()))?;
        agent.wait().context("cannot wait for an agent")?;
    }
    std::thread::sleep(WHILE);
    for host in Host::NODES {
        topology.start_agent(host)?;
    }
    for host in Host::NODES {
        topology.wait_ready(host)?;
    }
    std::thread::sleep(WHILE);
    Ok(())
}

/// Every counter of both programs.
fn counters(topology: &Topology) -> Result<BTreeMap<String, f64>> {
    let mut all = BTreeMap::new();
    for host in Host::NODES {
        let samples = topology.metrics(host)?;
        let host = host.name();
        let received: f64 = sums(&samples, "guenon_received_packets_total", "interface").values().sum();
        all.insert(format!("{host} received"), received);
        for (metric, label) in [
            ("guenon_packets_total", "verdict"),
            ("guenon_events_total", "event"),
            ("guenon_drops_total", "reason"),
            ("guenon_frontend_directed_packets_total", "frontend"),
            ("guenon_frontend_delivered_packets_total", "frontend"),
        ] {
            for (value, count) in sums(&samples, metric, label) {
                all.insert(format!("{host} {metric} {value}"), count);
            }
        }
    }
    Ok(all)
}

pub(super) fn flap(topology: &mut Topology) -> Result<()> {
    for wire in WIRES.iter().filter(|wire| Host::NODES.contains(&wire.host)) {
        let netns = topology.netns(wire.host);
        let device = wire.device;
        cmd("ip").args(["-n", &netns, "link", "set", device, "down"]).run()?;
        std::thread::sleep(Duration::from_millis(300));
        // With the device, IPv6 addresses and all routes have gone: whoever configures the network brings them back.
        cmd("ip").args(["-n", &netns, "link", "set", device, "up"]).run()?;
        topology.readdress(wire)?;
        works_again(topology, wire)?;
    }
    Ok(())
}

pub(super) fn replaced(topology: &mut Topology) -> Result<()> {
    for wire in WIRES.iter().filter(|wire| Host::NODES.contains(&wire.host)) {
        let netns = topology.netns(wire.host);
        cmd("ip").args(["-n", &netns, "link", "del", wire.device]).run()?;
        std::thread::sleep(Duration::from_millis(300));
        topology.rewire(wire)?;
        works_again(topology, wire)?;
    }
    Ok(())
}

/// Again from every endpoint, within the patience of a client.
fn works_again(topology: &mut Topology, wire: &Wire) -> Result<()> {
    for (_, vip) in FAMILIES {
        traffic::answers(topology, vip).with_context(|| format!("after {} of {}", wire.device, wire.host.name()))?;
    }
    traffic::everybody_answers(topology).with_context(|| format!("after {} of {}", wire.device, wire.host.name()))
}
