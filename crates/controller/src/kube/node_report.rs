//! The agent's own GuenonNode: written when what it says changes, watched for what is wanted of the node.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use guenon_crd::conditions::READY;
use guenon_crd::{ConditionStatus, GuenonNode, GuenonNodeSpec, GuenonNodeStatus, NodeState};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{ListParams, Patch, PatchParams};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch_objects};
use kube::{Api, Client, Resource as _};
use serde_json::json;
use tokio::sync::watch;

use super::conditions::{carry_times, now};
use super::events::{Events, NOTE, Telling};
use super::{chain, heartbeat};
use crate::http::Health;
use crate::model::cut;

/// Who writes, in the server's records.
pub(super) const MANAGER: &str = "guenon-agent";
/// Least time between two writes.
const PAUSE: Duration = Duration::from_secs(5);
/// The same where nothing but the version of objects has changed that made no difference here.
const LAZY_PAUSE: Duration = Duration::from_secs(30);
/// How long one question may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Reports of a node's agent.
pub struct NodeReporter {
    client: Client,
    nodes: Api<GuenonNode>,
    namespace: String,
    node: String,
    health: Health,
    /// What the server holds.
    held: Option<GuenonNode>,
    /// Whether that is known.
    listed: bool,
    owner: Option<OwnerReference>,
    events: Events,
    written_at: Option<Instant>,
    /// What failed last, by what was tried, so that it is said once.
    failed: BTreeMap<&'static str, String>,
}

impl NodeReporter {
    /// Of this node; its Lease is in this namespace.
    #[must_use]
    pub fn new(client: Client, namespace: String, node: String, health: Health) -> Self {
        let nodes = Api::all(client.clone());
        let events = Events::new(client.clone(), MANAGER, &node);
        Self {
            client,
            nodes,
            namespace,
            node,
            health,
            held: None,
            listed: false,
            owner: None,
            events,
            written_at: None,
            failed: BTreeMap::new(),
        }
    }

    /// Keeps the server informed of the newest report, and tells what is wanted of the node. Runs until the other end of
    /// either is dropped.
    pub async fn run(
        mut self,
        mut reports: watch::Receiver<Option<GuenonNodeStatus>>,
        wanted: watch::Sender<NodeState>,
    ) {
        let config = watcher::Config::default().fields(&format!("metadata.name={}", self.node));
        let mut own = watch_objects(self.nodes.clone(), config).default_backoff().boxed();
        let mut listing = None;
        let mut beat = tokio::time::interval(heartbeat::INTERVAL);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let status = reports.borrow_and_update().clone();
            let due = self.due(status.as_ref(), *wanted.borrow());
            let wait = due.map(|due| due.saturating_duration_since(Instant::now()));
            tokio::select! {
                event = own.next() => match event {
                    Some(Ok(Event::Init)) => listing = None,
                    Some(Ok(Event::InitApply(object))) => listing = Some(object),
                    Some(Ok(Event::InitDone)) => {
                        self.failed.remove("watch");
                        self.holds(listing.take(), &wanted);
                    }
                    Some(Ok(Event::Apply(object))) => self.holds(Some(object), &wanted),
                    Some(Ok(Event::Delete(_))) => self.holds(None, &wanted),
                    Some(Err(error)) => self.fails("watch", chain(&error)),
                    None => return,
                },
                changed = reports.changed() => if changed.is_err() {
                    return;
                },
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {
                    if let Some(status) = status {
                        let done = tokio::time::timeout(LIMIT, self.write(status)).await;
                        self.note("write", done);
                    }
                }
                _ = beat.tick() => if self.health.turns() {
                    let done = tokio::time::timeout(LIMIT, self.beat()).await;
                    self.note("renew the Lease of", done);
                },
            }
        }
    }

    /// The server holds this now.
    fn holds(&mut self, object: Option<GuenonNode>, wanted: &watch::Sender<NodeState>) {
        self.listed = true;
        // One that is deleted says nothing: a node that was detached stays so.
        if let Some(object) = &object {
            wanted.send_if_modified(|state| std::mem::replace(state, object.spec.state) != object.spec.state);
        } else {
            self.owner = None; // The Node may be another by that name.
        }
        self.held = object;
    }

    /// When this is to be written, if it is.
    fn due(&self, status: Option<&GuenonNodeStatus>, wanted: NodeState) -> Option<Instant> {
        let new = status.filter(|_| self.listed)?;
        let now = Instant::now();
        let after = |pause: Duration| self.written_at.map_or(now, |at| at + pause);
        let Some(held) = &self.held else {
            return (wanted == NodeState::Active).then(|| after(PAUSE));
        };
        let Some(old) = &held.status else { return Some(after(PAUSE)) };
        let new = timed(new.clone(), old, held.metadata.generation);
        if new == *old {
            None
        } else if (GuenonNodeStatus { resource_version: old.resource_version.clone(), ..new }) == *old {
            Some(after(LAZY_PAUSE))
        } else {
            Some(after(PAUSE))
        }
    }

    async fn write(&mut self, status: GuenonNodeStatus) -> kube::Result<()> {
        self.written_at = Some(Instant::now());
        let apply = PatchParams::apply(MANAGER).force();
        if self.held.is_none() {
            let object = GuenonNode {
                metadata: ObjectMeta {
                    name: Some(self.node.clone()),
                    owner_references: self.owner().await?.map(|owner| vec![owner]),
                    ..ObjectMeta::default()
                },
                ..GuenonNode::new(&self.node, GuenonNodeSpec::default())
            };
            // The state is nobody's until somebody wants another than the default.
            let mut object = serde_json::to_value(object).map_err(kube::Error::SerdeError)?;
            object["spec"] = json!({});
            self.held = Some(self.nodes.patch(&self.node, &apply, &Patch::Apply(&object)).await?);
        }
        let held = self.held.as_ref();
        let old = held.and_then(|held| held.status.clone()).unwrap_or_default();
        let status = timed(status, &old, held.and_then(|held| held.metadata.generation));
        let object = json!({
            "apiVersion": GuenonNode::api_version(&()),
            "kind": GuenonNode::kind(&()),
            "metadata": {"name": self.node},
            "status": status,
        });
        let new = self.nodes.patch_status(&self.node, &apply, &Patch::Apply(&object)).await?;
        if let (Some(telling), Some(uid)) = (telling(&old, &status), &new.metadata.uid)
            && let Err(error) = self.events.tell::<GuenonNode>(None, &self.node, uid, &telling).await
        {
            tracing::debug!("cannot send an event of GuenonNode {}: {}", self.node, chain(&error));
        }
        self.held = Some(new);
        Ok(())
    }

    async fn beat(&mut self) -> kube::Result<()> {
        let owner = self.owner().await?;
        heartbeat::beat(&self.client, &self.namespace, &self.node, owner).await
    }

    /// The Node, which takes with it what its agent wrote. Agents may list Nodes, and no more.
    async fn owner(&mut self) -> kube::Result<Option<OwnerReference>> {
        if self.owner.is_none() {
            let named = ListParams::default().fields(&format!("metadata.name={}", self.node));
            let found = Api::<Node>::all(self.client.clone()).list_metadata(&named).await?;
            self.owner = found.items.first().and_then(|node| {
                let (name, uid) = (node.metadata.name.clone()?, node.metadata.uid.clone()?);
                let (api_version, kind) = (Node::api_version(&()).into_owned(), Node::kind(&()).into_owned());
                Some(OwnerReference { api_version, kind, name, uid, ..OwnerReference::default() })
            });
        }
        Ok(self.owner.clone())
    }

    fn note(&mut self, what: &'static str, done: Result<kube::Result<()>, tokio::time::error::Elapsed>) {
        match done {
            Ok(Ok(())) => {
                if self.failed.remove(what).is_some() {
                    tracing::info!("GuenonNode {}: reports arrive again", self.node);
                }
            }
            Ok(Err(error)) => self.fails(what, chain(&error)),
            Err(_) => self.fails(what, format!("no answer within {} s", LIMIT.as_secs())),
        }
    }

    fn fails(&mut self, what: &'static str, failed: String) {
        if self.failed.get(what) != Some(&failed) {
            tracing::warn!("cannot {what} GuenonNode {}: {failed}; trying again", self.node);
            self.failed.insert(what, failed);
        }
    }
}

/// What is to be told when a report takes the place of another: that a node is ready, or is not any more, or has problems.
fn telling(old: &GuenonNodeStatus, new: &GuenonNodeStatus) -> Option<Telling> {
    let ready =
        |status: &GuenonNodeStatus| status.conditions.iter().find(|condition| condition.type_ == READY).cloned();
    let (old, new) = (ready(old), ready(new)?);
    let same = old.as_ref().is_some_and(|old| (old.status, &old.reason) == (new.status, &new.reason));
    let is_start = old.is_none() && new.status != ConditionStatus::True;
    let warning = new.status != ConditionStatus::True || new.reason != READY;
    (!same && !is_start).then(|| Telling { warning, reason: new.reason, note: cut(&new.message, NOTE) })
}

/// The report as it is written over another.
fn timed(mut new: GuenonNodeStatus, old: &GuenonNodeStatus, generation: Option<i64>) -> GuenonNodeStatus {
    new.observed_generation = generation;
    // What an earlier agent put in force is in force, though this one has not been told of any object yet.
    if new.resource_version.is_none() && new.revision.is_some() {
        new.resource_version.clone_from(&old.resource_version);
    }
    carry_times(&mut new.conditions, &old.conditions, &now());
    // The clock alone is no change.
    for condition in &mut new.conditions {
        condition.observed_generation = generation;
    }
    new
}

/// What is wanted of a node; `None`: nobody has said, or nobody can be asked.
pub async fn wanted_state(client: &Client, node: &str) -> Option<NodeState> {
    let nodes: Api<GuenonNode> = Api::all(client.clone());
    match nodes.get_opt(node).await {
        Ok(object) => object.map(|object| object.spec.state),
        Err(error) => {
            tracing::warn!("cannot ask for GuenonNode {node}: {}", chain(&error));
            None
        }
    }
}
