//! When the program on the way out is looked after, and what is wrong with it.

use std::time::{Duration, Instant};

use crate::datapath::EgressTrouble;
use crate::model::{Place, Problem, ProblemReason};

/// How often it is looked at though nothing is told: others may come before it, or remove it.
const LOOK: Duration = Duration::from_secs(30);
/// How soon something that is wrong is looked at again.
const RETRY: Duration = Duration::from_secs(5);

/// The egress of the node's interfaces.
#[derive(Debug)]
pub(super) struct EgressSide {
    wanted: bool,
    next_look: Instant,
    problems: Vec<Problem>,
}

impl EgressSide {
    /// Looked at in the first round.
    pub(super) fn new() -> Self {
        Self { wanted: false, next_look: Instant::now(), problems: Vec::new() }
    }

    /// Looks after it if it is time to, or if it is wanted and was not. Whether there is anything new to tell.
    pub(super) fn tend(&mut self, wanted: bool, now: Instant, tend: impl FnOnce() -> Vec<EgressTrouble>) -> bool {
        if wanted <= self.wanted && now < self.next_look {
            return false;
        }
        self.wanted |= wanted;
        let problems: Vec<Problem> = tend().into_iter().map(problem).collect();
        self.next_look = now + if problems.is_empty() { LOOK } else { RETRY };
        let differs = problems != self.problems;
        self.problems = problems;
        differs
    }

    /// An interface was attached or has gone.
    pub(super) fn touch(&mut self) {
        self.next_look = Instant::now();
    }

    /// What is wrong.
    pub(super) fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// When to look again.
    pub(super) const fn next(&self) -> Instant {
        self.next_look
    }
}

fn problem(EgressTrouble { interface, message }: EgressTrouble) -> Problem {
    let place = Place { object: format!("interface {interface}"), ..Place::default() };
    Problem { reason: ProblemReason::EgressHook, place, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trouble() -> Vec<EgressTrouble> {
        vec![EgressTrouble { interface: "eth0".into(), message: "the tcx program 7 stands first".into() }]
    }

    #[test]
    fn it_is_looked_at_when_it_is_first_wanted_and_from_time_to_time() {
        let (mut side, now) = (EgressSide::new(), Instant::now());
        assert!(!side.tend(false, now, Vec::new), "nothing to tell");
        let not_now = || -> Vec<EgressTrouble> { panic!("it is not time to") };
        assert!(!side.tend(false, now, not_now));
        assert!(side.tend(true, now, trouble), "wanted from now on");
        assert_eq!(side.problems()[0].to_string(), "interface eth0: the tcx program 7 stands first (EgressHook)");
        assert!(!side.tend(true, now, not_now));
        let later = side.next();
        assert_eq!(later, now + RETRY);
        assert!(!side.tend(true, later, trouble), "told already");
        assert!(side.tend(true, side.next(), Vec::new), "it is over");
        assert_eq!((side.problems().len(), side.next()), (0, later + RETRY + LOOK));
    }
}
