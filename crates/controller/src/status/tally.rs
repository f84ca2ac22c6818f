//! How many VirtualServices have which status of which condition. Pure.

use guenon_crd::{Condition, ConditionStatus, conditions as types};

/// The conditions that are counted.
const TYPES: [&str; 4] = [types::ACCEPTED, types::RESOLVED_REFS, types::PROGRAMMED, types::READY];

/// The statuses of one VirtualService, in the order of `TYPES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Statuses([ConditionStatus; TYPES.len()]);

impl Statuses {
    /// A condition that is not there is Unknown.
    pub(super) fn of(conditions: &[Condition]) -> Self {
        let status = |type_: &str| conditions.iter().find(|one| one.type_ == type_).map(|one| one.status);
        Self(TYPES.map(|type_| status(type_).unwrap_or(ConditionStatus::Unknown)))
    }
}

/// All of them, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally([Count; TYPES.len()]);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    yes: usize,
    no: usize,
    unknown: usize,
}

impl Count {
    const fn of(&mut self, status: ConditionStatus) -> &mut usize {
        match status {
            ConditionStatus::True => &mut self.yes,
            ConditionStatus::False => &mut self.no,
            ConditionStatus::Unknown => &mut self.unknown,
        }
    }
}

impl Tally {
    /// One VirtualService has other statuses than before; `None`: it is not there.
    pub(super) fn change(&mut self, old: Option<Statuses>, new: Option<Statuses>) {
        for (index, count) in self.0.iter_mut().enumerate() {
            if let Some(Statuses(new)) = new {
                *count.of(new[index]) += 1;
            }
            if let Some(Statuses(old)) = old {
                *count.of(old[index]) -= 1;
            }
        }
    }

    /// Type, status, number; all that can be, in a fixed order.
    pub(super) fn counts(&self) -> impl Iterator<Item = (&'static str, &'static str, usize)> {
        TYPES.iter().zip(&self.0).flat_map(|(type_, Count { yes, no, unknown })| {
            [("True", *yes), ("False", *no), ("Unknown", *unknown)].map(|(status, count)| (*type_, status, count))
        })
    }
}
