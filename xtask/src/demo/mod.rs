//! `cargo xtask demo`: the whole thing, end to end, on one machine.

pub(crate) mod show;
pub(crate) mod traffic;

use anyhow::{Result, bail};

use crate::topology::layout::{Host, NAT4, VIP4, VIP6};
use crate::topology::record::Record;
use crate::topology::{FAMILIES, NAT_FAMILIES, Plan, Topology};
use crate::{build, paths, progress, setup};
use setup::packages;

const NAME: &str = "demo";

/// Builds, lays out, sends, shows, removes.
pub(crate) fn run(keep: bool) -> Result<()> {
    setup::root("demo")?;
    setup::building()?;
    setup::programs(&[packages::DEMO])?;
    let guenon = build::guenon()?;
    let mut topology = up(Plan::new(NAME, &guenon, &paths::root().join("examples/demo")))?;

    let verdict = traffic_of(&topology);
    if keep {
        topology.keep()?;
        println!("{}", what_to_try(&topology));
        return verdict;
    }
    progress::step("removing everything");
    let removed = topology.remove();
    verdict.and(removed)
}

/// Both services: endpoints that know of the VIP, and ordinary pods.
fn traffic_of(topology: &Topology) -> Result<()> {
    let mut rounds = Vec::new();
    for (vips, endpoints) in [(FAMILIES, Host::ENDPOINTS), (NAT_FAMILIES, Host::PODS)] {
        let names = endpoints.map(Host::name);
        let answers = traffic::send(topology, vips)?;
        println!("{}", show::answers(&answers, &names));
        rounds.push((answers, names));
    }
    println!("{}", show::counters(topology)?);
    rounds.iter().try_for_each(|(answers, names)| traffic::judge(answers, names))?;
    traffic::clients(topology, NAT_FAMILIES)
}

/// `--clean`: removes whatever any topology has left.
pub(crate) fn clean() -> Result<()> {
    clean_those(|_| true)
}

/// Removes what topologies with such names have left.
pub(crate) fn clean_those(wanted: impl Fn(&str) -> bool) -> Result<()> {
    setup::root("... --clean")?;
    let mut records = Record::all()?;
    records.retain(|record| wanted(record.name()));
    if records.is_empty() {
        progress::step("nothing to remove");
    }
    let mut failed = Vec::new();
    for record in &mut records {
        progress::step(format_args!("removing {}", record.name()));
        if let Err(error) = record.clean() {
            failed.push(format!("{}: {error:#}", record.name()));
        }
    }
    if !failed.is_empty() {
        bail!("not everything could be removed: {}", failed.join("; "));
    }
    Ok(())
}

/// A topology whose agents are ready.
pub(crate) fn up(plan: Plan) -> Result<Topology> {
    progress::step("laying out client - switch - t22, t33 and their pods in network namespaces");
    let mut topology = Topology::build(plan)?;
    start_agents(&mut topology)?;
    Ok(topology)
}

/// Both agents, until they are ready.
pub(crate) fn start_agents(topology: &mut Topology) -> Result<()> {
    progress::step("starting an agent on t22 and one on t33");
    for host in Host::NODES {
        topology.start_agent(host)?;
    }
    for host in Host::NODES {
        topology.wait_ready(host)?;
    }
    Ok(())
}

fn what_to_try(topology: &Topology) -> String {
    let at = |host| format!("nsenter --net=/run/netns/{}", topology.netns(host));
    let guenon = topology.plan.guenon.display();
    let pins = topology.pins();
    let (pins, client, t22, t33) = (pins.display(), at(Host::Client), at(Host::T22), at(Host::T33));
    format!(
        "It stays up. Things to try:\n  \
         {client} curl http://{VIP4}/\n  \
         {client} curl 'http://[{VIP6}]/'\n  \
         {client} curl http://{NAT4}/client      # an ordinary pod answers, and sees who asks\n  \
         {client} ping -c 3 {VIP4}\n  \
         {t22} {guenon} status --pin-dir {pins}/t22\n  \
         {t22} {guenon} status drops --pin-dir {pins}/t22\n  \
         {t22} curl -s http://127.0.0.1:9478/metrics\n  \
         {t33} tcpdump -ni eth0 udp port 6080     # sees what leaves, not what XDP took; capture at the switch:\n  \
         {switch} tcpdump -ni t33 udp port 6080\n  \
         edit {manifests}/web.yaml and watch: tail -f {logs}/agent-t22.log\n\
         Remove it: cargo xtask demo --clean",
        switch = at(Host::Switch),
        manifests = topology.manifests().display(),
        logs = topology.dir().display(),
    )
}
