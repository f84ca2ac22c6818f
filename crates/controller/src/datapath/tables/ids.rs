//! Single numbers: which are free.

use std::collections::VecDeque;

/// Numbers of `from..capacity`. Those never used come first, then those longest free.
#[derive(Debug)]
pub(super) struct Ids {
    next: u32,
    capacity: u32,
    returned: VecDeque<u32>,
}

impl Ids {
    /// All of `0..capacity` free, but for these.
    pub(super) fn without(used: &std::collections::BTreeSet<u32>, capacity: u32) -> Self {
        let next = used.last().map_or(0, |last| last + 1);
        Self { next, capacity, returned: (0..next).filter(|id| !used.contains(id)).collect() }
    }

    /// How many are free.
    pub(super) fn free(&self) -> usize {
        (self.capacity.saturating_sub(self.next)) as usize + self.returned.len()
    }

    /// The numbers that `take` will return next, in order: at most `count`.
    pub(super) fn peek(&self, count: usize) -> Vec<u32> {
        (self.next..self.capacity).chain(self.returned.iter().copied()).take(count).collect()
    }

    /// Takes a number.
    pub(super) fn take(&mut self) -> Option<u32> {
        if self.next < self.capacity {
            self.next += 1;
            return Some(self.next - 1);
        }
        self.returned.pop_front()
    }

    /// Gives a number back.
    pub(super) fn release(&mut self, id: u32) {
        self.returned.push_back(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_peek_shows_is_what_take_takes() {
        let mut ids = Ids::without(&[1, 3].into(), 6);
        assert_eq!(ids.free(), 4);
        let shown = ids.peek(9);
        let taken: Vec<u32> = std::iter::from_fn(|| ids.take()).collect();
        assert_eq!((&shown, &taken), (&taken, &vec![4, 5, 0, 2]));
        ids.release(3);
        assert_eq!(ids.take(), Some(3));
    }
}
