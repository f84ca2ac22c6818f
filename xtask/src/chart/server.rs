//! The chart on a real API server: what it renders is accepted, and releases come, change and go.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::helm::Helm;
use super::{NAMESPACE, operator, policy, release};
use crate::apiserver::{ApiServer, User};
use crate::paths;
use crate::setup::{self, packages};
use crate::shell::{Cmd, Said, cmd};
use crate::test::{Count, count};
use crate::topology::layout::Host;
use crate::topology::{Plan, Topology};

/// A server, and helm beside it.
pub(super) struct Bed<'a> {
    helm: &'a Helm,
    pub(super) server: ApiServer,
    netns: String,
}

pub(super) fn test(helm: &Helm) -> Result<Count> {
    setup::programs(&[packages::DEMO])?;
    // No agent runs: there is no kubelet, and what agents do with a server is tested elsewhere.
    let plan = Plan::new("chart", Path::new("guenon"), &paths::root().join("examples/demo"));
    let mut topology = Topology::build(plan)?;
    let netns = topology.netns(Host::Switch);
    let result = ApiServer::bare(&mut topology).map(|server| {
        let bed = Bed { helm, server, netns };
        let one = |name: &str, test: fn(&Bed<'_>) -> Result<()>| count(name, || test(&bed));
        one("an API server accepts what the chart renders", accepted)
            + one("controller, uninstall and check need no privileges", restricted)
            + one("install, upgrade and rollback change what they should", release::changes)
            + one("agents, controller, uninstall and check may do what they must and no more", policy::test)
            + one("helm test runs its Pod and leaves nothing", release::test)
            + one("uninstall runs its Job first and leaves nothing but definitions", release::uninstall)
            + one("definitions that kubectl has made are taken over", release::take_ownership)
    });
    let removed = topology.remove();
    let total = result?;
    removed.map(|()| total)
}

impl Bed<'_> {
    /// `helm ...` with this server, in the namespace of the release.
    pub(super) fn helm(&self, args: &[&str]) -> Cmd {
        let kubeconfig = self.server.kubeconfig(User::Admin);
        self.helm.cmd(args).args(["--namespace", NAMESPACE]).env("KUBECONFIG", kubeconfig).netns(&self.netns)
    }

    /// `kubectl ...` in that namespace.
    pub(super) fn kubectl(&self, args: &[&str]) -> Cmd {
        self.server.kubectl(&["--namespace", NAMESPACE]).args(args)
    }

    /// `curl ...` of a path of the server.
    pub(super) fn curl(&self, path: &str) -> Cmd {
        let (url, authority) = self.server.url();
        cmd("curl").arg("-sS").arg("--cacert").arg(authority).arg(url + path).netns(&self.netns)
    }

    /// What `kubectl get OBJECT` shows at a path of it.
    pub(super) fn field(&self, object: &str, path: &str) -> Result<String> {
        self.kubectl(&["get", object, "-o", &format!("jsonpath={{{path}}}")]).read()
    }

    /// What the server says of these objects, of which nothing stays. A bare Pod is refused as long as its account is not there.
    fn dry_run(&self, objects: &str) -> Result<Said> {
        let accounts: String = objects
            .split_inclusive("\n---\n")
            .filter(|document| document.contains("\nkind: ServiceAccount\n"))
            .collect();
        let each = |verb: &str| -> Result<()> {
            if accounts.is_empty() {
                return Ok(());
            }
            self.kubectl(&[verb, "-f", "-"]).input(accounts.clone()).run()
        };
        each("apply")?;
        let dry_run = self.kubectl(&["apply", "--dry-run=server", "--warnings-as-errors", "-f", "-"]);
        let said = dry_run.input(objects).try_read()?;
        each("delete")?;
        Ok(said)
    }

    /// Makes the namespace, once.
    pub(super) fn namespace(&self) -> Result<()> {
        self.server.apply(&format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n"))
    }
}

/// An error unless the command failed and said this.
pub(super) fn refused(said: &Said, what: &str, because: &str) -> Result<()> {
    ensure!(!said.status.success(), "{what} is accepted:\n{}", said.stdout);
    let said = format!("{}{}", said.stderr, said.stdout);
    ensure!(said.contains(because), "{what} is not refused with {because:?}, but with\n{said}");
    Ok(())
}

fn accepted(bed: &Bed<'_>) -> Result<()> {
    bed.namespace()?;
    // A warning of the server's is an error here, and one of pods that the namespace will not have is none of ours.
    let label = "pod-security.kubernetes.io/enforce=privileged";
    bed.kubectl(&["label", "--overwrite", "namespace", NAMESPACE, label]).run()?;
    for (file, name) in operator::definitions()?.iter().zip(operator::DEFINITIONS) {
        // Too large for the annotation of a plain apply.
        bed.server.kubectl(&["apply", "--server-side", "-f"]).arg(file).run()?;
        bed.server.established(&format!("{name}.monitoring.coreos.com"))?;
    }
    let sets = paths::root().join("deploy/helm/snapshots");
    let mut tried = 0;
    for entry in std::fs::read_dir(&sets).with_context(|| format!("cannot read {}", sets.display()))? {
        let values = entry?.path().join("values.yaml");
        let rendered = bed.helm.template(&["--values", &values.to_string_lossy()]).read()?;
        let said = bed.dry_run(&rendered).with_context(|| values.display().to_string())?;
        ensure!(said.status.success(), "{}: {}", values.display(), said.stderr);
        tried += 1;
    }
    ensure!(tried > 0, "no set of values in {}", sets.display());
    bed.kubectl(&["label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce-"]).run()
}

/// The server warns of pods that the standard `restricted` would not let in, and agents are such.
fn restricted(bed: &Bed<'_>) -> Result<()> {
    bed.namespace()?;
    let label = "pod-security.kubernetes.io/warn";
    bed.kubectl(&["label", "namespace", NAMESPACE, &format!("{label}=restricted")]).run()?;
    let tried = |template: &str| -> Result<Said> {
        let rendered = bed.helm.template(&["--show-only", &format!("templates/{template}.yaml")]).read()?;
        bed.dry_run(&rendered)
    };
    for template in ["controller-deployment", "uninstall", "tests/check"] {
        let said = tried(template)?;
        ensure!(said.status.success(), "{template} wants more than it should: {}", said.stderr);
    }
    refused(&tried("agent-daemonset")?, "an agent", "would violate PodSecurity \"restricted")?;
    bed.kubectl(&["label", "namespace", NAMESPACE, &format!("{label}-")]).run()
}
