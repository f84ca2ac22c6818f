//! Operations that the data path refused, and when they are tried again. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::apply::{Operation, Refusal};
use crate::model::{NextHopKey, Place, Problem, ProblemReason, ServiceName, State};

/// First wait before a refused operation is tried again though nothing was freed; it doubles.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// What an operation is about: a later one about the same thing takes its place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    /// An address: tunnel, director or VIP on the node.
    Address(std::net::IpAddr),
    /// A next hop.
    NextHop(NextHopKey),
    /// A service.
    Service(ServiceName),
}

impl Subject {
    /// What this operation is about.
    pub(super) fn of(operation: &Operation) -> Self {
        match operation {
            Operation::PutTunnel(address)
            | Operation::RemoveTunnel(address)
            | Operation::PutDirector(address)
            | Operation::RemoveDirector(address)
            | Operation::SetOnNode(address, _) => Self::Address(*address),
            Operation::PutNextHop(key, _) | Operation::RemoveNextHop(key) => Self::NextHop(key.clone()),
            Operation::PutService(name, _) | Operation::RemoveService(name) => Self::Service(name.clone()),
        }
    }

    fn object(&self) -> String {
        match self {
            Self::Address(address) => format!("address {address}"),
            Self::NextHop(NextHopKey { interface, gateway }) => format!("next hop {gateway} on {interface}"),
            Self::Service(name) => format!("VirtualService {}", name.owner()),
        }
    }
}

/// Whether an operation gives room back when it succeeds.
pub(super) fn frees(operation: &Operation) -> bool {
    match operation {
        Operation::RemoveTunnel(_)
        | Operation::RemoveDirector(_)
        | Operation::RemoveNextHop(_)
        | Operation::RemoveService(_)
        // The new configuration may be smaller than the old.
        | Operation::PutService(..) => true,
        Operation::PutTunnel(_) | Operation::PutDirector(_) | Operation::PutNextHop(..) | Operation::SetOnNode(..) => {
            false
        }
    }
}

/// What is refused now.
#[derive(Debug, Default)]
pub(super) struct Refused {
    refusals: BTreeMap<Subject, Refusal>,
    wait: Option<(Instant, Duration)>,
}

impl Refused {
    /// An operation about this was refused.
    pub(super) fn put(&mut self, subject: Subject, refusal: Refusal) {
        self.refusals.insert(subject, refusal);
    }

    /// An operation about this succeeded, or is not wanted any more.
    pub(super) fn clear(&mut self, subject: &Subject) {
        self.refusals.remove(subject);
        if self.refusals.is_empty() {
            self.wait = None;
        }
    }

    /// Services that are refused.
    pub(super) fn services(&self) -> impl Iterator<Item = &ServiceName> {
        self.of_services().map(|(name, _)| name)
    }

    /// The same, and why.
    pub(super) fn of_services(&self) -> impl Iterator<Item = (&ServiceName, &Refusal)> {
        self.refusals.iter().filter_map(|(subject, refusal)| match subject {
            Subject::Service(name) => Some((name, refusal)),
            Subject::Address(_) | Subject::NextHop(_) => None,
        })
    }

    /// Next hops that are refused.
    pub(super) fn next_hops(&self) -> impl Iterator<Item = &NextHopKey> {
        self.refusals.keys().filter_map(|subject| match subject {
            Subject::NextHop(key) => Some(key),
            Subject::Address(_) | Subject::Service(_) => None,
        })
    }

    /// Forgets refusals of what is not wanted any more.
    pub(super) fn retain_wanted(&mut self, desired: &State) {
        self.refusals.retain(|subject, _| match subject {
            Subject::Address(address) => desired.tunnels.contains(address) || desired.directors.contains(address),
            Subject::NextHop(key) => desired.next_hops.contains_key(key),
            Subject::Service(name) => desired.services.contains_key(name),
        });
    }

    /// A plan was executed: sets when what is refused is to be tried again. `tried`: some of it was, in vain;
    /// `freed`: something gave room back.
    pub(super) fn attempted(&mut self, now: Instant, tried: bool, freed: bool) {
        let wait = match self.wait {
            _ if self.refusals.is_empty() => None,
            Some((_, wait)) if tried && !freed => Some((wait * 2).min(LONGEST_WAIT)),
            Some(_) if !freed => return,
            Some(_) | None => Some(FIRST_WAIT),
        };
        self.wait = wait.map(|wait| (now + wait, wait));
    }

    /// When what is refused is to be tried again.
    pub(super) fn due(&self) -> Option<Instant> {
        self.wait.map(|(at, _)| at)
    }

    /// Whether that time has come.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due().is_some_and(|due| due <= now)
    }

    /// For people; `place_of` knows where a VirtualService stands.
    pub(super) fn problems(&self, place_of: impl Fn(&ServiceName) -> Option<Place>) -> Vec<Problem> {
        let problem = |(subject, refusal): (&Subject, &Refusal)| {
            let place = match subject {
                Subject::Service(name) => place_of(&name.owner()),
                Subject::Address(_) | Subject::NextHop(_) => None,
            };
            let place = place.unwrap_or_else(|| Place { object: subject.object(), ..Place::default() });
            let message = format!("{refusal}; what was in force before stays");
            Problem { reason: ProblemReason::NoResources, place, message }
        };
        self.refusals.iter().map(problem).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Refusal {
        Refusal::Full { map: "ROWS", needed: 4, free: 1, capacity: 16, flag: "--max-row-pages" }
    }

    #[test]
    fn what_is_refused_is_tried_ever_more_rarely_until_something_is_freed() {
        let (mut refused, now) = (Refused::default(), Instant::now());
        refused.put(Subject::Service(ServiceName::new("shop", "web")), full());
        let mut waits = Vec::new();
        for _ in 0..8 {
            refused.attempted(now, true, false);
            waits.push(refused.due().map(|at| (at - now).as_secs()));
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60].map(Some));
        refused.attempted(now, false, false);
        assert_eq!(refused.due(), Some(now + LONGEST_WAIT), "no attempt, no change");
        refused.attempted(now, false, true);
        assert_eq!(refused.due(), Some(now + FIRST_WAIT));
        refused.clear(&Subject::Service(ServiceName::new("shop", "web")));
        assert_eq!(refused.due(), None);
    }

    #[test]
    fn a_refusal_is_told_with_map_and_flag_at_the_services_place() {
        let mut refused = Refused::default();
        refused.put(Subject::Service(ServiceName::new("shop", "web")), full());
        let place = Place { file: "web.yaml".into(), ..Place::default() };
        let problems = refused.problems(|_| Some(place.clone()));
        assert_eq!((problems.len(), problems[0].reason), (1, ProblemReason::NoResources));
        assert_eq!(problems[0].place, place);
        assert!(problems[0].message.contains("--max-row-pages"), "{}", problems[0].message);
    }
}
