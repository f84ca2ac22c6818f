//! Which flow the later fragments of a datagram belong to: entries of `FRAGMENTS`.
//!
//! A first fragment leaves its row bits and frontend under a keyed hash of what all fragments of the datagram
//! share. A set forgets its oldest entry for a new one; there is no clock. CPUs may write a set at the same
//! time: both words of an entry carry the same 16 bits of the key, so that halves of two entries never match.

use crate::abi::{FRAGMENT_SETS, FRAGMENT_WAYS, FragmentSet};

/// What a first fragment says of its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// The bits of the hash that pick the row.
    pub row: u16,
    /// Index of the frontend's slot in `FRONTENDS`.
    pub frontend: u32,
}

const CHECK: u64 = 0xffff << 48;

/// The set in which a datagram is remembered; `key` is [`crate::hash::datagram`].
#[inline(always)]
#[must_use]
pub const fn set_of(key: u64) -> u32 {
    key as u32 & (FRAGMENT_SETS - 1)
}

/// What the datagram's first fragment said, if it is remembered.
#[inline(always)]
#[must_use]
pub fn recall(set: &FragmentSet, key: u64) -> Option<Datagram> {
    for [entry, word] in set.0 {
        if entry == key && (entry ^ word) & CHECK == 0 && key != 0 {
            return Some(Datagram { row: word as u16, frontend: (word >> 16) as u32 });
        }
    }
    None
}

/// Remembers a datagram: in the place of its namesake, else as the newest of the set.
#[inline(always)]
pub fn remember(set: &mut FragmentSet, key: u64, datagram: Datagram) {
    let word = key & CHECK | (datagram.frontend as u64) << 16 | datagram.row as u64;
    for entry in &mut set.0 {
        if entry[0] == key {
            entry[1] = word;
            return;
        }
    }
    for way in (1..FRAGMENT_WAYS).rev() {
        set.0[way] = set.0[way - 1];
    }
    set.0[0] = [key, word];
}

/// Forgets a datagram: its first fragment is not for a frontend.
#[inline(always)]
pub fn forget(set: &mut FragmentSet, key: u64) {
    for entry in &mut set.0 {
        if entry[0] == key {
            *entry = [0; 2];
        }
    }
}
