//! Conditions, as a server keeps them.

use guenon_crd::{Condition, ConditionStatus};
use k8s_openapi::jiff::Timestamp;

/// A condition that has just come about; when it changed is told by [`carry_times`].
pub(crate) fn condition(
    type_: &str,
    status: ConditionStatus,
    generation: Option<i64>,
    reason: &str,
    message: impl Into<String>,
) -> Condition {
    Condition {
        type_: type_.to_owned(),
        status,
        observed_generation: generation,
        last_transition_time: String::new(),
        reason: reason.to_owned(),
        message: message.into(),
    }
}

/// A condition's time is that of the last change of its status.
pub(crate) fn carry_times(new: &mut [Condition], old: &[Condition], now: &str) {
    for condition in new {
        let same = old.iter().find(|old| old.type_ == condition.type_ && old.status == condition.status);
        let since = same.map(|old| old.last_transition_time.as_str()).filter(|since| *since != guenon_crd::NEVER);
        condition.last_transition_time = since.unwrap_or(now).to_owned();
    }
}

/// The time, as conditions have it.
pub(crate) fn now() -> String {
    let seconds = Timestamp::now().as_second();
    Timestamp::from_second(seconds).map(|time| time.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_keeps_its_time_as_long_as_its_status() {
        let old = [Condition {
            last_transition_time: "then".into(),
            ..condition("Ready", ConditionStatus::True, None, "Ready", "")
        }];
        let mut same = [condition("Ready", ConditionStatus::True, Some(2), "Ready", "all is well")];
        carry_times(&mut same, &old, "now");
        assert_eq!(same[0].last_transition_time, "then");
        let mut other = [condition("Ready", ConditionStatus::False, Some(2), "NoReadyEndpoints", "")];
        carry_times(&mut other, &old, "now");
        assert_eq!(other[0].last_transition_time, "now");
        let never = [Condition { last_transition_time: guenon_crd::NEVER.to_owned(), ..other[0].clone() }];
        carry_times(&mut other, &never, "later");
        assert_eq!(other[0].last_transition_time, "later", "nobody had looked before");
    }

    #[test]
    fn the_time_is_that_of_rfc_3339_in_seconds() {
        let now = now();
        assert!(now.len() == "2026-11-22T22:00:00Z".len() && now.ends_with('Z') && now.contains('T'), "{now}");
    }
}
