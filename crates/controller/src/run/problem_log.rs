//! Each problem is logged once when it appears and once when it goes. Pure but for the log.

use std::collections::BTreeSet;

use crate::model::Problem;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Place, ProblemReason};

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
}
