use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::status::Condition;

/// What is wanted of a node.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "guenon.dev",
    version = "v1alpha1",
    kind = "GuenonNode",
    plural = "guenonnodes",
    shortname = "gn",
    category = "guenon",
    status = "GuenonNodeStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "GuenonNode is what the agent of a node says of itself. It is made by the agent and owned by the Node.",
    printcolumn(name = "Roles", type_ = "string", json_path = ".status.summary.roles"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Tunnel", type_ = "string", json_path = ".status.summary.tunnelAddresses"),
    printcolumn(name = "Interfaces", type_ = "string", json_path = ".status.summary.interfaces"),
    printcolumn(name = "Services", type_ = "integer", json_path = ".status.counts.services"),
    printcolumn(name = "Revision", type_ = "integer", json_path = ".status.revision"),
    printcolumn(name = "Problems", type_ = "integer", json_path = ".status.counts.problems"),
    printcolumn(name = "State", type_ = "string", priority = 1, json_path = ".spec.state"),
    printcolumn(name = "HashKey", type_ = "string", priority = 1, json_path = ".status.hashKeyFingerprint"),
    printcolumn(name = "Version", type_ = "string", priority = 1, json_path = ".status.agentVersion"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        priority = 1,
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct GuenonNodeSpec {
    /// Active, or Detached: the agent takes its data path off the node and leaves it as it was. `guenon uninstall`
    /// sets it.
    #[serde(default)]
    pub state: NodeState,
}

/// Whether a node takes part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum NodeState {
    /// It does.
    #[default]
    Active,
    /// Nothing of Guenon stays in force there.
    Detached,
}

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum NodeRole {
    /// Takes packets to VIPs off its interfaces, and sends them to endpoints.
    Director,
    /// Takes packets out of the tunnel, and hands them to its endpoints.
    Decap,
}

/// What is in force on a node, written by its agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GuenonNodeStatus {
    /// The metadata.generation that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// What the node does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2), extend("x-kubernetes-list-type" = "set"))]
    pub roles: Vec<NodeRole>,

    /// Where its tunnels start and end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 45)), extend("x-kubernetes-list-type" = "set"))]
    pub tunnel_addresses: Vec<String>,

    /// Interfaces that the program is for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub interfaces: Vec<NodeInterface>,

    /// Number of the configuration in force in the data path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub revision: Option<i64>,

    /// The newest metadata.resourceVersion of a VirtualService that is taken into account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub resource_version: Option<String>,

    /// Tells hash keys apart, and says nothing of them. Directors that differ send flows to different endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub hash_key_fingerprint: Option<String>,

    /// Version of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub agent_version: Option<String>,

    /// What is in force, in numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<NodeCounts>,

    /// VirtualServices that are not in force here as they should be, 200 at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["namespace", "name"]))]
    pub exceptions: Vec<NodeException>,

    /// Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// Lines for kubectl get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<NodeSummary>,
}

/// An interface that the program is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeInterface {
    /// Name of the device.
    #[schemars(length(min = 1, max = 15))]
    pub name: String,
    /// Native (in the driver), Generic (slow: the driver cannot) or Detached.
    #[serde(default)]
    pub mode: XdpMode,
    /// How the program that translates replies is attached to what leaves: Tcx, Clsact (kernels before 6.6), or None (no
    /// endpoint of the node has wanted it yet).
    #[serde(default)]
    pub egress: EgressHook,
    /// MTU, bytes of IP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub mtu: Option<i32>,
}

/// How the program is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// Behind it: slow.
    Generic,
    /// Not now.
    #[default]
    Detached,
}

/// How the program on the way out is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum EgressHook {
    /// By a tcx link.
    Tcx,
    /// As a filter of the clsact qdisc.
    Clsact,
    /// Not.
    #[default]
    None,
}

/// What is in force on a node, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeCounts {
    /// VirtualServices.
    #[serde(default)]
    pub services: i32,
    /// Frontends (VIP, protocol, port).
    #[serde(default)]
    pub frontends: i32,
    /// Endpoints.
    #[serde(default)]
    pub endpoints: i32,
    /// Next hops.
    #[serde(default)]
    pub next_hops: i32,
    /// Problems that the agent reports.
    #[serde(default)]
    pub problems: i32,
    /// VirtualServices that are not in force here as they should be: those of `exceptions`, and those that did not fit.
    #[serde(default)]
    pub exceptions: i32,
}

/// A VirtualService that is not in force on a node as it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeException {
    /// Its namespace.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// Its name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// One word that says why.
    #[schemars(length(min = 1, max = 64))]
    pub reason: String,
    /// A sentence that says why and what to do.
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// One line each, since columns cannot compute.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeSummary {
    /// Roles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub roles: Option<String>,
    /// Tunnel addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub tunnel_addresses: Option<String>,
    /// Interfaces with their modes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub interfaces: Option<String>,
}
