//! The tables in ordinary memory: for tests, and for planning without a kernel.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::atomic::AtomicU64;
use super::tables::{Capacities, Grace, NoReaders, Store, Table, Tables};

/// Words on the heap; clones share them, so that readers can watch a writer.
#[derive(Clone, Debug)]
pub struct Memory(Arc<BTreeMap<Table, Vec<AtomicU64>>>);

impl Memory {
    /// Empty tables.
    #[must_use]
    pub fn new(capacities: &Capacities) -> Self {
        let words = |table: Table| capacities.elements(table) as usize * table.element_words();
        let table = |table: Table| (table, (0..words(table)).map(|_| AtomicU64::new(0)).collect());
        Self(Arc::new(Table::ALL.into_iter().map(table).collect()))
    }
}

impl Store for Memory {
    fn words(&self, table: Table) -> &[AtomicU64] {
        &self.0[&table]
    }
}

/// The data path in memory that nobody else reads.
#[must_use]
pub fn data_path(capacities: &Capacities, gue_port: u16) -> Tables<Memory> {
    data_path_with(Memory::new(capacities), Box::<NoReaders>::default(), gue_port)
}

/// The data path in given memory, which is taken over as it is found.
#[must_use]
pub fn data_path_with(memory: Memory, grace: Box<dyn Grace>, gue_port: u16) -> Tables<Memory> {
    Tables::open(memory, grace, gue_port, 0)
}
