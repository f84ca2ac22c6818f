//! What the controller reads and writes beside the objects themselves: statuses, GuenonNodes, Leases, events.

use futures::{Stream, StreamExt as _};
use guenon_crd::{Condition, GuenonNode, GuenonNodeSpec, GuenonNodeStatus, VirtualService, VirtualServiceStatus};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::events::{Events, Telling};
use super::follow::{Told, follow};
use super::heartbeat::node_of;
use super::watch::version;
use crate::model::ServiceName;

/// Who writes, in the server's records.
const MANAGER: &str = "guenon-controller";

/// The resource of agents' signs of life.
pub(crate) const LEASES: &str = "leases.coordination.k8s.io";

/// What a server holds of an object beside its spec.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Record<S> {
    pub(crate) uid: String,
    pub(crate) generation: i64,
    /// metadata.resourceVersion, as a number.
    pub(crate) version: u64,
    pub(crate) status: S,
}

/// One thing that was learnt.
#[derive(Clone, Debug)]
pub(crate) enum Learnt {
    Service(ServiceName, Record<VirtualServiceStatus>),
    ServiceGone(ServiceName),
    Node(String, Record<GuenonNodeStatus>, GuenonNodeSpec),
    NodeGone(String),
    /// A node's Lease, and what changes when it is renewed.
    Beat(String, String),
    /// All of a kind have been told of.
    Listed(&'static str),
    /// A kind cannot be asked for.
    Failed(&'static str, String),
}

/// Follows the statuses of VirtualServices, GuenonNodes, and their agents' Leases. An object whose status cannot be read
/// counts as one without.
pub(crate) fn learn(client: &Client, namespace: &str) -> impl Stream<Item = Learnt> + Send + use<> {
    let services = follow(of::<VirtualService>(client), watcher::Config::default()).filter_map(|told| {
        let named = |object: &DynamicObject| {
            let metadata = &object.metadata;
            ServiceName::new(metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
        };
        std::future::ready(Some(match told {
            Told::Is(object) => Learnt::Service(named(&object), record(&object)),
            Told::Gone(namespace, name) => Learnt::ServiceGone(ServiceName::new(namespace, name)),
            Told::Listed => Learnt::Listed("virtualservices.guenon.dev"),
            Told::Failed(why) => Learnt::Failed("virtualservices.guenon.dev", why),
        }))
    });
    let nodes = follow(of::<GuenonNode>(client), watcher::Config::default()).map(|told| match told {
        Told::Is(object) => {
            let spec = part(&object, "spec");
            Learnt::Node(object.metadata.name.clone().unwrap_or_default(), record(&object), spec)
        }
        Told::Gone(_, name) => Learnt::NodeGone(name),
        Told::Listed => Learnt::Listed("guenonnodes.guenon.dev"),
        Told::Failed(why) => Learnt::Failed("guenonnodes.guenon.dev", why),
    });
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let beats = follow(leases, watcher::Config::default()).filter_map(|told| {
        let learnt = match told {
            Told::Is(lease) => beat(&lease),
            Told::Gone(..) => None,
            Told::Listed => Some(Learnt::Listed(LEASES)),
            Told::Failed(why) => Some(Learnt::Failed(LEASES, why)),
        };
        std::future::ready(learnt)
    });
    futures::stream::select_all([services.boxed(), nodes.boxed(), beats.boxed()])
}

fn beat(lease: &Lease) -> Option<Learnt> {
    let node = node_of(lease.metadata.name.as_deref()?)?;
    let renewed = lease.spec.as_ref().and_then(|spec| spec.renew_time.as_ref()).map(|time| time.0.to_string());
    Some(Learnt::Beat(node.to_owned(), renewed.unwrap_or_default()))
}

pub(super) fn of<K: Resource<DynamicType = ()>>(client: &Client) -> Api<DynamicObject> {
    Api::all_with(client.clone(), &ApiResource::erase::<K>(&()))
}

pub(super) fn record<S: DeserializeOwned + Default>(object: &DynamicObject) -> Record<S> {
    let metadata = &object.metadata;
    Record {
        uid: metadata.uid.clone().unwrap_or_default(),
        generation: metadata.generation.unwrap_or_default(),
        version: version(metadata),
        status: part(object, "status"),
    }
}

pub(super) fn part<S: DeserializeOwned + Default>(object: &DynamicObject, name: &str) -> S {
    object.data.get(name).and_then(|part| S::deserialize(part).ok()).unwrap_or_default()
}

/// Writes for the controller.
#[derive(Clone)]
pub(crate) struct Writer {
    client: Client,
    events: Events,
}

impl Writer {
    /// `identity` is the replica's.
    pub(crate) fn new(client: Client, identity: &str) -> Self {
        Self { events: Events::new(client.clone(), MANAGER, identity), client }
    }

    /// Writes the status of a VirtualService.
    pub(crate) async fn service(&self, name: &ServiceName, status: &VirtualServiceStatus) -> kube::Result<()> {
        let object = json!({
            "apiVersion": VirtualService::api_version(&()),
            "kind": VirtualService::kind(&()),
            "metadata": {"name": name.name, "namespace": name.namespace},
            "status": status,
        });
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &name.namespace, &ApiResource::erase::<VirtualService>(&()));
        api.patch_status(&name.name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&object)).await.map(drop)
    }

    /// Writes one condition of a GuenonNode; the rest is its agent's.
    pub(crate) async fn node_condition(&self, name: &str, condition: &Condition) -> kube::Result<()> {
        let object = json!({
            "apiVersion": GuenonNode::api_version(&()),
            "kind": GuenonNode::kind(&()),
            "metadata": {"name": name},
            "status": {"conditions": [condition]},
        });
        let api = of::<GuenonNode>(&self.client);
        api.patch_status(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&object)).await.map(drop)
    }

    /// Tells of a VirtualService what a person would want to know.
    pub(crate) async fn event(&self, name: &ServiceName, uid: &str, telling: &Telling) -> kube::Result<()> {
        self.events.tell::<VirtualService>(Some(&name.namespace), &name.name, uid, telling).await
    }
}
