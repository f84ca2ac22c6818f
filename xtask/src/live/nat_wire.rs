//! Conversations with ordinary pods, as their clients and as the pods see them on the wire; tshark judges.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::capture::Capture;
use super::dissect::{Complaint, Segment, complaints, segments};
use super::nat::{CLOSED, ONE, POD_CLOSED, narrow, one_pod};
use crate::setup::{self, packages};
use crate::topology::layout::{ECHO, HTTP, Host, POD_ECHO, POD_HTTP, addresses, wire};
use crate::topology::line::Line;
use crate::topology::serve::pattern;
use crate::topology::{NAT_FAMILIES, Topology, client, dial};

/// Ports that clients speak from.
const PORTS: std::ops::Range<u16> = 43_000..43_200;
const PATIENCE: Duration = Duration::from_secs(5);

/// What a client says and hears is, but for the pod's address and port, what the pod hears and says; every checksum is right;
/// the client sees the VIP alone, and the pod sees the client itself.
pub(super) fn conversations(topology: &mut Topology) -> Result<()> {
    prepare(topology)?;
    let captures = Captures::start(topology, "tcp or udp")?;
    for (family, vip) in NAT_FAMILIES {
        talk(topology, vip).context(family)?;
    }
    let (client, pods) = captures.stop()?;

    let mut outside = segments(&client)?;
    for Segment { from, to, what } in &outside {
        let server = if is_client(*from) { to } else { from };
        ensure!(is_client(*from) != is_client(*to), "the client sees {from} and {to}: {what}");
        let vip = NAT_FAMILIES.iter().any(|(_, vip)| *vip == server.ip());
        ensure!(vip && [HTTP, ECHO].contains(&server.port()), "the client sees {server}: {what}");
    }
    let mut inside = Vec::new();
    for (host, file) in Host::PODS.into_iter().zip(&pods) {
        let mut kinds = BTreeSet::new();
        for Segment { from, to, what } in segments(file)? {
            let pod = if is_client(from) { to } else { from };
            ensure!(is_client(from) != is_client(to), "{} sees {from} and {to}: {what}", host.name());
            let own = addresses(host).any(|own| own == pod.ip()) && [POD_HTTP, POD_ECHO].contains(&pod.port());
            ensure!(own, "{} sees {pod}: {what}", host.name());
            kinds.insert((pod.is_ipv4(), pod.port()));
            inside.push(Segment { from: outside_name(from), to: outside_name(to), what });
        }
        ensure!(kinds.len() == 4, "{} had only {kinds:?}", host.name());
    }
    outside.sort();
    inside.sort();
    for pair in outside.iter().zip(&inside) {
        ensure!(pair.0 == pair.1, "the client has {:?}\nthe pods have {:?}", pair.0, pair.1);
    }
    ensure!(outside.len() == inside.len(), "{} packets outside, {} inside", outside.len(), inside.len());
    Ok(())
}

/// With every pod, on TCP and UDP.
fn talk(topology: &Topology, vip: IpAddr) -> Result<()> {
    let netns = topology.netns(Host::Client);
    let (mut lines, mut datagrams) = (BTreeSet::new(), BTreeSet::new());
    for port in PORTS {
        let mut line = Line::open(&netns, port, SocketAddr::new(vip, HTTP))?;
        (0..3).try_for_each(|_| line.goes_on())?;
        lines.insert(line.name().to_owned());
        let socket = dial::udp(&netns, port, SocketAddr::new(vip, ECHO), PATIENCE)?;
        for length in [0, 1, 2, 333, 1400] {
            let payload = pattern(length);
            socket.send(&payload).context("cannot send")?;
            let mut reply = [0; 2048];
            let length = socket.recv(&mut reply).context("no answer")?;
            let name = reply[..length].strip_suffix(&payload[..]).context("a datagram arrived spoilt")?;
            datagrams.insert(name.to_vec());
        }
        if lines.len() == Host::PODS.len() && datagrams.len() == Host::PODS.len() {
            break;
        }
    }
    ensure!(lines.len() == Host::PODS.len() && datagrams.len() == Host::PODS.len(), "only {lines:?} answered");
    Ok(())
}

/// Errors about flows of pods speak of the VIP where the client sees them, and of the pod where the pod does.
pub(super) fn errors(topology: &mut Topology) -> Result<()> {
    prepare(topology)?;
    one_pod(topology)?;
    let captures = Captures::start(topology, "icmp or icmp6")?;
    let netns = topology.netns(Host::Client);
    narrow(topology)?;
    for (family, vip) in NAT_FAMILIES {
        // A router on the way says that what the pod sends is too big.
        client::download(&netns, SocketAddr::new(vip, HTTP), 100_000).context(family)?;
        // The client's own host says that nobody is there to hear the answer. Now and then the answer is faster.
        for port in PORTS.take(40) {
            let socket = dial::udp(&netns, port, SocketAddr::new(vip, ECHO), PATIENCE)?;
            socket.send(b"and away").context("cannot send")?;
        }
    }
    // The pod's host says that nobody listens.
    let socket = dial::udp(&netns, PORTS.start, SocketAddr::new(ONE, CLOSED), PATIENCE)?;
    socket.send(b"x").context("cannot send")?;
    ensure!(socket.recv(&mut [0; 16]).is_err(), "a port where nobody listens answered");
    let (client, pods) = captures.stop()?;

    let mut met = BTreeSet::new();
    for Complaint { outer: (from, to), quoted: (sender, receiver), kind } in complaints(&client)? {
        let sent = from == client_of(from);
        let (vip, here) = if sent { (sender, receiver) } else { (receiver, sender) };
        let known = [(ONE, CLOSED)].into_iter().chain(NAT_FAMILIES.map(|(_, vip)| (vip, ECHO)));
        let right = known.into_iter().any(|(ip, port)| vip == SocketAddr::new(ip, port)) && is_client(here);
        let right = right && if sent { to == vip.ip() } else { from == vip.ip() && to == here.ip() };
        ensure!(right, "the client sees {from} tell {to} of {sender} to {receiver} ({kind})");
        met.insert((if sent { "from the client" } else { "to the client" }, kind));
    }
    for (host, file) in Host::PODS.into_iter().zip(&pods) {
        for Complaint { outer: (from, to), quoted: (sender, receiver), kind } in complaints(file)? {
            let is_pod = |at: IpAddr| addresses(host).any(|own| own == at);
            let sent = is_pod(from);
            let (pod, there) = if sent { (receiver, sender) } else { (sender, receiver) };
            let right = is_pod(pod.ip()) && is_client(there) && if sent { to == there.ip() } else { is_pod(to) };
            ensure!(right, "{} sees {from} tell {to} of {sender} to {receiver} ({kind})", host.name());
            ensure!([POD_HTTP, POD_ECHO, POD_CLOSED].contains(&pod.port()), "{}: an error about {pod}", host.name());
            let about = match (sent, from == client_of(from)) {
                (true, _) => "from a pod",
                (false, true) => "to a pod, by the client",
                (false, false) => "to a pod, by a router",
            };
            met.insert((about, kind));
        }
    }
    // Type and code of: port unreachable; fragmentation needed, packet too big.
    let wanted = [
        ("from a pod", "3/3"),
        ("from the client", "3/3"),
        ("from the client", "v6 1/4"),
        ("to a pod, by a router", "3/4"),
        ("to a pod, by a router", "v6 2/0"),
        ("to a pod, by the client", "3/3"),
        ("to a pod, by the client", "v6 1/4"),
        ("to the client", "3/3"),
    ];
    let wanted = wanted.map(|(about, kind)| (about, kind.to_owned()));
    ensure!(met == BTreeSet::from(wanted), "errors of other kinds than wanted: {met:?}");
    Ok(())
}

/// Every host finishes its own checksums and sends its own segments, and nobody merges them: a capture anywhere shows what is on
/// the wire.
fn prepare(topology: &Topology) -> Result<()> {
    setup::programs(&[packages::READERS])?;
    let ends = [Host::Client, Host::PodA, Host::PodB, Host::PodC].map(|host| (host, "eth0"));
    for (host, device) in ends {
        topology.at(host, "ethtool").args(["-K", device, "tx", "off"]).run()?;
    }
    let forwarding = [(Host::T22, "eth0"), (Host::T33, "eth0"), (Host::Switch, "t22"), (Host::Switch, "t33")];
    for (host, device) in forwarding {
        topology.at(host, "ethtool").args(["-K", device, "gro", "off"]).run()?;
    }
    Ok(())
}

/// Captures at the client and at every pod.
struct Captures(Vec<Capture>);

impl Captures {
    fn start(topology: &mut Topology, filter: &str) -> Result<Self> {
        let mut captures = Vec::new();
        for host in [Host::Client, Host::PodA, Host::PodB, Host::PodC] {
            let device = wire(host).context("a host without a wire")?.device;
            captures.push(Capture::at(topology, host, device, filter)?);
        }
        Ok(Self(captures))
    }

    /// The client's, and those of `Host::PODS`.
    fn stop(self) -> Result<(PathBuf, Vec<PathBuf>)> {
        let mut files = self.0.into_iter().map(Capture::stop);
        let client = files.next().context("no capture")??;
        Ok((client, files.collect::<Result<_>>()?))
    }
}

fn is_client(at: SocketAddr) -> bool {
    addresses(Host::Client).any(|own| own == at.ip()) && !NAMED.contains(&at.port())
}

/// Ports that are nobody's but servers'.
const NAMED: [u16; 6] = [HTTP, ECHO, POD_HTTP, POD_ECHO, CLOSED, POD_CLOSED];

/// The client's address of the same family.
fn client_of(other: IpAddr) -> IpAddr {
    addresses(Host::Client).find(|own| own.is_ipv4() == other.is_ipv4()).unwrap_or(other)
}

/// A pod's name as its clients know it; a client's own.
fn outside_name(at: SocketAddr) -> SocketAddr {
    let vip = NAT_FAMILIES.into_iter().find(|(_, vip)| vip.is_ipv4() == at.is_ipv4()).map(|(_, vip)| vip);
    match (at.port(), vip) {
        (POD_HTTP, Some(vip)) => SocketAddr::new(vip, HTTP),
        (POD_ECHO, Some(vip)) => SocketAddr::new(vip, ECHO),
        _ => at,
    }
}
