//! Sets of entries: found, made, changed, under the eyes of other CPUs.

use super::{
    ANSWER, ANSWER_SHIFT, CLASH, CURRENT_CHECK, DIRECT, Entry, Frontend, LENGTH_SHIFT, LENGTH_UNIT, PENDING_CHECK, Syn,
};
use crate::abi::{FLOW_WAYS, FlowEntry, FlowSet};

/// A flow that was used within so many ticks is in use: forgetting it is an eviction.
pub const IN_USE_TICKS: u16 = 4;
const KEY_WORD: usize = 0;
const CURRENT_WORD: usize = 1;
const PENDING_WORD: usize = 2;
const SYN_WORD: usize = 3;

/// The words of a set, as the kernel's side and tests reach them. Another CPU may write them between two calls.
pub trait Cells {
    /// A word.
    fn load(&self, way: usize, word: usize) -> u64;
    /// Writes a word.
    fn store(&mut self, way: usize, word: usize, value: u64);
    /// Writes the low half of a word alone.
    fn store_low(&mut self, way: usize, word: usize, value: u32);
    /// Writes the top 16 bits of a word alone.
    fn store_top(&mut self, way: usize, word: usize, value: u16);
}

impl Cells for FlowSet {
    fn load(&self, way: usize, word: usize) -> u64 {
        let FlowEntry { key, current, pending, syn } = self.0[way];
        [key, current, pending, syn][word]
    }
    fn store(&mut self, way: usize, word: usize, value: u64) {
        let FlowEntry { key, current, pending, syn } = &mut self.0[way];
        *[key, current, pending, syn][word] = value;
    }
    fn store_low(&mut self, way: usize, word: usize, value: u32) {
        let old = self.load(way, word);
        self.store(way, word, old & !0xffff_ffff | u64::from(value));
    }
    fn store_top(&mut self, way: usize, word: usize, value: u16) {
        let old = self.load(way, word);
        self.store(way, word, old & !(0xffff << 48) | u64::from(value) << 48);
    }
}

/// The way and content of a key's entry.
#[inline(always)]
#[must_use]
pub fn find(cells: &impl Cells, key: u64) -> Option<(usize, Entry)> {
    let mut way = FLOW_WAYS;
    for candidate in 0..FLOW_WAYS {
        if cells.load(candidate, KEY_WORD) == key {
            way = candidate;
        }
    }
    if way == FLOW_WAYS {
        return None;
    }
    let entry = read(cells, way);
    // A writer takes the key away first and puts it back last.
    if entry.is_of(key) && cells.load(way, KEY_WORD) == key { Some((way, entry)) } else { None }
}

#[inline(always)]
fn read(cells: &impl Cells, way: usize) -> Entry {
    Entry {
        current: cells.load(way, CURRENT_WORD),
        pending: cells.load(way, PENDING_WORD),
        syn: cells.load(way, SYN_WORD),
    }
}

/// Notes that an entry was used.
#[inline(always)]
pub fn touch(cells: &mut impl Cells, way: usize, entry: &Entry, now: u16) {
    if entry.age(now) != 0 {
        cells.store_top(way, SYN_WORD, now);
    }
}

/// Makes this SYN the pending one of an entry.
#[inline(always)]
pub fn renew(cells: &mut impl Cells, way: usize, key: u64, frontend: Frontend, syn: Syn, now: u16) {
    cells.store_low(way, SYN_WORD, syn.sequence);
    cells.store_top(way, SYN_WORD, now);
    cells.store(way, PENDING_WORD, pending_word(key, frontend, syn.length));
}

/// The flow is confirmed by this acknowledgement.
#[inline(always)]
pub fn confirm(cells: &mut impl Cells, way: usize, key: u64, frontend: Frontend, acknowledgement: u32) {
    let answer = (u64::from(acknowledgement) & ANSWER) << ANSWER_SHIFT;
    cells.store(way, CURRENT_WORD, frontend.0 | answer | key & CURRENT_CHECK);
}

/// The endpoint has ended the connection: what may still follow is translated, and the entry is the first to give way.
#[inline(always)]
pub fn close(cells: &mut impl Cells, way: usize, key: u64) {
    cells.store(way, PENDING_WORD, pending_word(key, Frontend::NONE, 0));
}

/// The ports are a direct connection's.
#[inline(always)]
pub fn mark_direct(cells: &mut impl Cells, way: usize, key: u64, now: u16) {
    cells.store(way, CURRENT_WORD, DIRECT | key & CURRENT_CHECK);
    cells.store(way, PENDING_WORD, pending_word(key, Frontend::NONE, 0));
    cells.store_top(way, SYN_WORD, now);
}

/// Forgets an entry.
#[inline(always)]
pub fn remove(cells: &mut impl Cells, way: usize) {
    cells.store(way, KEY_WORD, 0);
}

/// What a new entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fresh {
    /// A SYN is on its way.
    Pending(Syn),
    /// A UDP flow.
    Datagrams,
    /// A clash entry.
    Clash,
}

/// Makes an entry under `key`: in the place of its namesake, else of the least useful. `is_live`: whether a frontend's VIP
/// is still there. Whether a flow that was in use had to go.
#[inline(always)]
pub fn insert(
    cells: &mut impl Cells,
    key: u64,
    frontend: Frontend,
    fresh: Fresh,
    port: u16,
    now: u16,
    is_live: impl Fn(Frontend) -> bool,
) -> bool {
    let (mut way, mut most) = (0, 0);
    for candidate in 0..FLOW_WAYS {
        let worth = uselessness(cells, candidate, key, now, &is_live);
        if worth > most {
            (way, most) = (candidate, worth);
        }
    }
    let (current, pending, sequence) = match fresh {
        Fresh::Pending(syn) => (Frontend::NONE.0, pending_word(key, frontend, syn.length), syn.sequence),
        Fresh::Datagrams => (frontend.0, pending_word(key, Frontend::NONE, 0), 0),
        Fresh::Clash => (frontend.0 | CLASH, pending_word(key, Frontend::NONE, 0), 0),
    };
    cells.store(way, KEY_WORD, 0);
    cells.store(way, CURRENT_WORD, current | key & CURRENT_CHECK);
    cells.store(way, PENDING_WORD, pending);
    cells.store(way, SYN_WORD, u64::from(sequence) | u64::from(port) << 32 | u64::from(now) << 48);
    cells.store(way, KEY_WORD, key);
    most <= IN_USE
}

/// The greatest uselessness of a flow in use.
const IN_USE: u32 = IN_USE_TICKS as u32 + 1;
/// What an entry counts, in ticks, that was never confirmed, or that is spent (see [`is_spent`]): half an hour.
const LESS_USEFUL: u32 = 120;

/// How little an entry is worth; at least 1.
#[inline(always)]
fn uselessness(cells: &impl Cells, way: usize, key: u64, now: u16, is_live: &impl Fn(Frontend) -> bool) -> u32 {
    let found = cells.load(way, KEY_WORD);
    let entry = read(cells, way);
    if found == key {
        return 1 << 20;
    }
    if found == 0 || !entry.is_of(found) {
        return 1 << 19;
    }
    let frontend = entry.frontend();
    if !frontend.is_none() && !is_live(frontend) {
        return 1 << 18;
    }
    let less_useful = entry.current().is_none() || is_spent(&entry, now);
    u32::from(entry.age(now)) + 1 + if less_useful { LESS_USEFUL } else { 0 }
}

/// Whether a flow has been silent and is not an open connection: datagrams, or a connection that its endpoint has ended.
/// Without this, those that come and go would push out connections that are open and idle.
#[inline(always)]
fn is_spent(entry: &Entry, now: u16) -> bool {
    entry.pending().is_none() && !entry.is_clash() && entry.age(now) > IN_USE_TICKS
}

#[inline(always)]
const fn pending_word(key: u64, frontend: Frontend, length: u32) -> u64 {
    let units = length.div_ceil(LENGTH_UNIT);
    let units = if units > 0xff { 0xff } else { units };
    frontend.0 | key >> 8 & PENDING_CHECK | (units as u64) << LENGTH_SHIFT
}
