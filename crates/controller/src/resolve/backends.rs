//! Endpoints of the Services that a VirtualService refers to.

use std::collections::{BTreeMap, btree_map::Entry};
use std::net::IpAddr;
use std::sync::Arc;

use super::answering::Candidates;
use super::delivery::{Asked, chosen};
use super::issue::{Issue, Issues};
use super::select::Target;
use crate::index::Index;
use crate::model::{
    BackendRef, BackendService, DeliveryChoice, Frontend, ProblemReason, ServiceName, ServicePort, SliceEndpoint,
    SliceSubset, VirtualService,
};

const FIELD: &str = "spec.backendRefs";

/// A backendRef and the Service that it names.
pub(super) struct Backend<'a> {
    index: &'a Index,
    service: &'a BackendService,
    weight: u32,
    delivery: DeliveryChoice,
}

/// What an endpoint is good for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Readiness {
    NotReady,
    Draining,
    Ready,
}

impl<'a> Backend<'a> {
    /// The Service of a reference, if there is one that can be used.
    pub(super) fn find(
        index: &'a Index,
        owner: &VirtualService,
        reference: &BackendRef,
        issues: &mut Issues,
    ) -> Option<Self> {
        let name = ServiceName::new(owner.name.namespace.clone(), reference.name.clone());
        let message = match index.backend(&name) {
            Some(service) if service.external_name => {
                format!(
                    "Service {name} is of type ExternalName, a mere alias in DNS; name a Service that has endpoints"
                )
            }
            Some(service) => {
                return Some(Self { index, service, weight: reference.weight, delivery: owner.delivery });
            }
            None => format!("there is no Service {name}; create it, or correct the name"),
        };
        issues.add(Issue::new(ProblemReason::BackendNotFound, FIELD, message));
        None
    }

    /// Its endpoints for a frontend.
    pub(super) fn candidates(&self, frontend: Frontend, issues: &mut Issues) -> Candidates {
        let Frontend { vip, protocol, port } = frontend;
        let name = &self.service.name;
        let mut group = Candidates { name: name.name.clone(), weight: self.weight, targets: BTreeMap::new() };
        let Some(service_port) = self.service.ports.iter().find(|p| p.protocol == protocol && p.port == port) else {
            let message = format!("Service {name} has no port {port}/{protocol}; add it there, or remove it here");
            issues.add(Issue::new(ProblemReason::PortNotFound, FIELD, message));
            return group;
        };
        let candidates: Vec<_> = self
            .index
            .subsets(name)
            .filter_map(|subset| Some((target_port(subset, service_port)?, subset)))
            .flat_map(|(port, subset)| subset.endpoints.iter().map(move |endpoint| (port, endpoint)))
            .collect();
        if candidates.is_empty() && self.index.subsets(name).any(|subset| !subset.endpoints.is_empty()) {
            issues.add(Issue::new(ProblemReason::PortNotFound, FIELD, no_target_port(name, service_port)));
        }
        let own_family = candidates.iter().any(|(_, endpoint)| endpoint.address.is_ipv4() == vip.is_ipv4());
        let mut readiness = BTreeMap::<IpAddr, Readiness>::new();
        for (target_port, endpoint) in candidates {
            if own_family && endpoint.address.is_ipv4() != vip.is_ipv4() {
                continue;
            }
            let listens = target_port.unwrap_or(port);
            match self.target(endpoint, vip, port, listens) {
                Ok(target) => merge(&mut group.targets, &mut readiness, endpoint, (target, listens)),
                Err(issue) => issues.of_endpoint(endpoint.address, issue),
            }
        }
        // As kube-proxy: with none ready, draining ones take new flows.
        let least = readiness.values().max().copied().unwrap_or(Readiness::Ready).max(Readiness::Draining);
        for (address, (target, _)) in &mut group.targets {
            let readiness = readiness.get(address).copied().unwrap_or(Readiness::NotReady);
            target.weight = u32::from(readiness >= least);
            target.ready = readiness == Readiness::Ready;
            target.serving = readiness > Readiness::NotReady;
        }
        group
    }

    fn target(&self, endpoint: &SliceEndpoint, vip: IpAddr, port: u16, listens: u16) -> Result<Target, Issue> {
        let address = endpoint.address;
        let node = endpoint.node.as_deref().map(|name| self.index.node(name).ok_or(name));
        let tunnel = match node {
            None => address,
            Some(Ok(node)) => {
                let own_family = node.internal_ips.iter().find(|ip| ip.is_ipv4() == vip.is_ipv4());
                *own_family.or_else(|| node.internal_ips.first()).ok_or_else(|| {
                    let message = format!("their node {} has no InternalIP; packets cannot be sent there", node.name);
                    Issue::new(ProblemReason::NoTunnelAddress, FIELD, message)
                })?
            }
            Some(Err(name)) => {
                let message = format!("there is no Node {name}, so its address is not known; create the Node object");
                return Err(Issue::new(ProblemReason::NoTunnelAddress, FIELD, message));
            }
        };
        let of_its_node = match node {
            Some(Ok(node)) => node.internal_ips.contains(&address),
            None | Some(Err(_)) => true,
        };
        let asked = Asked { choice: self.delivery, address, of_its_node, vip, port, listens, field: FIELD };
        let (delivery, why) = chosen(&asked)?;
        let node = endpoint.node.as_deref().map(Arc::from);
        Ok(Target { address, tunnel, node, delivery, why, weight: 0, ready: false, serving: false })
    }
}

/// The port of a subset that belongs to a Service's port: `None` where it has none, `Some(None)` for every port.
fn target_port(subset: &SliceSubset, service_port: &ServicePort) -> Option<Option<u16>> {
    if subset.ports.is_empty() {
        // Kubernetes leaves a port out where the pods have none of the name that the Service gives as targetPort.
        return if service_port.target_name.is_none() { Some(None) } else { None };
    }
    let mut ports = subset.ports.iter();
    ports.find(|port| port.name == service_port.name && port.protocol == service_port.protocol).map(|port| port.port)
}

/// Nobody has the port that a Service's port leads to.
fn no_target_port(name: &ServiceName, service_port: &ServicePort) -> String {
    let ServicePort { port, protocol, target_name, .. } = service_port;
    match target_name {
        Some(target) => format!(
            "no pod of Service {name} has a port named `{target}`, which is the targetPort of its port {port}/{protocol}; \
             name it among the ports of the pods' containers, or give the targetPort as a number"
        ),
        None => format!(
            "no EndpointSlice of Service {name} has its port {port}/{protocol} (by the name `{}`); see `kubectl get \
             endpointslices -l kubernetes.io/service-name={} -o yaml`",
            service_port.name, name.name
        ),
    }
}

/// Identity is the address: seen twice it is one endpoint, as good as the better of the two.
fn merge(
    targets: &mut BTreeMap<IpAddr, (Target, u16)>,
    readiness: &mut BTreeMap<IpAddr, Readiness>,
    endpoint: &SliceEndpoint,
    found: (Target, u16),
) {
    let now = match endpoint {
        SliceEndpoint { ready: true, .. } => Readiness::Ready,
        SliceEndpoint { serving: true, terminating: true, .. } => Readiness::Draining,
        SliceEndpoint { .. } => Readiness::NotReady,
    };
    let known = readiness.entry(endpoint.address).or_insert(now);
    let better = now > *known;
    *known = now.max(*known);
    match targets.entry(endpoint.address) {
        Entry::Vacant(entry) => drop(entry.insert(found)),
        // Equally good ones must not be told apart by their order.
        Entry::Occupied(mut entry) => {
            let rank = |(target, port): &(Target, u16)| (target.tunnel, target.node.clone(), *port);
            if better || (now == *known && rank(&found) < rank(entry.get())) {
                entry.insert(found);
            }
        }
    }
}
