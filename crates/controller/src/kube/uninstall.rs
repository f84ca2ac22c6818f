//! Every node asked to give back what Guenon has put there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use guenon_crd::{ConditionStatus, GuenonNode, conditions};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use super::heartbeat::{LOST_AFTER, node_of};

/// How often is looked.
const LOOK: Duration = Duration::from_secs(1);

/// What became of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing of Guenon is in force there any more.
    Detached,
    /// Its agent answers, and could not give everything back: why.
    Failed(String),
    /// Its agent gave no sign of life.
    Unreachable,
    /// Its agent lives, and has not done it in time.
    TimedOut,
}

/// Asks every node that has a GuenonNode, waits for those that live, and deletes the GuenonNodes. `tell` hears of each node as
/// soon as its outcome is known.
///
/// # Errors
///
/// The server cannot be asked, or refuses.
pub async fn detach_all(
    client: &Client,
    namespace: &str,
    limit: Duration,
    mut tell: impl FnMut(&str, &Outcome),
) -> kube::Result<BTreeMap<String, Outcome>> {
    let nodes: Api<GuenonNode> = Api::all(client.clone());
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let mut open: BTreeSet<String> = match nodes.list_metadata(&ListParams::default()).await {
        Ok(all) => all.items.into_iter().filter_map(|node| node.metadata.name).collect(),
        // The definition is gone, and so are they.
        Err(kube::Error::Api(status)) if status.code == 404 => BTreeSet::new(),
        Err(error) => return Err(error),
    };
    let first = beats(&leases).await?;
    for name in &open {
        let wanted = json!({"spec": {"state": "Detached"}});
        unless_gone(nodes.patch(name, &PatchParams::default(), &Patch::Merge(&wanted)).await)?;
    }
    let begin = Instant::now();
    let mut outcomes = BTreeMap::new();
    while !open.is_empty() {
        tokio::time::sleep(LOOK).await;
        let now = beats(&leases).await?;
        let held = nodes.list(&ListParams::default()).await?;
        let held: BTreeMap<String, GuenonNode> =
            held.items.into_iter().filter_map(|node| Some((node.metadata.name.clone()?, node))).collect();
        open.retain(|name| {
            let lives = first.get(name) != now.get(name);
            let outcome = match held.get(name) {
                None => Some(Outcome::Detached),
                Some(node) => detached(node),
            };
            let outcome = match outcome {
                None if !lives && begin.elapsed() > LOST_AFTER => Some(Outcome::Unreachable),
                None if begin.elapsed() > limit => Some(Outcome::TimedOut),
                outcome => outcome,
            };
            if let Some(outcome) = &outcome {
                tell(name, outcome);
                outcomes.insert(name.clone(), outcome.clone());
            }
            outcome.is_none()
        });
    }
    // One that stays would keep its node detached when Guenon is installed again.
    for name in outcomes.keys() {
        unless_gone(nodes.delete(name, &DeleteParams::default()).await.map(drop))?;
    }
    Ok(outcomes)
}

fn detached(node: &GuenonNode) -> Option<Outcome> {
    let status = node.status.as_ref()?;
    let ready = status.conditions.iter().find(|condition| condition.type_ == conditions::READY)?;
    let is_current = status.observed_generation >= node.metadata.generation;
    match (ready.status, ready.reason.as_str()) {
        (ConditionStatus::False, "Detached") if is_current => Some(Outcome::Detached),
        (ConditionStatus::False, "DetachFailed") if is_current => Some(Outcome::Failed(ready.message.clone())),
        (ConditionStatus::True | ConditionStatus::False | ConditionStatus::Unknown, _) => None,
    }
}

/// What each node's Lease says.
async fn beats(leases: &Api<Lease>) -> kube::Result<BTreeMap<String, String>> {
    let all = leases.list(&ListParams::default()).await?;
    let beat = |lease: Lease| {
        let node = node_of(lease.metadata.name.as_deref()?)?.to_owned();
        let renewed = lease.spec.and_then(|spec| spec.renew_time).map(|time| time.0.to_string());
        Some((node, renewed.unwrap_or_default()))
    };
    Ok(all.items.into_iter().filter_map(beat).collect())
}

fn unless_gone<T>(done: kube::Result<T>) -> kube::Result<()> {
    match done {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        done => done.map(drop),
    }
}
