//! When to ask for which neighbour. Pure.
//!
//! XDP traffic never confirms a neighbour, so the kernel forgets those that only it uses, and never learns
//! that a gateway has changed its card. So what is needed is asked for when it is not resolved, and again
//! from time to time when it is.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::compose::NeighbourKey;
use super::tables::{Neighbour, NeighbourState};

/// First wait after an ask that had no answer (the kernel itself sends three requests, a second apart).
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The wait doubles up to this.
const LONGEST_WAIT: Duration = Duration::from_secs(16);
/// Wait between two confirmations of a neighbour that is resolved.
const REFRESH: Duration = Duration::from_secs(10);
/// Asks at once.
const BURST: usize = 64;
/// Wait between two bursts.
const BURST_WAIT: Duration = Duration::from_millis(100);
/// Wait between two looks at what is needed.
const LOOK: Duration = Duration::from_secs(1);

/// One neighbour to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Index of the link.
    pub link: u32,
    /// The neighbour's address.
    pub to: IpAddr,
}

/// Remembers who was asked for, and when.
#[derive(Debug, Default)]
pub struct Asker {
    asked: BTreeMap<NeighbourKey, Asked>,
    next: Option<Instant>,
    /// Where the last burst ended, so that the next goes on there.
    last: Option<NeighbourKey>,
    burst_end: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    at: Instant,
    wait: Duration,
}

impl Asker {
    /// Whom to ask for now.
    pub fn due(
        &mut self,
        now: Instant,
        needed: &BTreeSet<NeighbourKey>,
        neighbours: &HashMap<NeighbourKey, Neighbour>,
    ) -> Vec<Ask> {
        self.asked.retain(|key, _| needed.contains(key));
        self.next = (!needed.is_empty()).then(|| now + LOOK);
        if let Some(end) = self.burst_end
            && now < end
        {
            self.next = Some(end);
            return Vec::new();
        }

        let mut asks = Vec::new();
        for key in in_turn(needed, self.last) {
            let state = neighbours.get(key).map_or(NeighbourState::Unresolved, |neighbour| neighbour.state);
            let asked = self.asked.get(key).copied();
            let wait = match state {
                NeighbourState::Unresolved => asked.map_or(FIRST_WAIT, |asked| (asked.wait * 2).min(LONGEST_WAIT)),
                NeighbourState::Stale => FIRST_WAIT / 2,
                NeighbourState::Fresh | NeighbourState::Fixed => {
                    // It answered: the next silence is a new one.
                    if let Some(asked) = self.asked.get_mut(key) {
                        asked.wait = FIRST_WAIT / 2;
                    }
                    continue;
                }
            };
            let is_due = asked.is_none_or(|asked| {
                let pause = if state == NeighbourState::Stale { REFRESH } else { asked.wait };
                now >= asked.at + pause
            });
            if !is_due {
                continue;
            }
            if asks.len() == BURST {
                self.burst_end = Some(now + BURST_WAIT);
                self.next = self.burst_end;
                break;
            }
            self.asked.insert(*key, Asked { at: now, wait });
            self.last = Some(*key);
            asks.push(Ask { link: key.0, to: key.1 });
        }
        asks
    }

    /// When to look again; `None` = when something changes.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.next
    }
}

/// All keys, those after `last` first.
fn in_turn(needed: &BTreeSet<NeighbourKey>, last: Option<NeighbourKey>) -> impl Iterator<Item = &NeighbourKey> {
    let start = last.unwrap_or((0, IpAddr::from([0; 4])));
    let after = needed.iter().filter(move |key| **key > start);
    after.chain(needed.iter().filter(move |key| **key <= start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Mac;

    fn needed(addresses: &[&str]) -> BTreeSet<NeighbourKey> {
        addresses.iter().map(|address| (2, address.parse().unwrap())).collect()
    }

    fn neighbours(address: &str, state: NeighbourState) -> HashMap<NeighbourKey, Neighbour> {
        HashMap::from([((2, address.parse().unwrap()), Neighbour { mac: Some(Mac([2; 6])), state })])
    }

    /// Runs the asker for that long, as the monitor would, and tells at which seconds it asked.
    fn seconds_of_asks(
        asker: &mut Asker,
        start: Instant,
        length: u64,
        needed: &BTreeSet<NeighbourKey>,
        known: &HashMap<NeighbourKey, Neighbour>,
    ) -> Vec<u64> {
        let mut seconds = Vec::new();
        let mut now = start;
        while now < start + Duration::from_secs(length) {
            let asks = asker.due(now, needed, known);
            seconds.extend(asks.iter().map(|_| (now - start).as_secs()));
            now = asker.next().expect("something is needed");
        }
        seconds
    }

    #[test]
    fn an_unresolved_neighbour_is_asked_for_at_once_and_then_ever_more_rarely() {
        let mut asker = Asker::default();
        let seconds = seconds_of_asks(&mut asker, Instant::now(), 60, &needed(&["192.0.2.1"]), &HashMap::new());
        assert_eq!(seconds, [0, 1, 3, 7, 15, 31, 47]);
    }

    #[test]
    fn a_stale_neighbour_is_confirmed_regularly() {
        let mut asker = Asker::default();
        let known = neighbours("192.0.2.1", NeighbourState::Stale);
        let seconds = seconds_of_asks(&mut asker, Instant::now(), 35, &needed(&["192.0.2.1"]), &known);
        assert_eq!(seconds, [0, 10, 20, 30]);
    }

    #[test]
    fn a_fresh_or_fixed_neighbour_is_left_alone() {
        for state in [NeighbourState::Fresh, NeighbourState::Fixed] {
            let mut asker = Asker::default();
            let known = neighbours("192.0.2.1", state);
            let seconds = seconds_of_asks(&mut asker, Instant::now(), 60, &needed(&["192.0.2.1"]), &known);
            assert!(seconds.is_empty(), "{state:?}: asked at {seconds:?}");
        }
    }

    #[test]
    fn a_neighbour_that_answered_and_fell_silent_is_asked_for_at_once() {
        let mut asker = Asker::default();
        let wanted = needed(&["192.0.2.1"]);
        let start = Instant::now();
        seconds_of_asks(&mut asker, start, 40, &wanted, &HashMap::new());
        let later = start + Duration::from_secs(50);
        assert!(asker.due(later, &wanted, &neighbours("192.0.2.1", NeighbourState::Fresh)).is_empty());
        let silent = later + Duration::from_secs(1);
        assert_eq!(asker.due(silent, &wanted, &HashMap::new()).len(), 1);
        assert!(asker.due(silent + Duration::from_millis(500), &wanted, &HashMap::new()).is_empty());
        assert_eq!(asker.due(silent + Duration::from_secs(1), &wanted, &HashMap::new()).len(), 1);
    }

    #[test]
    fn many_are_asked_for_in_bursts_and_each_in_turn() {
        let mut asker = Asker::default();
        let wanted: BTreeSet<NeighbourKey> = (0..150u8).map(|last| (2, IpAddr::from([192, 0, 2, last]))).collect();
        let mut now = Instant::now();
        let mut asked = BTreeSet::new();
        let mut sizes = Vec::new();
        for _ in 0..3 {
            let asks = asker.due(now, &wanted, &HashMap::new());
            sizes.push(asks.len());
            asked.extend(asks.iter().map(|ask| (ask.link, ask.to)));
            now = asker.next().unwrap();
        }
        assert_eq!(sizes, [64, 64, 22]);
        assert_eq!(asked, wanted);
    }

    #[test]
    fn nothing_needed_needs_no_look() {
        let mut asker = Asker::default();
        assert!(asker.due(Instant::now(), &BTreeSet::new(), &HashMap::new()).is_empty());
        assert_eq!(asker.next(), None);
    }
}
