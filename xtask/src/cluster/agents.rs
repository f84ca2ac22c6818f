//! The agents' pods and processes.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::guenon::NAMESPACE;
use super::layout::Node;
use super::{Cluster, eventually};
use crate::topology::metrics::{Sample, parse};
use crate::topology::{client, netns};

/// How long an agent may take to be ready again; kubelet waits before it starts a container again that has ended.
const LIMIT: Duration = Duration::from_secs(120);
/// Where agents' metrics are, on each node's address.
const METRICS: u16 = 9478;
/// Bits of capabilities(7): NET_ADMIN, PERFMON and BPF.
const CAPABILITIES: u64 = 1 << 12 | 1 << 38 | 1 << 39;

impl Cluster {
    /// What a node's agent exports now.
    pub(super) fn metrics(&self, node: Node) -> Result<Vec<Sample>> {
        let server = (node.address(), METRICS).into();
        let reply = client::get(&self.control_netns(), server, "/metrics")?;
        ensure!(reply.status == 200, "/metrics of {} answered {}", node.name(), reply.status);
        parse(&reply.text())
    }

    /// Waits until every agent is ready.
    pub(super) fn agents_ready(&self) -> Result<()> {
        eventually(LIMIT, || {
            for node in Node::ALL {
                let server = (node.address(), METRICS).into();
                let reply = client::try_get(&self.control_netns(), server, "/readyz", Duration::from_secs(2))?;
                ensure!(reply.status == 200, "/readyz of {}: {} {}", node.name(), reply.status, reply.text().trim());
            }
            Ok(())
        })?;
        self.kubectl(&["--namespace", NAMESPACE, "rollout", "status", "--timeout=120s", "daemonset/guenon-agent"]).run()
    }

    /// The image of each agent's pod, by node.
    pub(super) fn agent_images(&self) -> Result<BTreeMap<String, String>> {
        let path = "jsonpath={range .items[*]}{.spec.nodeName} {.spec.containers[0].image}{\"\\n\"}{end}";
        let said =
            self.kubectl(&["--namespace", NAMESPACE, "get", "pods", "-o", path]).args(["--selector", AGENTS]).read()?;
        Ok(said.lines().filter_map(|line| line.split_once(' ')).map(|(n, i)| (n.to_owned(), i.to_owned())).collect())
    }

    /// Kills the process of a node's agent; kubelet starts another in the same pod.
    pub(super) fn kill_agent(&self, node: Node) -> Result<()> {
        let pid = self.agent_process(node)?;
        kill(Pid::from_raw(pid), Signal::SIGKILL).with_context(|| format!("cannot kill the agent of {}", node.name()))
    }

    /// An error unless agents have the chart's capabilities and no more.
    pub(super) fn agents_have_no_more_rights(&self) -> Result<()> {
        for node in Node::ALL {
            let pid = self.agent_process(node)?;
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("an agent has ended")?;
            for set in ["CapEff:", "CapPrm:", "CapBnd:"] {
                let found = status.lines().find_map(|line| line.strip_prefix(set)).context("no capabilities")?.trim();
                let found = u64::from_str_radix(found, 16).with_context(|| format!("{set} {found}"))?;
                ensure!(
                    found == CAPABILITIES,
                    "{set} of the agent of {} is {found:x}, not {CAPABILITIES:x}",
                    node.name()
                );
            }
        }
        Ok(())
    }

    /// The pid, as we see it: the process called `guenon` that is in the node's network namespace.
    fn agent_process(&self, node: Node) -> Result<i32> {
        let wanted = std::fs::metadata(Path::new(netns::DIR).join(self.node_netns(node))).context("no such node")?;
        let mut processes = std::fs::read_dir("/proc").context("cannot read /proc")?.filter_map(Result::ok);
        processes
            .find_map(|process| {
                let pid = process.file_name().to_str()?.parse::<i32>().ok()?;
                let name = std::fs::read_to_string(process.path().join("comm")).ok()?;
                let inside = std::fs::metadata(process.path().join("ns/net")).ok()?;
                (name.trim() == "guenon" && inside.ino() == wanted.ino()).then_some(pid)
            })
            .with_context(|| format!("no agent runs on {}", node.name()))
    }
}

/// Their pods.
pub(super) const AGENTS: &str = "app.kubernetes.io/name=guenon,app.kubernetes.io/component=agent";
