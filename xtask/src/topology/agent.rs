//! `guenon agent` on the topology's nodes.

use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::layout::{Host, METRICS, addresses};
use super::{Topology, client};
use crate::apiserver::HASH_KEY;
use crate::chart::NAMESPACE;
use crate::interrupt;
use crate::shell::{Cmd, cmd};

/// How long an agent may take until its first revision is in force. In an emulated guest the kernel's verifier alone
/// takes half a minute.
const READY_LIMIT: Duration = Duration::from_secs(180);

impl Topology {
    /// Starts the agent of a node. With manifests directors are told, so that no Node is needed.
    pub(crate) fn start_agent(&mut self, host: Host) -> Result<()> {
        let mut command = self.guenon(host, "agent").arg("--state-dir").arg(self.state_dir(host)).args([
            "--interface",
            "eth0",
            "--node",
            host.name(),
            "--listen",
            self.plan.listen,
            "--metrics-detail",
            self.plan.metrics_detail,
            "--max-flows",
            &self.plan.max_flows.to_string(),
        ]);
        if let Some(kubeconfig) = self.plan.kubeconfigs.get(&host) {
            command = command.arg("--kubeconfig").arg(kubeconfig);
            command = command.args(["--namespace", NAMESPACE, "--hash-key-secret", HASH_KEY]);
            command = command.args(["--director-selector", self.plan.director_selector]);
        } else {
            command = command.arg("--manifests").arg(self.manifests());
            for director in addresses(Host::T22) {
                command = command.args(["--director", &director.to_string()]);
            }
        }
        let agent = self.start(command, &format!("agent-{}", host.name()))?;
        self.agents.insert(host, agent);
        Ok(())
    }

    /// The running agent of a node, to be ended by whoever takes it.
    pub(crate) fn agent(&mut self, host: Host) -> Result<Child> {
        self.agents.remove(&host).with_context(|| format!("no agent runs on {}", host.name()))
    }

    /// `guenon SUBCOMMAND` on a node, on that node's pins.
    pub(crate) fn guenon(&self, host: Host, subcommand: &str) -> Cmd {
        cmd(&self.plan.guenon)
            .arg(subcommand)
            .arg("--pin-dir")
            .arg(self.pins().join(host.name()))
            .netns(&self.netns(host))
    }

    /// Where a node's agent keeps what it must undo.
    pub(crate) fn state_dir(&self, host: Host) -> std::path::PathBuf {
        self.dir().join("state").join(host.name())
    }

    /// Waits until a node's agent says that its first revision is in force.
    pub(crate) fn wait_ready(&mut self, host: Host) -> Result<()> {
        let begin = Instant::now();
        let mut last = String::new();
        while begin.elapsed() < READY_LIMIT {
            interrupt::check()?;
            let agent = self.agents.get_mut(&host).with_context(|| format!("no agent runs on {}", host.name()))?;
            if let Some(status) = agent.try_wait().context("cannot wait for an agent")? {
                bail!("the agent of {} ended ({status}):\n{}", host.name(), self.log_tail(host));
            }
            match client::get(&self.netns(host), METRICS.parse()?, "/readyz") {
                Ok(reply) if reply.status == 200 => return Ok(()),
                Ok(reply) => last = format!("/readyz says {}: {}", reply.status, reply.text().trim()),
                Err(error) => last = format!("{error:#}"),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!(
            "the agent of {} is not ready after {} s ({last}):\n{}",
            host.name(),
            READY_LIMIT.as_secs(),
            self.log_tail(host)
        )
    }

    /// All of an agent's log.
    pub(crate) fn agent_log(&self, host: Host) -> Result<String> {
        let file = self.log(&format!("agent-{}", host.name()));
        std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
    }

    /// The last lines of an agent's log.
    pub(crate) fn log_tail(&self, host: Host) -> String {
        let text = self.agent_log(host).unwrap_or_else(|error| format!("{error:#}"));
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }
}
