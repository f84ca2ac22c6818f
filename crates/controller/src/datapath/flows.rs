//! Flows go along from a table into one of another size: the key, which an entry holds, tells its set.

use guenon_ebpf::abi::{FLOW_WAYS, FlowEntry};
use guenon_ebpf::flow::Entry;

use super::atomic::{AtomicU64, Ordering};
use super::tables::{Store, Table};

const ENTRY_WORDS: usize = size_of::<FlowEntry>() / 8;
const SET_WORDS: usize = ENTRY_WORDS * FLOW_WAYS;

/// Puts the flows of one table into another, where it is another; of more than fit the ones used last are taken. `now` is the
/// clock of both. Programs may write both meanwhile: they know more than what is carried here.
///
/// To be called before programs change over, and again after: what was confirmed between stands in the old table.
pub(super) fn carry(from: &impl Store, to: &impl Store, now: u16) {
    let (old, new) = (from.words(Table::Flows), to.words(Table::Flows));
    let sets = new.len() / SET_WORDS;
    // Of one size they are one map.
    if old.len() == new.len() || !sets.is_power_of_two() {
        return;
    }
    for entry in old.chunks_exact(ENTRY_WORDS).map(read) {
        if let Some(flow) = Entry::of(&entry) {
            let set = (entry.key as u32 as usize & (sets - 1)) * SET_WORDS;
            put(&new[set..set + SET_WORDS], entry, &flow, now);
        }
    }
}

/// Puts an entry into its set, unless all that is there is worth more.
fn put(set: &[AtomicU64], entry: FlowEntry, flow: &Entry, now: u16) {
    let ways = || set.chunks_exact(ENTRY_WORDS).map(|way| (way, read(way)));
    let known = ways().find(|(_, found)| found.key == entry.key);
    if let Some((way, found, known)) = known.and_then(|(way, found)| Some((way, found, Entry::of(&found)?))) {
        // It is the younger of the two, unless its programs saw no more than the SYN that was confirmed meanwhile.
        if !flow.current().is_none() && is_only(&known, &found, &entry) {
            write(way, entry);
        }
        return;
    }
    let least =
        ways().map(|(way, found)| (uselessness(Entry::of(&found).as_ref(), now), way)).max_by_key(|least| least.0);
    if let Some((least, way)) = least
        && least > uselessness(Some(flow), now)
    {
        write(way, entry);
    }
}

/// Whether all that is known is at most the SYN of the other entry: no direct connection has the ports, nor has a SYN come
/// since.
fn is_only(known: &Entry, found: &FlowEntry, entry: &FlowEntry) -> bool {
    // `syn` has the sequence number in its low half.
    let same_syn = found.pending == entry.pending && found.syn as u32 == entry.syn as u32;
    known.current().is_none() && !known.is_direct() && (known.pending().is_none() || same_syn)
}

/// Confirmed flows before others, then by age; `None`: the way is free.
fn uselessness(flow: Option<&Entry>, now: u16) -> (u8, u16) {
    flow.map_or((2, 0), |flow| (u8::from(flow.current().is_none()), flow.age(now)))
}

fn read(words: &[AtomicU64]) -> FlowEntry {
    let word = |index: usize| words[index].load(Ordering::Acquire);
    FlowEntry { key: word(0), current: word(1), pending: word(2), syn: word(3) }
}

/// As the programs do: the key goes first and comes last.
fn write(words: &[AtomicU64], entry: FlowEntry) {
    let FlowEntry { key, current, pending, syn } = entry;
    for (word, value) in [(0, 0), (1, current), (2, pending), (3, syn), (0, key)] {
        words[word].store(value, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use guenon_ebpf::abi::FlowSet;
    use guenon_ebpf::flow::{self, Fresh, Frontend, Syn};

    use super::*;

    /// A table of flows.
    struct Flows(Vec<AtomicU64>);

    impl Store for Flows {
        fn words(&self, table: Table) -> &[AtomicU64] {
            if table == Table::Flows { &self.0 } else { &[] }
        }
    }

    const FRONTEND: Frontend = Frontend::new(3, 1, 80);

    fn flows(sets: usize) -> Flows {
        Flows((0..sets * SET_WORDS).map(|_| AtomicU64::new(0)).collect())
    }

    /// A flow as the programs note it, used last at `used`.
    fn entry(key: u64, is_confirmed: bool, used: u16) -> FlowEntry {
        let mut set = FlowSet::default();
        let fresh = if is_confirmed { Fresh::Datagrams } else { Fresh::Pending(Syn { sequence: 7, length: 0 }) };
        flow::insert(&mut set, key, FRONTEND, fresh, 0, used, |_| true);
        *set.0.iter().find(|entry| entry.key == key).expect("it was made")
    }

    /// An entry that programs have changed: it is the first of its set.
    fn changed(entry: FlowEntry, change: impl FnOnce(&mut FlowSet)) -> FlowEntry {
        let mut set = FlowSet::default();
        set.0[0] = entry;
        change(&mut set);
        set.0[0]
    }

    fn put_in(flows: &Flows, entry: FlowEntry) {
        let sets = flows.0.len() / SET_WORDS;
        let first = (entry.key as usize & (sets - 1)) * SET_WORDS;
        let mut ways = flows.0[first..first + SET_WORDS].chunks_exact(ENTRY_WORDS);
        write(ways.find(|way| read(way).key == 0).expect("a free way"), entry);
    }

    /// What the programs find.
    fn found(flows: &Flows, key: u64) -> Option<FlowEntry> {
        let first = (key as usize & (flows.0.len() / SET_WORDS - 1)) * SET_WORDS;
        let mut ways = flows.0[first..first + SET_WORDS].chunks_exact(ENTRY_WORDS).map(read);
        ways.find(|entry| entry.key == key)
    }

    #[test]
    fn every_flow_is_found_in_a_table_of_another_size() {
        let (old, larger, smaller) = (flows(8), flows(64), flows(4));
        let keys = [0x11, 0x1f, 0x39, 0xabcd_0000_0003, 0xf0f0];
        let entries = keys.map(|key| entry(key, true, 100));
        entries.iter().for_each(|entry| put_in(&old, *entry));
        carry(&old, &larger, 101);
        carry(&old, &smaller, 101);
        for entry in entries {
            assert_eq!(found(&larger, entry.key), Some(entry));
            assert_eq!(found(&smaller, entry.key), Some(entry));
        }
    }

    #[test]
    fn of_too_many_flows_the_confirmed_and_the_latest_stay() {
        let (old, new) = (flows(2), flows(1));
        for (key, used) in [(2, 90), (4, 95), (6, 99), (3, 80), (5, 98)] {
            put_in(&old, entry(key, true, used));
        }
        put_in(&old, entry(7, false, 100));
        carry(&old, &new, 100);
        let kept: Vec<u64> = (2..8).filter(|key| found(&new, *key).is_some()).collect();
        assert_eq!(kept, [2, 4, 5, 6]);
    }

    #[test]
    fn what_programs_know_already_stays_unless_they_saw_the_same_syn_alone() {
        let confirmed = |used| changed(entry(5, false, used), |set| flow::confirm(set, 0, 5, FRONTEND, 8));
        let carried_over = |known| {
            let (old, new) = (flows(2), flows(4));
            put_in(&old, confirmed(100));
            put_in(&new, known);
            carry(&old, &new, 101);
            found(&new, 5)
        };
        assert_eq!(carried_over(confirmed(101)), Some(confirmed(101)));
        assert_eq!(carried_over(entry(5, false, 99)), Some(confirmed(100)), "the SYN that was answered since");
    }

    #[test]
    fn direct_connections_and_later_syns_are_not_overwritten_by_what_was_confirmed_before() {
        let waiting = entry(5, false, 100);
        let confirmed = changed(waiting, |set| flow::confirm(set, 0, 5, FRONTEND, 8));
        let direct = changed(confirmed, |set| flow::mark_direct(set, 0, 5, 101));
        let syn = |sequence, length| Syn { sequence, length };
        let renewed = |frontend, syn| changed(waiting, |set| flow::renew(set, 0, 5, frontend, syn, 101));
        for known in [
            direct,
            renewed(FRONTEND, syn(9, 0)),
            renewed(FRONTEND, syn(7, 300)),
            renewed(Frontend::new(4, 1, 80), syn(7, 0)),
        ] {
            let (old, new) = (flows(2), flows(4));
            put_in(&old, confirmed);
            put_in(&new, known);
            carry(&old, &new, 101);
            assert_eq!(found(&new, 5), Some(known));
        }
    }

    #[test]
    fn halves_of_two_writers_are_left_behind() {
        let (old, new) = (flows(2), flows(4));
        put_in(&old, FlowEntry { key: 9, ..entry(0x8000_0000_0000_0009, true, 100) });
        carry(&old, &new, 100);
        assert_eq!(found(&new, 9), None);
    }
}
