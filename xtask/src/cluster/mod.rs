//! `cargo xtask cluster`: a real Kubernetes cluster of three nodes in namespaces of this machine, with Guenon in it.

mod agents;
mod control;
mod guenon;
mod image;
pub(crate) mod inside;
mod keys;
mod layout;
mod ledger;
mod load;
mod node;
pub(crate) mod pause;
pub(crate) mod scenarios;
mod settings;
mod traces;
mod traffic;
mod wiring;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::setup::{self, packages};
use crate::shell::{Cmd, cmd};
use crate::topology::netns;
use crate::topology::record::Record;
use crate::{demo, interrupt, programs, progress};
use control::Part;
use keys::{Keys, Who};
use layout::Node;

const NAME: &str = "cluster";
/// How long nodes may take to be ready; the machine may be slow.
const LIMIT: Duration = Duration::from_secs(180);

/// Brings it up, with Guenon and an example; asks, shows, removes.
pub(crate) fn run(keep: bool) -> Result<()> {
    setup::root("cluster")?;
    let mut cluster = Cluster::up(NAME)?;
    let verdict = cluster.install().and_then(|()| cluster.example("deployment.yaml")).and_then(|()| {
        let answers = traffic::send(&cluster)?;
        println!("{}", answers.show());
        println!("{}", cluster.show()?);
        answers.judge()
    });
    if keep {
        cluster.keep()?;
        println!("{}", cluster.what_to_try());
        return verdict;
    }
    if verdict.is_err() {
        cluster.complain();
    }
    progress::step("removing everything");
    let removed = cluster.remove();
    verdict.and(removed)
}

/// `--clean`: removes it, whatever state it is in.
pub(crate) fn clean() -> Result<()> {
    demo::clean_those(|name| name.starts_with(NAME))
}

/// Where the programs are.
#[derive(Debug)]
struct Programs {
    kubectl: PathBuf,
    helm: PathBuf,
    control: control::Programs,
    node: node::Programs,
}

/// A cluster that is there. Dropping it removes it, unless it is kept.
pub(crate) struct Cluster {
    name: String,
    record: Record,
    /// Keys, configuration, data and logs.
    dir: PathBuf,
    programs: Programs,
    keys: Keys,
    images: Vec<PathBuf>,
    parts: BTreeMap<Part, Child>,
    nodes: BTreeMap<Node, Child>,
    /// What nodes were like before Guenon was installed.
    before: BTreeMap<Node, traces::Traces>,
    kept: bool,
}

impl Cluster {
    /// Builds what is missing and brings up the control plane and all nodes, until they are ready.
    pub(crate) fn up(name: &str) -> Result<Self> {
        setup::programs(&[packages::DEMO, packages::CLUSTER])?;
        let programs = Programs::find()?;
        let mut record = Record::begin(name)?;
        let dir = record.data()?;
        let pins = record.pins();
        std::fs::create_dir_all(&pins).with_context(|| format!("cannot create {}", pins.display()))?;
        let (parts, nodes, before) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let keys = Keys::make(&dir.join("keys"))?;
        let name = name.to_owned();
        let mut cluster =
            Self { name, record, dir, programs, keys, images: Vec::new(), parts, nodes, before, kept: false };
        cluster.images = image::make(&cluster.dir.join("images"))?;
        cluster.begin()?;
        Ok(cluster)
    }

    fn begin(&mut self) -> Result<()> {
        progress::step("starting etcd, kube-apiserver, kube-controller-manager, kube-scheduler");
        for netns in [self.control_netns(), self.client_netns()] {
            self.record.namespace(&netns)?;
            netns::add(&netns)?;
        }
        wiring::lay(self)?;
        for part in Part::ALL {
            self.start_part(part)?;
        }
        progress::step("starting nodes n1, n2, n3: containerd, kubelet, kube-proxy each");
        for node in Node::ALL {
            self.start_node(node)?;
        }
        self.wait_for_nodes()?;
        let (directors, endpoints) = (Node::DIRECTORS.map(Node::name), Node::ENDPOINTS.map(Node::name));
        self.kubectl(&["label", "node"]).args(directors).arg(layout::DIRECTOR).run()?;
        self.kubectl(&["label", "node"]).args(endpoints).arg(layout::RUNS_ECHO).run()
    }

    /// Waits until every node that runs is ready.
    pub(crate) fn wait_for_nodes(&self) -> Result<()> {
        let names: Vec<&str> = self.nodes.keys().map(|node| node.name()).collect();
        eventually(LIMIT, || {
            let path = "jsonpath={range .items[*]}{.metadata.name} {.status.conditions[?(@.type==\"Ready\")].status}{\"\\n\"}{end}";
            let said = self.kubectl(&["get", "nodes", "-o", path]).read()?;
            let ready = |name: &&str| said.lines().any(|line| line == format!("{name} True"));
            if names.iter().all(ready) { Ok(()) } else { bail!("not every node is ready:\n{said}") }
        })
        .with_context(|| {
            let logs: Vec<String> =
                names.iter().map(|name| format!("--- kubelet of {name}\n{}", self.node_log_tail(name, "kubelet"))).collect();
            logs.join("\n")
        })
    }

    /// `kubectl ...` as somebody who may do everything.
    pub(crate) fn kubectl(&self, args: &[&str]) -> Cmd {
        cmd(&self.programs.kubectl)
            .arg("--kubeconfig")
            .arg(self.keys.kubeconfig(Who::Admin))
            .args(args)
            .netns(&self.control_netns())
            .limit(LIMIT)
    }

    /// `helm ...` likewise.
    pub(crate) fn helm(&self, args: &[&str]) -> Cmd {
        cmd(&self.programs.helm)
            .arg("--kubeconfig")
            .arg(self.keys.kubeconfig(Who::Admin))
            .args(args)
            // Its caches and settings are not those of who runs this.
            .env("HELM_CACHE_HOME", self.dir.join("helm"))
            .env("HELM_CONFIG_HOME", self.dir.join("helm"))
            .env("HELM_DATA_HOME", self.dir.join("helm"))
            .netns(&self.control_netns())
            .limit(LIMIT * 2)
    }

    fn prefix(&self) -> String {
        format!("{}-", self.name)
    }

    fn control_netns(&self) -> String {
        format!("{}control", self.prefix())
    }

    /// Where clients are.
    pub(crate) fn client_netns(&self) -> String {
        format!("{}client", self.prefix())
    }

    /// Where a node's interfaces are.
    pub(crate) fn node_netns(&self, node: Node) -> String {
        format!("{}{}", self.prefix(), node.name())
    }

    fn log(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.log"))
    }

    fn log_tail(&self, name: &str) -> String {
        tail(&self.log(name))
    }

    fn node_log_tail(&self, node: &str, name: &str) -> String {
        tail(&self.dir.join(node).join(format!("{name}.log")))
    }

    /// Leaves it there when this value goes.
    fn keep(&mut self) -> Result<()> {
        self.kept = true;
        self.record.keep()
    }

    /// Removes it now, and says what could not be removed.
    pub(crate) fn remove(mut self) -> Result<()> {
        self.kept = true;
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        interrupt::forgive();
        // kube-apiserver first: asked to end without etcd, it waits for it.
        for child in self.parts.values_mut().rev().chain(self.nodes.values_mut()) {
            // One that has ended already is as good.
            let _ = child.kill().and_then(|()| child.wait());
        }
        self.record.clean()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = self.end()
        {
            eprintln!("not everything could be removed: {error:#}\n`cargo xtask cluster --clean` tries again");
        }
    }
}

impl Programs {
    fn find() -> Result<Self> {
        let [etcd, apiserver, controller_manager, scheduler, kubectl, helm] = programs::find([
            &programs::ETCD,
            &programs::APISERVER,
            &programs::CONTROLLER_MANAGER,
            &programs::SCHEDULER,
            &programs::KUBECTL,
            &programs::HELM,
        ])?;
        let [kubelet, proxy, containerd, shim, ctr] = programs::find([
            &programs::KUBELET,
            &programs::PROXY,
            &programs::CONTAINERD,
            &programs::SHIM,
            &programs::CTR,
        ])?;
        let runc = crate::paths::which("runc").context("no runc")?;
        Ok(Self {
            kubectl,
            helm,
            control: control::Programs { etcd, apiserver, controller_manager, scheduler },
            node: node::Programs { containerd, shim, ctr, kubelet, proxy, runc },
        })
    }
}

/// Tries until it holds, or as long as that.
pub(crate) fn eventually<T>(limit: Duration, holds: impl Fn() -> Result<T>) -> Result<T> {
    let begin = Instant::now();
    loop {
        interrupt::check()?;
        match holds() {
            Ok(value) => return Ok(value),
            Err(error) if begin.elapsed() > limit => bail!("still after {} s: {error:#}", limit.as_secs()),
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}

fn tail(file: &std::path::Path) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| format!("{}: {error}", file.display()));
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(25)..].join("\n")
}
