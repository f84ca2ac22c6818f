//! Packets that pods leave half done: checksums that a card is to finish, segments and datagrams that it is to cut.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{setsockopt, sockopt};

use super::nat::{CLOSED, ONE, POD_CLOSED, one_pod};
use crate::topology::layout::{HTTP, Host};
use crate::topology::metrics::sums;
use crate::topology::serve::pattern;
use crate::topology::{NAT_FAMILIES, Topology, client, dial, netns};

const PATIENCE: Duration = Duration::from_secs(5);

/// Packets larger than any MTU, and with checksums that somebody after the program finishes: who cuts and finishes them must
/// find what it needs, whether that is the node itself or a router behind it.
pub(super) fn left_to_others(topology: &mut Topology) -> Result<()> {
    one_pod(topology)?;
    for host in [Host::PodA, Host::PodB, Host::PodC] {
        ethtool(topology, host, "eth0", ["tx", "on", "sg", "on", "tso", "on", "gso", "on"])?;
    }
    // The last device before the client: what it is not given finished it finishes, and the client's stack looks at it.
    ethtool(topology, Host::Switch, "client", ["tx", "off"])?;
    transfers(topology).context("finished by a router")?;
    for host in Host::NODES {
        ethtool(topology, host, "eth0", ["tx", "off"])?;
    }
    transfers(topology).context("finished by the pod's node")
}

fn ethtool<const N: usize>(topology: &Topology, host: Host, device: &str, features: [&str; N]) -> Result<()> {
    topology.at(host, "ethtool").args(["-K", device]).args(features).run()
}

fn transfers(topology: &Topology) -> Result<()> {
    for (family, vip) in NAT_FAMILIES {
        large(topology, || {
            let netns = topology.netns(Host::Client);
            client::download(&netns, SocketAddr::new(vip, HTTP), 64 << 20).map(drop)
        })
        .with_context(|| format!("TCP over {family}"))?;
    }
    large(topology, || datagrams(topology)).context("UDP")
}

/// Does something during which the programs on the way out must meet packets larger than any MTU: on average even.
fn large(topology: &Topology, what: impl FnOnce() -> Result<()>) -> Result<()> {
    let (packets, bytes) = left(topology)?;
    what()?;
    let (packets, bytes) = { left(topology).map(|(p, b)| (p - packets, b - bytes))? };
    let mtu = f64::from(topology.plan.underlay_mtu);
    ensure!(bytes > mtu * packets, "{packets} packets of {bytes} bytes left: none of them need have been large");
    Ok(())
}

/// Packets and bytes that the programs on the way out have seen on all nodes.
fn left(topology: &Topology) -> Result<(f64, f64)> {
    let (mut packets, mut bytes) = (0.0, 0.0);
    for host in Host::NODES {
        let samples = topology.metrics(host)?;
        let sum = |metric| sums(&samples, metric, "interface").values().sum::<f64>();
        packets += sum("guenon_egress_packets_total");
        bytes += sum("guenon_egress_bytes_total");
    }
    Ok((packets, bytes))
}

/// A pod hands the kernel many datagrams as one (`UDP_SEGMENT`).
fn datagrams(topology: &Topology) -> Result<()> {
    const SIZE: usize = 1200;
    const COUNT: usize = 40;
    let pod = netns::inside(&topology.netns(Host::PodA), || {
        UdpSocket::bind(("0.0.0.0", POD_CLOSED)).context("cannot bind the pod's port")
    })?;
    pod.set_read_timeout(Some(PATIENCE))?;
    setsockopt(&pod, sockopt::UdpGsoSegment, &(SIZE as i32)).context("the kernel knows no UDP_SEGMENT")?;
    let client = dial::udp(&topology.netns(Host::Client), 43_300, SocketAddr::new(ONE, CLOSED), PATIENCE)?;
    client.send(b"x").context("cannot ask")?;
    let (_, from) = pod.recv_from(&mut [0; 16]).context("no question at the pod")?;
    ensure!(from.port() == 43_300, "the pod sees {from}");
    // The last one is shorter.
    let payload = pattern(SIZE * COUNT - 333);
    pod.send_to(&payload, from).context("cannot answer")?;
    let mut got = Vec::new();
    for number in 0..COUNT {
        let mut datagram = [0; 2 * SIZE];
        let length = client.recv(&mut datagram).with_context(|| format!("datagram {number} does not come"))?;
        got.extend_from_slice(&datagram[..length]);
    }
    ensure!(got == payload, "{} bytes came, and not the pod's {}", got.len(), payload.len());
    Ok(())
}
