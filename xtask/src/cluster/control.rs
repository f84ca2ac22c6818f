//! The control plane: etcd, kube-apiserver, kube-controller-manager, kube-scheduler.

use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::Cluster;
use super::keys::Who;
use super::layout::{API_PORT, CONTROL, SERVICES};
use crate::interrupt;
use crate::shell::{Cmd, cmd};

/// How long the API server may take to be ready.
const LIMIT: Duration = Duration::from_secs(120);

/// A process of the control plane, in the order of their starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Etcd,
    ApiServer,
    ControllerManager,
    Scheduler,
}

impl Part {
    pub(super) const ALL: [Self; 4] = [Self::Etcd, Self::ApiServer, Self::ControllerManager, Self::Scheduler];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
        }
    }
}

/// Where the programs are.
#[derive(Debug)]
pub(super) struct Programs {
    pub(super) etcd: PathBuf,
    pub(super) apiserver: PathBuf,
    pub(super) controller_manager: PathBuf,
    pub(super) scheduler: PathBuf,
}

impl Cluster {
    /// Starts a part; it is ready when this returns, if it is the API server.
    pub(crate) fn start_part(&mut self, part: Part) -> Result<()> {
        let command = self.command(part).netns(&self.control_netns());
        let child = command.background(&self.log(part.name()))?;
        self.record.process(child.id())?;
        self.parts.insert(part, child);
        if part == Part::ApiServer { self.wait_for_api() } else { Ok(()) }
    }

    /// Ends a part, as a crash would; what it stored stays.
    pub(crate) fn stop_part(&mut self, part: Part) -> Result<()> {
        let mut child: Child = self.parts.remove(&part).with_context(|| format!("no {} runs", part.name()))?;
        child.kill().and_then(|()| child.wait()).with_context(|| format!("cannot end {}", part.name())).map(drop)
    }

    fn command(&self, part: Part) -> Cmd {
        let (programs, dir) = (&self.programs.control, &self.dir);
        let key = |name: &str| self.keys.file(name).display().to_string();
        match part {
            Part::Etcd => cmd(&programs.etcd)
                .args(["--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379"])
                .args(["--listen-peer-urls=http://127.0.0.1:2380", "--unsafe-no-fsync", "--data-dir"])
                .arg(dir.join("etcd")),
            Part::ApiServer => cmd(&programs.apiserver)
                .args(["--etcd-servers=http://127.0.0.1:2379", "--authorization-mode=Node,RBAC"])
                .args(["--enable-admission-plugins=NodeRestriction", "--allow-privileged=true"])
                .args([format!("--bind-address={CONTROL}"), format!("--advertise-address={CONTROL}")])
                .args([format!("--secure-port={API_PORT}"), format!("--service-cluster-ip-range={SERVICES}")])
                .args(["--kubelet-preferred-address-types=InternalIP"])
                .args(["--service-account-issuer=https://kubernetes.default.svc.cluster.local"])
                .arg(format!("--service-account-key-file={}", key("sa.pub")))
                .arg(format!("--service-account-signing-key-file={}", key("sa.key")))
                .arg(format!("--client-ca-file={}", key("ca.crt")))
                .arg(format!("--tls-cert-file={}", key("apiserver.crt")))
                .arg(format!("--tls-private-key-file={}", key("apiserver.key")))
                .arg(format!("--kubelet-client-certificate={}", key("apiserver-kubelet.crt")))
                .arg(format!("--kubelet-client-key={}", key("apiserver-kubelet.key"))),
            Part::ControllerManager => self
                .follower(cmd(&programs.controller_manager), Who::ControllerManager)
                .arg(format!("--service-account-private-key-file={}", key("sa.key")))
                .arg(format!("--root-ca-file={}", key("ca.crt")))
                .arg(format!("--flex-volume-plugin-dir={}", dir.join("flex").display()))
                .args(["--use-service-account-credentials=true"])
                // A dead node is noticed sooner than by default (40 s).
                .args(["--node-monitor-period=2s", "--node-monitor-grace-period=16s"]),
            Part::Scheduler => self.follower(cmd(&programs.scheduler), Who::Scheduler),
        }
    }

    /// What the two that follow the API server are told alike.
    fn follower(&self, command: Cmd, who: Who) -> Cmd {
        let config = self.keys.kubeconfig(who).display().to_string();
        command
            .args([format!("--kubeconfig={config}"), format!("--authentication-kubeconfig={config}")])
            .args([format!("--authorization-kubeconfig={config}"), "--leader-elect=false".to_owned()])
            .args(["--bind-address=127.0.0.1".to_owned(), format!("--cert-dir={config}.certs")])
    }

    fn wait_for_api(&mut self) -> Result<()> {
        let begin = Instant::now();
        loop {
            interrupt::check()?;
            let said = self.kubectl(&["get", "--raw", "/readyz"]).try_read()?;
            if said.status.success() {
                return Ok(());
            }
            if let Some(server) = self.parts.get_mut(&Part::ApiServer)
                && let Some(status) = server.try_wait().context("cannot wait for kube-apiserver")?
            {
                bail!("kube-apiserver ended ({status}): {}", self.log_tail(Part::ApiServer.name()));
            }
            if begin.elapsed() > LIMIT {
                bail!("the API server is not ready after {} s: {}", LIMIT.as_secs(), said.stderr.trim());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}
