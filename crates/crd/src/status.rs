use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is in force of a VirtualService, written by Guenon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("default" = crate::rules::pending()))]
pub struct VirtualServiceStatus {
    /// The metadata.generation that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// The metadata.resourceVersion at which observedGeneration was seen first: directors that are past it have it in
    /// force, unless they say otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub observed_version: Option<String>,

    /// Accepted, ResolvedRefs, Programmed, Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// The endpoints in numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<EndpointCounts>,

    /// The VIPs in one line, for kubectl get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub addresses: Option<String>,

    /// The ports in one line, for kubectl get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub ports: Option<String>,

    /// The directors in numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directors: Option<DirectorCounts>,
}

/// One aspect of the state of an object, in the manner of Kubernetes (`metav1.Condition`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Name of the aspect.
    #[serde(rename = "type")]
    #[schemars(length(max = 316))]
    pub type_: String,

    /// Whether it holds.
    pub status: ConditionStatus,

    /// The metadata.generation that it was judged by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,

    /// When `status` last changed (RFC 3339).
    #[schemars(extend("format" = "date-time"))]
    pub last_transition_time: String,

    /// One word that says why.
    #[schemars(length(min = 1, max = 1024))]
    pub reason: String,

    /// A sentence that says why, for people.
    #[schemars(length(max = 32768))]
    pub message: String,
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum ConditionStatus {
    /// It does.
    True,
    /// It does not.
    False,
    /// Not known yet.
    #[default]
    Unknown,
}

/// The endpoints of a VirtualService in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointCounts {
    /// Endpoints that take new flows.
    #[serde(default)]
    pub ready: i32,
    /// Endpoints that keep their flows and take no new ones.
    #[serde(default)]
    pub draining: i32,
    /// All endpoints.
    #[serde(default)]
    pub total: i32,
    /// `ready/total`, for kubectl get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub summary: Option<String>,
}

/// The directors of a VirtualService in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DirectorCounts {
    /// Directors that have it in force.
    #[serde(default)]
    pub programmed: i32,
    /// All directors.
    #[serde(default)]
    pub total: i32,
    /// `programmed/total`, for kubectl get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub summary: Option<String>,
}
