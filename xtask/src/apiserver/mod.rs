//! A real API server (etcd, kube-apiserver) on the topology's switch, where every node can reach it.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::chart::NAMESPACE;
use crate::setup::{self, packages};
use crate::shell::{Cmd, Said, cmd};
use crate::topology::Topology;
use crate::topology::layout::{Host, addresses};
use crate::{chart, interrupt, paths, programs, progress};

/// The switch's address on the way to t22; routed from everywhere.
const ADDRESS: &str = "172.17.2.1";
const PORT: u16 = 6443;
const ADMIN_TOKEN: &str = "admin-token";
/// Every request once, when it is answered (a watch: when it begins), without its content.
const AUDIT: &str =
    "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata}]\n";
/// How long it may take to be ready.
const LIMIT: Duration = Duration::from_secs(120);

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum User {
    /// May do everything. (A token of a test's own server, which nobody else can reach.)
    Admin,
    /// The agent of a node, as the chart has it.
    Agent(Host),
    /// The controller, as the chart has it.
    Controller,
}

impl User {
    fn name(self) -> String {
        match self {
            Self::Admin => "admin".to_owned(),
            Self::Agent(host) => format!("agent-{}", host.name()),
            Self::Controller => "controller".to_owned(),
        }
    }
}

/// The Secret with the hash key, as the chart calls it.
pub(crate) const HASH_KEY: &str = "guenon-hash-key";

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
    /// Starts one, with all that the chart renders (of which nobody runs the pods here) and a Node object for each node; agents
    /// and controllers have the chart's rights.
    pub(crate) fn start(topology: &mut Topology) -> Result<Self> {
        let server = Self::bare(topology)?;
        server.define()?;
        server.apply(&format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n"))?;
        server.allow()?;
        for host in Host::NODES {
            let object = format!("apiVersion: v1\nkind: Node\nmetadata: {{name: {}}}\n", host.name());
            server.kubectl(&["create", "-f", "-"]).input(object).run()?;
            server.write_config(User::Agent(host), &server.token("guenon-agent", Some(host))?)?;
        }
        server.write_config(User::Controller, &server.token("guenon-controller", None)?)?;
        Ok(server)
    }

    /// Gives agents and controllers the rights of the chart.
    pub(crate) fn allow(&self) -> Result<()> {
        let rights = ["agent-rbac", "controller-rbac", "admission-policy"];
        self.apply(&chart::render(&rights.map(|name| format!("templates/{name}.yaml")))?)
    }

    /// Takes those of agents away.
    pub(crate) fn forbid(&self) -> Result<()> {
        self.kubectl(&["delete", "clusterrolebinding", "guenon-agent"]).run()
    }

    /// A token of a service account; bound to a node, as that of a pod there.
    fn token(&self, account: &str, host: Option<Host>) -> Result<String> {
        let mut args = vec!["-n", NAMESPACE, "create", "token", account];
        if let Some(host) = host {
            args.extend(["--bound-object-kind", "Node", "--bound-object-name", host.name()]);
        }
        Ok(self.kubectl(&args).read()?.trim().to_owned())
    }

    /// Starts one that knows nothing of Guenon.
    pub(crate) fn bare(topology: &mut Topology) -> Result<Self> {
        setup::programs(&[packages::API])?;
        let [server, kubectl] = programs::find([&programs::APISERVER, &programs::KUBECTL])?;
        let etcd = if topology.plan.old_etcd {
            setup::unpacked::program("etcd-server", "etcd")?
        } else {
            let [etcd] = programs::find([&programs::ETCD])?;
            etcd
        };
        let binaries = Binaries { apiserver: server, kubectl };
        progress::step("starting etcd and kube-apiserver on the switch");
        let dir = topology.dir().join("apiserver");
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        cmd("openssl").args(["genrsa", "-out", "sa.key", "2048"]).dir(&dir).run()?;
        let tokens = format!("{ADMIN_TOKEN},admin,1,system:masters\n");
        std::fs::write(dir.join("tokens.csv"), tokens).context("cannot write tokens")?;
        std::fs::write(dir.join("audit.yaml"), AUDIT).context("cannot write the audit policy")?;
        let netns = topology.netns(Host::Switch);
        let etcd = cmd(&etcd)
            .args(["--listen-client-urls", "http://127.0.0.1:2379", "--advertise-client-urls", "http://127.0.0.1:2379"])
            .args(["--listen-peer-urls", "http://127.0.0.1:2380", "--unsafe-no-fsync", "--data-dir"])
            .arg(dir.join("etcd"))
            .netns(&netns);
        topology.start(etcd, "etcd")?;
        let process = topology.start(apiserver(&binaries, &dir, &netns), "kube-apiserver")?;
        let server = Self { binaries, dir, netns, process };
        server.write_config(User::Admin, ADMIN_TOKEN)?;
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

    /// What was asked for, by whom and with which answer: the audit log, an event a line.
    pub(crate) fn audit_log(&self) -> Result<String> {
        std::fs::read_to_string(self.audit_file()).context("cannot read the audit log")
    }

    /// The file of it.
    pub(crate) fn audit_file(&self) -> PathBuf {
        self.dir.join("audit.log")
    }

    /// A node's addresses, as its kubelet would tell them.
    pub(crate) fn tell_addresses(&self, host: Host) -> Result<()> {
        let addresses: Vec<String> =
            addresses(host).map(|address| format!("{{\"type\":\"InternalIP\",\"address\":\"{address}\"}}")).collect();
        let patch = format!("{{\"status\":{{\"addresses\":[{}]}}}}", addresses.join(","));
        self.kubectl(&["patch", "node", host.name(), "--subresource=status", "--type=merge", "-p", &patch]).run()
    }

    fn write_config(&self, user: User, token: &str) -> Result<()> {
        self.write_token(user, token)?;
        std::fs::write(self.kubeconfig(user), self.config(user)).context("cannot write a kubeconfig")
    }

    /// What somebody shows from now on.
    pub(crate) fn write_token(&self, user: User, token: &str) -> Result<()> {
        std::fs::write(self.token_file(user), token).context("cannot write a token")
    }

    /// The file with somebody's token.
    pub(crate) fn token_file(&self, user: User) -> PathBuf {
        self.dir.join(format!("{}.token", user.name()))
    }

    /// Forgets the server's certificate while it is down: it makes itself another, from nobody known.
    pub(crate) fn forget_certificate(&self) -> Result<()> {
        std::fs::remove_dir_all(self.dir.join("certs")).context("cannot remove the server's certificate")
    }

    fn config(&self, user: User) -> String {
        let (url, authority) = self.url();
        let shown = match user {
            // `kubectl --token` is somebody else; a file would go before it.
            User::Admin => format!("token: {ADMIN_TOKEN}"),
            User::Agent(_) | User::Controller => format!("tokenFile: {}", self.token_file(user).display()),
        };
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             clusters: [{{name: c, cluster: {{server: \"{url}\", certificate-authority: {}}}}}]\n\
             users: [{{name: u, user: {{{}}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n",
            authority.display(),
            shown,
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
        .args(["--audit-policy-file=audit.yaml", "--audit-log-path=audit.log", "--audit-log-maxsize=4000"])
        .dir(dir)
        .netns(netns)
}
