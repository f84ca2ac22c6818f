//! The topology of the demo and of the live tests: real namespaces, real agents, real servers.

pub(crate) mod agent;
pub(crate) mod cgroup;
pub(crate) mod client;
pub(crate) mod dial;
pub(crate) mod layout;
pub(crate) mod line;
pub(crate) mod metrics;
pub(crate) mod netns;
pub(crate) mod pass;
pub(crate) mod ping;
pub(crate) mod record;
pub(crate) mod serve;
mod wiring;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Child;

use anyhow::{Context, Result, bail};

use crate::interrupt;
use crate::shell::{Cmd, cmd};
use layout::{Host, METRICS, NAT4, NAT6, VIP4, VIP6, Wire};
use record::Record;

/// What to build.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Tells this topology from others on the machine.
    pub(crate) name: String,
    /// Before each namespace's name.
    pub(crate) prefix: String,
    /// MTU of clients and of the pod, bytes of IP.
    pub(crate) client_mtu: u32,
    /// MTU between the nodes. Lesson 12: 52 bytes more than a client's, or clients must be told to send less.
    pub(crate) underlay_mtu: u32,
    /// Network cards to use in place of a veth.
    pub(crate) cards: Vec<Cards>,
    /// The `guenon` to run.
    pub(crate) guenon: PathBuf,
    /// The manifests that agents read; copied, so that a test may change its own.
    pub(crate) manifests: PathBuf,
    /// Where each agent finds a cluster, whose objects they then follow in place of the manifests.
    pub(crate) kubeconfigs: BTreeMap<Host, PathBuf>,
    /// Whether an API server's storage is one that cannot stream lists: Debian's etcd 3.4.
    pub(crate) old_etcd: bool,
    /// Which nodes are directors, by label; empty: every one.
    pub(crate) director_selector: &'static str,
    /// Where agents serve metrics: at `METRICS` in any case.
    pub(crate) listen: &'static str,
    /// How detailed their metrics are.
    pub(crate) metrics_detail: &'static str,
    /// Flows that agents remember.
    pub(crate) max_flows: u32,
}

impl Plan {
    /// One with an underlay that is large enough.
    pub(crate) fn new(name: &str, guenon: &Path, manifests: &Path) -> Self {
        Self {
            name: name.to_owned(),
            prefix: format!("{name}-"),
            client_mtu: 1500,
            underlay_mtu: 1600,
            cards: Vec::new(),
            guenon: guenon.to_owned(),
            manifests: manifests.to_owned(),
            kubeconfigs: BTreeMap::new(),
            old_etcd: false,
            director_selector: "",
            listen: METRICS,
            metrics_detail: "node",
            max_flows: 262_144,
        }
    }
}

/// Two devices that are wired to each other already.
#[derive(Clone, Debug)]
pub(crate) struct Cards {
    /// Whose wire they make.
    pub(crate) host: Host,
    /// Name of the one for the host, where we are.
    pub(crate) at_host: String,
    /// Name of the one for its router.
    pub(crate) at_router: String,
}

/// A topology that is there. Dropping it removes it, unless it is kept.
pub(crate) struct Topology {
    pub(crate) plan: Plan,
    record: Record,
    agents: BTreeMap<Host, Child>,
    kept: bool,
}

impl Topology {
    /// Lays it out: namespaces, links, routes, servers; no agents yet.
    pub(crate) fn build(plan: Plan) -> Result<Self> {
        let record = Record::begin(&plan.name)?;
        let mut topology = Self { plan, record, agents: BTreeMap::new(), kept: false };
        topology.copy_manifests()?;
        for host in Host::ALL {
            interrupt::check()?;
            let name = topology.netns(host);
            if netns::exists(&name) {
                bail!("a network namespace {name} exists already and is not ours: `ip netns del {name}`?");
            }
            topology.record.namespace(&name)?;
            netns::add(&name)?;
        }
        wiring::lay(&topology)?;
        for host in Host::ALL {
            if let Some(ports) = host.ports() {
                topology.serve(host, ports)?;
            }
        }
        topology.check()?;
        Ok(topology)
    }

    /// Whether it is sound without Guenon: servers answer at their hosts' own addresses. What fails later is then
    /// not the topology.
    fn check(&self) -> Result<()> {
        for (host, (http, _)) in Host::ALL.into_iter().filter_map(|host| Some((host, host.ports()?))) {
            for address in layout::addresses(host) {
                // The switch knows nothing of this pod's network.
                let from = if host == Host::Pod { Host::T33 } else { Host::Client };
                let server = SocketAddr::new(address, http);
                let answer = client::patiently(|| client::get(&self.netns(from), server, "/"))?;
                if answer.text().trim() != host.name() {
                    bail!("{server} should be {}, but says {:?}", host.name(), answer.text());
                }
            }
        }
        Ok(())
    }

    /// Name of a host's namespace.
    pub(crate) fn netns(&self, host: Host) -> String {
        format!("{}{}", self.plan.prefix, host.name())
    }

    /// Makes a link anew whose device was deleted.
    pub(crate) fn rewire(&self, wire: &Wire) -> Result<()> {
        wiring::lay_wire(self, wire)
    }

    /// Gives a host its addresses and routes again, after its device was down.
    pub(crate) fn readdress(&self, wire: &Wire) -> Result<()> {
        wiring::address(self, wire)
    }

    /// A command inside a host.
    pub(crate) fn at(&self, host: Host, program: &str) -> Cmd {
        cmd(program).netns(&self.netns(host))
    }

    /// Where logs, state and manifests of this run are.
    pub(crate) fn dir(&self) -> PathBuf {
        self.record.dir()
    }

    /// Where things of this run are pinned.
    pub(crate) fn pins(&self) -> PathBuf {
        self.record.pins()
    }

    /// The manifests that the agents read.
    pub(crate) fn manifests(&self) -> PathBuf {
        self.dir().join("manifests")
    }

    /// Starts a process that ends with the topology; its output goes to `LABEL.log` in the topology's directory.
    pub(crate) fn start(&mut self, command: Cmd, label: &str) -> Result<Child> {
        let child = command.background(&self.log(label))?;
        self.record.process(child.id())?;
        Ok(child)
    }

    /// The log of a process.
    pub(crate) fn log(&self, label: &str) -> PathBuf {
        self.dir().join(format!("{label}.log"))
    }

    /// Leaves it there when this value goes.
    pub(crate) fn keep(&mut self) -> Result<()> {
        self.kept = true;
        self.record.keep()
    }

    /// Removes it now, and says what could not be removed.
    pub(crate) fn remove(mut self) -> Result<()> {
        self.kept = true;
        interrupt::forgive();
        self.record.clean()
    }

    fn copy_manifests(&self) -> Result<()> {
        let (from, to) = (&self.plan.manifests, self.manifests());
        std::fs::create_dir_all(&to).with_context(|| format!("cannot create {}", to.display()))?;
        for entry in std::fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
            let file = entry.with_context(|| format!("cannot read {}", from.display()))?.path();
            if file.extension().is_some_and(|e| e == "yaml") {
                let target = to.join(file.file_name().unwrap_or_default());
                std::fs::copy(&file, target).with_context(|| format!("cannot copy {}", file.display()))?;
            }
        }
        Ok(())
    }

    /// Servers that answer with the host's name.
    fn serve(&mut self, host: Host, (http, echo): (u16, u16)) -> Result<()> {
        let own = std::env::current_exe().context("cannot tell where xtask itself is")?;
        let command = cmd(own)
            .args(["serve", "--name", host.name(), "--http", &http.to_string(), "--echo", &echo.to_string()])
            .netns(&self.netns(host));
        self.start(command, &format!("serve-{}", host.name())).map(drop)
    }
}

impl Drop for Topology {
    fn drop(&mut self) {
        if !self.kept {
            interrupt::forgive();
            if let Err(error) = self.record.clean() {
                eprintln!("not everything could be removed: {error:#}\n`cargo xtask demo --clean` tries again");
            }
        }
    }
}

/// The VIPs, with a name for each family.
pub(crate) const FAMILIES: [(&str, std::net::IpAddr); 2] = [("IPv4", VIP4), ("IPv6", VIP6)];
/// Those in front of ordinary pods.
pub(crate) const NAT_FAMILIES: [(&str, std::net::IpAddr); 2] = [("IPv4", NAT4), ("IPv6", NAT6)];
