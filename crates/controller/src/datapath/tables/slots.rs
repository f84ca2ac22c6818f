//! The writer's side of open addressing: keeps the promises of [`guenon_ebpf::probe`].

use std::collections::BTreeSet;

use guenon_ebpf::abi::{AddressKind, AddressTag, FrontendSlot, LocalSlot};
use guenon_ebpf::probe::PROBE_LIMIT;

use super::store::{Store, Table};

/// What a slot is, by its tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Usage {
    Empty,
    Live,
    Withdrawn,
}

/// One open-addressed table.
#[derive(Debug)]
pub(super) struct Slots {
    pub(super) table: Table,
    width: usize,
    tag: usize,
    mask: u32,
    /// Withdrawn, and some reader may still stand before it.
    resting: BTreeSet<u32>,
}

impl Slots {
    pub(super) fn new(store: &impl Store, table: Table) -> Self {
        let tag = if table == Table::Frontends { 0 } else { 2 };
        let slots = store.elements(table);
        Self { table, width: table.element_words(), tag, mask: (slots - 1), resting: BTreeSet::new() }
    }

    /// Entries that the table promises to hold.
    pub(super) fn capacity(&self) -> usize {
        (self.mask as usize + 1) / 4
    }

    pub(super) fn all(&self) -> std::ops::RangeInclusive<u32> {
        0..=self.mask
    }

    pub(super) fn tag(&self, store: &impl Store, slot: u32) -> u64 {
        store.load(self.table, self.word(slot) + self.tag)
    }

    pub(super) fn usage(&self, store: &impl Store, slot: u32) -> Usage {
        usage(self.table, self.tag(store, slot))
    }

    /// The slots that a search for a key with this home looks at, in order.
    pub(super) fn path(&self, home: u32) -> impl Iterator<Item = u32> + use<> {
        let mask = self.mask;
        (0..PROBE_LIMIT.min(mask.saturating_add(1))).map(move |step| home.wrapping_add(step) & mask)
    }

    /// A slot for a new key, not among `reserved`; behind `after` when that is on the way.
    pub(super) fn vacancy(
        &self,
        store: &impl Store,
        home: u32,
        reserved: &BTreeSet<u32>,
        after: Option<u32>,
    ) -> Option<u32> {
        let mut path = self.path(home);
        if let Some(after) = after {
            path.find(|&slot| slot == after)?;
        }
        path.find(|slot| {
            self.usage(store, *slot) != Usage::Live && !self.resting.contains(slot) && !reserved.contains(slot)
        })
    }

    /// Writes a whole slot; it is live from its last store on.
    pub(super) fn fill(&self, store: &impl Store, slot: u32, payload: &[(usize, u64)], tag: u64) {
        let first = self.word(slot);
        for &(word, value) in payload {
            store.prepare(self.table, first + word, value);
        }
        store.publish(self.table, first + self.tag, tag);
    }

    /// Changes the tag of a live slot.
    pub(super) fn retag(&self, store: &impl Store, slot: u32, tag: u64) {
        store.publish(self.table, self.word(slot) + self.tag, tag);
    }

    /// Takes a slot out of force. It rests until [`Self::reclaim`].
    pub(super) fn withdraw(&mut self, store: &impl Store, slot: u32) {
        self.retag(store, slot, withdrawn(self.table));
        self.resting.insert(slot);
    }

    /// After a grace period: the slot may be used again.
    pub(super) fn reclaim(&mut self, store: &impl Store, slot: u32) {
        let first = self.word(slot);
        for word in (0..self.width).filter(|word| *word != self.tag) {
            store.prepare(self.table, first + word, 0);
        }
        self.resting.remove(&slot);
        self.settle(store, slot);
    }

    /// Empties withdrawn slots that no search needs to pass: those with nothing behind them.
    fn settle(&self, store: &impl Store, slot: u32) {
        if self.usage(store, slot.wrapping_add(1) & self.mask) != Usage::Empty {
            return;
        }
        let mut slot = slot;
        while self.usage(store, slot) == Usage::Withdrawn && !self.resting.contains(&slot) {
            self.retag(store, slot, 0);
            slot = slot.wrapping_sub(1) & self.mask;
        }
    }

    /// A grace period has passed for all of them.
    pub(super) fn rested(&mut self) {
        self.resting.clear();
    }

    /// After a crash: makes every slot on the way to a live one passable, and clears what was half written.
    /// `home` tells a live slot's home.
    pub(super) fn heal(&self, store: &impl Store, home: impl Fn(u32) -> u32) {
        for slot in self.all() {
            match self.usage(store, slot) {
                Usage::Live => {
                    for passed in self.path(home(slot)).take_while(|passed| *passed != slot) {
                        if self.usage(store, passed) == Usage::Empty {
                            self.retag(store, passed, withdrawn(self.table));
                        }
                    }
                }
                Usage::Empty | Usage::Withdrawn => {
                    let first = self.word(slot);
                    for word in (0..self.width).filter(|word| *word != self.tag) {
                        if store.load(self.table, first + word) != 0 {
                            store.prepare(self.table, first + word, 0);
                        }
                    }
                }
            }
        }
        for slot in self.all().rev() {
            if self.usage(store, slot) == Usage::Withdrawn {
                self.settle(store, slot);
            }
        }
    }

    fn word(&self, slot: u32) -> usize {
        slot as usize * self.width
    }
}

/// What a tag says.
pub(super) fn usage(table: Table, tag: u64) -> Usage {
    if matches!(table, Table::Addresses | Table::Directors) {
        match AddressTag(tag).kind() {
            kind if kind == AddressKind::Empty as u8 => Usage::Empty,
            kind if kind == AddressKind::Withdrawn as u8 => Usage::Withdrawn,
            _ => Usage::Live,
        }
    } else if FrontendSlot(tag).is_live() {
        Usage::Live
    } else if tag == 0 {
        Usage::Empty
    } else {
        Usage::Withdrawn
    }
}

fn withdrawn(table: Table) -> u64 {
    if matches!(table, Table::Addresses | Table::Directors) {
        AddressTag::new(AddressKind::Withdrawn, 0, 0).0
    } else if table == Table::Frontends {
        FrontendSlot::WITHDRAWN.0
    } else {
        LocalSlot::WITHDRAWN
    }
}
