//! Guenon in the cluster, as docs/install says: namespace, chart, example.

use anyhow::{Context, Result};

use super::image::{GUENON, TAGS};
use super::layout::{DIRECTOR, Node, VIPS, http};
use super::traces::Traces;
use super::{Cluster, LIMIT};
use crate::{paths, progress};

/// Where Guenon is installed, and as which release.
pub(super) const NAMESPACE: &str = "guenon-system";
pub(super) const RELEASE: &str = "guenon";

/// Of a line of a log, so much is shown.
const WIDTH: usize = 400;

impl Cluster {
    /// Makes the namespace and installs the chart, until all its pods are ready.
    pub(crate) fn install(&mut self) -> Result<()> {
        for node in Node::ALL {
            self.before.insert(node, Traces::of(self, node)?);
        }
        progress::step("helm install guenon deploy/helm/guenon -n guenon-system");
        self.kubectl(&["create", "namespace", NAMESPACE]).run()?;
        self.kubectl(&["label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=privileged"]).run()?;
        self.chart("install", &[]).with_context(|| self.pods_of_guenon())
    }

    /// `helm install` or `upgrade` of the chart with the values of this cluster and these.
    pub(super) fn chart(&self, verb: &str, values: &[&str]) -> Result<()> {
        let image = [
            format!("image.repository={GUENON}"),
            format!("image.tag={}", TAGS[0]),
            "image.pullPolicy=Never".to_owned(),
            format!("directorSelector={DIRECTOR}"),
            format!("vipRanges={{{VIPS}}}"),
        ];
        let mut helm = self.helm(&[verb, RELEASE]).arg(paths::root().join("deploy/helm/guenon"));
        for value in image.iter().map(String::as_str).chain(values.iter().copied()) {
            helm = helm.args(["--set", value]);
        }
        helm.args(["--namespace", NAMESPACE, "--wait", "--timeout", &format!("{}s", LIMIT.as_secs())]).run()
    }

    /// Whether the chart has a hook that takes the data path off every node before it is uninstalled.
    pub(super) fn detaches_by_itself(&self) -> Result<bool> {
        let dir = paths::root().join("deploy/helm/guenon/templates");
        for entry in std::fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))? {
            let file = entry.with_context(|| format!("cannot read {}", dir.display()))?.path();
            if std::fs::read_to_string(&file).is_ok_and(|text| text.contains("pre-delete")) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// `guenon detach` on every node.
    pub(super) fn detach(&self) -> Result<()> {
        Node::ALL.into_iter().try_for_each(|node| self.on(node, crate::image::built())?.arg("detach").run())
    }

    /// An error unless every node is as it was before the chart was installed.
    pub(super) fn nodes_are_as_before(&self) -> Result<()> {
        self.before.iter().try_for_each(|(node, before)| before.compare(&Traces::of(self, *node)?, *node))
    }

    /// Applies one of examples/cluster, until its pods are ready.
    pub(crate) fn example(&self, file: &str) -> Result<()> {
        progress::step(format_args!("kubectl apply -f examples/cluster/{file}"));
        let path = paths::root().join("examples/cluster").join(file);
        self.kubectl(&["apply", "-f"]).arg(&path).run()?;
        let kind = file.trim_end_matches(".yaml");
        self.kubectl(&["rollout", "status", "--timeout=120s", &format!("{kind}/echo")])
            .run()
            .with_context(|| self.kubectl(&["describe", "pods"]).read().unwrap_or_default())?;
        self.kubectl(&["wait", "--for=condition=Ready", "--timeout=120s", "virtualservice/echo"])
            .run()
            .with_context(|| self.kubectl(&["describe", "virtualservices"]).read().unwrap_or_default())
    }

    /// What kubectl says of all of it.
    pub(crate) fn show(&self) -> Result<String> {
        let mut text = String::new();
        for what in ["nodes", "pods --all-namespaces -o wide", "virtualservices --all-namespaces", "guenonnodes"] {
            let said = self.kubectl(&["get"]).args(what.split(' ')).read()?;
            text.push_str(&format!("$ kubectl get {what}\n{said}\n"));
        }
        Ok(text)
    }

    /// What a failure's reason may be seen from.
    pub(crate) fn complain(&self) {
        match self.show() {
            Ok(text) => eprintln!("{text}"),
            Err(error) => eprintln!("kubectl says nothing: {error:#}"),
        }
        eprintln!("{}", self.pods_of_guenon());
    }

    fn pods_of_guenon(&self) -> String {
        let say = |args: &[&str]| {
            let said = self.kubectl(&["--namespace", NAMESPACE]).args(args).try_read();
            let said = said.map_or_else(|error| format!("{error:#}"), |said| said.stdout + &said.stderr);
            // The kernel's verifier says a lot, on one line.
            said.lines().map(|line| line.chars().take(WIDTH).chain(['\n']).collect::<String>()).collect::<String>()
        };
        let logs = ["logs", "--selector=app.kubernetes.io/name=guenon", "--tail=15", "--prefix"];
        format!("{}\n{}\n{}", say(&["get", "pods", "-o", "wide"]), say(&["get", "events"]), say(&logs))
    }

    /// For people, when it stays up.
    pub(crate) fn what_to_try(&self) -> String {
        let kubectl = self.kubectl(&[]).to_string();
        let kubectl = kubectl.split_once("] ").map_or(kubectl.as_str(), |(_, command)| command);
        let control = format!("nsenter --net=/run/netns/{}", self.control_netns());
        let on =
            |node| self.on(node, "guenon").map_or_else(|e| e.to_string(), |c| c.to_string().replace(" guenon", ""));
        format!(
            "It stays up. Things to try:\n  \
             alias k='{control} {kubectl}'\n  \
             k get nodes,gvs,guenonnodes\n  \
             k -n {NAMESPACE} logs -l app.kubernetes.io/name=guenon --prefix\n  \
             k -n {NAMESPACE} exec ds/guenon-agent -- /guenon status\n  \
             k scale deployment echo --replicas=1\n  \
             nsenter --net=/run/netns/{client} curl http://{vip}/\n  \
             {n1} ip addr           # inside node n1\n  \
             {n3} cat /sys/class/net/eth0/mtu\n\
             Remove it: cargo xtask cluster --clean",
            client = self.client_netns(),
            vip = http().ip(),
            n1 = on(Node::N1),
            n3 = on(Node::N3),
        )
    }
}
