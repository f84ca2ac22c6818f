//! Endpoints of the Services that a VirtualService refers to.

use std::collections::{BTreeMap, btree_map::Entry};
use std::net::IpAddr;
use std::sync::Arc;

use super::issue::{Issue, Issues};
use super::select::{Delivery, Target, TargetGroup};
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
    pub(super) fn group(&self, frontend: Frontend, issues: &mut Issues) -> TargetGroup {
        let Frontend { vip, protocol, port } = frontend;
        let mut group =
            TargetGroup { name: self.service.name.name.clone(), weight: self.weight, targets: BTreeMap::new() };
        let Some(service_port) = self.service.ports.iter().find(|p| p.protocol == protocol && p.port == port) else {
            let name = &self.service.name;
            let message = format!("Service {name} has no port {port}/{protocol}; add it there, or remove it here");
            issues.add(Issue::new(ProblemReason::PortNotFound, FIELD, message));
            return group;
        };
        let candidates: Vec<_> = self
            .index
            .subsets(&self.service.name)
            .filter_map(|subset| Some((target_port(subset, service_port)?, subset)))
            .flat_map(|(port, subset)| subset.endpoints.iter().map(move |endpoint| (port, endpoint)))
            .collect();
        let own_family = candidates.iter().any(|(_, endpoint)| endpoint.address.is_ipv4() == vip.is_ipv4());
        let mut readiness = BTreeMap::<IpAddr, Readiness>::new();
        for (target_port, endpoint) in candidates {
            if own_family && endpoint.address.is_ipv4() != vip.is_ipv4() {
                continue;
            }
            let target = self.target(endpoint, vip, port, target_port.unwrap_or(port));
            match target {
                Ok(target) => merge(&mut group.targets, &mut readiness, endpoint, target),
                Err(issue) => issues.of_endpoint(endpoint.address, issue),
            }
        }
        // As kube-proxy: with none ready, draining ones take new flows.
        let least = readiness.values().max().copied().unwrap_or(Readiness::Ready).max(Readiness::Draining);
        for (address, target) in &mut group.targets {
            let readiness = readiness.get(address).copied().unwrap_or(Readiness::NotReady);
            target.weight = u32::from(readiness >= least);
            target.ready = readiness == Readiness::Ready;
            target.serving = readiness > Readiness::NotReady;
        }
        group
    }

    fn target(&self, endpoint: &SliceEndpoint, vip: IpAddr, port: u16, target_port: u16) -> Result<Target, Issue> {
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
        let delivery = chosen(self.delivery, of_its_node)
            .map_err(|why| Issue::new(ProblemReason::DeliveryMismatch, FIELD, why))?;
        if target_port != port {
            let message = format!(
                "they listen on port {target_port}, but packets arrive with the VIP's port {port} under this delivery; \
                 let them listen on {port} (delivery Nat, which can change ports, is not in this version)"
            );
            return Err(Issue::new(ProblemReason::TargetPortMismatch, FIELD, message));
        }
        let node = endpoint.node.as_deref().map(Arc::from);
        Ok(Target { address, tunnel, node, delivery, weight: 0, ready: false, serving: false })
    }
}

/// The port of a subset that belongs to a Service's port: `None` where it has none, `Some(None)` for every port.
fn target_port(subset: &SliceSubset, service_port: &ServicePort) -> Option<Option<u16>> {
    if subset.ports.is_empty() {
        return Some(None);
    }
    let mut ports = subset.ports.iter();
    ports.find(|port| port.name == service_port.name && port.protocol == service_port.protocol).map(|port| port.port)
}

/// Identity is the address: seen twice it is one endpoint, as good as the better of the two.
fn merge(
    targets: &mut BTreeMap<IpAddr, Target>,
    readiness: &mut BTreeMap<IpAddr, Readiness>,
    endpoint: &SliceEndpoint,
    target: Target,
) {
    let now = match endpoint {
        SliceEndpoint { ready: true, .. } => Readiness::Ready,
        SliceEndpoint { serving: true, terminating: true, .. } => Readiness::Draining,
        SliceEndpoint { .. } => Readiness::NotReady,
    };
    let known = readiness.entry(target.address).or_insert(now);
    let better = now > *known;
    *known = now.max(*known);
    match targets.entry(target.address) {
        Entry::Vacant(entry) => drop(entry.insert(target)),
        // Equally good ones must not be told apart by their order.
        Entry::Occupied(mut entry) => {
            if better || (now == *known && (target.tunnel, &target.node) < (entry.get().tunnel, &entry.get().node)) {
                entry.insert(target);
            }
        }
    }
}

fn chosen(choice: DeliveryChoice, of_its_node: bool) -> Result<Delivery, &'static str> {
    match (choice, of_its_node) {
        (DeliveryChoice::Local | DeliveryChoice::Auto, true) => Ok(Delivery::Local),
        (DeliveryChoice::Veth, _) => Ok(Delivery::Veth),
        (DeliveryChoice::Local, false) => Err("they have addresses of their own, and delivery Local hands packets to \
             the node's stack, which would answer with a reset; run them with hostNetwork, or set `delivery: Veth` for \
             network namespaces that have the VIP on their loopback"),
        (DeliveryChoice::Auto, false) => Err("they are ordinary pods, for which delivery Auto means Nat, which this \
             version does not have; run them with hostNetwork, or set `delivery: Veth` for network namespaces that \
             have the VIP on their loopback"),
        (DeliveryChoice::Nat, _) => Err("this version does not have delivery Nat; run them with hostNetwork and set \
             `delivery: Auto`, or set `delivery: Veth` for network namespaces that have the VIP on their loopback"),
    }
}
