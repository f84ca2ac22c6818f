//! The objects of a source, holding only what matters here.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use super::{Place, Protocol, ServiceName};

/// An object of any kind that a source tells of.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// A VirtualService.
    VirtualService(VirtualService),
    /// A Service that a backendRef may name.
    Service(BackendService),
    /// Endpoints of a Service: an EndpointSlice, or an Endpoints object.
    Slice(Slice),
    /// A Node.
    Node(Node),
}

impl Object {
    /// Its identity.
    #[must_use]
    pub fn key(&self) -> ObjectKey {
        match self {
            Self::VirtualService(object) => ObjectKey::VirtualService(object.name.clone()),
            Self::Service(object) => ObjectKey::Service(object.name.clone()),
            Self::Slice(object) => ObjectKey::Slice(object.origin, object.name.clone()),
            Self::Node(object) => ObjectKey::Node(object.name.clone()),
        }
    }
}

/// Identity of an [`Object`]; shown as `Kind namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKey {
    /// A VirtualService.
    VirtualService(ServiceName),
    /// A Service.
    Service(ServiceName),
    /// An EndpointSlice or Endpoints object, by its own name.
    Slice(SliceOrigin, ServiceName),
    /// A Node.
    Node(String),
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::VirtualService(name) => write!(f, "VirtualService {name}"),
            Self::Service(name) => write!(f, "Service {name}"),
            Self::Slice(SliceOrigin::EndpointSlice, name) => write!(f, "EndpointSlice {name}"),
            Self::Slice(SliceOrigin::Endpoints, name) => write!(f, "Endpoints {name}"),
            Self::Node(name) => write!(f, "Node {name}"),
        }
    }
}

/// Where a [`Slice`] comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SliceOrigin {
    /// An EndpointSlice.
    EndpointSlice,
    /// An Endpoints object: read where the Service has no slice.
    Endpoints,
}

/// A VirtualService.
#[derive(Clone, Debug, PartialEq)]
pub struct VirtualService {
    /// Its name.
    pub name: ServiceName,
    /// creationTimestamp, seconds since the epoch; files: 0 (all of equal age).
    pub created: i64,
    /// metadata.generation: counts changes of the spec. Files: 0.
    pub generation: i64,
    /// VIPs, sorted.
    pub addresses: Vec<IpAddr>,
    /// Ports, sorted.
    pub ports: Vec<VipPort>,
    /// Where endpoints come from.
    pub backends: Backends,
    /// Session affinity by client address.
    pub client_ip: bool,
    /// Delivery for endpoints that name none.
    pub delivery: DeliveryChoice,
    /// Where it was read, for messages; no part of the configuration.
    pub place: Place,
}

/// A port of a VirtualService.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VipPort {
    /// Protocol.
    pub protocol: Protocol,
    /// Port.
    pub port: u16,
}

/// Where the endpoints of a VirtualService come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Backends {
    /// Services of the same namespace, with weights.
    Refs(Vec<BackendRef>),
    /// Given in the object.
    Given(Vec<GivenEndpoint>),
}

/// A reference to a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BackendRef {
    /// Name of the Service.
    pub name: String,
    /// Its share, 0..=1000.
    pub weight: u32,
}

/// An endpoint given in the object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GivenEndpoint {
    /// Its address.
    pub address: IpAddr,
    /// Its share, 0..=1000; 0 drains.
    pub weight: u32,
    /// Tunnel address of its node; none = its own address.
    pub tunnel: Option<IpAddr>,
    /// Delivery for this one.
    pub delivery: Option<DeliveryChoice>,
    /// Where it listens; none = on the port that clients dial.
    pub port: Option<u16>,
}

/// How endpoints get their packets, as asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeliveryChoice {
    /// `Local` for an endpoint whose address is its node's own (or that has no node), else `Nat`.
    #[default]
    Auto,
    /// Passed to the node's stack.
    Local,
    /// Redirected to a veth.
    Veth,
    /// Rewritten to the endpoint's own address and port.
    Nat,
}

/// A Service that backendRefs may name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendService {
    /// Its name.
    pub name: ServiceName,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// ClusterIPs: never allowed as VIPs.
    pub cluster_ips: Vec<IpAddr>,
    /// Addresses that another load balancer answers on for it: external IPs, and those of its load balancer.
    pub claimed: Vec<IpAddr>,
    /// Whether it is of type ExternalName, which cannot be a backend.
    pub external_name: bool,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Name; the empty string where it has none.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Port.
    pub port: u16,
    /// The name of the pods' port, where the targetPort is a name and not a number.
    pub target_name: Option<String>,
}

/// Endpoints of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Its own name.
    pub name: ServiceName,
    /// Kind of object.
    pub origin: SliceOrigin,
    /// Name of the Service (same namespace).
    pub service: String,
    /// Its endpoints, by the ports they have: one for an EndpointSlice, any number for Endpoints.
    pub subsets: Vec<SliceSubset>,
}

/// Endpoints that have the same ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceSubset {
    /// Ports; empty = matches every port.
    pub ports: Vec<SlicePort>,
    /// Endpoints.
    pub endpoints: Vec<SliceEndpoint>,
}

/// A port of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// Name; the empty string where it has none.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Target port; none = every port.
    pub port: Option<u16>,
}

/// An endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// Its address (the first; the API promises that all are the same endpoint).
    pub address: IpAddr,
    /// `ready`, absent = true.
    pub ready: bool,
    /// `serving`, absent = `ready`.
    pub serving: bool,
    /// `terminating`, absent = false.
    pub terminating: bool,
    /// Name of its node.
    pub node: Option<String>,
}

/// A Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// InternalIPs, in order.
    pub internal_ips: Vec<IpAddr>,
    /// Its labels, by which directors are selected.
    pub labels: BTreeMap<String, String>,
    /// Whether its kubelet says that it is ready; said by nobody = it is.
    pub ready: bool,
}
