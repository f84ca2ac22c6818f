//! The small memories: fragments, and the bound on answers.

use guenon_ebpf::abi::{FRAGMENT_SETS, FRAGMENT_WAYS, FragmentSet, Limiter};
use guenon_ebpf::fragment::{self, Datagram};
use guenon_ebpf::limiter;
use guenon_ebpf::probe::{self, Look, PROBE_LIMIT};
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;

proptest! {
    #[test]
    fn what_was_remembered_last_is_recalled(keys in proptest::collection::vec(1_u64.., 1..20), row: u16, frontend: u32) {
        let mut set = FragmentSet::default();
        for (n, &key) in keys.iter().enumerate() {
            let datagram = Datagram { row: row.wrapping_add(n as u16), frontend };
            fragment::remember(&mut set, key, datagram);
            prop_assert_eq!(fragment::recall(&set, key), Some(datagram));
        }
        let mut newest: Vec<u64> = Vec::new();
        for &key in &keys {
            newest.retain(|&other| other != key);
            newest.push(key);
        }
        let known = keys.iter().filter(|&&key| fragment::recall(&set, key).is_some());
        prop_assert!(known.count() >= newest.len().min(FRAGMENT_WAYS));
        fragment::forget(&mut set, keys[0]);
        prop_assert_eq!(fragment::recall(&set, keys[0]), None);
    }

    /// Two CPUs write one entry: whatever halves end up side by side, no wrong flow comes out.
    #[test]
    fn halves_of_two_entries_never_match(one: u64, other: u64, row: u16, frontend: u32) {
        prop_assume!(one >> 48 != other >> 48);
        let entry = |key| {
            let mut set = FragmentSet::default();
            fragment::remember(&mut set, key, Datagram { row, frontend });
            set.0[0]
        };
        let mut torn = FragmentSet::default();
        torn.0[0] = [entry(one)[0], entry(other)[1]];
        prop_assert_eq!(fragment::recall(&torn, one), None);
        prop_assert_eq!(fragment::recall(&torn, other), None);
    }

    #[test]
    fn sets_lie_in_the_map(key: u64) {
        prop_assert!(fragment::set_of(key) < FRAGMENT_SETS);
    }

    #[test]
    fn no_second_sees_more_answers_than_twice_the_rate(
        rate in 1_u64..2000, steps in proptest::collection::vec(0_u64..20_000_000, 1..500),
    ) {
        let mut limiter = Limiter::default();
        let mut now = 1;
        let mut granted: Vec<u64> = Vec::new();
        for step in steps {
            now += step;
            if limiter::take(&mut limiter, now, rate) {
                granted.push(now);
            }
        }
        for &end in &granted {
            let within = granted.iter().filter(|&&at| at <= end && at + SECOND > end).count() as u64;
            prop_assert!(within <= 2 * rate, "{within} in one second at {rate} a second");
        }
    }

    /// The search finds what a plain scan of the probe window finds.
    #[test]
    fn a_search_is_a_scan(slots in proptest::collection::vec(0_u8..4, 64), home: u32, key in 1_u8..4) {
        let mask = 63;
        let look = |index: u32| match slots[index as usize] {
            0 => Look::Empty,
            slot if slot == key => Look::Found(index),
            _ => Look::Other,
        };
        let window = (0..PROBE_LIMIT).map(|step| home.wrapping_add(step) & mask);
        let naive = window.take_while(|&index| slots[index as usize] != 0).find(|&index| slots[index as usize] == key);
        prop_assert_eq!(probe::search(home, mask, look), naive);
    }
}

#[test]
fn a_torn_or_empty_set_recalls_nothing() {
    assert_eq!(fragment::recall(&FragmentSet::default(), 0), None);
}

#[test]
fn the_rate_is_kept_over_time_and_zero_means_never() {
    let mut limiter = Limiter::default();
    let granted = (0..10_000_u64).filter(|ms| limiter::take(&mut limiter, 1 + ms * 1_000_000, 100)).count();
    assert!((1000..=1200).contains(&granted), "{granted} in ten seconds at 100 a second");
    assert!(!limiter::take(&mut Limiter::default(), 5, 0));
}
