//! Lookups. Array elements only, which the kernel inlines; words that the agent changes are read once.

use aya_ebpf::maps::Array;
use guenon_ebpf::abi::{
    Address, AddressKind, AddressSlot, AddressTag, Descriptor, Endpoint, FrontendSlot, Interface, LocalSlot, NextHop,
    PAGE_ROWS, Row, locate_row,
};
use guenon_ebpf::probe::{self, Look};
use guenon_ebpf::reason::DropReason;

use crate::{maps, settings};

/// What an address is to this node; the kind is `Empty` if nothing.
#[inline(always)]
pub(crate) fn address(address: Address) -> AddressTag {
    match address_at(&maps::ADDRESSES, home_address(address), address) {
        Look::Found(tag) => tag,
        Look::Empty => AddressTag::default(),
        Look::Other => AddressTag(guenon_more_addresses(address.hi, address.lo)),
    }
}

/// Whether this outer source is a known director.
#[inline(always)]
pub(crate) fn is_director(source: Address) -> bool {
    let home = probe::home_of_address(source) & settings::director_mask();
    let tag = match address_at(&maps::DIRECTORS, home, source) {
        Look::Found(tag) => tag,
        Look::Empty => AddressTag::default(),
        Look::Other => AddressTag(guenon_more_directors(source.hi, source.lo)),
    };
    tag.kind() == AddressKind::Director as u8
}

#[inline(always)]
fn home_address(address: Address) -> u32 {
    probe::home_of_address(address) & settings::address_mask()
}

#[inline(always)]
fn address_at(map: &Array<AddressSlot>, index: u32, address: Address) -> Look<AddressTag> {
    let Some(slot) = map.get_ptr(index) else { return Look::Empty };
    // SAFETY: an element of the map. The tag is read before the key, which it puts in force.
    let (tag, key) = unsafe { (AddressTag(volatile(&raw const (*slot).tag)), volatile(&raw const (*slot).address)) };
    if tag.kind() == AddressKind::Empty as u8 {
        Look::Empty
    } else if key == address && tag.kind() != AddressKind::Withdrawn as u8 {
        Look::Found(tag)
    } else {
        Look::Other
    }
}

/// The search for an address that does not stand in its home slot.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn guenon_more_addresses(hi: u64, lo: u64) -> u64 {
    let address = Address { hi, lo };
    let home = probe::home_of_address(address);
    probe::search(home, settings::address_mask(), |index| address_at(&maps::ADDRESSES, index, address))
        .map_or(0, |tag| tag.0)
}

/// The search for a director that does not stand in its home slot.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn guenon_more_directors(hi: u64, lo: u64) -> u64 {
    let address = Address { hi, lo };
    let home = probe::home_of_address(address);
    probe::search(home, settings::director_mask(), |index| address_at(&maps::DIRECTORS, index, address))
        .map_or(0, |tag| tag.0)
}

/// What a search that found nothing gives for an index.
const NOWHERE: u64 = u64::MAX;

/// Index and content of a live frontend's slot.
#[inline(always)]
pub(crate) fn frontend(vip: u32, transport: u8, port: u16) -> Option<(u32, FrontendSlot)> {
    let key = FrontendSlot::key(vip, transport, port);
    let mut index = probe::home_of_frontend(key) & settings::frontend_mask();
    let mut slot = frontend_at(index);
    if slot.0 & FrontendSlot::KEY != key {
        if slot == FrontendSlot::EMPTY {
            return None;
        }
        let found = guenon_more_frontends(key);
        if found == NOWHERE {
            return None;
        }
        index = found as u32;
        slot = frontend_at(index);
        if slot.0 & FrontendSlot::KEY != key {
            return None;
        }
    }
    Some((index, slot))
}

/// The search for a frontend that does not stand in its home slot.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn guenon_more_frontends(key: u64) -> u64 {
    probe::search(probe::home_of_frontend(key), settings::frontend_mask(), |index| {
        let slot = frontend_at(index);
        if slot == FrontendSlot::EMPTY {
            Look::Empty
        } else if slot.0 & FrontendSlot::KEY == key {
            Look::Found(index)
        } else {
            Look::Other
        }
    })
    .map_or(NOWHERE, u64::from)
}

/// The slot at an index; empty outside the table.
#[inline(always)]
pub(crate) fn frontend_at(index: u32) -> FrontendSlot {
    match maps::FRONTENDS.get_ptr(index) {
        // SAFETY: an element of the map.
        Some(slot) => unsafe { volatile(slot) },
        None => FrontendSlot::EMPTY,
    }
}

/// A service's descriptor.
#[inline(always)]
pub(crate) fn descriptor(service: u32) -> Result<Descriptor, DropReason> {
    let descriptor = maps::SERVICES.get_ptr(service).ok_or(DropReason::Aborted)?;
    // SAFETY: an element of the map.
    Ok(unsafe { volatile(descriptor) })
}

/// The row that a hash picks.
#[inline(always)]
pub(crate) fn row(descriptor: Descriptor, hash: u64) -> Result<Row, DropReason> {
    let (page, index) = locate_row(descriptor, hash);
    let page = maps::ROWS.get_ptr(page).ok_or(DropReason::Aborted)?;
    // SAFETY: an element of the map; a page does not change while a descriptor leads to it.
    Ok(unsafe { (*page).0[(index & (PAGE_ROWS - 1)) as usize] })
}

/// An endpoint.
#[inline(always)]
pub(crate) fn endpoint(index: u32) -> Result<&'static Endpoint, DropReason> {
    let endpoint = maps::ENDPOINTS.get_ptr(index).ok_or(DropReason::Aborted)?;
    // SAFETY: an element of the map; a block does not change while a descriptor leads to it.
    Ok(unsafe { &*endpoint })
}

/// A next hop: its MAC and egress, its MTU.
#[inline(always)]
pub(crate) fn next_hop(index: u32) -> Result<NextHop, DropReason> {
    let hop = maps::NEXT_HOPS.get_ptr(index).ok_or(DropReason::Aborted)?;
    // SAFETY: an element of the map, whose halves change by one store each.
    Ok(unsafe {
        NextHop { mac_interface: volatile(&raw const (*hop).mac_interface), mtu: volatile(&raw const (*hop).mtu) }
    })
}

/// A device to send from.
#[inline(always)]
pub(crate) fn interface(slot: u16) -> Result<&'static Interface, DropReason> {
    let interface = maps::INTERFACES.get_ptr(u32::from(slot)).ok_or(DropReason::Aborted)?;
    // SAFETY: an element of the map; a slot does not change while a next hop leads to it.
    Ok(unsafe { &*interface })
}

/// How a packet for this frontend and endpoint is delivered here, with the index of the slot that says it.
#[inline(always)]
pub(crate) fn local(key: u64, endpoint: Address) -> Option<(u32, &'static LocalSlot)> {
    let home = probe::home_of_local(key, endpoint) & settings::local_mask();
    match local_at(home, key, endpoint) {
        Look::Found(slot) => Some((home, slot)),
        Look::Empty => None,
        Look::Other => {
            let index = guenon_more_locals(key, endpoint.hi, endpoint.lo) as u32;
            match local_at(index, key, endpoint) {
                Look::Found(slot) => Some((index, slot)),
                Look::Empty | Look::Other => None,
            }
        }
    }
}

/// The index of that slot alone, by way of a global function: the director's way has no stack left for a search.
#[inline(always)]
pub(crate) fn local_index(key: u64, endpoint: &[u8; 16]) -> Option<u32> {
    let endpoint = Address::from_bytes(*endpoint);
    let index = guenon_local_index(key, endpoint.hi, endpoint.lo);
    if index == NOWHERE { None } else { Some(index as u32) }
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn guenon_local_index(key: u64, hi: u64, lo: u64) -> u64 {
    local(key, Address { hi, lo }).map_or(NOWHERE, |(index, _)| index.into())
}

/// The slot with this index, which [`local`] found.
#[inline(always)]
pub(crate) fn local_slot(index: u32) -> Result<&'static LocalSlot, DropReason> {
    let slot = maps::LOCALS.get_ptr(index).ok_or(DropReason::Aborted)?;
    // SAFETY: an element of the map, which stays as it is until no program can be reading it.
    Ok(unsafe { &*slot })
}

/// The tag of a slot of `LOCALS`, as it is now.
#[inline(always)]
pub(crate) fn tag(slot: &'static LocalSlot) -> u64 {
    // SAFETY: an element of the map, which the agent changes by one store.
    unsafe { volatile(&raw const slot.tag) }
}

#[inline(always)]
fn local_at(index: u32, key: u64, endpoint: Address) -> Look<&'static LocalSlot> {
    let Some(slot) = maps::LOCALS.get_ptr(index) else { return Look::Empty };
    // SAFETY: an element of the map. The tag is read before the rest, which it puts in force and which
    // stays as it is until no program can be reading it.
    let (tag, address) = unsafe { (volatile(&raw const (*slot).tag), volatile(&raw const (*slot).address)) };
    if tag == 0 {
        Look::Empty
    } else if tag == key && address == endpoint {
        // SAFETY: as above.
        Look::Found(unsafe { &*slot })
    } else {
        Look::Other
    }
}

/// The search for a delivery that does not stand in its home slot.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn guenon_more_locals(key: u64, hi: u64, lo: u64) -> u64 {
    let endpoint = Address { hi, lo };
    probe::search(probe::home_of_local(key, endpoint), settings::local_mask(), |index| {
        match local_at(index, key, endpoint) {
            Look::Found(_) => Look::Found(index),
            Look::Empty => Look::Empty,
            Look::Other => Look::Other,
        }
    })
    .map_or(NOWHERE, u64::from)
}

/// # Safety
///
/// `word` points to a live element of a map.
#[inline(always)]
unsafe fn volatile<T>(word: *const T) -> T {
    // SAFETY: the caller's promise.
    unsafe { core::ptr::read_volatile(word) }
}
