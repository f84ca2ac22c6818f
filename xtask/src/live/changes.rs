//! What must hold when the configuration changes.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::load::Load;
use super::{ensure, traffic};
use crate::shell::cmd;
use crate::topology::layout::{HTTP, Host, VIP4, VIP6};
use crate::topology::metrics::sums;
use crate::topology::{Topology, client, netns};

/// How long agents may take to notice a file.
const NOTICE: Duration = Duration::from_secs(10);

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
    eventually(|| {
        let names =
            traffic::heard(|| Ok(client::get(&netns, SocketAddr::new(VIP4, HTTP), "/")?.text().trim().to_owned()))?;
        let wanted: BTreeSet<String> = [Host::T22, Host::Pod].map(|host| host.name().to_owned()).into();
        ensure(names == wanted, || format!("{names:?} answered, not {wanted:?}"))
    })
}

pub(super) fn bad_manifest(topology: &mut Topology) -> Result<()> {
    let problems = |topology: &Topology, host| -> Result<f64> {
        Ok(sums(&topology.metrics(host)?, "guenon_problems", "reason").values().sum())
    };
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
        eventually(|| ensure(problems(topology, host)? > 0.0, || format!("{} reports no problem", host.name())))?;
    }
    let log = std::fs::read_to_string(topology.log("agent-t22")).context("the agent's log")?;
    for word in ["bad.yaml", "did you mean", "addresses"] {
        ensure(log.contains(word), || format!("the agent's log does not say {word:?} of the bad manifest"))?;
    }
    std::fs::remove_file(&bad).context("the bad manifest")?;
    for host in Host::NODES {
        eventually(|| {
            let left = problems(topology, host)?;
            ensure(left == 0.0, || format!("{} still reports {left} problems", host.name()))
        })?;
    }
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
fn replace(file: &Path, text: &str) -> Result<()> {
    let new = file.with_extension("new");
    std::fs::write(&new, text)
        .and_then(|()| std::fs::rename(&new, file))
        .with_context(|| format!("cannot write {}", file.display()))
}

/// Tries until it holds.
fn eventually(holds: impl Fn() -> Result<()>) -> Result<()> {
    let begin = Instant::now();
    loop {
        match holds() {
            Ok(()) => return Ok(()),
            Err(error) if begin.elapsed() > NOTICE => bail!("still after {} s: {error:#}", NOTICE.as_secs()),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}
