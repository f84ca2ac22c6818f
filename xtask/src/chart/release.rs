//! A release comes, changes, goes back and goes.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::server::{Bed, refused};
use super::{DIRECTORY, NAMESPACE, RELEASE};
use crate::shell::{Said, cmd};
use crate::{build, interrupt, paths};

const LABEL: &str = "kubectl label namespace guenon-system pod-security.kubernetes.io/enforce=privileged";
const SERVICE: &str = "apiVersion: guenon.dev/v1alpha1\nkind: VirtualService\nmetadata: {name: web, namespace: default}\n\
                       spec: {addresses: [203.0.113.10], ports: [{port: 80}], backendRefs: [{name: web}]}\n";

pub(super) fn changes(bed: &Bed<'_>) -> Result<()> {
    bed.namespace()?;
    let before = earlier_chart()?;
    let notes = bed.helm(&["install", RELEASE]).arg(&before).read()?;
    ensure!(notes.contains(LABEL), "the namespace allows no privileged pods, and the notes do not say so:\n{notes}");
    bed.server.established("virtualservices.guenon.dev")?;
    bed.server.apply(SERVICE)?;
    let short_names = || bed.field("crd/virtualservices.guenon.dev", ".spec.names.shortNames[*]");
    ensure!(short_names()?.is_empty(), "the earlier chart has an earlier definition");
    let detail = ".spec.template.spec.containers[0].env[?(@.name==\"GUENON_METRICS_DETAIL\")].value";
    let state = || -> Result<[String; 3]> {
        let replicas = bed.field("deploy/guenon-controller", ".spec.replicas")?;
        Ok([bed.field("ds/guenon-agent", detail)?, replicas, short_names()?])
    };
    ensure!(state()? == ["service", "2", ""], "after the installation: {:?}", state()?);

    bed.kubectl(&["label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=privileged"]).run()?;
    let set = "agent.metricsDetail=endpoint,controller.replicas=3,vipRanges={203.0.113.0/24}";
    let notes = bed.helm(&["upgrade", RELEASE, DIRECTORY, "--set", set]).read()?;
    ensure!(!notes.contains(LABEL), "the namespace has its label, and the notes ask for it:\n{notes}");
    ensure!(state()? == ["endpoint", "3", "gvs"], "after the upgrade: {:?}", state()?);
    bed.server.kubectl(&["get", "gvs", "web"]).run().context("the upgrade has the new definition")?;
    let range = ".spec.template.spec.containers[0].env[?(@.name==\"GUENON_VIP_RANGE\")].value";
    for object in ["ds/guenon-agent", "deploy/guenon-controller"] {
        let found = bed.field(object, range)?;
        ensure!(found == "203.0.113.0/24", "{object} has the VIP range {found:?}");
    }

    bed.helm(&["rollback", RELEASE, "1"]).run()?;
    ensure!(state()? == ["service", "2", ""], "after the rollback: {:?}", state()?);
    bed.helm(&["upgrade", RELEASE, DIRECTORY]).run()?;
    ensure!(state()? == ["service", "2", "gvs"], "after the second upgrade: {:?}", state()?);
    bed.server.kubectl(&["get", "gvs", "web"]).run().context("the service outlives upgrades and rollbacks")
}

/// The chart as if an earlier version had known no short name.
fn earlier_chart() -> Result<PathBuf> {
    let to = build::target().join("chart-earlier");
    if to.exists() {
        std::fs::remove_dir_all(&to).with_context(|| format!("cannot remove {}", to.display()))?;
    }
    cmd("cp").arg("-r").arg(paths::root().join(DIRECTORY)).arg(&to).run()?;
    edit(&to.join("files/crds/virtualservices.guenon.dev.yaml"), "    shortNames:\n    - gvs\n", "")?;
    edit(&to.join("Chart.yaml"), "\nversion: 0.1.0\n", "\nversion: 0.0.9\n")?;
    Ok(to)
}

fn edit(file: &Path, from: &str, to: &str) -> Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    ensure!(text.contains(from), "{} has no {from:?}", file.display());
    std::fs::write(file, text.replace(from, to)).with_context(|| format!("cannot write {}", file.display()))
}

/// Nothing runs pods here, so the Pod is said to have failed, and then to have succeeded.
pub(super) fn test(bed: &Bed<'_>) -> Result<()> {
    ensure!(!tested(bed, "Failed")?.status.success(), "the Pod has failed, and helm test has not");
    bed.kubectl(&["get", "pod", "guenon-check"]).run().context("a Pod that has failed stays, for its log")?;
    let said = tested(bed, "Succeeded")?;
    ensure!(said.status.success(), "helm test fails though its Pod does not: {}{}", said.stdout, said.stderr);
    let kinds = "pod,sa,role,rolebinding,clusterrole,clusterrolebinding";
    let left = bed.kubectl(&["get", kinds, "-o", "name"]).read()?;
    ensure!(!left.contains("guenon-check"), "helm test has left\n{left}");
    Ok(())
}

/// `helm test`, whose Pod ends like this.
fn tested(bed: &Bed<'_>, phase: &str) -> Result<Said> {
    // One that an earlier test has left.
    bed.kubectl(&["delete", "pod", "guenon-check", "--ignore-not-found"]).run()?;
    let command = bed.helm(&["test", RELEASE, "--timeout", "60s"]).limit(Duration::from_secs(90));
    std::thread::scope(|scope| {
        let test = scope.spawn(|| command.try_read());
        let status = format!("{{\"status\":{{\"phase\":\"{phase}\"}}}}");
        let patch = ["patch", "pod", "guenon-check", "--subresource=status", "--type=merge", "-p", &status];
        while !test.is_finished() && !bed.kubectl(&patch).try_read()?.status.success() {
            interrupt::check()?;
            std::thread::sleep(Duration::from_millis(200));
        }
        test.join().map_err(|_| anyhow::anyhow!("the thread of helm panicked"))?
    })
}

/// Nothing runs pods here, so the Job is said to be complete once it is there.
pub(super) fn uninstall(bed: &Bed<'_>) -> Result<()> {
    let uninstall = bed.helm(&["uninstall", RELEASE, "--timeout", "60s"]).limit(Duration::from_secs(90));
    std::thread::scope(|scope| -> Result<()> {
        let uninstall = scope.spawn(|| uninstall.run());
        let finished = || uninstall.is_finished();
        let meanwhile = job_is_there(bed, finished).and_then(|()| {
            // What the Job needs is there before it, and what it must wait for is still there.
            for object in [
                "serviceaccount/guenon-uninstall",
                "clusterrole/guenon-uninstall",
                "clusterrolebinding/guenon-uninstall",
                "role/guenon-uninstall",
                "rolebinding/guenon-uninstall",
                "daemonset/guenon-agent",
            ] {
                bed.kubectl(&["get", object]).run()?;
            }
            complete(bed)
        });
        let ended = uninstall.join().map_err(|_| anyhow::anyhow!("the thread of helm panicked"))?;
        meanwhile.and(ended)
    })?;
    let kinds = "ds,deploy,pdb,sa,role,rolebinding,job,svc,cm,clusterrole,clusterrolebinding,\
                 validatingadmissionpolicy,validatingadmissionpolicybinding";
    let label = "app.kubernetes.io/instance=guenon";
    let left = bed.kubectl(&["get", kinds, "-l", label, "-o", "name"]).read()?;
    ensure!(left.trim().is_empty(), "helm uninstall has left\n{left}");
    bed.server.kubectl(&["get", "gvs", "web"]).run().context("VirtualServices stay")?;
    bed.kubectl(&["get", "secret", "guenon-hash-key"]).run().context("the hash key stays")
}

fn job_is_there(bed: &Bed<'_>, ended: impl Fn() -> bool) -> Result<()> {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(30) && !ended() {
        interrupt::check()?;
        if bed.kubectl(&["get", "job", "guenon-uninstall"]).try_read()?.status.success() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    bail!("helm uninstall made no Job guenon-uninstall")
}

fn complete(bed: &Bed<'_>) -> Result<()> {
    let at = "2026-01-01T00:00:00Z";
    let condition = |kind: &str| format!("{{\"type\":\"{kind}\",\"status\":\"True\",\"lastTransitionTime\":\"{at}\"}}");
    let conditions = [condition("SuccessCriteriaMet"), condition("Complete")].join(",");
    let status = format!(
        "{{\"status\":{{\"startTime\":\"{at}\",\"completionTime\":\"{at}\",\"succeeded\":1,\"conditions\":[{conditions}]}}}}"
    );
    bed.kubectl(&["patch", "job", "guenon-uninstall", "--subresource=status", "--type=merge", "-p", &status]).run()
}

pub(super) fn take_ownership(bed: &Bed<'_>) -> Result<()> {
    bed.server.kubectl(&["delete", "crd", "virtualservices.guenon.dev", "guenonnodes.guenon.dev"]).run()?;
    bed.server.define()?;
    let install = ["install", RELEASE, DIRECTORY];
    refused(&bed.helm(&install).try_read()?, "a definition of somebody else's", "invalid ownership metadata")?;
    // What a failed installation has left of itself.
    bed.helm(&["uninstall", RELEASE, "--no-hooks", "--ignore-not-found"]).run()?;
    bed.helm(&install).arg("--take-ownership").run()?;
    let owner = bed.field("crd/guenonnodes.guenon.dev", ".metadata.annotations.meta\\.helm\\.sh/release-name")?;
    ensure!(owner == RELEASE, "the definition belongs to {owner:?}");
    bed.helm(&["uninstall", RELEASE, "--no-hooks"]).run()?;
    bed.server.kubectl(&["get", "crd", "guenonnodes.guenon.dev"]).run()
}
