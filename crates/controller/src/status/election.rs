//! Who leads, by a Lease: the manner of client-go's leader election. Pure.
//!
//! Clocks of two machines are never compared: a Lease has expired when this replica has seen no change of it for as long
//! as it lasts, by this replica's own clock.

use std::time::{Duration, Instant};

/// How long a Lease lasts that is not renewed: a leader that dies is replaced within this and two looks.
pub(crate) const LASTS: Duration = Duration::from_secs(12);
/// A leader that could not renew it for so long stops leading, well before anybody else begins.
pub(super) const RENEW_WITHIN: Duration = Duration::from_secs(8);
/// How often it is looked at and renewed.
pub(super) const LOOK: Duration = Duration::from_secs(2);

/// What a Lease says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// Who holds it; the empty string: nobody.
    pub(super) holder: String,
    /// Changes whenever it is renewed.
    pub(super) version: String,
    /// How often it has changed hands.
    pub(super) transitions: i32,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// There is none: make it.
    Create,
    /// Renew one's own.
    Renew,
    /// Take it: nobody holds it, or its holder has let it expire.
    Take {
        /// How often it has changed hands then.
        transitions: i32,
    },
    /// Somebody else leads.
    Wait,
}

/// One replica's part in the election.
#[derive(Debug)]
pub(super) struct Elector {
    identity: String,
    /// What was seen last, and when it changed last.
    seen: Option<(Held, Instant)>,
    renewed_at: Option<Instant>,
}

impl Elector {
    pub(super) const fn new(identity: String) -> Self {
        Self { identity, seen: None, renewed_at: None }
    }

    /// The Lease was read; `None`: there is none.
    pub(super) fn saw(&mut self, held: Option<Held>, now: Instant) -> Step {
        let Some(held) = held else {
            self.seen = None;
            return Step::Create;
        };
        let changed = self.seen.as_ref().is_none_or(|(seen, _)| *seen != held);
        if changed {
            self.seen = Some((held.clone(), now));
        }
        let since = self.seen.as_ref().map_or(now, |(_, since)| *since);
        if held.holder == self.identity {
            Step::Renew
        } else if held.holder.is_empty() || now.saturating_duration_since(since) >= LASTS {
            Step::Take { transitions: held.transitions.saturating_add(1) }
        } else {
            Step::Wait
        }
    }

    /// It was made, taken or renewed; `asked` is when that was asked for.
    pub(super) const fn renewed(&mut self, asked: Instant) {
        self.renewed_at = Some(asked);
    }

    /// Somebody else holds it.
    pub(super) const fn lost(&mut self) {
        self.renewed_at = None;
    }

    /// Until when this replica leads, if it does.
    pub(super) fn leads_until(&self) -> Option<Instant> {
        self.renewed_at.map(|at| at + RENEW_WITHIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(holder: &str, version: &str) -> Option<Held> {
        Some(Held { holder: holder.to_owned(), version: version.to_owned(), transitions: 3 })
    }

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_lease_that_nobody_made_is_made() {
        assert_eq!(Elector::new("a".into()).saw(None, Instant::now()), Step::Create);
    }

    #[test]
    fn a_lease_that_is_renewed_is_left_alone_and_one_that_is_not_is_taken() {
        let (mut b, start) = (Elector::new("b".into()), Instant::now());
        for (second, version) in [(0, "1"), (2, "2"), (13, "3"), (24, "4")] {
            assert_eq!(b.saw(held("a", version), after(start, second)), Step::Wait, "{second}");
        }
        assert_eq!(b.saw(held("a", "4"), after(start, 35)), Step::Wait);
        assert_eq!(b.saw(held("a", "4"), after(start, 36)), Step::Take { transitions: 4 });
    }

    #[test]
    fn a_lease_that_was_let_go_is_taken_at_once() {
        assert_eq!(Elector::new("b".into()).saw(held("", "1"), Instant::now()), Step::Take { transitions: 4 });
    }

    #[test]
    fn a_leader_that_cannot_renew_stops_before_another_begins() {
        let (mut a, start) = (Elector::new("a".into()), Instant::now());
        a.renewed(start);
        assert_eq!(a.leads_until(), Some(after(start, 8)));
        assert!(RENEW_WITHIN + LOOK < LASTS);
        assert_eq!(a.saw(held("a", "9"), after(start, 3)), Step::Renew);
        a.lost();
        assert_eq!(a.leads_until(), None);
    }

    #[test]
    fn a_replica_that_comes_back_goes_on_with_its_own_lease() {
        assert_eq!(Elector::new("a".into()).saw(held("a", "1"), Instant::now()), Step::Renew);
    }
}
