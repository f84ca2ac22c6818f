//! Endpoints given in the VirtualService itself.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::issue::{Issue, Issues};
use super::select::{Delivery, Target, TargetGroup};
use crate::index::Index;
use crate::model::{Backends, DeliveryChoice, GivenEndpoint, ProblemReason, VirtualService};

/// Whether the VirtualService gives an endpoint of this address.
pub(super) fn has(service: &VirtualService, address: IpAddr) -> bool {
    match &service.backends {
        Backends::Given(endpoints) => endpoints.iter().any(|endpoint| endpoint.address == address),
        Backends::Refs(_) => false,
    }
}

/// The given endpoints: one group, always ready.
pub(super) fn group(
    index: &Index,
    service: &VirtualService,
    endpoints: &[GivenEndpoint],
    issues: &mut Issues,
) -> TargetGroup {
    let mut targets = BTreeMap::new();
    for &GivenEndpoint { address, weight, tunnel, delivery } in endpoints {
        let tunnel = tunnel.unwrap_or(address);
        let choice = delivery.unwrap_or(service.delivery);
        match chosen(index, choice, address, tunnel) {
            Ok(delivery) => {
                targets.insert(
                    address,
                    Target { address, tunnel, node: None, delivery, weight, ready: weight > 0, serving: true },
                );
            }
            Err(why) => {
                issues.of_endpoint(address, Issue::new(ProblemReason::DeliveryMismatch, "spec.endpoints", why));
            }
        }
    }
    TargetGroup { name: String::new(), weight: 1, targets }
}

fn chosen(index: &Index, choice: DeliveryChoice, address: IpAddr, tunnel: IpAddr) -> Result<Delivery, &'static str> {
    let of_one_node =
        || index.nodes().any(|node| node.internal_ips.contains(&address) && node.internal_ips.contains(&tunnel));
    match choice {
        DeliveryChoice::Local => Ok(Delivery::Local),
        DeliveryChoice::Veth => Ok(Delivery::Veth),
        DeliveryChoice::Auto if tunnel == address || of_one_node() => Ok(Delivery::Local),
        DeliveryChoice::Auto => {
            Err("its tunnel address is another, so delivery Auto means Nat, which this version does \
             not have; set `delivery: Local` if processes of the node itself answer, or `delivery: Veth` if it is a \
             network namespace that has the VIP on its loopback")
        }
        DeliveryChoice::Nat => {
            Err("this version does not have delivery Nat; use `delivery: Local` with processes of the \
             node itself, or `delivery: Veth` with a network namespace that has the VIP on its loopback")
        }
    }
}
