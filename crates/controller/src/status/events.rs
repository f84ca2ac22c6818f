//! What a person would want to be told of: which changes of a status become events, and how many. Pure.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use guenon_crd::{Condition, ConditionStatus, VirtualServiceStatus, conditions as types};

use super::conditions::reasons;
use crate::kube::{NOTE, Telling};
use crate::model::{ProblemReason, cut};
use crate::resolve::Finding;

/// What is to be told when a status becomes another.
pub(super) fn tellings(before: &VirtualServiceStatus, after: &VirtualServiceStatus) -> Vec<Telling> {
    let mut told = BTreeSet::new();
    let of = |condition: &Condition, warning| Telling {
        warning,
        reason: condition.reason.clone(),
        note: cut(&condition.message, NOTE),
    };
    let mut tellings = Vec::new();
    // The sum comes last: it repeats what another says.
    for type_ in [types::ACCEPTED, types::RESOLVED_REFS, types::PROGRAMMED, types::READY] {
        let Some(new) = find(after, type_) else { continue };
        let old = find(before, type_);
        let same = old.is_some_and(|old| (old.status, &old.reason) == (new.status, &new.reason));
        if same || new.reason == reasons::PENDING {
            continue;
        }
        match new.status {
            ConditionStatus::False if told.insert(new.reason.clone()) => tellings.push(of(new, true)),
            ConditionStatus::True if type_ == types::READY => tellings.push(of(new, false)),
            ConditionStatus::False | ConditionStatus::True | ConditionStatus::Unknown => {}
        }
    }
    tellings
}

/// What is to be told of claims of others to frontends that this one keeps.
pub(super) fn contested(before: &[Finding], after: &[Finding]) -> Vec<Telling> {
    let new = after.iter().filter(|finding| finding.reason == ProblemReason::Contested && !before.contains(finding));
    let telling = |finding: &Finding| Telling {
        warning: true,
        reason: finding.reason.name().to_owned(),
        note: cut(&finding.message, NOTE),
    };
    new.map(telling).collect()
}

fn find<'a>(status: &'a VirtualServiceStatus, type_: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|condition| condition.type_ == type_)
}

/// How many events may be sent: so many at once, and then so many in a time.
#[derive(Debug)]
pub(super) struct Allowance {
    left: u32,
    filled_at: Instant,
}

impl Allowance {
    const MOST: u32 = 50;
    const ONE_EACH: Duration = Duration::from_millis(500);

    pub(super) const fn new(now: Instant) -> Self {
        Self { left: Self::MOST, filled_at: now }
    }

    /// Whether one more may be sent.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let earned = now.saturating_duration_since(self.filled_at).as_millis() / Self::ONE_EACH.as_millis();
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(Self::MOST);
            self.left = self.left.saturating_add(earned).min(Self::MOST);
            self.filled_at = now;
        }
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::condition;

    fn status(all: &[(&str, ConditionStatus, &str)]) -> VirtualServiceStatus {
        let conditions = all.iter().map(|(type_, status, reason)| condition(type_, *status, None, reason, "why"));
        VirtualServiceStatus { conditions: conditions.collect(), ..VirtualServiceStatus::default() }
    }

    fn reasons_of(tellings: &[Telling]) -> Vec<(bool, &str)> {
        tellings.iter().map(|telling| (telling.warning, telling.reason.as_str())).collect()
    }

    #[test]
    fn what_goes_wrong_is_told_once_and_that_all_is_well_too() {
        use ConditionStatus::{False, True, Unknown};
        let pending = status(&[(types::ACCEPTED, Unknown, "Pending"), (types::READY, False, "Pending")]);
        let lost = status(&[(types::ACCEPTED, False, "Conflicted"), (types::READY, False, "Conflicted")]);
        let well = status(&[(types::ACCEPTED, True, "Accepted"), (types::READY, True, "Ready")]);
        assert_eq!(reasons_of(&tellings(&pending, &lost)), [(true, "Conflicted")]);
        assert_eq!(tellings(&lost, &lost), []);
        assert_eq!(reasons_of(&tellings(&lost, &well)), [(false, "Ready")]);
        assert_eq!(tellings(&well, &pending), [], "that something waits is no event");
    }

    #[test]
    fn events_are_limited() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        assert_eq!((0..100).filter(|_| allowance.take(start)).count(), 50);
        assert!(allowance.take(start + Duration::from_millis(600)));
        assert!(!allowance.take(start + Duration::from_millis(700)));
    }
}
