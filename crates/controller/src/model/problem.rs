use std::fmt;

use serde::{Deserialize, Serialize};

/// Something that keeps part of the configuration out of force, said so that a person can mend it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Problem {
    /// Its kind; one word in metrics and conditions.
    pub reason: ProblemReason,
    /// Where it is.
    pub place: Place,
    /// What is wrong, with the value, and what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({:?})", self.place, self.message, self.reason)
    }
}

/// Where a problem is. Empty parts are not shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct Place {
    /// The file, or the empty string.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub file: String,
    /// Number of the document in the file, from 1; 0 = none.
    #[serde(skip_serializing_if = "is_zero")]
    pub document: usize,
    /// Line in the file, from 1; 0 = none.
    #[serde(skip_serializing_if = "is_zero")]
    pub line: usize,
    /// `Kind namespace/name`, or an interface, or the empty string.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub object: String,
    /// Path of the field, as in `spec.ports[0].port`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if !self.file.is_empty() {
            parts.push(match (self.line, self.document) {
                (0, 0) => self.file.clone(),
                (0, document) => format!("{}, document {document}", self.file),
                (line, 0) => format!("{}:{line}", self.file),
                (line, document) => format!("{}:{line} (document {document})", self.file),
            });
        }
        if !self.object.is_empty() {
            parts.push(self.object.clone());
        }
        if !self.field.is_empty() {
            parts.push(self.field.clone());
        }
        f.write_str(&parts.join(", "))
    }
}

/// Kinds of problems. The names are those of the conditions' reasons where there is one (Gateway API's manner).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ProblemReason {
    /// The document is no YAML, or not an object of a known kind.
    Unreadable,
    /// A field has a value that it cannot have.
    Invalid,
    /// A frontend is claimed by an older service.
    Conflicted,
    /// A newer service claims a frontend that this one has and keeps: told, so that both owners know.
    Contested,
    /// The VIP is a node's, a Service's or a pod's address.
    AddressNotAllowed,
    /// A backendRef names what does not exist.
    BackendNotFound,
    /// The Service has no port of that number and protocol.
    PortNotFound,
    /// Target port and VIP port differ where they must be equal.
    TargetPortMismatch,
    /// The delivery cannot reach that endpoint.
    DeliveryMismatch,
    /// The endpoint's address is of another family than the VIP, and its delivery does not translate families.
    FamilyMismatch,
    /// The endpoint's node has no tunnel address.
    NoTunnelAddress,
    /// No endpoint is ready.
    NoReadyEndpoints,
    /// A map is full.
    NoResources,
    /// No route to an endpoint.
    NoRoute,
    /// A next hop does not answer.
    NoNeighbour,
    /// An interface is not there, or taken by another program.
    Interface,
    /// The source of objects cannot be read.
    Source,
    /// The node could not be set up (address, sysctl, far end of a veth).
    Node,
    /// The Secret with the hash key is gone, or holds another one.
    HashKey,
    /// The program on the way out is not attached, or another one stands before it.
    EgressHook,
}

impl ProblemReason {
    /// Every kind.
    pub const ALL: &'static [Self] = &[
        Self::Unreadable,
        Self::Invalid,
        Self::Conflicted,
        Self::Contested,
        Self::AddressNotAllowed,
        Self::BackendNotFound,
        Self::PortNotFound,
        Self::TargetPortMismatch,
        Self::DeliveryMismatch,
        Self::FamilyMismatch,
        Self::NoTunnelAddress,
        Self::NoReadyEndpoints,
        Self::NoResources,
        Self::NoRoute,
        Self::NoNeighbour,
        Self::Interface,
        Self::Source,
        Self::Node,
        Self::HashKey,
        Self::EgressHook,
    ];

    /// Its one word in metrics, JSON and conditions.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unreadable => "Unreadable",
            Self::Invalid => "Invalid",
            Self::Conflicted => "Conflicted",
            Self::Contested => "Contested",
            Self::AddressNotAllowed => "AddressNotAllowed",
            Self::BackendNotFound => "BackendNotFound",
            Self::PortNotFound => "PortNotFound",
            Self::TargetPortMismatch => "TargetPortMismatch",
            Self::DeliveryMismatch => "DeliveryMismatch",
            Self::FamilyMismatch => "FamilyMismatch",
            Self::NoTunnelAddress => "NoTunnelAddress",
            Self::NoReadyEndpoints => "NoReadyEndpoints",
            Self::NoResources => "NoResources",
            Self::NoRoute => "NoRoute",
            Self::NoNeighbour => "NoNeighbour",
            Self::Interface => "Interface",
            Self::Source => "Source",
            Self::Node => "Node",
            Self::HashKey => "HashKey",
            Self::EgressHook => "EgressHook",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_reasons_is_complete_and_in_order() {
        for (number, reason) in ProblemReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, number, "{}", reason.name());
        }
        assert_eq!(ProblemReason::ALL.len(), ProblemReason::EgressHook as usize + 1, "the last one is in the list");
    }
}
