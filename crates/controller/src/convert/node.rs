use k8s_openapi::api::core::v1;

use super::address::{self, Form};
use super::{Converted, Report};
use crate::model::{Node, Object, Place};

/// A Node: its name, InternalIPs and labels, and whether it is ready.
///
/// # Errors
///
/// All that is wrong with it.
pub fn node(object: &v1::Node, place: &Place) -> Converted {
    let mut report = Report::new(place);
    let name = object.metadata.name.clone().unwrap_or_default();
    if name.is_empty() {
        report.invalid("metadata.name", "the object has no name; give it the node's");
    }
    let mut internal_ips = Vec::new();
    let addresses = object.status.iter().flat_map(|status| status.addresses.iter().flatten());
    for (i, address) in addresses.enumerate().filter(|(_, address)| address.type_ == "InternalIP") {
        let field = format!("status.addresses[{i}].address");
        internal_ips.extend(address::parse(&address.address, Form::Any, &field, &mut report));
    }
    let labels = object.metadata.labels.clone().unwrap_or_default();
    let mut conditions = object.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.find(|condition| condition.type_ == "Ready").is_none_or(|ready| ready.status == "True");
    report.end(Some(Object::Node(Node { name, internal_ips, labels, ready })))
}
