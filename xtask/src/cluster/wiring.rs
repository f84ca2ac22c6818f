//! Network namespaces become a router, nodes and a client.

use std::path::Path;

use anyhow::{Context, Result};

use super::Cluster;
use super::layout::{BRIDGE, CLIENT, CONTROL, Node, UNDERLAY_MTU, VIP};
use crate::shell::cmd;
use crate::topology::{netns, pass};

/// The router and the client; nodes are wired one by one.
pub(super) fn lay(cluster: &Cluster) -> Result<()> {
    let (control, client) = (cluster.control_netns(), cluster.client_netns());
    let (at_client, at_router) = CLIENT;
    sysctls(
        &control,
        &[
            ("ipv4/ip_forward", "1"),
            // Lesson 10: replies come from an endpoint's node with the VIP as source, whose route leads to a director.
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
            // Flows are spread by addresses and ports, as a router with several ways (ECMP) does.
            ("ipv4/fib_multipath_hash_policy", "1"),
        ],
    )?;
    ip(
        &control,
        &format!(
            "link set lo up\nlink add {BRIDGE} mtu {UNDERLAY_MTU} type bridge\nlink set {BRIDGE} up\n\
             addr add {CONTROL}/24 dev {BRIDGE}\n\
             link add client type veth peer name eth0 netns {client}\nlink set client up\n\
             addr add {at_router}/24 dev client\n"
        ),
    )?;
    ip(
        &client,
        &format!(
            "link set lo up\nlink set eth0 up\naddr add {at_client}/24 dev eth0\n\
             route add default via {at_router}\n"
        ),
    )?;
    // The router sends VIPs to the directors.
    let ways: String = Node::DIRECTORS.iter().map(|node| format!(" nexthop via {}", node.address())).collect();
    ip(&control, &format!("route add {VIP}{ways}\n"))
}

/// A node's link to the bridge; also again, after the node was away.
pub(super) fn node(cluster: &Cluster, node: Node, pins: &Path) -> Result<()> {
    let (control, netns, port) = (cluster.control_netns(), cluster.node_netns(node), node.port());
    sysctls(&netns, &[("ipv4/ip_forward", "1")])?;
    ip(
        &control,
        &format!(
            "link add {port} mtu {UNDERLAY_MTU} type veth peer name eth0 mtu {UNDERLAY_MTU} netns {netns}\n\
             link set {port} master {BRIDGE} up\nroute replace {} via {} dev {BRIDGE} onlink\n",
            node.pods(),
            node.address()
        ),
    )?;
    let mut lines = format!(
        "link set lo up\nlink set eth0 address {} up\naddr add {}/24 dev eth0\nroute add default via {CONTROL}\n",
        node.mac(),
        node.address()
    );
    for other in Node::ALL.into_iter().filter(|other| *other != node) {
        lines.push_str(&format!("route add {} via {}\n", other.pods(), other.address()));
    }
    ip(&netns, &lines)?;
    // Lesson 11: the last device before a node's program finishes checksums, since nobody can in a tunnel.
    cmd("ethtool").args(["-K", &port, "tx", "off"]).netns(&control).run()?;
    // Lesson 1: what a node transmits by XDP arrives at a veth only because of this program.
    let pin = pins.join(&port);
    if pin.exists() {
        std::fs::remove_file(&pin).with_context(|| format!("cannot remove {}", pin.display()))?;
    }
    pass::attach(&control, &port, &pin)
}

fn sysctls(netns: &str, wanted: &[(&str, &str)]) -> Result<()> {
    netns::inside(netns, || {
        for (name, value) in wanted {
            let file = format!("/proc/sys/net/{name}");
            std::fs::write(&file, value).with_context(|| format!("cannot write {value} to {file}"))?;
        }
        Ok(())
    })
}

/// Runs lines of `ip` inside a namespace.
fn ip(netns: &str, lines: &str) -> Result<()> {
    cmd("ip").args(["-n", netns, "-batch", "-"]).input(lines).run().with_context(|| lines.to_owned())
}
