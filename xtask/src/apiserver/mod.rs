//! A real API server (etcd, kube-apiserver) on the topology's switch, where every node can reach it.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::setup::{self, packages};
use crate::shell::{Cmd, Said, cmd};
use crate::topology::Topology;
use crate::topology::layout::Host;
use crate::{interrupt, paths, programs, progress};

/// The switch's address on the way to t22; routed from everywhere.
const ADDRESS: &str = "172.17.2.1";
const PORT: u16 = 6443;
/// How long it may take to be ready.
const LIMIT: Duration = Duration::from_secs(120);

/// Who may ask. (Tokens of a test's own server, which nobody else can reach.)
#[derive(Clone, Copy, Debug)]
pub(crate) enum User {
    /// May do everything.
    Admin,
    /// May do what an agent may.
    Agent,
}

impl User {
    const fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Agent => "guenon-agent",
        }
    }
}

/// Where its programs are.
struct Binaries {
    apiserver: PathBuf,
    kubectl: PathBuf,
}

/// A running server. Its processes end with the topology.
pub(crate) struct ApiServer {
    binaries: Binaries,
    dir: PathBuf,
    netns: String,
    process: Child,
}

impl ApiServer {
    /// Starts one, with the definitions of deploy/crds and an agent's rights.
    pub(crate) fn start(topology: &mut Topology) -> Result<Self> {
        let server = Self::bare(topology)?;
        server.define()?;
        server.allow(true)?;
        Ok(server)
    }

    /// Starts one that knows nothing of Guenon.
    pub(crate) fn bare(topology: &mut Topology) -> Result<Self> {
        setup::programs(&[packages::API])?;
        let [etcd, server, kubectl] = programs::find([&programs::ETCD, &programs::APISERVER, &programs::KUBECTL])?;
        let binaries = Binaries { apiserver: server, kubectl };
        progress::step("starting etcd and kube-apiserver on the switch");
        let dir = topology.dir().join("apiserver");
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        cmd("openssl").args(["genrsa", "-out", "sa.key", "2048"]).dir(&dir).run()?;
        let tokens = "admin-token,admin,1,system:masters\nagent-token,guenon-agent,2\n";
        std::fs::write(dir.join("tokens.csv"), tokens).context("cannot write tokens")?;
        let netns = topology.netns(Host::Switch);
        let etcd = cmd(&etcd)
            .args(["--listen-client-urls", "http://127.0.0.1:2379", "--advertise-client-urls", "http://127.0.0.1:2379"])
            .args(["--listen-peer-urls", "http://127.0.0.1:2380", "--unsafe-no-fsync", "--data-dir"])
            .arg(dir.join("etcd"))
            .netns(&netns);
        topology.start(etcd, "etcd")?;
        let process = topology.start(apiserver(&binaries, &dir, &netns), "kube-apiserver")?;
        let server = Self { binaries, dir, netns, process };
        for user in [User::Admin, User::Agent] {
            std::fs::write(server.kubeconfig(user), server.config_of(user)).context("cannot write a kubeconfig")?;
        }
        server.wait()?;
        Ok(server)
    }

    /// The definitions of deploy/crds.
    pub(crate) fn define(&self) -> Result<()> {
        self.kubectl(&["apply", "-f"]).arg(paths::root().join("deploy/crds")).run()?;
        ["virtualservices.guenon.dev", "guenonnodes.guenon.dev"].iter().try_for_each(|name| self.established(name))
    }

    /// Waits until the server serves a definition.
    pub(crate) fn established(&self, definition: &str) -> Result<()> {
        self.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", &format!("crd/{definition}")]).run()
    }

    /// `kubectl ...` as somebody who may do everything.
    pub(crate) fn kubectl(&self, args: &[&str]) -> Cmd {
        cmd(&self.binaries.kubectl)
            .arg("--kubeconfig")
            .arg(self.kubeconfig(User::Admin))
            .args(args)
            .netns(&self.netns)
            .limit(LIMIT)
    }

    /// What the server says of these objects; nothing is stored.
    pub(crate) fn dry_run(&self, objects: &str) -> Result<Said> {
        self.kubectl(&["create", "--dry-run=server", "-f", "-"]).input(objects).try_read()
    }

    /// `kubectl apply -f -` of these objects.
    pub(crate) fn apply(&self, objects: &str) -> Result<()> {
        self.kubectl(&["apply", "-f", "-"]).input(objects).run()
    }

    /// How somebody reaches the server.
    pub(crate) fn kubeconfig(&self, user: User) -> PathBuf {
        self.dir.join(format!("{}.kubeconfig", user.name()))
    }

    /// Gives the agents their rights, or takes away that to nodes.
    pub(crate) fn allow(&self, nodes: bool) -> Result<()> {
        let core = if nodes { "[services, endpoints, nodes]" } else { "[services, endpoints]" };
        self.apply(&format!(
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {{name: guenon-agent}}\nrules:\n\
             - {{apiGroups: [guenon.dev], resources: [virtualservices], verbs: [list, watch]}}\n\
             - {{apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}}\n\
             - {{apiGroups: [\"\"], resources: {core}, verbs: [list, watch]}}\n---\n\
             apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {{name: guenon-agent}}\n\
             roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: guenon-agent}}\n\
             subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: guenon-agent}}]\n"
        ))
    }

    /// Ends the server; what it stored stays.
    pub(crate) fn stop(&mut self) -> Result<()> {
        self.process.kill().and_then(|()| self.process.wait()).context("cannot end kube-apiserver").map(drop)
    }

    /// Starts it again.
    pub(crate) fn restart(&mut self, topology: &mut Topology) -> Result<()> {
        self.process = topology.start(apiserver(&self.binaries, &self.dir, &self.netns), "kube-apiserver")?;
        self.wait()
    }

    fn wait(&self) -> Result<()> {
        let begin = Instant::now();
        loop {
            interrupt::check()?;
            let said = self.kubectl(&["get", "--raw", "/readyz"]).try_read()?;
            if said.status.success() {
                return Ok(());
            }
            if begin.elapsed() > LIMIT {
                bail!("the API server is not ready after {} s: {}", LIMIT.as_secs(), said.stderr.trim());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Where it is, and the certificate that it can be known by.
    pub(crate) fn url(&self) -> (String, PathBuf) {
        (format!("https://{ADDRESS}:{PORT}"), self.dir.join("certs/apiserver.crt"))
    }

    fn config_of(&self, user: User) -> String {
        let token = match user {
            User::Admin => "admin-token",
            User::Agent => "agent-token",
        };
        let (url, authority) = self.url();
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             clusters: [{{name: c, cluster: {{server: \"{url}\", certificate-authority: {}}}}}]\n\
             users: [{{name: u, user: {{token: {token}}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n",
            authority.display()
        )
    }
}

fn apiserver(binaries: &Binaries, dir: &Path, netns: &str) -> Cmd {
    cmd(&binaries.apiserver)
        .args(["--etcd-servers=http://127.0.0.1:2379", "--authorization-mode=RBAC", "--allow-privileged=true"])
        .args([&format!("--secure-port={PORT}"), &format!("--advertise-address={ADDRESS}")])
        .args(["--bind-address=0.0.0.0", "--service-cluster-ip-range=10.96.0.0/16"])
        .args(["--service-account-issuer=https://kubernetes.default.svc"])
        .args(["--service-account-key-file=sa.key", "--service-account-signing-key-file=sa.key"])
        .args(["--token-auth-file=tokens.csv", "--cert-dir=certs"])
        .dir(dir)
        .netns(netns)
}
