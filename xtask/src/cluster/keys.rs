//! A certificate authority, certificates and kubeconfigs of everybody who talks to the API server.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::layout::{API_PORT, CONTROL, Node, SERVICE};
use crate::shell::{Cmd, cmd};

/// Somebody with a certificate and a kubeconfig.
#[derive(Clone, Copy, Debug)]
pub(super) enum Who {
    /// May do everything.
    Admin,
    ControllerManager,
    Scheduler,
    Proxy,
    Kubelet(Node),
}

impl Who {
    const ALL: [Self; 7] = [
        Self::Admin,
        Self::ControllerManager,
        Self::Scheduler,
        Self::Proxy,
        Self::Kubelet(Node::N1),
        Self::Kubelet(Node::N2),
        Self::Kubelet(Node::N3),
    ];

    const fn file(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::ControllerManager => "controller-manager",
            Self::Scheduler => "scheduler",
            Self::Proxy => "proxy",
            Self::Kubelet(node) => node.name(),
        }
    }

    /// What Kubernetes' own roles know them by.
    fn subject(self) -> String {
        match self {
            Self::Admin => "/O=system:masters/CN=admin".to_owned(),
            Self::ControllerManager => "/CN=system:kube-controller-manager".to_owned(),
            Self::Scheduler => "/CN=system:kube-scheduler".to_owned(),
            Self::Proxy => "/CN=system:kube-proxy".to_owned(),
            Self::Kubelet(node) => format!("/O=system:nodes/CN=system:node:{}", node.name()),
        }
    }
}

/// A directory with all of them.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    dir: PathBuf,
}

impl Keys {
    /// Makes them.
    pub(super) fn make(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let keys = Self { dir: dir.to_owned() };
        keys.openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj /CN=guenon-cluster",
        )
        .args(["-keyout", "ca.key", "-out", "ca.crt"])
        .run()?;
        keys.openssl("genrsa -out sa.key 2048").run()?;
        keys.openssl("rsa -in sa.key -pubout -out sa.pub").run()?;
        let names = format!(
            "extendedKeyUsage=serverAuth\nsubjectAltName=DNS:kubernetes,DNS:kubernetes.default,\
             DNS:kubernetes.default.svc,IP:{SERVICE},IP:{CONTROL},IP:127.0.0.1\n"
        );
        keys.certificate("apiserver", "/CN=kube-apiserver", &names)?;
        keys.certificate("apiserver-kubelet", "/O=system:masters/CN=kube-apiserver-kubelet", CLIENT)?;
        for who in Who::ALL {
            keys.certificate(who.file(), &who.subject(), CLIENT)?;
            std::fs::write(keys.kubeconfig(who), keys.config(who)).context("cannot write a kubeconfig")?;
        }
        Ok(keys)
    }

    /// How somebody reaches the API server.
    pub(super) fn kubeconfig(&self, who: Who) -> PathBuf {
        self.file(&format!("{}.kubeconfig", who.file()))
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn certificate(&self, name: &str, subject: &str, extensions: &str) -> Result<()> {
        let [key, request, certificate, ext] = ["key", "csr", "crt", "ext"].map(|kind| format!("{name}.{kind}"));
        std::fs::write(self.file(&ext), extensions).context("cannot write a certificate's extensions")?;
        self.openssl("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes")
            .args(["-subj", subject, "-keyout", &key, "-out", &request])
            .run()?;
        self.openssl("x509 -req -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650")
            .args(["-in", &request, "-out", &certificate, "-extfile", &ext])
            .run()
    }

    fn openssl(&self, line: &str) -> Cmd {
        cmd("openssl").args(line.split(' ')).dir(&self.dir)
    }

    fn config(&self, who: Who) -> String {
        let [authority, certificate, key] =
            ["ca.crt".to_owned(), format!("{}.crt", who.file()), format!("{}.key", who.file())]
                .map(|name| self.file(&name).display().to_string());
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             clusters: [{{name: c, cluster: {{server: \"https://{CONTROL}:{API_PORT}\", \
             certificate-authority: {authority}}}}}]\n\
             users: [{{name: u, user: {{client-certificate: {certificate}, client-key: {key}}}}}]\n\
             contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n"
        )
    }
}

const CLIENT: &str = "extendedKeyUsage=clientAuth\n";
