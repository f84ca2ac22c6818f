//! Ordinary pods behind VIPs: delivery `Nat`.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::capture::{Capture, frames};
use super::changes::{eventually, no_problem_is_left, replace};
use super::load::Load;
use super::traffic::heard;
use super::{ensure, failures};
use crate::demo::traffic::clients;
use crate::setup::{self, packages};
use crate::shell::cmd;
use crate::topology::layout::{ECHO, HTTP, Host, POD_ECHO, POD_HTTP, addresses, wire};
use crate::topology::metrics::sums;
use crate::topology::serve::pattern;
use crate::topology::{NAT_FAMILIES, Topology, client, dial};

/// How long a question that is not answered is waited for.
const SILENCE: Duration = Duration::from_secs(3);

/// All pods answer on TCP and UDP, and see the client itself.
pub(super) fn pods_answer(topology: &mut Topology) -> Result<()> {
    everybody_answers(topology)?;
    clients(topology, NAT_FAMILIES)
}

fn everybody_answers(topology: &Topology) -> Result<()> {
    let netns = topology.netns(Host::Client);
    for (family, vip) in NAT_FAMILIES {
        let get = || Ok(client::get(&netns, SocketAddr::new(vip, HTTP), "/")?.text().trim().to_owned());
        all_heard(&heard(get)?, &format!("TCP over {family}"))?;
        all_heard(&heard(|| echoed(topology, vip, 1))?, &format!("UDP over {family}"))?;
    }
    Ok(())
}

/// Who echoes a datagram of this size.
fn echoed(topology: &Topology, vip: IpAddr, size: usize) -> Result<String> {
    let payload = pattern(size);
    let reply = client::echo(&topology.netns(Host::Client), SocketAddr::new(vip, ECHO), &payload)?;
    let name = reply.strip_suffix(&payload[..]).context("a datagram arrived spoilt")?;
    Ok(String::from_utf8_lossy(name).trim().to_owned())
}

fn all_heard(names: &BTreeSet<String>, what: &str) -> Result<()> {
    let wanted: BTreeSet<String> = Host::PODS.map(|host| host.name().to_owned()).into();
    ensure(*names == wanted, || format!("{what}: {names:?} answered, not {wanted:?}"))
}

/// Up and down, where the way to the client takes 1,400 bytes: its router tells the VIP, and the pod hears of it.
pub(super) fn long_transfers(topology: &mut Topology) -> Result<()> {
    const LENGTH: usize = 1 << 30;
    narrow(topology)?;
    let netns = topology.netns(Host::Client);
    for (family, vip) in NAT_FAMILIES {
        let server = SocketAddr::new(vip, HTTP);
        client::download(&netns, server, LENGTH).context(family)?;
        client::upload(&netns, server, LENGTH).context(family)?;
    }
    let told = Host::NODES.map(|host| event(topology, host, "icmp_error_forwarded"));
    let told: f64 = told.into_iter().collect::<Result<Vec<_>>>()?.iter().sum();
    ensure(told > 0.0, || "no pod was told of the path's MTU".to_owned())
}

/// From now on the way to the client takes 1,400 bytes.
pub(super) fn narrow(topology: &Topology) -> Result<()> {
    let switch = topology.netns(Host::Switch);
    // IPv6 knows routes of one prefix apart by their metric: in place of the kernel's own it needs that one's.
    for (flag, network, metric) in [("-4", "198.51.100.0/24", "0"), ("-6", "2001:db8:c::/64", "256")] {
        let route = ["route", "replace", network, "dev", "client", "metric", metric, "mtu", "lock", "1400"];
        cmd("ip").args(["-n", &switch, flag]).args(route).run()?;
    }
    Ok(())
}

/// Questions and answers larger than the MTU.
pub(super) fn fragments(topology: &mut Topology) -> Result<()> {
    for (family, vip) in NAT_FAMILIES {
        // A pod's first long reply teaches it the path MTU, and UDP sends nothing twice.
        let ask = || echoed(topology, vip, 4000);
        let names = heard(|| ask().or_else(|_| ask()).or_else(|_| ask()))?;
        all_heard(&names, &format!("fragments over {family}"))?;
    }
    Ok(())
}

pub(super) fn killed_under_load(topology: &mut Topology) -> Result<()> {
    everybody_answers(topology)?;
    let load = Load::on(topology, NAT_FAMILIES);
    failures::kill_and_start(topology)?;
    load.finish().context("while agents were away")?;
    everybody_answers(topology)
}

/// Pods whose CNI hides them behind their node's address when they speak to the world outside: replies are no new
/// connections, and stay as they are.
pub(super) fn masqueraded(topology: &mut Topology) -> Result<()> {
    setup::programs(&[packages::MARKING])?;
    let rules = "table inet cni { chain post { type nat hook postrouting priority srcnat;\n\
                 ip saddr 10.0.0.0/8 oifname eth0 masquerade\n\
                 ip6 saddr 2001:db8:221::/64 oifname eth0 masquerade\n\
                 ip6 saddr 2001:db8:331::/64 oifname eth0 masquerade\n\
                 ip6 saddr 2001:db8:332::/64 oifname eth0 masquerade\n}\n\
                 chain forward { type filter hook forward priority 0; ct state invalid drop\n}\n}\n";
    for host in Host::NODES {
        topology.at(host, "nft").args(["-f", "-"]).input(rules).run()?;
    }
    pods_answer(topology)?;
    // What a pod begins itself is masqueraded as ever.
    let server = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(172, 17, 2, 2)), HTTP);
    let reply = client::get(&topology.netns(Host::PodA), server, "/client")?;
    ensure(reply.text().starts_with("172.17.3.3:"), || format!("pod-a is seen as {}", reply.text()))?;
    fragments(topology)
}

/// A client on the endpoint's own node is refused under a reason of its own; one on another node is answered.
pub(super) fn hairpin(topology: &mut Topology) -> Result<()> {
    one_pod(topology)?;
    let server = SocketAddr::new(ONE, HTTP);
    let before = drops(topology, Host::T33, "hairpin")?;
    for host in [Host::PodB, Host::T33] {
        let answer = client::try_get(&topology.netns(host), server, "/", SILENCE);
        ensure(answer.is_err(), || format!("{} was answered", host.name()))?;
    }
    let after = drops(topology, Host::T33, "hairpin")?;
    ensure(after >= before + 2.0, || format!("hairpin was counted {} times", after - before))?;
    let reply = client::get(&topology.netns(Host::PodC), server, "/client").context("a pod of another node")?;
    ensure(addresses(Host::PodC).any(|pod| reply.text().starts_with(&format!("{pod}:"))), || {
        format!("pod-c is seen as {}", reply.text())
    })
}

/// A pod that goes while packets come: none of them leaves the node again.
pub(super) fn pod_removed(topology: &mut Topology) -> Result<()> {
    setup::programs(&[packages::READERS])?;
    one_pod(topology)?;
    let netns = topology.netns(Host::Client);
    client::get(&netns, SocketAddr::new(ONE, HTTP), "/")?;
    let capture = Capture::start(topology, "t33", "host 10.33.1.10 and inbound")?;
    let socket = dial::udp(&netns, 40_001, SocketAddr::new(ONE, ECHO), SILENCE)?;
    let gone = wire(Host::PodA).context("pod-a has no wire")?;
    for number in 0..2000 {
        if number == 500 {
            cmd("ip").args(["-n", &topology.netns(Host::T33), "link", "del", gone.port]).run()?;
        }
        let _ = socket.send(b"x"); // an ICMP error about an earlier one is no matter
        std::thread::sleep(Duration::from_millis(1));
    }
    let seen = frames(&capture.stop()?)?;
    ensure(seen.is_empty(), || {
        format!("{} frames with the pod's address left its node: {:02x?}", seen.len(), seen[0])
    })?;
    let dropped = drops(topology, Host::T33, "no_route")? + drops(topology, Host::T33, "no_delivery")?;
    ensure(dropped > 0.0, || "nobody counts what was for the pod that is gone".to_owned())
}

/// A port where nobody listens is refused at once, as by the pod itself.
pub(super) fn refused_by_the_pod(topology: &mut Topology) -> Result<()> {
    one_pod(topology)?;
    let netns = topology.netns(Host::Client);
    let tcp = dial::tcp(&netns, 40_002, SocketAddr::new(ONE, CLOSED), SILENCE);
    let refused = tcp.as_ref().is_err_and(|error| format!("{error:#}").contains("ECONNREFUSED"));
    ensure(refused, || format!("TCP to a port where nobody listens: {tcp:?}"))?;
    let udp = dial::udp(&netns, 40_002, SocketAddr::new(ONE, CLOSED), SILENCE)?;
    udp.send(b"x").context("cannot send")?;
    let answer = udp.recv(&mut [0; 16]);
    let refused = answer.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused);
    ensure(refused, || format!("UDP to a port where nobody listens: {answer:?}"))
}

/// VIP of a service with the one pod pod-a.
pub(crate) const ONE: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 21));
/// A second frontend of its HTTP and echo ports.
pub(super) const OTHER_HTTP: u16 = HTTP + 1;
pub(super) const OTHER_ECHO: u16 = ECHO + 1;
/// A frontend whose target port nobody listens on.
pub(super) const CLOSED: u16 = 9;
/// That target port.
pub(super) const POD_CLOSED: u16 = 8009;

/// Puts a service with one pod in force, which has a node of its own.
pub(crate) fn one_pod(topology: &Topology) -> Result<()> {
    one_pod_of(topology, Host::PodA, Host::T33)
}

/// Puts a service in force with this pod of this node.
pub(crate) fn one_pod_of(topology: &Topology, pod: Host, node: Host) -> Result<()> {
    const PORTS: [(&str, &str, u16, u16); 6] = [
        ("http", "TCP", HTTP, POD_HTTP),
        ("http2", "TCP", OTHER_HTTP, POD_HTTP),
        ("echo", "UDP", ECHO, POD_ECHO),
        ("echo2", "UDP", OTHER_ECHO, POD_ECHO),
        ("closed", "TCP", CLOSED, POD_CLOSED),
        ("closed-udp", "UDP", CLOSED, POD_CLOSED),
    ];
    let frontends: Vec<String> = PORTS
        .iter()
        .map(|(name, protocol, port, _)| format!("  - {{name: {name}, protocol: {protocol}, port: {port}}}\n"))
        .collect();
    let frontends = frontends.concat();
    let targets: Vec<String> = PORTS
        .iter()
        .map(|(name, protocol, _, target)| format!("- {{name: {name}, protocol: {protocol}, port: {target}}}\n"))
        .collect();
    let targets = targets.concat();
    let manifest = format!(
        "apiVersion: guenon.dev/v1alpha1\nkind: VirtualService\nmetadata: {{namespace: demo, name: one}}\n\
         spec:\n  addresses: [{ONE}]\n  ports:\n{frontends}  backendRefs: [{{name: one}}]\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {{namespace: demo, name: one}}\nspec:\n  ports:\n{frontends}---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{namespace: demo, name: one, labels: {{kubernetes.io/service-name: one}}}}\naddressType: IPv4\n\
         ports:\n{targets}endpoints:\n- {{addresses: [{}], nodeName: {}}}\n",
        v4(pod)?,
        node.name()
    );
    let route = ["route", "replace", &ONE.to_string(), "via", "172.17.2.2"];
    cmd("ip").args(["-n", &topology.netns(Host::Switch)]).args(route).run()?;
    replace(&topology.manifests().join("one.yaml"), &manifest)?;
    let netns = topology.netns(Host::Client);
    eventually(|| {
        let said = client::try_get(&netns, SocketAddr::new(ONE, HTTP), "/", SILENCE)?.text();
        ensure(said.contains(pod.name()), || format!("{said} answers, not {}", pod.name()))
    })?;
    no_problem_is_left(topology)
}

/// A host's IPv4 address.
pub(crate) fn v4(host: Host) -> Result<IpAddr> {
    addresses(host).find(IpAddr::is_ipv4).with_context(|| format!("{} has no IPv4 address", host.name()))
}

pub(super) fn event(topology: &Topology, host: Host, name: &str) -> Result<f64> {
    count(topology, host, "guenon_events_total", "event", name)
}

fn drops(topology: &Topology, host: Host, reason: &str) -> Result<f64> {
    count(topology, host, "guenon_drops_total", "reason", reason)
}

fn count(topology: &Topology, host: Host, metric: &str, label: &str, value: &str) -> Result<f64> {
    let counts = sums(&topology.metrics(host)?, metric, label);
    let Some(count) = counts.get(value) else { bail!("{} has no {metric} of {value}", host.name()) };
    Ok(*count)
}
