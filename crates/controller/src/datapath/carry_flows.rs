//! Flows of delivery `Nat` outlive a change of maps: their entries are copied from the old `FLOWS` to the new.
//!
//! They are where programs look for them as long as both maps have the same number of sets. Of another number they are not
//! carried over: an entry's place follows from its key by that number, and sets that become one would have to give entries up.
//! Replies of such flows leave as they are until their clients open them anew. The log says so.
//!
//! Programs write while this copies: those of the old maps until they have been swapped, then those of the new. So all is
//! copied before the swap, and what changed in the old maps meanwhile after it, unless the new ones have changed it too.

use guenon_ebpf::abi::{FLOW_WAYS, FlowEntry, Meta};

use super::tables::{Store, Table};

const WORDS: usize = size_of::<FlowEntry>() / 8;
const KEY: usize = 0;

type Entry = [u64; WORDS];

/// What was copied before the swap.
pub(super) struct Copied(Vec<u64>);

/// Copies all entries into tables that no program uses yet. `None`: the tables are of different sizes, or of different hash
/// keys.
pub(super) fn begin(old: &impl Store, new: &impl Store) -> Option<Copied> {
    let fingerprint = std::mem::offset_of!(Meta, hash_fingerprint) / 8;
    if old.elements(Table::Flows) != new.elements(Table::Flows) {
        tracing::info!("another number of flows than before: those that are open lose their replies' translation");
        return None;
    }
    if old.load(Table::Meta, fingerprint) != new.load(Table::Meta, fingerprint) {
        return None;
    }
    let clock = std::mem::offset_of!(Meta, clock) / 8;
    new.publish(Table::Meta, clock, old.load(Table::Meta, clock));
    let words: Vec<u64> = (0..old.words(Table::Flows).len()).map(|word| old.load(Table::Flows, word)).collect();
    for (word, value) in words.iter().enumerate().filter(|(_, value)| **value != 0) {
        new.prepare(Table::Flows, word, *value);
    }
    Some(Copied(words))
}

impl Copied {
    /// Copies what has changed since, when no program uses the old tables any more.
    pub(super) fn end(self, old: &impl Store, new: &impl Store) {
        let copied = |index: usize| -> Entry { std::array::from_fn(|word| self.0[index * WORDS + word]) };
        for index in 0..self.0.len() / WORDS {
            let now: Entry = old.element(Table::Flows, index as u32);
            if now == copied(index) || now[KEY] == 0 {
                continue;
            }
            let set = index / FLOW_WAYS * FLOW_WAYS;
            let mut ways = (set..set + FLOW_WAYS).map(|way| (way, new.element(Table::Flows, way as u32) as Entry));
            let place = match ways.clone().find(|(_, entry)| entry[KEY] == now[KEY]) {
                // The new programs know the flow, and may know better.
                Some((way, entry)) => (entry == copied(way)).then_some(way),
                None => ways
                    .find(|(way, entry)| entry[KEY] == 0 || (*way == index && *entry == copied(*way)))
                    .map(|(way, _)| way),
            };
            if let Some(way) = place {
                // The key last: it leads to the rest.
                for word in (0..WORDS).rev() {
                    new.publish(Table::Flows, way * WORDS + word, now[word]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::memory::Memory;
    use crate::datapath::tables::Capacities;

    const FLOWS: Capacities = Capacities { services: 1, frontends: 1, endpoints: 1, row_pages: 1, locals: 1, flows: 8 };

    fn put(memory: &Memory, way: usize, entry: Entry) {
        for (word, value) in entry.into_iter().enumerate() {
            memory.publish(Table::Flows, way * WORDS + word, value);
        }
    }

    fn get(memory: &Memory, way: usize) -> Entry {
        memory.element(Table::Flows, way as u32)
    }

    #[test]
    fn flows_are_where_they_were_and_what_changed_during_the_swap_follows() {
        let (old, new) = (Memory::new(&FLOWS), Memory::new(&FLOWS));
        for way in [0, 1, 5] {
            put(&old, way, [10 + way as u64, 1, 0, 0]);
        }
        let copied = begin(&old, &new).expect("they are of one size");
        assert_eq!([0, 1, 2, 5].map(|way| get(&new, way)[KEY]), [10, 11, 0, 15]);
        // Old programs confirm one flow and begin another; new ones confirm one and begin another, in the same way.
        put(&old, 0, [10, 2, 0, 0]);
        put(&old, 2, [12, 1, 0, 0]);
        put(&old, 1, [11, 2, 0, 0]);
        put(&new, 1, [11, 3, 0, 0]);
        put(&new, 2, [99, 1, 0, 0]);
        copied.end(&old, &new);
        let now = [0, 1, 2, 3, 5].map(|way| (get(&new, way)[KEY], get(&new, way)[1]));
        assert_eq!(now, [(10, 2), (11, 3), (99, 1), (12, 1), (15, 1)]);
    }

    #[test]
    fn tables_of_another_size_start_without_flows() {
        let (old, new) = (Memory::new(&FLOWS), Memory::new(&Capacities { flows: 64, ..FLOWS }));
        put(&old, 0, [10, 1, 0, 0]);
        assert!(begin(&old, &new).is_none());
        assert_eq!(get(&new, 0)[KEY], 0);
    }
}
