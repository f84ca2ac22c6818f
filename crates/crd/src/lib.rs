//! The API types of Guenon, and nothing else: [`VirtualService`] and [`GuenonNode`] (`guenon.dev/v1alpha1`).
//!
//! The types are as lenient as JSON: addresses are strings, ports are plain integers. What a value must be is said by the
//! schema's bounds and its CEL rules, which a server checks at `kubectl apply`, and checked again where objects are converted to the
//! domain, so that a file gets the same answer.
#![forbid(unsafe_code)]

pub mod conditions;
#[expect(clippy::duplicated_attributes, reason = "each printcolumn has arguments of its own")]
mod node;
mod rules;
#[expect(clippy::duplicated_attributes, reason = "each printcolumn has arguments of its own")]
mod spec;
mod status;

mod definition;

pub use definition::definitions;

pub use node::{
    EgressHook, GuenonNode, GuenonNodeSpec, GuenonNodeStatus, NodeCounts, NodeException, NodeInterface, NodeRole,
    NodeState, NodeSummary, XdpMode,
};
pub use spec::VirtualService;
pub use spec::{BackendKind, BackendRef, Delivery, Endpoint, Port, Protocol, SessionAffinity, VirtualServiceSpec};
pub use status::{Condition, ConditionStatus, DirectorCounts, EndpointCounts, VirtualServiceStatus};

/// The API group of every kind in this crate.
pub const GROUP: &str = "guenon.dev";
/// The version of every kind in this crate.
pub const VERSION: &str = "v1alpha1";

/// The lastTransitionTime of conditions that nobody has looked at yet.
pub const NEVER: &str = "1970-01-01T00:00:00Z";

/// Most addresses of a VirtualService.
pub const MAX_ADDRESSES: usize = 8;
/// Most ports of a VirtualService.
pub const MAX_PORTS: usize = 32;
/// Most backendRefs of a VirtualService.
pub const MAX_BACKEND_REFS: usize = 8;
/// Most endpoints given in a VirtualService.
pub const MAX_ENDPOINTS: usize = 1024;
/// Largest weight of a backendRef or an endpoint.
pub const MAX_WEIGHT: i32 = 1000;
/// Most characters of a VirtualService's name: that of a Service, so that both fit labels and the data path's tables.
pub const MAX_NAME: usize = 63;

#[cfg(test)]
mod tests {
    use kube::CustomResourceExt;

    #[test]
    fn the_definition_is_a_structural_schema_with_the_bounds() {
        let crd = serde_json::to_value(super::VirtualService::crd()).unwrap();
        let version = &crd["spec"]["versions"][0];
        let schema = &version["schema"]["openAPIV3Schema"];
        let spec = &schema["properties"]["spec"]["properties"];
        assert_eq!(crd["metadata"]["name"], "virtualservices.guenon.dev");
        assert_eq!(crd["spec"]["names"]["shortNames"], serde_json::json!(["gvs"]));
        assert_eq!(spec["addresses"]["maxItems"], super::MAX_ADDRESSES);
        assert_eq!(spec["addresses"]["x-kubernetes-list-type"], "set");
        assert_eq!(spec["ports"]["maxItems"], super::MAX_PORTS);
        assert_eq!(spec["ports"]["items"]["properties"]["port"]["maximum"].as_f64(), Some(65535.0));
        assert_eq!(spec["ports"]["items"]["properties"]["protocol"]["default"], "TCP");
        assert_eq!(spec["backendRefs"]["maxItems"], super::MAX_BACKEND_REFS);
        assert_eq!(spec["endpoints"]["maxItems"], super::MAX_ENDPOINTS);
        assert_eq!(
            spec["endpoints"]["items"]["properties"]["weight"]["maximum"].as_f64(),
            Some(f64::from(super::MAX_WEIGHT))
        );
        assert_eq!(spec["sessionAffinity"]["enum"], serde_json::json!(["None", "ClientIP"]));
        assert_eq!(version["subresources"]["status"], serde_json::json!({}));
        let text = schema.to_string();
        for refused in ["$ref", "oneOf", "anyOf", "\"const\"", "uint"] {
            assert!(!text.contains(refused), "{refused} is no part of a structural schema: {text}");
        }
    }
}
