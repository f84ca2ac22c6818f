//! Namespaces become hosts: devices, addresses, routes, and what each lesson of the field asks for.

use std::net::IpAddr;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};

use super::layout::{Host, NAT4, NAT6, VIP4, VIP6, WIRES, Wire, addresses};
use super::{Cards, Topology, netns, pass};
use crate::shell::cmd;

const BPFFS: &str = "/sys/fs/bpf";

/// Lays every wire and route.
pub(super) fn lay(topology: &Topology) -> Result<()> {
    mount_bpffs()?;
    let pins = topology.pins();
    std::fs::create_dir_all(&pins).with_context(|| format!("cannot create {}", pins.display()))?;
    for host in Host::ALL {
        // Before there is any device, so that devices begin with these.
        sysctls(topology, host)?;
        ip(topology, host, "link set lo up\n")?;
    }
    for wire in &WIRES {
        lay_wire(topology, wire)?;
    }
    // The duty of an endpoint in a namespace of its own: the VIP is its own too, on its loopback.
    ip(topology, Host::Pod, &format!("addr add {VIP4}/32 dev lo\naddr add {VIP6}/128 dev lo nodad\n"))?;
    Ok(())
}

/// Makes a link with all that belongs to it; also anew, after its device was deleted.
pub(super) fn lay_wire(topology: &Topology, wire: &Wire) -> Result<()> {
    let (host, router) = (topology.netns(wire.host), topology.netns(wire.router));
    let Wire { device, port, .. } = wire;
    match topology.plan.cards.iter().find(|cards| cards.host == wire.host) {
        // Made inside the host: an older kernel would first want the name to be free where we are.
        None => cmd("ip")
            .args(["-n", &host, "link", "add", device, "type", "veth", "peer", "name", port, "netns", &router])
            .run()?,
        Some(Cards { at_host, at_router, .. }) => {
            cmd("ip").args(["link", "set", at_host, "down", "netns", &host, "name", device]).run()?;
            cmd("ip").args(["link", "set", at_router, "down", "netns", &router, "name", port]).run()?;
        }
    }
    // Lesson 12: packets grow by 32 to 72 bytes on their way from t22 to t33.
    let mtu = match wire.host {
        Host::T22 | Host::T33 => topology.plan.underlay_mtu,
        Host::Client | Host::Switch | Host::Pod | Host::PodA | Host::PodB | Host::PodC => topology.plan.client_mtu,
    };
    let mut lines = format!("link set {port} mtu {mtu} up\n");
    for (_, gateway, prefix) in wire.addresses {
        lines.push_str(&format!("addr add {gateway}/{prefix} dev {port}{}\n", nodad(gateway)));
    }
    ip(topology, wire.router, &lines)?;
    ip(topology, wire.host, &format!("link set {device} mtu {mtu} up\n"))?;
    address(topology, wire)?;
    if wire.router == Host::Switch && wire.host != Host::Client {
        switch_port(topology, wire)?;
    }
    match wire.host {
        Host::T22 => {
            route_vips(topology)?;
            route_pods(topology, Host::T22)
        }
        Host::T33 => route_pods(topology, Host::T33),
        Host::PodA | Host::PodB | Host::PodC => cni(topology, wire),
        Host::Client | Host::Switch | Host::Pod => Ok(()),
    }
}

/// What a CNI owes to Guenon where pods hang on veths: the node forwards, and who hands a packet to the node's stack finishes its
/// checksum (lesson 13).
fn cni(topology: &Topology, wire: &Wire) -> Result<()> {
    netns::inside(&topology.netns(wire.router), || {
        for file in ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"] {
            std::fs::write(file, "1").with_context(|| format!("cannot write 1 to {file}"))?;
        }
        Ok(())
    })
}

/// The switch sends what is for the pods of a node there: clients can reach pods directly too.
fn route_pods(topology: &Topology, node: Host) -> Result<()> {
    let mut routes = String::new();
    for wire in WIRES.iter().filter(|wire| wire.router == node && Host::PODS.contains(&wire.host)) {
        for (pod, _, _) in wire.addresses {
            for via in addresses(node).filter(|via| via.is_ipv4() == pod.is_ipv4()) {
                routes.push_str(&format!("route replace {pod} via {via}\n"));
            }
        }
    }
    ip(topology, Host::Switch, &routes)
}

/// Addresses and default routes of a wire's host; also again, after its device was down.
pub(super) fn address(topology: &Topology, wire: &Wire) -> Result<()> {
    let mut lines = String::new();
    for (address, _, prefix) in wire.addresses {
        lines.push_str(&format!("addr replace {address}/{prefix} dev {}{}\n", wire.device, nodad(address)));
    }
    for (_, gateway, _) in wire.addresses {
        lines.push_str(&format!("route replace default via {gateway}\n"));
    }
    ip(topology, wire.host, &lines)
}

/// What whoever owns the switch owes to a node.
fn switch_port(topology: &Topology, wire: &Wire) -> Result<()> {
    let port = wire.port;
    // Lesson 11: the last device before a node's program finishes checksums (and with them, cuts what the sender left
    // to segment), since nobody can once the packet is in a tunnel.
    topology.at(Host::Switch, "ethtool").args(["-K", port, "tx", "off"]).run()?;
    if topology.plan.cards.iter().any(|cards| cards.host == wire.host) {
        return Ok(()); // lesson 1 is about veths
    }
    let pin = topology.pins().join(format!("pass-{port}"));
    if pin.exists() {
        std::fs::remove_file(&pin).with_context(|| format!("cannot remove {}", pin.display()))?;
    }
    // Lesson 1: what a node transmits by XDP arrives at a veth only because of this program.
    pass::attach(&topology.netns(Host::Switch), port, &pin)
}

/// The switch sends VIPs to the director.
fn route_vips(topology: &Topology) -> Result<()> {
    let mut routes = String::new();
    for vip in [VIP4, VIP6, NAT4, NAT6] {
        for t22 in addresses(Host::T22).filter(|a| a.is_ipv4() == vip.is_ipv4()) {
            routes.push_str(&format!("route replace {vip} via {t22}\n"));
        }
    }
    ip(topology, Host::Switch, &routes)
}

/// Addresses that work at once; nobody else is on these links.
fn nodad(address: IpAddr) -> &'static str {
    if address.is_ipv6() { " nodad" } else { "" }
}

fn sysctls(topology: &Topology, host: Host) -> Result<()> {
    let mut wanted = vec![("ipv6/conf/all/disable_ipv6", "0"), ("ipv6/conf/default/disable_ipv6", "0")];
    match host {
        Host::Switch => wanted.extend([
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            // Lesson 10: replies come from t33 with the VIP as source, while the VIP's route leads to t22.
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
        ]),
        // As strict as distributions ship it, so that it is the agent who makes it right (lessons 6 and 10).
        Host::T22 | Host::T33 => wanted.extend([
            ("ipv4/conf/all/rp_filter", "1"),
            ("ipv4/conf/default/rp_filter", "1"),
            ("ipv4/conf/all/accept_local", "0"),
            ("ipv4/conf/default/accept_local", "0"),
            ("ipv4/conf/all/arp_ignore", "0"),
            ("ipv4/conf/all/arp_announce", "0"),
        ]),
        // Lesson 10: who has a VIP on its loopback must not tell the link so.
        Host::Pod => wanted.extend([("ipv4/conf/all/arp_ignore", "1"), ("ipv4/conf/all/arp_announce", "2")]),
        Host::Client | Host::PodA | Host::PodB | Host::PodC => {}
    }
    netns::inside(&topology.netns(host), || {
        for (name, value) in wanted {
            let file = format!("/proc/sys/net/{name}");
            std::fs::write(&file, value).with_context(|| format!("cannot write {value} to {file}"))?;
        }
        Ok(())
    })
}

/// Runs lines of `ip` inside a host.
fn ip(topology: &Topology, host: Host, lines: &str) -> Result<()> {
    cmd("ip").args(["-n", &topology.netns(host), "-batch", "-"]).input(lines).run().with_context(|| lines.to_owned())
}

fn mount_bpffs() -> Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    if mounts.lines().any(|line| line.split(' ').nth(1) == Some(BPFFS)) {
        return Ok(());
    }
    mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("cannot mount a bpf file system at {BPFFS}"))
}
