//! The status of a VirtualService: what objects and agents say of it, in the words of kubernetes.md's table. Pure.

use std::collections::BTreeSet;

use guenon_crd::{
    Condition, ConditionStatus, DirectorCounts, EndpointCounts, VirtualServiceStatus, conditions as types,
};

use super::directors::{Directors, Exception, Reached};
use crate::kube::condition;
use crate::model::{Problem, ProblemReason, ServiceName, VirtualService, cut};
use crate::resolve::{Finding, Judgement};

/// Reasons of conditions that are no [`ProblemReason`].
pub(super) mod reasons {
    pub(crate) const ACCEPTED: &str = "Accepted";
    pub(crate) const RESOLVED_REFS: &str = "ResolvedRefs";
    pub(crate) const PROGRAMMED: &str = "Programmed";
    pub(crate) const READY: &str = "Ready";
    pub(crate) const PENDING: &str = "Pending";
    pub(crate) const NO_DIRECTORS: &str = "NoDirectors";
}

/// Most characters of a message and of a line for `kubectl get`.
const MESSAGE: usize = 4096;
const LINE: usize = 512;
/// Directors named in a message.
const NAMED: usize = 5;

/// The status of a VirtualService that the objects' rules accept. `version` is that at which the generation that was judged
/// was seen first. Whoever writes it fills in times.
pub(super) fn of_judged(
    service: &VirtualService,
    judged: &Judgement,
    version: u64,
    directors: &Directors,
) -> VirtualServiceStatus {
    let generation = Some(judged.generation);
    let accepted = aspect(types::ACCEPTED, generation, judged, is_about_acceptance, || {
        (reasons::ACCEPTED, "the object is valid and its frontends are its own".to_owned())
    });
    let resolved = aspect(types::RESOLVED_REFS, generation, judged, is_about_references, || {
        (reasons::RESOLVED_REFS, format!("all that it refers to is there and can be used{}", deliveries(judged)))
    });
    let (programmed, counts) = programmed(&service.name, generation, version, directors);
    let no_endpoints = judged.findings.iter().find(|finding| finding.reason == ProblemReason::NoReadyEndpoints);
    let ready = ready(generation, judged, no_endpoints, [&accepted, &resolved], &programmed, &counts);
    VirtualServiceStatus {
        observed_generation: generation,
        observed_version: Some(version.to_string()),
        conditions: vec![accepted, programmed, ready, resolved],
        endpoints: Some(endpoints(judged)),
        addresses: Some(cut(&join(service.addresses.iter()), LINE)),
        ports: Some(cut(&join(service.ports.iter().map(|port| format!("{}/{}", port.port, port.protocol))), LINE)),
        directors: Some(counts),
    }
}

/// The status of a VirtualService that passed an older schema, or none: what was in force before stays.
pub(super) fn of_invalid(generation: i64, problems: &[Problem], before: &VirtualServiceStatus) -> VirtualServiceStatus {
    let said = |problem: &Problem| match problem.place.field.as_str() {
        "" => problem.message.clone(),
        field => format!("{field}: {}", problem.message),
    };
    let message = cut(&join_with("; ", problems.iter().map(said)), MESSAGE);
    let generation = Some(generation);
    let waits = "the object is not valid; what was in force before stays";
    let invalid = ProblemReason::Invalid.name();
    VirtualServiceStatus {
        observed_generation: generation,
        conditions: vec![
            condition(types::ACCEPTED, ConditionStatus::False, generation, invalid, message.clone()),
            condition(types::PROGRAMMED, ConditionStatus::False, generation, reasons::PENDING, waits),
            condition(types::READY, ConditionStatus::False, generation, invalid, message),
            condition(types::RESOLVED_REFS, ConditionStatus::Unknown, generation, reasons::PENDING, waits),
        ],
        ..before.clone()
    }
}

/// A condition that holds unless one of these findings is there.
fn aspect(
    type_: &str,
    generation: Option<i64>,
    judged: &Judgement,
    concerns: fn(ProblemReason) -> bool,
    holds: impl FnOnce() -> (&'static str, String),
) -> Condition {
    let found: Vec<&Finding> = judged.findings.iter().filter(|finding| concerns(finding.reason)).collect();
    match found.first() {
        Some(first) => {
            let message = cut(&join_with("; ", found.iter().map(|finding| &finding.message)), MESSAGE);
            condition(type_, ConditionStatus::False, generation, first.reason.name(), message)
        }
        None => {
            let (reason, message) = holds();
            condition(type_, ConditionStatus::True, generation, reason, message)
        }
    }
}

/// Which deliveries endpoints get, and why; nothing where there are none.
fn deliveries(judged: &Judgement) -> String {
    let said = judged.deliveries.iter().map(|((delivery, why), number)| {
        let noun = if *number == 1 { "endpoint" } else { "endpoints" };
        format!("{} for {number} {noun} ({})", delivery.name(), why.reason())
    });
    let said = join_with(", ", said);
    if said.is_empty() { said } else { format!("; delivery {said}") }
}

/// Of the object's own validity and claims.
fn is_about_acceptance(reason: ProblemReason) -> bool {
    side(reason) == Some(types::ACCEPTED)
}

/// Of what it refers to.
fn is_about_references(reason: ProblemReason) -> bool {
    side(reason) == Some(types::RESOLVED_REFS)
}

/// The condition that a finding among the objects belongs to; `None`: to none, or to Programmed or Ready.
const fn side(reason: ProblemReason) -> Option<&'static str> {
    match reason {
        ProblemReason::Unreadable
        | ProblemReason::Invalid
        | ProblemReason::Conflicted
        | ProblemReason::AddressNotAllowed => Some(types::ACCEPTED),
        ProblemReason::BackendNotFound
        | ProblemReason::PortNotFound
        | ProblemReason::TargetPortMismatch
        | ProblemReason::DeliveryMismatch
        | ProblemReason::FamilyMismatch
        | ProblemReason::NoTunnelAddress => Some(types::RESOLVED_REFS),
        ProblemReason::Contested
        | ProblemReason::NoReadyEndpoints
        | ProblemReason::NoResources
        | ProblemReason::NoRoute
        | ProblemReason::NoNeighbour
        | ProblemReason::Interface
        | ProblemReason::Source
        | ProblemReason::Node
        | ProblemReason::HashKey
        | ProblemReason::EgressHook => None,
    }
}

fn programmed(
    name: &ServiceName,
    generation: Option<i64>,
    version: u64,
    directors: &Directors,
) -> (Condition, DirectorCounts) {
    let Directors { reached, least, exceptions, with_more } = directors;
    let exceptions = exceptions.get(name).map_or(&[][..], Vec::as_slice);
    let excepted: BTreeSet<&str> = exceptions.iter().map(|(node, _)| node.as_str()).collect();
    let mut lacking: Vec<String> = exceptions
        .iter()
        .map(|(node, Exception { reason, message })| format!("{node}: {message} ({reason})"))
        .collect();
    let mut without = excepted.iter().filter(|node| reached.contains_key(**node)).count();
    if *least < version || !with_more.is_empty() {
        for (node, reached) in reached.iter().filter(|(node, _)| !excepted.contains(node.as_str())) {
            let why = match reached {
                Reached::Version(reached) if *reached < version => "has not got it yet",
                Reached::Version(_) if with_more.contains(node) => {
                    "has more exceptions than it lists, so this may be one of them"
                }
                Reached::Version(_) => continue,
                Reached::Unknown(why) => why,
            };
            without += 1;
            lacking.push(format!("{node} {why}"));
        }
    }
    let total = reached.len();
    let having = total - without;
    let counts =
        DirectorCounts { programmed: count(having), total: count(total), summary: Some(format!("{having}/{total}")) };
    let of = |status, reason: &str, message: String| {
        condition(types::PROGRAMMED, status, generation, reason, cut(&message, MESSAGE))
    };
    let condition = if total == 0 {
        let message = "no node is a director: label one as the agents' --director-selector says (Helm: \
                       directorSelector), and see `kubectl get guenonnodes`";
        of(ConditionStatus::False, reasons::NO_DIRECTORS, message.to_owned())
    } else if lacking.is_empty() {
        let noun = if total == 1 { "the one director" } else { "all directors" };
        of(ConditionStatus::True, reasons::PROGRAMMED, format!("in force on {noun}"))
    } else {
        let reason = exceptions.first().map_or(reasons::PENDING, |(_, exception)| &exception.reason);
        let more = match lacking.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        lacking.truncate(NAMED);
        let message = format!("in force on {having} of {total} directors: {}{more}", lacking.join("; "));
        of(ConditionStatus::False, reason, message)
    };
    (condition, counts)
}

fn ready(
    generation: Option<i64>,
    judged: &Judgement,
    no_endpoints: Option<&Finding>,
    objects: [&Condition; 2],
    programmed: &Condition,
    counts: &DirectorCounts,
) -> Condition {
    let of = |status, reason: &str, message: &str| condition(types::READY, status, generation, reason, message);
    let lacks = |condition: &&&Condition| condition.status != ConditionStatus::True;
    if let Some(lacking) = objects.iter().find(lacks) {
        return of(ConditionStatus::False, &lacking.reason, &lacking.message);
    }
    if let Some(finding) = no_endpoints {
        return of(ConditionStatus::False, finding.reason.name(), &finding.message);
    }
    if judged.ready == 0 {
        let message = "no endpoint is ready; those that still answer take new flows meanwhile";
        return of(ConditionStatus::False, ProblemReason::NoReadyEndpoints.name(), message);
    }
    if programmed.status != ConditionStatus::True {
        return of(ConditionStatus::False, &programmed.reason, &programmed.message);
    }
    let (ready, total, directors) = (judged.ready, judged.total, counts.total);
    let message = format!("{ready} of {total} endpoints are ready; directors that have it in force: {directors}");
    of(ConditionStatus::True, reasons::READY, &message)
}

fn endpoints(judged: &Judgement) -> EndpointCounts {
    let Judgement { ready, draining, total, .. } = judged;
    EndpointCounts {
        ready: count(*ready),
        draining: count(*draining),
        total: count(*total),
        summary: Some(format!("{ready}/{total}")),
    }
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn join(items: impl Iterator<Item = impl ToString>) -> String {
    join_with(",", items)
}

fn join_with(separator: &str, items: impl Iterator<Item = impl ToString>) -> String {
    items.map(|item| item.to_string()).collect::<Vec<_>>().join(separator)
}
