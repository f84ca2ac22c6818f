//! Each problem is logged once when it appears and once when it goes. Pure but for the log.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::model::{Problem, ProblemReason};

/// The problems that there are.
#[derive(Debug, Default)]
pub(super) struct ProblemLog {
    known: BTreeSet<Problem>,
}

/// What changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) new: Vec<Problem>,
    pub(super) gone: Vec<Problem>,
}

impl ProblemLog {
    /// These are all problems now; what changed.
    pub(super) fn replace(&mut self, problems: BTreeSet<Problem>) -> Difference {
        let new = problems.difference(&self.known).cloned().collect();
        let gone = self.known.difference(&problems).cloned().collect();
        self.known = problems;
        Difference { new, gone }
    }

    /// All problems, in order.
    pub(super) fn all(&self) -> &BTreeSet<Problem> {
        &self.known
    }
}

impl Difference {
    /// Tells the log.
    pub(super) fn log(&self) {
        for problem in &self.new {
            tracing::warn!(reason = problem.reason.name(), place = %problem.place, "{}", problem.message);
        }
        for problem in &self.gone {
            tracing::info!(reason = problem.reason.name(), place = %problem.place, "mended: {}", problem.message);
        }
    }
}

/// How long a next hop may be silent before that is a problem: longer than it takes to ask one that is new.
pub(super) const SILENCE: Duration = Duration::from_secs(3);

/// Keeps problems back that most often go by themselves within moments.
#[derive(Debug, Default)]
pub(super) struct Patience {
    young: BTreeMap<Problem, Instant>,
}

impl Patience {
    /// The problems that have lasted long enough.
    pub(super) fn lasting(&mut self, mut problems: BTreeSet<Problem>, now: Instant) -> BTreeSet<Problem> {
        self.young.retain(|problem, _| problems.contains(problem));
        problems.retain(|problem| {
            problem.reason != ProblemReason::NoNeighbour
                || *self.young.entry(problem.clone()).or_insert(now + SILENCE) <= now
        });
        problems
    }

    /// When the next one will have lasted long enough.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        self.young.values().copied().filter(|until| *until > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Place;

    fn problem(message: &str) -> Problem {
        Problem { reason: ProblemReason::Invalid, place: Place::default(), message: message.into() }
    }

    #[test]
    fn a_problem_is_told_when_it_appears_and_when_it_goes() {
        let mut log = ProblemLog::default();
        let first = log.replace([problem("a"), problem("b")].into());
        assert_eq!(first, Difference { new: vec![problem("a"), problem("b")], gone: vec![] });
        assert_eq!(log.replace([problem("a"), problem("b")].into()), Difference::default());
        let last = log.replace([problem("b"), problem("c")].into());
        assert_eq!(last, Difference { new: vec![problem("c")], gone: vec![problem("a")] });
        assert_eq!(log.all().len(), 2);
    }

    #[test]
    fn a_next_hop_may_be_silent_for_a_moment() {
        let (mut patience, start) = (Patience::default(), Instant::now());
        let silent = Problem { reason: ProblemReason::NoNeighbour, ..problem("silent") };
        let both: BTreeSet<Problem> = [problem("other"), silent].into();
        assert_eq!(patience.lasting(both.clone(), start), [problem("other")].into());
        assert_eq!(patience.next(start), Some(start + SILENCE));
        assert_eq!(patience.lasting(both.clone(), start + SILENCE), both);
        assert_eq!(patience.next(start + SILENCE), None);
        // It spoke, and fell silent again.
        patience.lasting(BTreeSet::new(), start + SILENCE);
        assert_eq!(patience.lasting(both, start + SILENCE), [problem("other")].into());
    }
}
