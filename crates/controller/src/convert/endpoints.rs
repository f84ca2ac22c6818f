use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints};

use super::address::{self, Form};
use super::{Converted, Report, name, port, protocol};
use crate::model::{Object, Place, Slice, SliceEndpoint, SliceOrigin, SlicePort, SliceSubset};

/// Labels of objects that are copies of slices.
const COPIES: [&str; 2] = ["endpoints.kubernetes.io/managed-by", "endpointslice.kubernetes.io/skip-mirror"];

/// An Endpoints object, read where its Service has no slice. Copies of slices are none of Guenon's business.
///
/// # Errors
///
/// All that is wrong with it.
pub fn endpoints(object: &Endpoints, place: &Place) -> Converted {
    let mut report = Report::new(place);
    let name = name(&object.metadata, &mut report);
    let labels = object.metadata.labels.as_ref();
    if COPIES.iter().any(|label| labels.is_some_and(|labels| labels.contains_key(*label))) {
        return report.end(None);
    }
    let mut subsets = Vec::new();
    for (i, subset) in object.subsets.iter().flatten().enumerate() {
        let ports = subset_ports(subset, i, &mut report);
        let ready = subset.addresses.iter().flatten().enumerate().map(|(j, a)| (true, "addresses", j, a));
        let not_ready = subset.not_ready_addresses.iter().flatten().enumerate();
        let mut endpoints = Vec::new();
        for (ready, list, j, address) in ready.chain(not_ready.map(|(j, a)| (false, "notReadyAddresses", j, a))) {
            let field = format!("subsets[{i}].{list}[{j}].ip");
            endpoints.extend(endpoint(address, ready, &field, &mut report));
        }
        // No ports mean "every port"; that must not come of leaving out those of another protocol.
        if !ports.is_empty() || subset.ports.as_ref().is_none_or(Vec::is_empty) {
            subsets.push(SliceSubset { ports, endpoints });
        }
    }
    let service = name.name.clone();
    report.end(Some(Object::Slice(Slice { name, origin: SliceOrigin::Endpoints, service, subsets })))
}

fn subset_ports(subset: &EndpointSubset, i: usize, report: &mut Report<'_>) -> Vec<SlicePort> {
    let mut ports = Vec::new();
    for (j, subset_port) in subset.ports.iter().flatten().enumerate() {
        let number = port(subset_port.port, &format!("subsets[{i}].ports[{j}].port"), report);
        if let (Some(number), Some(protocol)) = (number, protocol(subset_port.protocol.as_deref())) {
            let name = subset_port.name.clone().unwrap_or_default();
            ports.push(SlicePort { name, protocol, port: Some(number) });
        }
    }
    ports
}

fn endpoint(address: &EndpointAddress, ready: bool, field: &str, report: &mut Report<'_>) -> Option<SliceEndpoint> {
    Some(SliceEndpoint {
        address: address::parse(&address.ip, Form::Any, field, report)?,
        ready,
        serving: ready,
        terminating: false,
        node: address.node_name.clone().filter(|node| !node.is_empty()),
    })
}
