//! Domain types: no kube, no aya, no tokio. Change detection on all of them is `==`.

mod frontend;
mod mac;
mod name;
mod objects;
mod problem;
mod state;
mod view;

pub use frontend::{Frontend, Protocol};
pub use mac::Mac;
pub use name::ServiceName;
pub use objects::{
    BackendRef, BackendService, Backends, DeliveryChoice, GivenEndpoint, Node, Object, ObjectKey, ServicePort, Slice,
    SliceEndpoint, SliceOrigin, SlicePort, SliceSubset, VipPort, VirtualService,
};
pub use problem::{Place, Problem, ProblemReason};
pub use state::{Egress, EndpointState, LocalDelivery, NextHopKey, NextHopState, Path, ServiceState, State};
pub use view::{FarEnd, InterfaceView, NextHopView, NodeView, Role};
