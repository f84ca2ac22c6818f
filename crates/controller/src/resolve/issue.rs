use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::model::{Backends, Place, Problem, ProblemReason, VirtualService};

/// A problem of a VirtualService, its place not told yet: that may change without the rest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Issue {
    pub(super) reason: ProblemReason,
    pub(super) field: &'static str,
    pub(super) message: String,
}

impl Issue {
    pub(super) fn new(reason: ProblemReason, field: &'static str, message: impl Into<String>) -> Self {
        Self { reason, field, message: message.into() }
    }

    pub(super) fn at(&self, place: &Place) -> Problem {
        let place = Place { field: self.field.to_owned(), ..place.clone() };
        Problem { reason: self.reason, place, message: self.message.clone() }
    }
}

/// Collects issues; what many endpoints have in common is said once, with their addresses.
#[derive(Debug, Default)]
pub(super) struct Issues {
    single: BTreeSet<Issue>,
    of_endpoints: BTreeMap<Issue, BTreeSet<IpAddr>>,
}

impl Issues {
    pub(super) fn add(&mut self, issue: Issue) {
        self.single.insert(issue);
    }

    pub(super) fn of_endpoint(&mut self, address: IpAddr, issue: Issue) {
        self.of_endpoints.entry(issue).or_default().insert(address);
    }

    /// Endpoints that cannot be used.
    pub(super) fn endpoints(&self) -> BTreeSet<IpAddr> {
        self.of_endpoints.values().flatten().copied().collect()
    }

    pub(super) fn end(self) -> Vec<Issue> {
        let of_endpoints = self.of_endpoints.into_iter().map(|(issue, addresses)| {
            let noun = if addresses.len() == 1 { "endpoint" } else { "endpoints" };
            Issue { message: format!("{noun} {}: {}", some_of(&addresses), issue.message), ..issue }
        });
        let mut issues: Vec<_> = self.single.into_iter().chain(of_endpoints).collect();
        issues.sort();
        issues
    }
}

/// The first few of many, for a sentence.
pub(super) fn some_of<T: std::fmt::Display>(items: &BTreeSet<T>) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<_> = items.iter().take(SHOWN).map(ToString::to_string).collect();
    match items.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// The field that says where the endpoints come from.
pub(super) const fn backends_field(service: &VirtualService) -> &'static str {
    match service.backends {
        Backends::Refs(_) => "spec.backendRefs",
        Backends::Given(_) => "spec.endpoints",
    }
}
