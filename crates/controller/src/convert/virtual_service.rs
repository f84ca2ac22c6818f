use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::IpAddr;

use guenon_crd as crd;

use super::address::{self, Form};
use super::{Converted, Report, is_label, name, port};
use crate::model::{
    BackendRef, Backends, DeliveryChoice, GivenEndpoint, Object, Place, Protocol, ServiceName, VipPort, VirtualService,
};

/// A VirtualService. `place` says where it was read.
///
/// # Errors
///
/// All that is wrong with it.
pub fn virtual_service(object: &crd::VirtualService, place: &Place) -> Converted {
    let mut report = Report::new(place);
    let name = name(&object.metadata, &mut report);
    judge_name(&name, &mut report);
    let crd::VirtualServiceSpec { addresses, ports, backend_refs, endpoints, session_affinity, delivery } =
        &object.spec;
    let addresses = vips(addresses, &mut report);
    let ports = vip_ports(ports, &mut report);
    let backends = match (backend_refs, endpoints) {
        (Some(refs), None) => Backends::Refs(backends(refs, &mut report)),
        (None, Some(endpoints)) => Backends::Given(given(endpoints, &mut report)),
        (Some(_), Some(_)) => {
            report.invalid("spec.endpoints", "there are both backendRefs and endpoints; remove one of the two");
            Backends::Given(Vec::new())
        }
        (None, None) => {
            report.invalid(
                "spec",
                "nobody answers: set backendRefs to name Services, or endpoints to give addresses, not both",
            );
            Backends::Given(Vec::new())
        }
    };
    let created = object.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
    let converted = VirtualService {
        name,
        created,
        generation: object.metadata.generation.unwrap_or_default(),
        addresses,
        ports,
        backends,
        client_ip: *session_affinity == crd::SessionAffinity::ClientIP,
        delivery: choice(*delivery),
        place: place.clone(),
    };
    report.end(Some(Object::VirtualService(converted)))
}

/// What a server asks of a name (in the same words) and of a namespace.
fn judge_name(name: &ServiceName, report: &mut Report<'_>) {
    let ServiceName { namespace, name } = name;
    if name.len() > crd::MAX_NAME {
        let message = format!("metadata.name must have at most {} characters", crd::MAX_NAME);
        report.invalid("metadata.name", format!("Invalid value: {message}; this has {}", name.len()));
    } else if !name.is_empty() && !name.split('.').all(is_label) {
        let message = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and \
                       must start and end with an alphanumeric character";
        report.invalid("metadata.name", format!("Invalid value: {name:?}: {message}; write one such as web"));
    }
    if !is_label(namespace) {
        let cure = "use a-z, 0-9 and `-`, 63 characters at most";
        report.invalid("metadata.namespace", format!("`{namespace}` is no name of a namespace; {cure}"));
    }
}

fn vips(addresses: &[String], report: &mut Report<'_>) -> Vec<IpAddr> {
    bounds("spec.addresses", addresses.len(), crd::MAX_ADDRESSES, report);
    let mut seen = Seen::default();
    for (i, text) in addresses.iter().enumerate() {
        let field = format!("spec.addresses[{i}]");
        if let Some(address) = address::parse(text, Form::Canonical, &field, report) {
            seen.add(address, field, report);
        }
    }
    seen.0.into_keys().collect()
}

fn vip_ports(ports: &[crd::Port], report: &mut Report<'_>) -> Vec<VipPort> {
    bounds("spec.ports", ports.len(), crd::MAX_PORTS, report);
    let mut seen = BTreeMap::<(Protocol, u16), String>::new();
    let mut names = Seen::default();
    for (i, vip_port) in ports.iter().enumerate() {
        let crd::Port { name, protocol, port: number } = vip_port;
        let field = format!("spec.ports[{i}].port");
        let protocol = match protocol {
            crd::Protocol::Tcp => Protocol::Tcp,
            crd::Protocol::Udp => Protocol::Udp,
        };
        if let Some(number) = port(*number, &field, report)
            && let Some(first) = seen.insert((protocol, number), field.clone())
        {
            report.invalid(field, format!("{number}/{protocol} is there already at {first}; remove one of the two"));
        }
        if let Some(name) = name {
            let field = format!("spec.ports[{i}].name");
            if is_label(name) {
                names.add(name.as_str(), field, report);
            } else {
                report.invalid(field, format!("`{name}` is no port name; use a-z, 0-9 and `-`, 63 characters at most"));
            }
        }
    }
    seen.into_keys().map(|(protocol, port)| VipPort { protocol, port }).collect()
}

fn backends(refs: &[crd::BackendRef], report: &mut Report<'_>) -> Vec<BackendRef> {
    bounds("spec.backendRefs", refs.len(), crd::MAX_BACKEND_REFS, report);
    let mut seen = Seen::default();
    let mut backends = Vec::with_capacity(refs.len());
    for (i, reference) in refs.iter().enumerate() {
        let crd::BackendRef { kind: crd::BackendKind::Service, name, weight } = reference;
        let field = format!("spec.backendRefs[{i}].name");
        if !is_label(name) {
            report.invalid(&field, format!("`{name}` is no Service name; use a-z, 0-9 and `-`, 63 characters at most"));
        }
        seen.add(name.as_str(), field, report);
        let weight = share(*weight, &format!("spec.backendRefs[{i}].weight"), report);
        backends.push(BackendRef { name: name.clone(), weight });
    }
    backends.sort();
    backends
}

fn given(endpoints: &[crd::Endpoint], report: &mut Report<'_>) -> Vec<GivenEndpoint> {
    bounds("spec.endpoints", endpoints.len(), crd::MAX_ENDPOINTS, report);
    let mut seen = Seen::default();
    let mut given = Vec::with_capacity(endpoints.len());
    for (i, endpoint) in endpoints.iter().enumerate() {
        let crd::Endpoint { address, weight, tunnel, delivery, port: listens } = endpoint;
        let field = format!("spec.endpoints[{i}].address");
        let address = address::parse(address, Form::Canonical, &field, report);
        if let Some(address) = address {
            seen.add(address, field, report);
        }
        let weight = share(*weight, &format!("spec.endpoints[{i}].weight"), report);
        let tunnel = tunnel
            .as_ref()
            .and_then(|tunnel| address::parse(tunnel, Form::Canonical, &format!("spec.endpoints[{i}].tunnel"), report));
        let port = listens.and_then(|number| port(number, &format!("spec.endpoints[{i}].port"), report));
        if let Some(address) = address {
            given.push(GivenEndpoint { address, weight, tunnel, delivery: delivery.map(choice), port });
        }
    }
    given.sort();
    given
}

fn share(weight: i32, field: &str, report: &mut Report<'_>) -> u32 {
    match u32::try_from(weight) {
        Ok(share) if weight <= crd::MAX_WEIGHT => share,
        _ => {
            report.invalid(field, format!("{weight} is no weight; write a number from 0 to {}", crd::MAX_WEIGHT));
            0
        }
    }
}

fn bounds(field: &str, count: usize, most: usize, report: &mut Report<'_>) {
    if count == 0 {
        report.invalid(field, format!("the list is empty; give 1 to {most}"));
    } else if count > most {
        report.invalid(field, format!("the list has {count} entries; {most} at most: use several VirtualServices"));
    }
}

const fn choice(delivery: crd::Delivery) -> DeliveryChoice {
    match delivery {
        crd::Delivery::Auto => DeliveryChoice::Auto,
        crd::Delivery::Local => DeliveryChoice::Local,
        crd::Delivery::Veth => DeliveryChoice::Veth,
        crd::Delivery::Nat => DeliveryChoice::Nat,
    }
}

/// Values and the fields where they were seen first.
struct Seen<T>(BTreeMap<T, String>);

impl<T> Default for Seen<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Ord + Display> Seen<T> {
    fn add(&mut self, value: T, field: String, report: &mut Report<'_>) {
        if let Some(first) = self.0.get(&value) {
            report.invalid(field, format!("{value} is there already at {first}; remove one of the two"));
        } else {
            self.0.insert(value, field);
        }
    }
}
