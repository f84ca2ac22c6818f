//! Lessons of the field that need more than traffic from the client.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{setsockopt, sockopt};

use super::traffic;
use crate::setup::{self, packages};
use crate::shell::cmd;
use crate::topology::layout::{self, ECHO, Host};
use crate::topology::metrics::sums;
use crate::topology::{FAMILIES, Topology, netns};

/// Lesson 6: the client is the director itself. Its packets leave and come back with a source that is this host's; so
/// do replies, with a VIP that is on this host's loopback.
pub(super) fn client_on_the_director(topology: &mut Topology) -> Result<()> {
    let t22 = topology.netns(Host::T22);
    for (family, vip) in FAMILIES {
        let flag = if vip.is_ipv4() { "-4" } else { "-6" };
        let rule = |line: &str| cmd("ip").args(["-n", &t22, flag, "rule"]).args(line.split(' ')).run();
        // The VIP is on the loopback, so that without this a client here would talk to the server here.
        if vip.is_ipv6() {
            // The kernel notes an IPv6 address of the loopback in the main table as well, and would take it as source.
            let own = layout::addresses(Host::T22).find(IpAddr::is_ipv6).context("t22 has no IPv6 address")?;
            let route = format!("route replace {vip} via 2001:db8:2::1 dev eth0 src {own} metric 1");
            cmd("ip").args(["-n", &t22, flag]).args(route.split(' ')).run()?;
        }
        rule("add pref 100 lookup local")?;
        rule(&format!("add pref 50 iif lo to {vip} lookup main"))?;
        rule("del pref 0")?;
        traffic::all_answer(&t22, vip).with_context(|| format!("{family}, from t22"))?;
    }
    Ok(())
}

/// RFC 6040: a router marks the tunnel packet, and the endpoint gets the mark if its client can take it; if not, the
/// packet is lost as the router meant it to be.
pub(super) fn congestion(topology: &mut Topology) -> Result<()> {
    setup::programs(&[packages::MARKING])?;
    let rules = "table inet congestion { chain forward { type filter hook forward priority 0;\n\
                 meta nfproto ipv4 udp dport 6080 ip ecn set ce\n\
                 meta nfproto ipv6 udp dport 6080 ip6 ecn set ce\n}\n}\n";
    topology.at(Host::Switch, "nft").args(["-f", "-"]).input(rules).run()?;
    for (family, vip) in FAMILIES {
        let server = SocketAddr::new(vip, ECHO);
        let before = counts(topology)?;
        let capable = answered(topology, server, 2).context("with ECT(0)")?;
        let between = counts(topology)?;
        ensure!(capable == DATAGRAMS, "{family}: {capable} of {DATAGRAMS} datagrams with ECT(0) were answered");
        let marked = between["congestion_marked"] - before["congestion_marked"];
        ensure!(marked > 0.0, "{family}: no congestion was marked on inner packets");
        let incapable = answered(topology, server, 0).context("without ECT")?;
        let after = counts(topology)?;
        let lost = (DATAGRAMS - incapable) as f64;
        let dropped = after["ecn"] - between["ecn"];
        ensure!(dropped == lost && lost > 0.0, "{family}: {lost} datagrams without ECT were lost, {dropped} counted");
    }
    Ok(())
}

/// Enough for some to go to t33: (1/3)^40 stay on t22.
const DATAGRAMS: usize = 40;

/// How many of many datagrams, each from a port of its own, were answered.
fn answered(topology: &Topology, server: SocketAddr, traffic_class: i32) -> Result<usize> {
    netns::inside(&topology.netns(Host::Client), || {
        let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let mut sockets = Vec::new();
        for _ in 0..DATAGRAMS {
            let socket = UdpSocket::bind(any)?;
            socket.connect(server)?;
            socket.set_read_timeout(Some(Duration::from_millis(300)))?;
            match server {
                SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4Tos, &traffic_class)?,
                SocketAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6TClass, &traffic_class)?,
            }
            socket.send(b"x").context("cannot send")?;
            sockets.push(socket);
        }
        Ok(sockets.iter().filter(|socket| socket.recv(&mut [0; 64]).is_ok()).count())
    })
}

/// Events and drops of the decap node.
fn counts(topology: &Topology) -> Result<BTreeMap<String, f64>> {
    let samples = topology.metrics(Host::T33)?;
    let mut counts = sums(&samples, "guenon_events_total", "event");
    counts.extend(sums(&samples, "guenon_drops_total", "reason"));
    Ok(counts)
}

/// Frames with VLAN tags: what is answered to the sender keeps the tags it came with. This kernel may have no VLAN
/// device, so the frames are made by scapy.
pub(super) fn vlan(topology: &mut Topology) -> Result<()> {
    setup::programs(&[packages::READERS])?;
    let link = cmd("ip").args(["-n", &topology.netns(Host::T22), "-br", "link", "show", "dev", "eth0"]).read()?;
    let mac = link.split_whitespace().find(|word| word.len() == 17 && word.contains(':')).context("no MAC of t22")?;
    topology
        .at(Host::Switch, "/usr/bin/python3")
        .args(["-", "t22", mac])
        .input(include_str!("vlan.py"))
        .limit(Duration::from_secs(60))
        .run()
}
