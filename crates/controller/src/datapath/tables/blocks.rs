//! Rows and endpoint blocks: written to free memory, given to the quarantine when they are old.

use guenon_ebpf::abi::{Descriptor, Row};

use super::header::{ENDPOINT_WORDS, EndpointWords};
use super::quarantine::Retired;
use super::store::{Store, Table};
use super::{Tables, full};
use crate::apply::Refusal;

impl<S: Store> Tables<S> {
    /// Whether these rows are in force already.
    pub(super) fn rows_equal(&self, descriptor: Descriptor, rows: &[Row]) -> bool {
        let page_rows = self.store.page_rows() as usize;
        if !descriptor.has_rows() || rows.is_empty() {
            return !descriptor.has_rows() && rows.is_empty();
        }
        let first = descriptor.page() as usize * page_rows / 2;
        rows.len() == page_rows << descriptor.log2_pages()
            && rows.chunks(2).enumerate().all(|(word, pair)| self.store.load(Table::Rows, first + word) == two(pair))
    }

    /// Writes rows to free pages: first page, log2 of their number.
    pub(super) fn write_rows(&mut self, rows: &[Row]) -> (u32, u32) {
        let page_rows = self.store.page_rows() as usize;
        let pages = (rows.len() / page_rows) as u32;
        let Some(page) = (pages > 0).then(|| self.pages.take(pages)).flatten() else { return (0, 0) };
        let first = page as usize * page_rows / 2;
        for (word, pair) in rows.chunks(2).enumerate() {
            self.store.prepare(Table::Rows, first + word, two(pair));
        }
        (page, pages.ilog2())
    }

    /// Writes endpoints to free elements: the first. Element 0 is never used; it stands for "no block".
    pub(super) fn write_block(&mut self, block: &[EndpointWords]) -> u32 {
        let length = block.len() as u32;
        let Some(first) = (length > 0).then(|| self.blocks.take(length)).flatten() else { return 0 };
        for (word, value) in block.iter().flatten().enumerate() {
            self.store.prepare(Table::Endpoints, first as usize * ENDPOINT_WORDS + word, *value);
        }
        first
    }

    /// Gives rows and endpoints of a descriptor to the quarantine.
    pub(super) fn retire(&mut self, descriptor: Descriptor, endpoints: u32, rows: bool, block: bool) {
        if rows && descriptor.has_rows() {
            self.quarantine.push(Retired::Pages(descriptor.page(), 1 << descriptor.log2_pages()));
        }
        if block && endpoints > 0 {
            self.quarantine.push(Retired::Block(descriptor.block(), endpoints));
        }
    }

    pub(super) fn no_room(&self, table: Table, needed: usize, free: u32) -> Refusal {
        full(table.map(), needed, free as usize, self.store.elements(table) as usize)
    }
}

fn two(pair: &[Row]) -> u64 {
    pair.iter().rev().fold(0, |word, row| word << 32 | u64::from(row.0))
}
