//! Whether what a cluster shows of Guenon is as it should be. Pure.

use std::collections::BTreeMap;
use std::time::Instant;

use guenon_crd::{Condition, ConditionStatus, NodeRole, NodeState, VirtualServiceStatus, conditions};
use serde::Serialize;

use super::pulses::{Pulse, Pulses};
use crate::kube::{LOST_AFTER, Record, Survey, Surveyed, lease_of};
use crate::model::ServiceName;
use crate::status::{LEASE, LEASE_LASTS};

/// Most VirtualServices that are named.
const NAMED: usize = 20;

/// What was found about one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// What it is about.
    pub(super) about: String,
    pub(super) result: Verdict,
    /// What is so.
    pub(super) message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cure: Option<String>,
}

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// As it should be.
    Ok,
    /// Not as it should be; worth telling, and no failure.
    Warning,
    /// Not as it should be.
    Failed,
}

impl Finding {
    fn ok(about: impl Into<String>, message: impl Into<String>) -> Self {
        Self { about: about.into(), result: Verdict::Ok, message: message.into(), cure: None }
    }

    fn warning(about: impl Into<String>, message: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { result: Verdict::Warning, ..Self::failed(about, message, cure) }
    }

    fn failed(about: impl Into<String>, message: impl Into<String>, cure: impl Into<String>) -> Self {
        let cure = Some(cure.into());
        Self { about: about.into(), result: Verdict::Failed, message: message.into(), cure }
    }

    /// The server could not be asked; the words say what to do.
    pub(super) fn unanswered(why: String) -> Self {
        Self { about: "API server".to_owned(), result: Verdict::Failed, message: why, cure: None }
    }
}

/// Whether nothing has failed.
pub(super) fn holds(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.result != Verdict::Failed)
}

/// Of all but the VirtualServices.
pub(super) fn judge(survey: &Survey, pulses: &Pulses, namespace: &str, now: Instant) -> Vec<Finding> {
    let mut findings = vec![controller(pulses, namespace, now)];
    findings.extend(nodes(survey, pulses, namespace, now));
    findings.extend(hash_keys(survey));
    findings
}

fn controller(pulses: &Pulses, namespace: &str, now: Instant) -> Finding {
    let about = "controller";
    let cure = format!(
        "does a controller run? `kubectl -n {namespace} get pods -l app.kubernetes.io/component=controller`; its log says \
         why it does not lead"
    );
    match pulses.of(LEASE, LEASE_LASTS, now) {
        Pulse::Missing => Finding::failed(
            about,
            format!("there is no Lease {LEASE} in the namespace {namespace}"),
            format!("is it the namespace that Guenon runs in (--namespace)? If so: {cure}"),
        ),
        Pulse::Beats { holder: "" } | Pulse::Silent { holder: "" } => {
            Finding::failed(about, format!("nobody holds the Lease {LEASE}"), cure)
        }
        Pulse::Silent { holder } => {
            Finding::failed(about, format!("{holder} holds the Lease {LEASE}, and no renewal of it was seen"), cure)
        }
        Pulse::Beats { holder } => Finding::ok(about, format!("{holder} leads and renews its Lease")),
    }
}

fn nodes(survey: &Survey, pulses: &Pulses, namespace: &str, now: Instant) -> Vec<Finding> {
    if survey.nodes.is_empty() {
        let cure = format!("does an agent run? `kubectl -n {namespace} get ds,pods`, and the log of one");
        return vec![Finding::failed("nodes", "there is no GuenonNode: no agent has said anything yet", cure)];
    }
    let mut wrong: Vec<Finding> =
        survey.nodes.iter().filter_map(|(name, node)| of_node(name, node, pulses, namespace, now)).collect();
    let (all, failed) = (survey.nodes.len(), wrong.iter().filter(|one| one.result == Verdict::Failed).count());
    if failed < all {
        wrong.insert(0, Finding::ok("nodes", format!("{} of {all} are Ready, their agents heard", all - failed)));
    }
    wrong
}

/// What is wrong with a node. What it says of itself is believed as long as its agent is heard.
fn of_node(name: &str, node: &Surveyed, pulses: &Pulses, namespace: &str, now: Instant) -> Option<Finding> {
    let Surveyed { spec, record } = node;
    let about = format!("node {name}");
    if spec.state == NodeState::Detached {
        let cure = format!(
            "if it is to serve again: `kubectl patch guenonnode {name} --type=merge -p '{{\"spec\":{{\"state\":\"Active\"}}}}'`"
        );
        return Some(Finding::failed(about, "it was asked to give its data path back: spec.state is Detached", cure));
    }
    let lease = lease_of(name);
    let pod = format!("`kubectl -n {namespace} get pods -o wide --field-selector spec.nodeName={name}`");
    match pulses.of(&lease, LOST_AFTER, now) {
        Pulse::Missing => {
            let message = format!("there is no Lease {lease} in the namespace {namespace}");
            let cure =
                format!("is it the namespace that Guenon runs in (--namespace)? If so, does the agent run? {pod}");
            return Some(Finding::failed(about, message, cure));
        }
        Pulse::Silent { holder: _ } => {
            let message = format!("its agent has not been heard: no renewal of the Lease {lease} was seen");
            let cure = format!(
                "is the node up, and does its agent's pod run? {pod} (agents renew every 10 s: a shorter --timeout shows \
                 nothing)"
            );
            return Some(Finding::failed(about, message, cure));
        }
        Pulse::Beats { holder: _ } => {}
    }
    let cure = format!("see `kubectl describe guenonnode {name}` and the log of its agent: {pod}");
    let status = &record.status;
    let ready = status.conditions.iter().find(|condition| condition.type_ == conditions::READY);
    let (message, failed) = match ready {
        None => ("its agent has not said yet whether it is Ready".to_owned(), true),
        Some(ready) if ready.status != ConditionStatus::True => (said(ready), true),
        Some(_) if status.observed_generation != Some(record.generation) => {
            ("its agent has not taken note of its newest spec yet".to_owned(), true)
        }
        Some(ready) if ready.reason != conditions::READY => (said(ready), false),
        Some(_) => return None,
    };
    let of = if failed { Finding::failed } else { Finding::warning };
    Some(of(about, message, cure))
}

/// `Ready is False (NoReadyEndpoints): none of ...`
fn said(Condition { type_, status, reason, message, .. }: &Condition) -> String {
    format!("{type_} is {status:?} ({reason}): {message}")
}

fn hash_keys(survey: &Survey) -> Option<Finding> {
    let about = "hash key";
    let directors: Vec<_> =
        survey.nodes.iter().filter(|(_, node)| node.record.status.roles.contains(&NodeRole::Director)).collect();
    if directors.is_empty() {
        let cure = "label a Node as the chart's directorSelector says (agents' --director-selector)";
        return (!survey.nodes.is_empty()).then(|| Finding::warning(about, "no node is a director", cure));
    }
    let mut keys: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, node) in &directors {
        keys.entry(node.record.status.hash_key_fingerprint.as_deref().unwrap_or_default()).or_default().push(name);
    }
    if let Some(names) = keys.get("") {
        let message = format!("the key that flows are hashed by is not known of {}", names.join(", "));
        return Some(Finding::failed(about, message, "see the logs of their agents"));
    }
    let mut each = keys.iter();
    match (each.next(), each.next()) {
        (Some((key, _)), None) => {
            Some(Finding::ok(about, format!("{key} on every director ({} of them)", directors.len())))
        }
        _ => {
            let shown: Vec<String> = keys.iter().map(|(key, names)| format!("{key} on {}", names.join(", "))).collect();
            let message = format!("directors hash flows by different keys: {}", shown.join("; "));
            let cure =
                "give all of them one key (Helm: hashKey.existingSecret), and restart the agents of the odd ones";
            Some(Finding::failed(about, message, cure))
        }
    }
}

/// Of the VirtualServices; if `strict`, one that is not Ready is a failure.
pub(super) fn of_services(
    services: &BTreeMap<ServiceName, Record<VirtualServiceStatus>>,
    strict: bool,
) -> Vec<Finding> {
    let about = "virtual services";
    let of = if strict { Finding::failed } else { Finding::warning };
    let wrong: Vec<(&ServiceName, String)> =
        services.iter().filter_map(|(name, record)| Some((name, of_service(record)?))).collect();
    let message = format!("{} of {} are Ready", services.len() - wrong.len(), services.len());
    let mut findings = vec![Finding::ok(about, message)];
    findings.extend(wrong.iter().take(NAMED).map(|(name, message)| {
        let ServiceName { namespace, name } = name;
        of(format!("{namespace}/{name}"), message.clone(), format!("`kubectl -n {namespace} describe gvs {name}`"))
    }));
    if let more @ 1.. = wrong.len().saturating_sub(NAMED) {
        findings.push(of(about.to_owned(), format!("{more} more are not Ready"), "`kubectl get gvs -A`".to_owned()));
    }
    findings
}

fn of_service(record: &Record<VirtualServiceStatus>) -> Option<String> {
    let ready = record.status.conditions.iter().find(|condition| condition.type_ == conditions::READY);
    match ready {
        None => Some("nobody has said yet whether it is Ready".to_owned()),
        Some(ready) if ready.status != ConditionStatus::True => Some(said(ready)),
        Some(ready) if ready.observed_generation != Some(record.generation) => {
            Some("its status speaks of an older generation".to_owned())
        }
        Some(_) => None,
    }
}
