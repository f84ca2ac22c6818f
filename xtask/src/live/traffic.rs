//! Traffic of all kinds.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail};

use super::ensure;
use crate::topology::layout::{ECHO, HTTP, Host};
use crate::topology::metrics::sums;
use crate::topology::serve::pattern;
use crate::topology::{FAMILIES, Topology, client, ping};

/// Attempts after which every one of three endpoints was heard, but for one time in 10^10 (2/3 ^ 60).
const ATTEMPTS: usize = 60;

pub(crate) fn everybody_answers(topology: &mut Topology) -> Result<()> {
    for (family, vip) in FAMILIES {
        all_answer(&topology.netns(Host::Client), vip).context(family)?;
    }
    Ok(())
}

/// A client somewhere hears every endpoint on TCP and UDP.
pub(super) fn all_answer(netns: &str, vip: IpAddr) -> Result<()> {
    let tcp = heard(|| Ok(client::get(netns, SocketAddr::new(vip, HTTP), "/")?.text().trim().to_owned()))?;
    all_heard(&tcp, "TCP")?;
    let udp = heard(|| {
        let reply = client::echo(netns, SocketAddr::new(vip, ECHO), b"x")?;
        Ok(String::from_utf8_lossy(&reply).trim_end_matches(" x").to_owned())
    })?;
    all_heard(&udp, "UDP")
}

/// Who answered.
pub(super) fn heard(question: impl Fn() -> Result<String>) -> Result<BTreeSet<String>> {
    (0..ATTEMPTS).map(|number| question().with_context(|| format!("attempt {number}"))).collect()
}

fn all_heard(names: &BTreeSet<String>, what: &str) -> Result<()> {
    let wanted: BTreeSet<String> = Host::ENDPOINTS.map(|host| host.name().to_owned()).into();
    ensure(*names == wanted, || format!("{what}: {names:?} answered, not {wanted:?}"))
}

pub(super) fn long_transfers(topology: &mut Topology) -> Result<()> {
    transfers(topology)
}

pub(super) fn long_transfers_over_a_small_underlay(topology: &mut Topology) -> Result<()> {
    transfers(topology)?;
    let told = sums(&topology.metrics(Host::T22)?, "guenon_events_total", "event");
    let told = told.get("too_big_answered").copied().unwrap_or(0.0);
    ensure(told > 0.0, || "packets of 1500 bytes fit nowhere, but the director told nobody".to_owned())
}

/// Up and down, until each endpoint has had some.
fn transfers(topology: &Topology) -> Result<()> {
    const LENGTH: usize = 1 << 20;
    let netns = topology.netns(Host::Client);
    for (family, vip) in FAMILIES {
        let server = SocketAddr::new(vip, HTTP);
        let mut up = BTreeSet::new();
        for _ in 0..ATTEMPTS {
            let reply = client::post(&netns, server, "/", &pattern(LENGTH)).context("upload")?;
            ensure(reply.status == 200, || format!("{family}: an upload arrived spoilt: {}", reply.text()))?;
            up.insert(reply.text().split(' ').next().unwrap_or_default().to_owned());
            if up.len() == Host::ENDPOINTS.len() {
                break;
            }
        }
        all_heard(&up, &format!("uploads over {family}"))?;
        for _ in 0..8 {
            let reply = client::get(&netns, server, &format!("/bytes/{LENGTH}")).context("download")?;
            ensure(reply.body == pattern(LENGTH), || format!("{family}: a download arrived spoilt"))?;
        }
    }
    Ok(())
}

pub(super) fn pings(topology: &mut Topology) -> Result<()> {
    for (_, vip) in FAMILIES {
        for number in 0..10 {
            ping::ping(&topology.netns(Host::Client), vip, number, &pattern(56 + usize::from(number)))?;
        }
    }
    Ok(())
}

/// Larger than the client's MTU: IPv4 and IPv6 cut them at the sender.
pub(super) fn fragments(topology: &mut Topology) -> Result<()> {
    let netns = topology.netns(Host::Client);
    for (family, vip) in FAMILIES {
        let names = heard(|| {
            let payload = pattern(4000);
            // An endpoint's first long reply teaches it the path MTU towards the client (its own link takes more), and UDP
            // sends nothing twice.
            let ask = || client::echo(&netns, SocketAddr::new(vip, ECHO), &payload);
            let reply = ask().or_else(|_| ask()).or_else(|_| ask())?;
            let name = reply.strip_suffix(&payload[..]).context("a datagram arrived spoilt")?;
            Ok(String::from_utf8_lossy(name).trim().to_owned())
        })?;
        all_heard(&names, &format!("fragments over {family}"))?;
    }
    let events = sums(&topology.metrics(Host::T22)?, "guenon_events_total", "event");
    let followed = events.get("fragment_followed").copied().unwrap_or(0.0);
    ensure(followed >= (ATTEMPTS * FAMILIES.len()) as f64, || format!("{followed} fragments followed their datagram"))
}

pub(super) fn other_ports(topology: &mut Topology) -> Result<()> {
    // t22 has the VIPs on its loopback, for its own endpoint: there the stack answers with a refusal.
    let drops = |topology: &Topology| -> Result<f64> {
        let samples = topology.metrics(Host::T22)?;
        let count = |metric, label, value: &str| sums(&samples, metric, label).get(value).copied().unwrap_or(0.0);
        Ok(count("guenon_drops_total", "reason", "no_frontend")
            + count("guenon_events_total", "event", "passed_on_node"))
    };
    let before = drops(topology)?;
    let netns = topology.netns(Host::Client);
    for (family, vip) in FAMILIES {
        if client::echo(&netns, SocketAddr::new(vip, ECHO + 1), b"x").is_ok() {
            bail!("{family}: a port that no frontend has answered");
        }
    }
    let after = drops(topology)?;
    ensure(after >= before + 2.0, || format!("two packets were sent to no frontend, {} counted", after - before))
}

/// What the load and failures use: a VIP that answers at all.
pub(super) fn answers(topology: &Topology, vip: IpAddr) -> Result<()> {
    client::patiently(|| client::get(&topology.netns(Host::Client), SocketAddr::new(vip, HTTP), "/")).map(drop)
}
