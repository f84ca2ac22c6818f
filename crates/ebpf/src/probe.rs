//! Open addressing with linear probing that readers may walk while one writer changes it.
//!
//! A search for a key starts at its home slot and looks at no more than [`PROBE_LIMIT`] slots, until it finds the key
//! or a slot that was never used. The writer keeps two promises, so that no live key is ever
//! hidden, even for one packet:
//!
//! 1. A live slot never moves, and a withdrawn one stays "withdrawn", not "empty", while a live key may lie behind it. It may become
//!    empty when the slot after it is empty: no search that passes it finds anything further on.
//! 2. A slot whose key is wider than its tag gets a new key only after a grace period.
//!
//! An insertion that finds no room within the limit is refused ("table full"); tables have four slots
//! for each entry they promise, which makes that a matter of 1 in 10^12.

use crate::abi::Address;

/// Slots that a search looks at, at most.
pub const PROBE_LIMIT: u32 = 32;

const MIX: u64 = 0x9e37_79b9_7f4a_7c15; // 2^64 / golden ratio (Knuth, TAOCP 3, 6.4)
const MIX_ADDRESS: u64 = 0xbf58_476d_1ce4_e5b9; // SplitMix64's first

/// An address in one word, every byte of it in the lower half too: homes come from bits 32 and up of a product, which
/// the upper bits of a factor do not reach.
#[inline(always)]
const fn word(address: Address) -> u64 {
    let x = address.hi ^ address.lo.rotate_left(29);
    x ^ (x >> 32)
}

/// Home slot of an address, before the table's mask.
#[inline(always)]
#[must_use]
pub const fn home_of_address(address: Address) -> u32 {
    (word(address).wrapping_mul(MIX) >> 32) as u32
}

/// Home slot of a frontend's key bits ([`crate::abi::FrontendSlot::key`]), before the mask.
#[inline(always)]
#[must_use]
pub const fn home_of_frontend(key: u64) -> u32 {
    (key.wrapping_mul(MIX) >> 32) as u32
}

/// Home slot of a local delivery (frontend key bits, endpoint address), before the mask.
#[inline(always)]
#[must_use]
pub const fn home_of_local(key: u64, address: Address) -> u32 {
    (key.wrapping_mul(MIX).wrapping_add(word(address).wrapping_mul(MIX_ADDRESS)) >> 32) as u32
}

/// What a search finds in one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look<T> {
    /// The key.
    Found(T),
    /// Another key, or a withdrawn one: on to the next.
    Other,
    /// Never used: the key is nowhere.
    Empty,
}

/// Looks for a key from its home slot on. `look` is given indices below the size of the table, `mask` + 1.
#[inline(always)]
pub fn search<T>(home: u32, mask: u32, mut look: impl FnMut(u32) -> Look<T>) -> Option<T> {
    for step in 0..PROBE_LIMIT {
        match look(home.wrapping_add(step) & mask) {
            Look::Found(found) => return Some(found),
            Look::Other => {}
            Look::Empty => return None,
        }
    }
    None
}
