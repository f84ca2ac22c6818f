//! What is to be written, and when: at most one write of an object in five seconds, a few at a time. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Least time between two writes of one object.
pub(super) const PAUSE: Duration = Duration::from_secs(5);
/// Writes under way at a time.
const AT_A_TIME: usize = 8;

/// Writes that wait.
#[derive(Debug)]
pub(super) struct Desk<K, V> {
    waiting: BTreeMap<K, V>,
    under_way: BTreeSet<K>,
    /// When an object may be written again.
    again: BTreeMap<K, Instant>,
}

impl<K, V> Default for Desk<K, V> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), under_way: BTreeSet::new(), again: BTreeMap::new() }
    }
}

impl<K: Ord + Clone, V> Desk<K, V> {
    /// This is to be written, in place of what waits for the same object.
    pub(super) fn put(&mut self, key: K, value: V) {
        self.waiting.insert(key, value);
    }

    /// Nothing is to be written of this object any more.
    pub(super) fn withdraw(&mut self, key: &K) {
        self.waiting.remove(key);
    }

    /// What is to be written now.
    pub(super) fn take(&mut self, now: Instant) -> Vec<(K, V)> {
        self.again.retain(|_, at| *at > now);
        let room = AT_A_TIME.saturating_sub(self.under_way.len());
        let may = |key: &&K| !self.under_way.contains(key) && !self.again.contains_key(key);
        let due: Vec<K> = self.waiting.keys().filter(may).take(room).cloned().collect();
        due.into_iter()
            .filter_map(|key| {
                self.under_way.insert(key.clone());
                self.again.insert(key.clone(), now + PAUSE);
                self.waiting.remove_entry(&key)
            })
            .collect()
    }

    /// A write has ended, however.
    pub(super) fn ended(&mut self, key: &K) {
        self.under_way.remove(key);
    }

    /// When something is to be written next, as long as nothing ends before.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        if self.under_way.len() >= AT_A_TIME {
            return None;
        }
        let keys = self.waiting.keys().filter(|key| !self.under_way.contains(key));
        keys.map(|key| self.again.get(key).copied().unwrap_or(now)).min()
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.under_way.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_written_at_once_and_then_no_sooner_than_after_the_pause() {
        let (mut desk, now) = (Desk::default(), Instant::now());
        desk.put("web", 1);
        assert_eq!((desk.next(now), desk.take(now)), (Some(now), vec![("web", 1)]));
        desk.put("web", 2);
        assert_eq!((desk.next(now), desk.take(now)), (None, vec![]), "one is under way");
        desk.ended(&"web");
        desk.put("web", 3);
        assert_eq!((desk.next(now), desk.take(now)), (Some(now + PAUSE), vec![]));
        assert_eq!(desk.take(now + PAUSE), [("web", 3)], "the newest alone");
        assert_eq!(desk.len(), 1);
        desk.ended(&"web");
        assert_eq!(desk.len(), 0);
    }

    #[test]
    fn a_few_are_under_way_at_a_time() {
        let (mut desk, now) = (Desk::default(), Instant::now());
        (0..20).for_each(|number| desk.put(number, ()));
        assert_eq!(desk.take(now).len(), AT_A_TIME);
        assert_eq!((desk.take(now).len(), desk.next(now)), (0, None));
        desk.ended(&0);
        assert_eq!(desk.take(now), [(8, ())]);
        desk.withdraw(&9);
        desk.ended(&1);
        assert_eq!(desk.take(now), [(10, ())]);
    }
}
