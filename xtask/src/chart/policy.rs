//! Who may do what, tried with tokens of the chart's own ServiceAccounts.

use anyhow::{Context, Result, bail};

use super::NAMESPACE;
use super::server::{Bed, refused};
use crate::shell::Said;

/// Somebody with a token.
struct Who<'a> {
    bed: &'a Bed<'a>,
    name: String,
    token: String,
}

impl<'a> Who<'a> {
    /// One of the chart's accounts, on a node if one is named.
    fn new(bed: &'a Bed<'a>, account: &str, node: Option<&str>) -> Result<Self> {
        let mut command = bed.kubectl(&["create", "token", account]);
        if let Some(node) = node {
            command = command.args(["--bound-object-kind", "Node", "--bound-object-name", node]);
        }
        let token = command.read().with_context(|| format!("a token of {account}"))?.trim().to_owned();
        Ok(Self { bed, name: account.to_owned(), token })
    }

    fn kubectl(&self, args: &[&str], input: &str) -> Result<Said> {
        self.bed.kubectl(args).args(["--token", &self.token]).input(input).try_read()
    }

    /// A merge patch as agents and controllers send it: kubectl's own reads the object before, which takes another right.
    fn patch(&self, path: &str, body: &str) -> Result<Said> {
        let command = self.bed.curl(path).args(["--fail-with-body", "-X", "PATCH", "--data", body]);
        let header = format!("Authorization: Bearer {}", self.token);
        command.args(["-H", "Content-Type: application/merge-patch+json", "-H", &header]).try_read()
    }

    fn may_patch(&self, path: &str, body: &str) -> Result<()> {
        let said = self.patch(path, body)?;
        if !said.status.success() {
            bail!("{} may not patch {path}: {}{}", self.name, said.stderr, said.stdout);
        }
        Ok(())
    }

    fn may_not_patch(&self, path: &str, body: &str, because: &str) -> Result<()> {
        refused(&self.patch(path, body)?, &format!("a patch of {path} by {}", self.name), &because.replace('"', "\\\""))
    }

    fn may(&self, args: &[&str], input: &str) -> Result<()> {
        let said = self.kubectl(args, input)?;
        if !said.status.success() {
            bail!("{} may not `kubectl {}`: {}", self.name, args.join(" "), said.stderr);
        }
        Ok(())
    }

    fn may_not(&self, args: &[&str], input: &str, because: &str) -> Result<()> {
        let what = format!("`kubectl {}` by {}", args.join(" "), self.name);
        refused(&self.kubectl(args, input)?, &what, because)
    }
}

const CREATE: [&str; 3] = ["create", "-f", "-"];
const APPLY: [&str; 5] = ["apply", "--server-side", "--force-conflicts", "-f", "-"];

fn guenon_node(name: &str) -> String {
    format!("apiVersion: guenon.dev/v1alpha1\nkind: GuenonNode\nmetadata: {{name: {name}}}\nspec: {{}}\n")
}

fn lease(name: &str) -> String {
    format!(
        "apiVersion: coordination.k8s.io/v1\nkind: Lease\nmetadata: {{name: {name}}}\nspec: {{holderIdentity: x}}\n"
    )
}

fn secret(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\nimmutable: true\nstringData: {{key: 0123456789abcdef}}\n"
    )
}

fn event(namespace: &str, kind: &str, name: &str) -> String {
    format!(
        "apiVersion: events.k8s.io/v1\nkind: Event\nmetadata: {{generateName: guenon-, namespace: {namespace}}}\n\
         eventTime: \"2026-01-01T00:00:00.000000Z\"\naction: Test\nreason: Test\ntype: Normal\nnote: a test\n\
         reportingController: guenon.dev/test\nreportingInstance: test\n\
         regarding: {{apiVersion: guenon.dev/v1alpha1, kind: {kind}, name: {name}, namespace: {namespace}}}\n"
    )
}

const REVISION: &str = r#"{"status":{"revision":7}}"#;
const GENERATION: &str = r#"{"status":{"observedGeneration":1}}"#;
const DETACHED: &str = r#"{"spec":{"state":"Detached"}}"#;
const HOLDER: &str = r#"{"spec":{"holderIdentity":"y"}}"#;

fn node_path(name: &str) -> String {
    format!("/apis/guenon.dev/v1alpha1/guenonnodes/{name}")
}

fn status_path(name: &str) -> String {
    node_path(name) + "/status"
}

fn lease_path(name: &str) -> String {
    format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{name}")
}

const SERVICE: &str = "/apis/guenon.dev/v1alpha1/namespaces/default/virtualservices/web";
const SERVICE_STATUS: &str = "/apis/guenon.dev/v1alpha1/namespaces/default/virtualservices/web/status";

/// On the release that is there, with its VirtualService `default/web`.
pub(super) fn test(bed: &Bed<'_>) -> Result<()> {
    for name in ["n1", "n2"] {
        bed.server.apply(&format!("apiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\n"))?;
    }
    bed.server.apply(&guenon_node("n2"))?;
    bed.kubectl(&CREATE).input(secret("other")).run()?;
    controller(&Who::new(bed, "guenon-controller", None)?)?;
    agent(&Who::new(bed, "guenon-agent", Some("n1"))?)?;
    let nowhere = Who::new(bed, "guenon-agent", None)?;
    nowhere.may_not(&CREATE, &guenon_node("n1"), "an agent on node \"\" may write guenonnodes")?;
    hooks(bed)
}

/// Makes the hash key, which the agent then reads.
fn controller(who: &Who<'_>) -> Result<()> {
    for kind in ["gvs", "gn", "svc", "endpoints", "endpointslices", "nodes"] {
        who.may(&["get", kind, "-A"], "")?;
    }
    who.may(&CREATE, &secret("guenon-hash-key"))?;
    who.may(&["get", "secret", "guenon-hash-key"], "")?;
    who.may_not(&["get", "secret", "other"], "", "forbidden")?;
    who.may_not(&["get", "secrets"], "", "forbidden")?;
    who.may_not(&["delete", "secret", "guenon-hash-key"], "", "forbidden")?;
    who.may(&CREATE, &lease("guenon-controller"))?;
    who.may(&["replace", "-f", "-"], &lease("guenon-controller"))?;
    who.may_not_patch(&lease_path("guenon-controller"), HOLDER, "forbidden")?;
    who.may(&["get", "leases"], "")?;
    who.may_patch(SERVICE_STATUS, GENERATION)?;
    who.may_not_patch(SERVICE, r#"{"spec":{"delivery":"Nat"}}"#, "forbidden")?;
    who.may_patch(&status_path("n2"), REVISION)?;
    who.may_not_patch(&node_path("n2"), DETACHED, "forbidden")?;
    who.may_not(&["get", "pods"], "", "forbidden")?;
    who.may(&["create", "--namespace", "default", "-f", "-"], &event("default", "VirtualService", "web"))
}

fn agent(who: &Who<'_>) -> Result<()> {
    for kind in ["gvs", "svc", "endpoints", "endpointslices", "nodes"] {
        who.may(&["get", kind, "-A"], "")?;
    }
    // Made by an apply, as agents do it, and changed by one.
    who.may(&APPLY, &guenon_node("n1"))?;
    who.may(&APPLY, &guenon_node("n1"))?;
    who.may_patch(&status_path("n1"), REVISION)?;
    who.may(&["get", "gn", "--field-selector", "metadata.name=n1"], "")?;
    let others = |kind: &str, own: &str, name: &str| {
        format!("an agent on node \"n1\" may write {kind} \"{own}\" alone, not \"{name}\"")
    };
    let not_n2 = others("guenonnodes", "n1", "n2");
    who.may_not(&CREATE, &guenon_node("n3"), &others("guenonnodes", "n1", "n3"))?;
    who.may_not(&APPLY, &guenon_node("n2"), &not_n2)?;
    who.may_not_patch(&node_path("n2"), DETACHED, &not_n2)?;
    who.may_not_patch(&status_path("n2"), REVISION, &not_n2)?;
    who.may_not(&["delete", "gn", "n2"], "", "forbidden")?;

    who.may(&APPLY, &lease("guenon-node.n1"))?;
    who.may_patch(&lease_path("guenon-node.n1"), HOLDER)?;
    who.may_not(&CREATE, &lease("guenon-node.n2"), &others("leases", "guenon-node.n1", "guenon-node.n2"))?;
    let not_elected = others("leases", "guenon-node.n1", "guenon-controller");
    who.may_not_patch(&lease_path("guenon-controller"), HOLDER, &not_elected)?;
    who.may_not(&["get", "leases"], "", "forbidden")?;

    who.may(&["get", "secret", "guenon-hash-key"], "")?;
    who.may(&["get", "secrets", "--field-selector", "metadata.name=guenon-hash-key"], "")?;
    who.may_not(&["get", "secrets"], "", "forbidden")?;
    who.may_not(&["get", "secret", "other"], "", "forbidden")?;
    who.may_not(&CREATE, &secret("guenon-hash-key-2"), "forbidden")?;
    who.may_not_patch(SERVICE_STATUS, GENERATION, "forbidden")?;
    who.may_not(&["get", "pods"], "", "forbidden")?;
    who.may(&["create", "--namespace", "default", "-f", "-"], &event("default", "GuenonNode", "n1"))
}

/// Accounts of hooks are not there at other times, so they are made for this alone.
fn hooks(bed: &Bed<'_>) -> Result<()> {
    let rendered = bed.helm(&["get", "hooks", super::RELEASE]).read()?;
    let runs = |document: &&str| document.contains("\nkind: Job\n") || document.contains("\nkind: Pod\n");
    let rights: String = rendered.split_inclusive("\n---\n").filter(|document| !runs(document)).collect();
    bed.kubectl(&["apply", "-f", "-"]).input(rights.clone()).run()?;
    check(&Who::new(bed, "guenon-check", None)?)?;
    uninstall(bed)?;
    bed.kubectl(&["delete", "-f", "-"]).input(rights).run()
}

fn check(who: &Who<'_>) -> Result<()> {
    for kind in ["gn", "gvs"] {
        who.may(&["get", kind, "-A"], "")?;
    }
    who.may(&["get", "leases"], "")?;
    who.may_not(&["get", "leases", "-n", "default"], "", "forbidden")?;
    who.may_not(&["get", "secret", "guenon-hash-key"], "", "forbidden")?;
    who.may_not(&["delete", "--wait=false", "gn", "n2"], "", "forbidden")?;
    who.may_not_patch(&node_path("n2"), DETACHED, "forbidden")
}

fn uninstall(bed: &Bed<'_>) -> Result<()> {
    let who = Who::new(bed, "guenon-uninstall", None)?;
    who.may(&["get", "gn"], "")?;
    who.may_patch(&node_path("n2"), DETACHED)?;
    who.may(&["get", "leases"], "")?;
    who.may_not(&["delete", "lease", "guenon-controller"], "", "forbidden")?;
    who.may_not(&["get", "secret", "guenon-hash-key"], "", "forbidden")?;
    who.may_not(&["get", "gvs", "-A"], "", "forbidden")?;
    who.may(&["delete", "--wait=false", "gn", "n2"], "")
}
