//! The Lease by which an agent shows that it lives: a node's reports are believed as long as it is renewed.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};

use super::node_report::MANAGER;

/// How often it is renewed.
pub(super) const INTERVAL: Duration = Duration::from_secs(10);
/// An agent whose Lease has not been renewed for so long is lost.
pub const LOST_AFTER: Duration = Duration::from_secs(40);

const PREFIX: &str = "guenon-node.";

/// The Lease of a node's agent.
#[must_use]
pub fn lease_of(node: &str) -> String {
    format!("{PREFIX}{node}")
}

/// The node whose agent has this Lease.
#[must_use]
pub fn node_of(lease: &str) -> Option<&str> {
    lease.strip_prefix(PREFIX)
}

/// Renews the Lease of this node's agent.
pub(super) async fn beat(
    client: &Client,
    namespace: &str,
    node: &str,
    owner: Option<OwnerReference>,
) -> kube::Result<()> {
    let name = lease_of(node);
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            owner_references: owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(node.to_owned()),
            lease_duration_seconds: i32::try_from(LOST_AFTER.as_secs()).ok(),
            renew_time: Some(MicroTime(Timestamp::now())),
            ..LeaseSpec::default()
        }),
    };
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    leases.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&lease)).await.map(drop)
}
