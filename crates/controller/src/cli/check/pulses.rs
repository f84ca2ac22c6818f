//! Who renews a Lease, as this process sees it. Pure.
//!
//! Judged by changes that are seen while it is watched, and by this process's own clock, as the controller and the election
//! do it: the time that a Lease names is another machine's, and a clock that is wrong would make the living dead or the
//! dead alive. The price is that a check takes as long as the slowest renews: up to 10 s.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::kube::Renewal;

/// What has been seen of Leases.
#[derive(Debug, Default)]
pub(super) struct Pulses {
    seen: BTreeMap<String, Seen>,
    looked: bool,
}

#[derive(Debug)]
struct Seen {
    last: Renewal,
    /// When a renewal was seen last.
    renewed: Option<Instant>,
}

/// What is known of a Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pulse<'a> {
    /// There is none of that name.
    Missing,
    /// No renewal has been seen, or none for longer than it lasts.
    Silent {
        /// Who has it.
        holder: &'a str,
    },
    /// It is renewed.
    Beats {
        /// By whom.
        holder: &'a str,
    },
}

impl Pulses {
    /// The Leases are these now.
    pub(super) fn saw(&mut self, leases: &BTreeMap<String, Renewal>, now: Instant) {
        self.seen.retain(|name, _| leases.contains_key(name));
        for (name, renewal) in leases {
            match self.seen.get_mut(name) {
                Some(seen) if seen.last != *renewal => *seen = Seen { last: renewal.clone(), renewed: Some(now) },
                Some(_) => {}
                None => {
                    // One that was not there before has just been made.
                    let renewed = self.looked.then_some(now);
                    self.seen.insert(name.clone(), Seen { last: renewal.clone(), renewed });
                }
            }
        }
        self.looked = true;
    }

    /// Of the Lease of this name, which lasts so long.
    pub(super) fn of(&self, name: &str, lasts: Duration, now: Instant) -> Pulse<'_> {
        let Some(Seen { last, renewed }) = self.seen.get(name) else { return Pulse::Missing };
        let holder = &last.holder;
        match renewed {
            Some(at) if now.saturating_duration_since(*at) <= lasts => Pulse::Beats { holder },
            Some(_) | None => Pulse::Silent { holder },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LASTS: Duration = Duration::from_secs(40);

    fn leases(says: &str) -> BTreeMap<String, Renewal> {
        [("guenon-node.n1".to_owned(), Renewal { holder: "n1".to_owned(), says: says.to_owned() })].into()
    }

    #[test]
    fn a_lease_beats_once_a_change_of_it_was_seen_and_as_long_as_it_lasts() {
        let (mut pulses, start) = (Pulses::default(), Instant::now());
        let of = |pulses: &Pulses, now| format!("{:?}", pulses.of("guenon-node.n1", LASTS, now));
        assert_eq!(of(&pulses, start), "Missing");
        // However new the time in it may be.
        pulses.saw(&leases("2026-11-22T22:00:00Z"), start);
        assert_eq!(of(&pulses, start), "Silent { holder: \"n1\" }");
        let then = start + Duration::from_secs(10);
        // However old.
        pulses.saw(&leases("1970-01-01T00:00:10Z"), then);
        assert_eq!(of(&pulses, then + LASTS), "Beats { holder: \"n1\" }");
        assert_eq!(of(&pulses, then + LASTS + Duration::from_secs(1)), "Silent { holder: \"n1\" }");
        pulses.saw(&BTreeMap::new(), then);
        assert_eq!(of(&pulses, then), "Missing");
    }

    #[test]
    fn a_lease_that_is_made_meanwhile_beats() {
        let (mut pulses, now) = (Pulses::default(), Instant::now());
        pulses.saw(&BTreeMap::new(), now);
        pulses.saw(&leases("now"), now);
        assert_eq!(pulses.of("guenon-node.n1", LASTS, now), Pulse::Beats { holder: "n1" });
    }
}
