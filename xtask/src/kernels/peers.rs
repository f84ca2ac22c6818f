//! The kernel's own GUE (`fou`) as an independent peer: Guenon's director sends to it, Guenon's decap node receives
//! from it, in all four combinations of outer and inner family, with and without a UDP checksum.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::shell::cmd;
use crate::topology::layout::{ECHO, HTTP, Host, VIP4, VIP6};
use crate::topology::metrics::sums;
use crate::topology::{FAMILIES, Plan, Topology, client, netns};

const PORT: u16 = 6080;
/// Requests, and datagrams, for each family.
const COUNT: usize = 5;

/// The one endpoint of each VIP, and how it is reached.
struct Endpoints {
    name: &'static str,
    /// YAML of the endpoint of the IPv4 VIP, and of the IPv6 one.
    of: [&'static str; 2],
}

/// Outer and inner of one family.
const SAME: Endpoints =
    Endpoints { name: "4-in-4, 6-in-6", of: ["{address: 172.17.3.3}", r#"{address: "2001:db8:3::3"}"#] };
/// Outer and inner of different families.
const CROSSED: Endpoints =
    Endpoints { name: "4-in-6, 6-in-4", of: [r#"{address: "2001:db8:3::3"}"#, "{address: 172.17.3.3}"] };
/// Endpoints that only private data can name, which the kernel skips.
const NAMED: Endpoints = Endpoints {
    name: "with private data",
    of: ["{address: 10.33.0.10, tunnel: 172.17.3.3}", r#"{address: "2001:db8:33::10", tunnel: "2001:db8:3::3"}"#],
};

/// Both are the kernel alone: what fails later is then not the test bed.
pub(super) fn kernel_to_kernel() -> Result<String> {
    for endpoints in [SAME, CROSSED] {
        for checksum in [false, true] {
            let topology = Topology::build(plan(&endpoints)?)?;
            decap_by_kernel(&topology)?;
            encap_by_kernel(&topology, endpoints.name == CROSSED.name, checksum)?;
            talk(&topology).with_context(|| format!("{}, checksum {checksum}", endpoints.name))?;
            topology.remove()?;
        }
    }
    Ok("ok".to_owned())
}

/// t22 runs Guenon, t33 is the kernel alone.
pub(super) fn director_to_kernel() -> Result<String> {
    for endpoints in [SAME, CROSSED, NAMED] {
        let mut topology = Topology::build(plan(&endpoints)?)?;
        decap_by_kernel(&topology)?;
        topology.start_agent(Host::T22)?;
        topology.wait_ready(Host::T22)?;
        let result = exchange(&topology, Host::T22, "encapsulated");
        result.with_context(|| format!("{}\n--- {}", topology.log_tail(Host::T22), endpoints.name))?;
        topology.remove()?;
    }
    Ok(format!("ok ({}; {}; {})", SAME.name, CROSSED.name, NAMED.name))
}

/// t22 is the kernel alone, t33 runs Guenon.
pub(super) fn kernel_to_decap() -> Result<String> {
    for endpoints in [SAME, CROSSED] {
        for checksum in [false, true] {
            let mut topology = Topology::build(plan(&endpoints)?)?;
            encap_by_kernel(&topology, endpoints.name == CROSSED.name, checksum)?;
            topology.start_agent(Host::T33)?;
            topology.wait_ready(Host::T33)?;
            let result = exchange(&topology, Host::T33, "decapsulated");
            result.with_context(|| {
                format!("{}\n--- {}, checksum {checksum}", topology.log_tail(Host::T33), endpoints.name)
            })?;
            topology.remove()?;
        }
    }
    Ok(format!("ok ({}; {}; each with and without checksum)", SAME.name, CROSSED.name))
}

/// t33's server answers every time.
fn talk(topology: &Topology) -> Result<()> {
    let netns = topology.netns(Host::Client);
    for (family, vip) in FAMILIES {
        for number in 0..COUNT {
            let tcp = client::get(&netns, SocketAddr::new(vip, HTTP), "/")
                .with_context(|| format!("{family}, request {number}"))?;
            ensure!(tcp.text().trim() == Host::T33.name(), "{family}: {} answered", tcp.text());
            let udp = client::echo(&netns, SocketAddr::new(vip, ECHO), b"x")
                .with_context(|| format!("{family}, datagram {number}"))?;
            ensure!(udp == b"t33 x", "{family}: {:?} came back", String::from_utf8_lossy(&udp));
        }
    }
    Ok(())
}

/// t33's server answers every time, and the program counted that it had a part in it.
fn exchange(topology: &Topology, node: Host, event: &str) -> Result<()> {
    talk(topology)?;
    let events = sums(&topology.metrics(node)?, "guenon_events_total", "event");
    let count = events.get(event).copied().unwrap_or(0.0);
    // A TCP exchange takes at least four packets of the client, a UDP exchange one.
    let least = (FAMILIES.len() * COUNT * 5) as f64;
    ensure!(count >= least, "{} counted {count} packets as {event}, at least {least} were", node.name());
    Ok(())
}

fn plan(endpoints: &Endpoints) -> Result<Plan> {
    let dir = PathBuf::from("/tmp/peers");
    std::fs::create_dir_all(&dir).context("cannot make a directory for manifests")?;
    let mut text = String::new();
    for ((name, vip), endpoint) in [("v4", VIP4), ("v6", VIP6)].into_iter().zip(endpoints.of) {
        text.push_str(&format!(
            "---\napiVersion: guenon.dev/v1alpha1\nkind: VirtualService\nmetadata: {{namespace: peers, name: {name}}}\n\
             spec:\n  addresses: [\"{vip}\"]\n  delivery: Local\n  endpoints: [{endpoint}]\n  ports:\n  \
             - {{name: http, protocol: TCP, port: {HTTP}}}\n  - {{name: echo, protocol: UDP, port: {ECHO}}}\n"
        ));
    }
    std::fs::write(dir.join("peers.yaml"), text).context("cannot write manifests")?;
    Ok(Plan::new("peers", Path::new(super::guest::GUENON), &dir))
}

/// t33 takes GUE as the kernel does, owns the VIPs, and lets what comes out of a tunnel in.
fn decap_by_kernel(topology: &Topology) -> Result<()> {
    let t33 = topology.netns(Host::T33);
    let ip = |line: &str| {
        cmd("ip").args(["-n", &t33]).args(line.split_whitespace()).run().with_context(|| format!("kernel peer: {line}"))
    };
    ip(&format!("fou add port {PORT} gue"))?;
    ip(&format!("-6 fou add port {PORT} gue"))?;
    ip("link add any6 type ip6tnl mode any local 2001:db8:3::3 remote 2001:db8:2::2")?;
    for device in ["tunl0", "sit0", "ip6tnl0", "any6"] {
        ip(&format!("link set {device} up"))?;
    }
    ip(&format!("addr add {VIP4}/32 dev lo"))?;
    ip(&format!("addr add {VIP6}/128 dev lo nodad"))?;
    // Lesson 10: the client's route does not lead back into the tunnel.
    netns::inside(&t33, || {
        for device in ["all", "tunl0", "any6"] {
            let file = format!("/proc/sys/net/ipv4/conf/{device}/rp_filter");
            std::fs::write(&file, "0").with_context(|| file)?;
        }
        Ok(())
    })
}

/// t22 forwards VIPs into tunnels of the kernel.
fn encap_by_kernel(topology: &Topology, crossed: bool, checksum: bool) -> Result<()> {
    let t22 = topology.netns(Host::T22);
    let ip = |line: &str| {
        cmd("ip").args(["-n", &t22]).args(line.split_whitespace()).run().with_context(|| format!("kernel peer: {line}"))
    };
    let gue = format!("encap gue encap-sport auto encap-dport {PORT}");
    let over4 =
        format!("local 172.17.2.2 remote 172.17.3.3 {gue} {}", if checksum { "encap-csum" } else { "noencap-csum" });
    let over6 = format!(
        "local 2001:db8:2::2 remote 2001:db8:3::3 encaplimit none {gue} {}",
        if checksum { "encap-udp6-csum" } else { "noencap-udp6-csum" }
    );
    if crossed {
        ip(&format!("link add inner4 type ip6tnl mode ipip6 {over6}"))?;
        ip(&format!("link add inner6 type sit {over4}"))?;
    } else {
        ip(&format!("link add inner4 type ipip {over4}"))?;
        ip(&format!("link add inner6 type ip6tnl mode ip6ip6 {over6}"))?;
    }
    for device in ["inner4", "inner6"] {
        ip(&format!("link set {device} up"))?;
    }
    ip(&format!("route add {VIP4} dev inner4"))?;
    ip(&format!("route add {VIP6} dev inner6"))?;
    // Lesson 13: over a veth the outer checksum would stay unfinished.
    topology.at(Host::T22, "ethtool").args(["-K", "eth0", "tx", "off"]).run()?;
    netns::inside(&t22, || {
        for file in ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"] {
            std::fs::write(file, "1").context(file)?;
        }
        Ok(())
    })
}
