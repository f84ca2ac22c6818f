//! The memory of first fragments, for those that follow.

use aya_ebpf::maps::Array;
use guenon_ebpf::abi::{AddressTag, FragmentSet, FrontendSlot};
use guenon_ebpf::fragment::{self, Datagram};
use guenon_ebpf::hash;
use guenon_ebpf::parse::Ip;

use crate::{maps, settings, tables};

/// Remembers what a first fragment took; gives the datagram's key, which all of its fragments share.
#[inline(always)]
pub(crate) fn remember(ip: &Ip, row: u16, frontend: u32) -> u64 {
    let key = key(ip);
    guenon_remember(key, row.into(), frontend);
    key
}

/// Forgets a datagram that is for no frontend.
#[inline(always)]
pub(crate) fn forget(ip: &Ip) {
    guenon_forget(key(ip));
}

/// What the first fragment took, its frontend, and the datagram's key. A frontend that is gone, or another VIP's
/// by now, is none.
#[inline(always)]
pub(crate) fn recall(ip: &Ip, vip: AddressTag) -> Option<(Datagram, FrontendSlot, u64)> {
    let key = key(ip);
    let word = guenon_recall(key);
    let datagram = Datagram { row: word as u16, frontend: (word >> 16) as u32 };
    let slot = tables::frontend_at(datagram.frontend);
    if word != NOTHING && slot.is_live() && slot.vip() == vip.id() { Some((datagram, slot, key)) } else { None }
}

/// The key that all fragments of a datagram share.
#[inline(always)]
pub(crate) fn key(ip: &Ip) -> u64 {
    // In IPv6 only the first fragment says what the datagram holds (RFC 8200 section 4.5).
    let protocol = if ip.v6 { 0 } else { ip.protocol };
    hash::datagram(&settings::schedule(), ip.source, ip.destination, ip.id, protocol)
}

/// What [`word`] gives for a datagram that is not remembered.
pub(crate) const NOTHING: u64 = u64::MAX;

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn guenon_remember(key: u64, row: u32, frontend: u32) -> u64 {
    if let Some(set) = set(&maps::FRAGMENTS, key) {
        fragment::remember(set, key, Datagram { row: row as u16, frontend });
    }
    0
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn guenon_forget(key: u64) -> u64 {
    if let Some(set) = set(&maps::FRAGMENTS, key) {
        fragment::forget(set, key);
    }
    0
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn guenon_recall(key: u64) -> u64 {
    word(&maps::FRAGMENTS, key)
}

/// What a map of datagrams remembers, for a function of its own: 0..16 row, 16..48 frontend; or [`NOTHING`].
#[inline(always)]
pub(crate) fn word(map: &Array<FragmentSet>, key: u64) -> u64 {
    let recalled = set(map, key).and_then(|set| fragment::recall(set, key));
    recalled.map_or(NOTHING, |Datagram { row, frontend }| u64::from(row) | u64::from(frontend) << 16)
}

/// The set of a datagram.
#[inline(always)]
pub(crate) fn set(map: &Array<FragmentSet>, key: u64) -> Option<&'static mut FragmentSet> {
    // SAFETY: an element of the map. Other CPUs may write it too: entries made of two halves are told by
    // their check bits, and words are only copied.
    map.get_ptr_mut(fragment::set_of(key)).map(|set| unsafe { &mut *set })
}
