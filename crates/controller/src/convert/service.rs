use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::address::{self, Form};
use super::{Converted, Report, name, port, protocol};
use crate::model::{BackendService, Object, Place, ServicePort};

/// Annotation of a Service that is there to announce its addresses for Guenon, as MetalLB does.
const ANNOUNCES: &str = "guenon.dev/announces";

/// A Service that backendRefs may name. Ports of protocols that Guenon does not balance are left out.
///
/// # Errors
///
/// All that is wrong with it.
pub fn service(object: &Service, place: &Place) -> Converted {
    let mut report = Report::new(place);
    let name = name(&object.metadata, &mut report);
    let mut ports = Vec::new();
    let mut cluster_ips = BTreeSet::new();
    let mut external_name = false;
    let mut claimed = BTreeSet::new();
    if let Some(spec) = &object.spec {
        for (i, service_port) in spec.ports.iter().flatten().enumerate() {
            let number = port(service_port.port, &format!("spec.ports[{i}].port"), &mut report);
            if let (Some(port), Some(protocol)) = (number, protocol(service_port.protocol.as_deref())) {
                let name = service_port.name.clone().unwrap_or_default();
                let target_name = match &service_port.target_port {
                    Some(IntOrString::String(name)) => Some(name.clone()),
                    Some(IntOrString::Int(_)) | None => None,
                };
                ports.push(ServicePort { name, protocol, port, target_name });
            }
        }
        let listed = spec.cluster_ips.iter().flatten().enumerate().map(|(i, ip)| (format!("spec.clusterIPs[{i}]"), ip));
        let first = spec.cluster_ip.iter().map(|ip| ("spec.clusterIP".to_owned(), ip));
        for (field, ip) in first.chain(listed).filter(|(_, ip)| !ip.is_empty() && ip.as_str() != "None") {
            cluster_ips.extend(address::parse(ip, Form::Any, &field, &mut report));
        }
        for (i, ip) in spec.external_ips.iter().flatten().enumerate() {
            claimed.extend(address::parse(ip, Form::Any, &format!("spec.externalIPs[{i}]"), &mut report));
        }
        external_name = spec.type_.as_deref() == Some("ExternalName");
    }
    let status = object.status.iter().filter_map(|status| status.load_balancer.as_ref());
    let ingress = status.flat_map(|balancer| balancer.ingress.iter().flatten());
    for (i, ip) in ingress.enumerate().filter_map(|(i, ingress)| Some((i, ingress.ip.as_ref()?))) {
        let field = format!("status.loadBalancer.ingress[{i}].ip");
        claimed.extend(address::parse(ip, Form::Any, &field, &mut report));
    }
    let annotations = object.metadata.annotations.as_ref();
    if annotations.and_then(|all| all.get(ANNOUNCES)).is_some_and(|value| value == "true") {
        claimed.clear();
    }
    let (cluster_ips, claimed) = (cluster_ips.into_iter().collect(), claimed.into_iter().collect());
    report.end(Some(Object::Service(BackendService { name, ports, cluster_ips, claimed, external_name })))
}
