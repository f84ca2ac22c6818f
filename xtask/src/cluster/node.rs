//! A node, seen from outside: a process whose namespaces hold a containerd, a kubelet and a kube-proxy.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::keys::Who;
use super::layout::Node;
use super::{Cluster, settings, wiring};
use crate::interrupt;
use crate::shell::{Cmd, cmd};
use crate::topology::{cgroup, netns};

/// How long a node's first process may take to be there.
const LIMIT: Duration = Duration::from_secs(20);

/// Where the programs of a node are.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Programs {
    pub(super) containerd: PathBuf,
    pub(super) shim: PathBuf,
    pub(super) ctr: PathBuf,
    pub(super) kubelet: PathBuf,
    pub(super) proxy: PathBuf,
    pub(super) runc: PathBuf,
}

/// What a node's first process is told, in a file.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Spec {
    pub(super) name: String,
    pub(super) address: String,
    pub(super) cgroup: String,
    /// The cluster's directory, which the node sees too.
    pub(super) shared: PathBuf,
    /// The node's own, with its configuration, images, pods and logs.
    pub(super) own: PathBuf,
    pub(super) kubeconfig: PathBuf,
    /// Archives to import.
    pub(super) images: Vec<PathBuf>,
    pub(super) programs: Programs,
}

impl Cluster {
    /// Wires a node and starts it.
    pub(crate) fn start_node(&mut self, node: Node) -> Result<()> {
        let netns = self.node_netns(node);
        self.record.namespace(&netns)?;
        netns::add(&netns)?;
        wiring::node(self, node, &self.record.pins())?;
        let group = self.cgroup(node);
        self.record.cgroup(&group)?;
        cgroup::add(&group)?;
        let own = self.dir.join(node.name());
        let spec = Spec {
            name: node.name().to_owned(),
            address: node.address().to_string(),
            cgroup: group,
            shared: self.dir.clone(),
            own: own.clone(),
            kubeconfig: self.keys.kubeconfig(Who::Kubelet(node)),
            images: self.images.clone(),
            programs: self.programs.node.clone(),
        };
        settings::write(&spec, node, &self.keys)?;
        let file = own.join("spec.json");
        std::fs::write(&file, serde_json::to_vec_pretty(&spec)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
        let first = self.first_process(node);
        if first.exists() {
            std::fs::remove_file(&first).with_context(|| format!("cannot remove {}", first.display()))?;
        }
        let itself = std::env::current_exe().context("cannot tell where xtask itself is")?;
        let command = cmd(itself).arg("node").arg(&file).without_env("GOFLAGS").netns(&netns);
        let mut child = command.background(&self.log(node.name()))?;
        self.record.process(child.id())?;
        let begin = Instant::now();
        while !first.exists() {
            interrupt::check()?;
            if let Some(status) = child.try_wait().context("cannot wait for a node")? {
                bail!("node {} ended ({status}): {}", node.name(), self.log_tail(node.name()));
            }
            if begin.elapsed() > LIMIT {
                bail!("node {} does not start: {}", node.name(), self.log_tail(node.name()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.nodes.insert(node, child);
        Ok(())
    }

    /// Ends a node as a power cut would: all its processes at once, and its network with them. Its disk stays.
    pub(crate) fn kill_node(&mut self, node: Node) -> Result<()> {
        let mut child = self.nodes.remove(&node).with_context(|| format!("node {} does not run", node.name()))?;
        // Its network first, so that no process says good-bye.
        cmd("ip").args(["-n", &self.control_netns(), "link", "del", &node.port()]).run()?;
        child.kill().and_then(|()| child.wait()).with_context(|| format!("cannot end node {}", node.name()))?;
        cgroup::remove(&self.cgroup(node))?;
        netns::remove(&self.node_netns(node))
    }

    /// A command on a node, in all of its namespaces.
    pub(crate) fn on(&self, node: Node, program: impl AsRef<Path>) -> Result<Cmd> {
        let file = self.first_process(node);
        let pid = std::fs::read_to_string(&file).with_context(|| format!("node {} does not run", node.name()))?;
        Ok(cmd("nsenter").args(["-t", pid.trim(), "-m", "-n", "-u", "-i", "-p", "-C"]).arg(program.as_ref()))
    }

    /// Where a node's outermost process writes which pid its first process has.
    pub(super) fn first_process(&self, node: Node) -> PathBuf {
        self.dir.join(node.name()).join("pid")
    }

    fn cgroup(&self, node: Node) -> String {
        format!("{}{}", self.prefix(), node.name())
    }
}
