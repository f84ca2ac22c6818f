use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{VirtualServiceStatus, rules};

/// What is wanted of a VirtualService: the virtual addresses and ports that clients dial, and who answers there.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "guenon.dev",
    version = "v1alpha1",
    kind = "VirtualService",
    plural = "virtualservices",
    shortname = "gvs",
    category = "guenon",
    namespaced,
    status = "VirtualServiceStatus",
    derive = "PartialEq",
    doc = "VirtualService announces virtual IP addresses and says which endpoints answer on them.",
    selectable = ".spec.delivery",
    printcolumn(name = "VIPs", type_ = "string", json_path = ".status.addresses"),
    printcolumn(name = "Ports", type_ = "string", json_path = ".status.ports"),
    printcolumn(
        name = "Endpoints",
        type_ = "string",
        json_path = ".status.endpoints.summary",
        description = "ready/total"
    ),
    printcolumn(
        name = "Directors",
        type_ = "string",
        json_path = ".status.directors.summary",
        description = "programmed/total"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Accepted")].status"#
    ),
    printcolumn(
        name = "Programmed",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Programmed")].status"#
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        priority = 1,
        json_path = r#".status.conditions[?(@.type=="Programmed")].reason"#
    ),
    printcolumn(name = "Delivery", type_ = "string", priority = 1, json_path = ".spec.delivery"),
    printcolumn(name = "Affinity", type_ = "string", priority = 1, json_path = ".spec.sessionAffinity"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::spec()))]
pub struct VirtualServiceSpec {
    /// Virtual IP addresses, 1 to 8, in canonical form: no zone, no IPv4-mapped IPv6.
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "set"))]
    #[schemars(inner(length(min = 2, max = 45)), transform = rules::of_each_address)]
    pub addresses: Vec<String>,

    /// Ports that clients dial on every address, 1 to 32.
    #[schemars(length(min = 1, max = 32))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["port", "protocol"]))]
    #[schemars(extend("x-kubernetes-validations" = rules::ports()))]
    pub ports: Vec<Port>,

    /// Services of this namespace whose EndpointSlices answer. Excludes `endpoints`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 8))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["kind", "name"]))]
    pub backend_refs: Option<Vec<BackendRef>>,

    /// Endpoints given here; each answers for every address and port. Excludes `backendRefs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["address"]))]
    pub endpoints: Option<Vec<Endpoint>>,

    /// What a client's flows have in common: None (each flow apart) or ClientIP (all flows of a client
    /// address to one endpoint).
    #[serde(default)]
    pub session_affinity: SessionAffinity,

    /// How an endpoint receives packets, unless it says so itself. Local: passed to its node's own stack, with the VIP on the
    /// loopback. Veth: redirected to the network namespace that owns the VIP. Nat: rewritten to the endpoint's own address
    /// and port, as ordinary pods need it. Auto: Local where the endpoint's address is its node's own (or it has no node) and
    /// it listens on the port that clients dial, else Nat.
    #[serde(default)]
    pub delivery: Delivery,
}

/// A port that clients dial.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// Name, unique among the ports; for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: Option<String>,

    /// TCP or UDP.
    #[serde(default)]
    pub protocol: Protocol,

    /// Port number.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
}

/// Transport protocol of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schemars(inline)]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

/// A Service whose endpoints answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendRef {
    /// Kind of object: Service.
    #[serde(default)]
    pub kind: BackendKind,

    /// Name of a Service in the namespace of the VirtualService.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,

    /// Share of new flows, relative to the other backendRefs; 0 takes none.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1000))]
    pub weight: i32,
}

/// Kinds of objects that a backendRef may name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum BackendKind {
    /// A Service of the core API.
    #[default]
    Service,
}

/// An endpoint given in the object. It is always ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Address of the endpoint: its identity.
    #[schemars(length(min = 2, max = 45), extend("x-kubernetes-validations" = rules::address()))]
    pub address: String,

    /// Share of new flows, relative to the other endpoints; 0 drains it.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1000))]
    pub weight: i32,

    /// Tunnel address of the endpoint's node, where it is not the endpoint's own address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 45), extend("x-kubernetes-validations" = rules::address()))]
    pub tunnel: Option<String>,

    /// How this endpoint receives packets, where it differs from the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Delivery>,

    /// Port that this endpoint listens on, for every protocol and port that clients dial, where it is another. Only Nat can
    /// change ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
}

/// What a client's flows have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum SessionAffinity {
    /// Nothing: each flow apart.
    #[default]
    None,
    /// All flows of a client address go to one endpoint.
    ClientIP,
}

/// How an endpoint receives packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Delivery {
    /// Local for an endpoint whose address is its node's own, or that has no node, and that listens on the port that
    /// clients dial; else Nat.
    #[default]
    Auto,
    /// Passed to the node's own stack; the VIP is on its loopback.
    Local,
    /// Redirected to the veth of a network namespace that owns the VIP.
    Veth,
    /// Rewritten to the endpoint's own address and port: ordinary pods. VIP and endpoint are of one family.
    Nat,
}

const fn one() -> i32 {
    1
}
