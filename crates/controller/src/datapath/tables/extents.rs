//! Runs of elements: which are free.

use std::collections::{BTreeMap, BTreeSet};

/// The free runs among `0..capacity`. Takes the smallest that fits.
#[derive(Debug, Default)]
pub(super) struct Extents {
    by_start: BTreeMap<u32, u32>,
    by_length: BTreeSet<(u32, u32)>,
    free: u32,
}

impl Extents {
    /// All of `from..to` free.
    pub(super) fn new(from: u32, to: u32) -> Self {
        let mut extents = Self::default();
        if from < to {
            extents.release(from, to - from);
        }
        extents
    }

    /// Elements that are free, in runs of whatever length.
    pub(super) fn free(&self) -> u32 {
        self.free
    }

    /// Whether a run of this length is free.
    pub(super) fn fits(&self, length: u32) -> bool {
        length == 0 || self.by_length.range((length, 0)..).next().is_some()
    }

    /// Takes a run.
    pub(super) fn take(&mut self, length: u32) -> Option<u32> {
        let &(whole, start) = self.by_length.range((length, 0)..).next()?;
        self.forget(start, whole);
        if whole > length {
            self.remember(start + length, whole - length);
        }
        Some(start)
    }

    /// Takes exactly this run; false (and nothing taken) when any of it is taken already.
    pub(super) fn take_at(&mut self, start: u32, length: u32) -> bool {
        if length == 0 {
            return true;
        }
        let Some((&first, &whole)) = self.by_start.range(..=start).next_back() else { return false };
        let (Some(end), last) = (start.checked_add(length), first + whole) else { return false };
        if end > last {
            return false;
        }
        self.forget(first, whole);
        if first < start {
            self.remember(first, start - first);
        }
        if end < last {
            self.remember(end, last - end);
        }
        true
    }

    /// Gives a run back.
    pub(super) fn release(&mut self, start: u32, length: u32) {
        let (mut start, mut length) = (start, length);
        if let Some((&before, &size)) = self.by_start.range(..start).next_back()
            && before + size == start
        {
            self.forget(before, size);
            (start, length) = (before, length + size);
        }
        if let Some(&size) = self.by_start.get(&(start + length)) {
            self.forget(start + length, size);
            length += size;
        }
        self.remember(start, length);
    }

    fn remember(&mut self, start: u32, length: u32) {
        self.by_start.insert(start, length);
        self.by_length.insert((length, start));
        self.free += length;
    }

    fn forget(&mut self, start: u32, length: u32) {
        self.by_start.remove(&start);
        self.by_length.remove(&(length, start));
        self.free -= length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_given_back_joins_its_neighbours() {
        let mut extents = Extents::new(0, 10);
        let (a, b, c) = (extents.take(3).unwrap(), extents.take(3).unwrap(), extents.take(4).unwrap());
        assert_eq!((a, b, c), (0, 3, 6));
        assert!(!extents.fits(1));
        extents.release(a, 3);
        extents.release(c, 4);
        assert!(extents.fits(4) && !extents.fits(5));
        extents.release(b, 3);
        assert_eq!(extents.take(10), Some(0));
    }

    #[test]
    fn the_smallest_run_that_fits_is_taken() {
        let mut extents = Extents::new(0, 100);
        assert!(extents.take_at(10, 80));
        assert_eq!(extents.free(), 20);
        extents.release(20, 4);
        assert_eq!(extents.take(4), Some(20));
    }

    #[test]
    fn a_run_that_is_taken_is_not_taken_again() {
        let mut extents = Extents::new(1, 100);
        assert!(extents.take_at(10, 5));
        for (start, length) in [(10, 5), (9, 2), (14, 3), (0, 1), (95, 6)] {
            assert!(!extents.take_at(start, length), "{start}+{length}");
        }
        assert_eq!(extents.free(), 94);
    }
}
