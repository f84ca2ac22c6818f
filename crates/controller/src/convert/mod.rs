//! API objects into domain objects, which hold only what matters. Pure.
//!
//! Every mistake is reported with the path of its field and what to write instead; an object with a mistake is
//! refused as a whole, and never stops another.

mod address;
mod endpoint_slice;
mod endpoints;
mod node;
mod service;
#[cfg(test)]
mod tests;
mod virtual_service;

pub use endpoint_slice::endpoint_slice;
pub use endpoints::endpoints;
pub use node::node;
pub use service::service;
pub use virtual_service::virtual_service;

use crate::model::{Object, Place, Problem, ProblemReason, Protocol, ServiceName};

/// What became of an API object: the domain object, `None` where it is none of Guenon's business, or all that is
/// wrong with it.
pub type Converted = Result<Option<Object>, Vec<Problem>>;

/// Collects what is wrong with one object.
struct Report<'a> {
    place: &'a Place,
    problems: Vec<Problem>,
}

impl<'a> Report<'a> {
    const fn new(place: &'a Place) -> Self {
        Self { place, problems: Vec::new() }
    }

    fn invalid(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem {
            reason: ProblemReason::Invalid,
            place: Place { field: field.into(), ..self.place.clone() },
            message: message.into(),
        });
    }

    /// The object, unless something was wrong.
    fn end(self, object: Option<Object>) -> Converted {
        if self.problems.is_empty() { Ok(object) } else { Err(self.problems) }
    }
}

/// Namespace and name; files may leave out the namespace.
fn name(metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta, report: &mut Report<'_>) -> ServiceName {
    let name = metadata.name.clone().unwrap_or_default();
    if name.is_empty() {
        report.invalid("metadata.name", "Required value: the object has no name; give it one");
    }
    let namespace = metadata.namespace.as_deref().filter(|namespace| !namespace.is_empty()).unwrap_or("default");
    ServiceName::new(namespace, name)
}

/// Whether this is a DNS label (RFC 1123) of 63 characters at most.
fn is_label(text: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=63).contains(&text.len())
        && text.bytes().all(|c| inner(c) || c == b'-')
        && text.bytes().next().is_some_and(inner)
        && text.bytes().last().is_some_and(inner)
}

/// The protocol of a Service's or slice's port: absent = TCP, `None` for one that Guenon does not balance (SCTP).
fn protocol(text: Option<&str>) -> Option<Protocol> {
    match text {
        None | Some("TCP" | "") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some(_) => None,
    }
}

/// A port number of the API, as one of 1..=65535.
fn port(number: i32, field: &str, report: &mut Report<'_>) -> Option<u16> {
    let port = u16::try_from(number).ok().filter(|port| *port != 0);
    if port.is_none() {
        report.invalid(field, format!("{number} is no port; write a number from 1 to 65535"));
    }
    port
}
