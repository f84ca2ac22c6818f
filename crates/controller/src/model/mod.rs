//! Domain types: no kube, no aya, no tokio. Change detection on all of them is `==`.

mod frontend;
mod hash_key;
mod mac;
mod name;
mod objects;
mod policy;
mod problem;
mod selector;
mod state;
mod text;
mod view;

pub use frontend::{Frontend, Protocol};
pub use hash_key::HashKey;
pub use mac::Mac;
pub use name::ServiceName;
pub use objects::{
    BackendRef, BackendService, Backends, DeliveryChoice, GivenEndpoint, Node, Object, ObjectKey, ServicePort, Slice,
    SliceEndpoint, SliceOrigin, SlicePort, SliceSubset, VipPort, VirtualService,
};
pub use policy::Policy;
pub use problem::{Place, Problem, ProblemReason};
pub use selector::{Selector, SelectorError};
pub use state::{
    Egress, EndpointState, LocalDelivery, NextHopKey, NextHopState, Path, ServiceState, State, TargetPorts,
};
pub use text::cut;
pub use view::{FarEnd, InterfaceView, NextHopView, NodeView, Role};
