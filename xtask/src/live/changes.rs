//! What must hold when the configuration changes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::load::Load;
use super::{ensure, traffic};
use crate::shell::cmd;
use crate::topology::layout::{ECHO, HTTP, Host, VIP4, VIP6};
use crate::topology::metrics::sums;
use crate::topology::{Topology, client, netns};

/// How long agents may take to notice a file.
const NOTICE: Duration = Duration::from_secs(10);

/// How long a new connection may take.
const SILENCE: Duration = Duration::from_secs(2);

pub(super) fn endpoint_removed(topology: &mut Topology) -> Result<()> {
    let file = topology.manifests().join("web.yaml");
    let text = std::fs::read_to_string(&file).context("the manifest")?;
    let without: String = text
        .lines()
        .filter(|line| !line.contains("{address: 172.17.3.3}"))
        .fold(String::new(), |all, line| all + line + "\n");
    ensure(without != text, || "the manifest has no endpoint 172.17.3.3 to remove".to_owned())?;
    replace(&file, &without)?;
    let netns = topology.netns(Host::Client);
    // A connection that is open in that moment may break without a word: its node no longer has the VIP.
    let get = || Ok(client::try_get(&netns, SocketAddr::new(VIP4, HTTP), "/", SILENCE)?.text().trim().to_owned());
    eventually(|| {
        let names = traffic::heard(get)?;
        let wanted: BTreeSet<String> = [Host::T22, Host::Pod].map(|host| host.name().to_owned()).into();
        ensure(names == wanted, || format!("{names:?} answered, not {wanted:?}"))
    })
}

/// What a node's agent reports, by reason.
pub(super) fn problems(topology: &Topology, host: Host) -> Result<BTreeMap<String, f64>> {
    let mut problems = sums(&topology.metrics(host)?, "guenon_problems", "reason");
    problems.retain(|_, count| *count > 0.0);
    Ok(problems)
}

/// `guenon status` of a node.
pub(super) fn status(topology: &Topology, host: Host) -> Result<String> {
    topology.guenon(host, "status").arg("--state-dir").arg(topology.state_dir(host)).read()
}

/// Waits until no node reports a problem.
pub(super) fn no_problem_is_left(topology: &Topology) -> Result<()> {
    for host in Host::NODES {
        eventually(|| {
            let left = problems(topology, host)?;
            ensure(left.is_empty(), || format!("{} still reports {left:?}", host.name()))
        })?;
    }
    Ok(())
}

pub(super) fn endpoint_without_a_route(topology: &mut Topology) -> Result<()> {
    const NOWHERE: &str = "198.51.100.99";
    let t22 = topology.netns(Host::T22);
    cmd("ip").args(["-n", &t22, "route", "add", "unreachable", NOWHERE]).run()?;
    let file = topology.manifests().join("web.yaml");
    let text = std::fs::read_to_string(&file).context("the manifest")?;
    let endpoint = "  - {address: 172.17.3.3}\n";
    ensure(text.contains(endpoint), || format!("the manifest has no line {endpoint:?}"))?;
    replace(&file, &text.replace(endpoint, &format!("{endpoint}  - {{address: {NOWHERE}}}\n")))?;
    eventually(|| {
        let found = problems(topology, Host::T22)?;
        ensure(found.contains_key("NoRoute"), || format!("t22 reports {found:?}, not NoRoute"))
    })?;
    let said = status(topology, Host::T22)?;
    ensure(said.contains(NOWHERE), || format!("status does not name {NOWHERE}:\n{said}"))?;
    // Its share of flows is dropped under its own reason; all others are served.
    let netns = topology.netns(Host::Client);
    let drops = |topology: &Topology| -> Result<f64> {
        let drops = sums(&topology.metrics(Host::T22)?, "guenon_drops_total", "reason");
        Ok(drops.get("no_route").copied().unwrap_or(0.0))
    };
    let before = drops(topology)?;
    let server = SocketAddr::new(VIP6, HTTP);
    client::get(&netns, server, "/").context("a service that has no such endpoint")?;
    netns::inside(&netns, || {
        // A flow has one endpoint: it takes many flows to meet all of them.
        for _ in 0..64 {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").context("cannot bind")?;
            socket.send_to(b"x", SocketAddr::new(VIP4, ECHO)).context("cannot send")?;
        }
        Ok(())
    })?;
    eventually(|| ensure(drops(topology)? > before, || "t22 counts no drop under no_route".to_owned()))?;
    replace(&file, &text)?;
    no_problem_is_left(topology)?;
    traffic::answers(topology, VIP4)
}

pub(super) fn directory_vanishes(topology: &mut Topology) -> Result<()> {
    let load = Load::start(topology);
    let (directory, aside) = (topology.manifests(), topology.manifests().with_extension("aside"));
    std::fs::rename(&directory, &aside).context("cannot move the manifests")?;
    for host in Host::NODES {
        eventually(|| {
            let found = problems(topology, host)?;
            ensure(found.contains_key("Source"), || format!("{} reports {found:?}, not Source", host.name()))
        })?;
        let said = status(topology, host)?;
        ensure(said.contains("cannot read the directory of manifests"), || {
            format!("status of {} does not say what is wrong:\n{said}", host.name())
        })?;
    }
    std::fs::rename(&aside, &directory).context("cannot move the manifests back")?;
    no_problem_is_left(topology)?;
    load.finish().map(drop).context("while the manifests were away")
}

pub(super) fn bad_manifest(topology: &mut Topology) -> Result<()> {
    let load = Load::start(topology);
    let bad = topology.manifests().join("bad.yaml");
    // A document that is no YAML, one with a typo and an address that is none, and one that claims somebody's VIP.
    replace(
        &bad,
        "apiVersion: guenon.dev/v1alpha1\nkind: VirtualService\nmetadata: {namespace: demo, name: claims}\n\
         spec: {addresses: [203.0.113.10], ports: [{port: 80}], endpoints: [{address: 172.17.2.2}]}\n---\n\
         apiVersion: guenon.dev/v1alpha1\nkind: VirtualService\nmetadata: {namespace: demo, name: typo}\n\
         spec: {adresses: [203.0.113.300], ports: [{port: 0}], endpoints: [{address: nowhere}]}\n---\n\
         {unclosed: [\n",
    )?;
    for host in Host::NODES {
        eventually(|| ensure(!problems(topology, host)?.is_empty(), || format!("{} reports no problem", host.name())))?;
    }
    let log = std::fs::read_to_string(topology.log("agent-t22")).context("the agent's log")?;
    for word in ["bad.yaml", "did you mean", "addresses"] {
        ensure(log.contains(word), || format!("the agent's log does not say {word:?} of the bad manifest"))?;
    }
    std::fs::remove_file(&bad).context("the bad manifest")?;
    no_problem_is_left(topology)?;
    load.finish().map(drop).context("while a bad manifest was there")
}

pub(super) fn detach(topology: &mut Topology) -> Result<()> {
    for host in Host::NODES {
        let mut agent = topology.agent(host)?;
        agent.kill().and_then(|()| agent.wait()).context("cannot end an agent")?;
        topology.guenon(host, "detach").arg("--state-dir").arg(topology.state_dir(host)).run()?;
        let netns = topology.netns(host);
        let links = cmd("ip").args(["-n", &netns, "-d", "link", "show"]).read()?;
        ensure(!links.contains("xdp"), || format!("{} still has an XDP program:\n{links}", host.name()))?;
        let pins = topology.pins().join(host.name());
        ensure(!pins.exists(), || format!("{} is still there", pins.display()))?;
        let lo = cmd("ip").args(["-n", &netns, "addr", "show", "dev", "lo"]).read()?;
        for vip in [VIP4, VIP6] {
            ensure(!lo.contains(&vip.to_string()), || format!("{vip} is still on lo of {}:\n{lo}", host.name()))?;
        }
        for (name, wanted) in [
            ("ipv4/conf/all/rp_filter", "1"),
            ("ipv4/conf/eth0/rp_filter", "1"),
            ("ipv4/conf/all/accept_local", "0"),
            ("ipv4/conf/eth0/accept_local", "0"),
            ("ipv4/conf/all/arp_ignore", "0"),
            ("ipv4/conf/all/arp_announce", "0"),
        ] {
            let file = format!("/proc/sys/net/{name}");
            let found = netns::inside(&netns, || std::fs::read_to_string(&file).with_context(|| file.clone()))?;
            ensure(found.trim() == wanted, || format!("{name} of {} is {}, was {wanted}", host.name(), found.trim()))?;
        }
    }
    Ok(())
}

/// Replaces a file in one step, as a careful editor does.
pub(super) fn replace(file: &Path, text: &str) -> Result<()> {
    let new = file.with_extension("new");
    std::fs::write(&new, text)
        .and_then(|()| std::fs::rename(&new, file))
        .with_context(|| format!("cannot write {}", file.display()))
}

/// Tries until it holds.
pub(super) fn eventually(holds: impl Fn() -> Result<()>) -> Result<()> {
    let begin = Instant::now();
    loop {
        match holds() {
            Ok(()) => return Ok(()),
            Err(error) if begin.elapsed() > NOTICE => bail!("still after {} s: {error:#}", NOTICE.as_secs()),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}
