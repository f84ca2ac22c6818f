//! Endpoints given in the VirtualService itself.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::answering::Candidates;
use super::delivery::{Asked, chosen};
use super::issue::Issues;
use super::select::Target;
use crate::index::Index;
use crate::model::{Backends, DeliveryChoice, Frontend, GivenEndpoint, VirtualService};

/// Whether the VirtualService gives an endpoint of this address.
pub(super) fn has(service: &VirtualService, address: IpAddr) -> bool {
    match &service.backends {
        Backends::Given(endpoints) => endpoints.iter().any(|endpoint| endpoint.address == address),
        Backends::Refs(_) => false,
    }
}

/// The given endpoints: one group, always ready.
pub(super) fn candidates(
    index: &Index,
    service: &VirtualService,
    endpoints: &[GivenEndpoint],
    frontend: Frontend,
    issues: &mut Issues,
) -> Candidates {
    let mut targets = BTreeMap::new();
    for &GivenEndpoint { address, weight, tunnel, delivery, port } in endpoints {
        let tunnel = tunnel.unwrap_or(address);
        let choice = delivery.unwrap_or(service.delivery);
        let asked = Asked {
            choice,
            address,
            of_its_node: of_its_node(index, choice, address, tunnel),
            vip: frontend.vip,
            port: frontend.port,
            listens: port.unwrap_or(frontend.port),
            field: "spec.endpoints",
        };
        match chosen(&asked) {
            Ok((delivery, why)) => {
                let ready = weight > 0;
                let target = Target { address, tunnel, node: None, delivery, why, weight, ready, serving: true };
                targets.insert(address, (target, asked.listens));
            }
            Err(issue) => issues.of_endpoint(address, issue),
        }
    }
    Candidates { name: String::new(), weight: 1, targets }
}

/// Whether an endpoint's address is its node's own. Who asks for `Local` knows that its node answers.
fn of_its_node(index: &Index, choice: DeliveryChoice, address: IpAddr, tunnel: IpAddr) -> bool {
    let of_one_node =
        || index.nodes().any(|node| node.internal_ips.contains(&address) && node.internal_ips.contains(&tunnel));
    choice == DeliveryChoice::Local || tunnel == address || of_one_node()
}
