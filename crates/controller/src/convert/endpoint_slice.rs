use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use super::address::{self, Form};
use super::{Converted, Report, name, port, protocol};
use crate::model::{Object, Place, Slice, SliceEndpoint, SliceOrigin, SlicePort, SliceSubset};

/// The label that names the Service of a slice.
const SERVICE: &str = "kubernetes.io/service-name";

/// An EndpointSlice. Those of host names (`addressType: FQDN`) are none of Guenon's business.
///
/// # Errors
///
/// All that is wrong with it.
pub fn endpoint_slice(object: &EndpointSlice, place: &Place) -> Converted {
    let mut report = Report::new(place);
    let name = name(&object.metadata, &mut report);
    if object.address_type == "FQDN" {
        return report.end(None);
    }
    let family = object.address_type.as_str();
    if !matches!(family, "IPv4" | "IPv6") {
        report.invalid("addressType", format!("`{family}` is no address type; write IPv4 or IPv6"));
        return report.end(None);
    }
    let service =
        object.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE)).filter(|name| !name.is_empty());
    if service.is_none() {
        report.invalid("metadata.labels", format!("the slice belongs to no Service; add the label `{SERVICE}: NAME`"));
    }
    let mut ports = Vec::new();
    for (i, slice_port) in object.ports.iter().flatten().enumerate() {
        let number = slice_port.port.map(|number| port(number, &format!("ports[{i}].port"), &mut report));
        if let (Some(protocol), false) = (protocol(slice_port.protocol.as_deref()), number == Some(None)) {
            let name = slice_port.name.clone().unwrap_or_default();
            ports.push(SlicePort { name, protocol, port: number.flatten() });
        }
    }
    let mut endpoints = Vec::with_capacity(object.endpoints.len());
    for (i, endpoint) in object.endpoints.iter().enumerate() {
        endpoints.extend(slice_endpoint(endpoint, &object.address_type, i, &mut report));
    }
    // No ports mean "every port"; that must not come of leaving out those of another protocol.
    let usable = !ports.is_empty() || object.ports.as_ref().is_none_or(Vec::is_empty);
    let subsets = if usable { vec![SliceSubset { ports, endpoints }] } else { Vec::new() };
    let service = service.cloned().unwrap_or_default();
    report.end(Some(Object::Slice(Slice { name, origin: SliceOrigin::EndpointSlice, service, subsets })))
}

fn slice_endpoint(endpoint: &Endpoint, family: &str, i: usize, report: &mut Report<'_>) -> Option<SliceEndpoint> {
    let field = format!("endpoints[{i}].addresses");
    let Some(text) = endpoint.addresses.first() else {
        report.invalid(field, "the endpoint has no address; give it one, or remove the endpoint");
        return None;
    };
    let field = format!("{field}[0]");
    let address = address::parse(text, Form::Any, &field, report)?;
    if family != if address.is_ipv4() { "IPv4" } else { "IPv6" } {
        report
            .invalid(field, format!("{address} does not fit `addressType: {family}`; put it into a slice of its own"));
        return None;
    }
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    let ready = conditions.ready.unwrap_or(true);
    Some(SliceEndpoint {
        address,
        ready,
        serving: conditions.serving.unwrap_or(ready),
        terminating: conditions.terminating.unwrap_or(false),
        node: endpoint.node_name.clone().filter(|node| !node.is_empty()),
    })
}
