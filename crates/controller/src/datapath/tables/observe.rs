//! What is in force, read back from the words alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use guenon_ebpf::abi::{self, Address, AddressKind, AddressTag, Descriptor, FrontendSlot, Meta, PAGE_ROWS, Row};
use zerocopy::transmute;

use super::header::{EndpointWords, decode};
use super::nat::read_target_ports;
use super::next_hops::{decode_hop, decode_key, egress_of};
use super::services::NAME_WORDS;
use super::slots::{Usage, usage};
use super::store::{Store, Table};
use crate::model::{
    Frontend, LocalDelivery, NextHopKey, NextHopState, Path, Protocol, ServiceName, ServiceState, State,
};

/// Reads everything: meant for starting, and for people; its cost is that of the whole configuration.
/// What is half written by another process just now, or damaged, is left out.
pub fn read_state(store: &impl Store) -> State {
    let mut state = State::default();
    let mut vips = BTreeMap::new();
    for (slot, tag) in addresses(store, Table::Addresses) {
        if tag.kind() == AddressKind::Vip as u8 {
            vips.insert(tag.id(), slot);
            if tag.on_node() {
                state.on_node.insert(slot.to_ip());
            }
        } else if tag.kind() == AddressKind::Tunnel as u8 {
            state.tunnels.insert(slot.to_ip());
        }
    }
    for (slot, tag) in addresses(store, Table::Directors) {
        if tag.kind() == AddressKind::Director as u8 {
            state.directors.insert(slot.to_ip());
        }
    }
    state.next_hops = read_next_hops(store);
    let ids: BTreeMap<IpAddr, u32> = vips.iter().map(|(id, vip)| (vip.to_ip(), *id)).collect();
    let mut frontends: BTreeMap<u32, BTreeSet<Frontend>> = BTreeMap::new();
    for (_, slot) in live_frontends(store) {
        if let Some(vip) = vips.get(&slot.vip()) {
            frontends.entry(slot.service()).or_default().insert(frontend(slot, *vip));
        }
    }
    for (id, name) in service_names(store) {
        let frontends = frontends.remove(&id).unwrap_or_default();
        if let Some(service) = read_service(store, id, frontends, &ids) {
            state.services.insert(name, Arc::new(service));
        }
    }
    state
}

/// Names of the services in force, by id.
pub fn service_names(store: &impl Store) -> impl Iterator<Item = (u32, ServiceName)> {
    (0..store.elements(Table::Services))
        .filter(|id| Descriptor(store.load(Table::Services, *id as usize)).is_present())
        .filter_map(|id| Some((id, read_name(store, id)?)))
}

/// Version and revision.
pub fn read_meta(store: &impl Store) -> Meta {
    let words: [u64; size_of::<Meta>() / 8] = store.element(Table::Meta, 0);
    transmute!(words)
}

/// Next hops in force.
pub fn read_next_hops(store: &impl Store) -> BTreeMap<NextHopKey, NextHopState> {
    (0..store.elements(Table::NextHopKeys))
        .filter_map(|index| Some((decode_key(store, index)?, decode_hop(store, index)?)))
        .collect()
}

/// Frontends in force: service, and slot in `FRONTENDS` and `FRONTEND_STATS`.
pub fn frontend_slots(store: &impl Store) -> BTreeMap<Frontend, (ServiceName, u32)> {
    let names: BTreeMap<u32, ServiceName> = service_names(store).collect();
    let vips: BTreeMap<u32, Address> = addresses(store, Table::Addresses)
        .filter(|(_, tag)| tag.kind() == AddressKind::Vip as u8)
        .map(|(address, tag)| (tag.id(), address))
        .collect();
    live_frontends(store)
        .filter_map(|(index, slot)| {
            let name = names.get(&slot.service())?;
            Some((frontend(slot, *vips.get(&slot.vip())?), (name.clone(), index)))
        })
        .collect()
}

/// Endpoints in force: index in `ENDPOINT_STATS`.
pub fn endpoint_counters(store: &impl Store) -> BTreeMap<(ServiceName, IpAddr), u32> {
    service_names(store)
        .flat_map(|(id, name)| {
            let descriptor = Descriptor(store.load(Table::Services, id as usize));
            read_block(store, descriptor)
                .into_iter()
                .map(move |endpoint| ((name.clone(), Address::from_bytes(endpoint.address).to_ip()), endpoint.counter))
        })
        .collect()
}

/// Share of its service's rows that name an endpoint first, 0 to 1; services without rows are left out.
pub fn endpoint_shares(store: &impl Store) -> BTreeMap<(ServiceName, IpAddr), f64> {
    let mut shares = BTreeMap::new();
    for (id, name) in service_names(store) {
        let descriptor = Descriptor(store.load(Table::Services, id as usize));
        let Some(rows) = read_rows(store, descriptor).filter(|rows| !rows.is_empty()) else { continue };
        let block = read_block(store, descriptor);
        let mut primaries = vec![0_u32; block.len()];
        for row in rows.iter() {
            if let Some(count) = primaries.get_mut(usize::from(row.primary())) {
                *count += 1;
            }
        }
        for (endpoint, count) in block.iter().zip(primaries) {
            let address = Address::from_bytes(endpoint.address).to_ip();
            shares.insert((name.clone(), address), f64::from(count) / rows.len() as f64);
        }
    }
    shares
}

/// How much of a table is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occupancy {
    /// Name of the map.
    pub map: &'static str,
    /// Elements in use.
    pub used: usize,
    /// Elements that it promises to hold.
    pub capacity: usize,
}

/// How much is in use, by the words alone: what waits for a grace period is not counted.
pub fn occupancy(store: &impl Store) -> Vec<Occupancy> {
    let total = |table: Table| store.elements(table) as usize;
    let of = |table: Table, used: usize| Occupancy { map: table.map(), used, capacity: total(table) };
    // Open-addressed: four slots for each entry promised.
    let hashed = |table: Table, used: usize| Occupancy { map: table.map(), used, capacity: total(table) / 4 };
    let live = |table: Table, words: usize, tag: usize| {
        (0..total(table)).filter(|slot| usage(table, store.load(table, slot * words + tag)) == Usage::Live).count()
    };
    let descriptors: Vec<Descriptor> = (0..total(Table::Services))
        .map(|id| Descriptor(store.load(Table::Services, id)))
        .filter(|descriptor| descriptor.is_present())
        .collect();
    let pages = descriptors.iter().map(|descriptor| (descriptor.rows() / PAGE_ROWS) as usize).sum();
    let endpoints = descriptors
        .iter()
        .filter(|descriptor| descriptor.block() != 0 && descriptor.block() < store.elements(Table::Endpoints))
        .map(|descriptor| {
            let words: EndpointWords = store.element(Table::Endpoints, descriptor.block());
            let endpoint: abi::Endpoint = transmute!(words);
            usize::from(endpoint.block_len)
        })
        .sum();
    let hops: BTreeSet<u32> =
        (0..store.elements(Table::NextHopKeys)).filter(|index| decode_key(store, *index).is_some()).collect();
    let devices: BTreeSet<u32> = hops.iter().map(|hop| egress_of(store, *hop)).collect();
    vec![
        hashed(Table::Addresses, live(Table::Addresses, 3, 2)),
        hashed(Table::Directors, live(Table::Directors, 3, 2)),
        hashed(Table::Frontends, live(Table::Frontends, 1, 0)),
        of(Table::Services, descriptors.len()),
        of(Table::Rows, pages),
        of(Table::Endpoints, endpoints),
        of(Table::NextHops, hops.len()),
        of(Table::Interfaces, devices.len()),
        hashed(Table::Locals, live(Table::Locals, 6, 2)),
    ]
}

fn read_service(
    store: &impl Store,
    id: u32,
    frontends: BTreeSet<Frontend>,
    vips: &BTreeMap<IpAddr, u32>,
) -> Option<ServiceState> {
    // A writer may replace the block while it is read here, and use it again: then the descriptor has changed.
    for _ in 0..8 {
        let descriptor = Descriptor(store.load(Table::Services, id as usize));
        if !descriptor.is_present() {
            return None;
        }
        let endpoints: Option<Vec<_>> = read_block(store, descriptor)
            .iter()
            .map(|endpoint| decode(endpoint, |hop| decode_key(store, hop)))
            .collect();
        let endpoints = endpoints.map(|mut endpoints| {
            read_target_ports(store, &frontends, vips, &mut endpoints);
            endpoints
        });
        let rows = read_rows(store, descriptor);
        if store.load(Table::Services, id as usize) == descriptor.0 {
            let client_ip = descriptor.client_ip();
            return Some(ServiceState { frontends, client_ip, endpoints: endpoints?, rows: rows? });
        }
    }
    None
}

pub(super) fn read_name(store: &impl Store, id: u32) -> Option<ServiceName> {
    let words: [u64; NAME_WORDS] = store.element(Table::ServiceNames, id);
    let name: abi::ServiceName = transmute!(words);
    let text = name.text.get(..usize::from(name.len)).filter(|text| !text.is_empty())?;
    ServiceName::parse(std::str::from_utf8(text).ok()?)
}

/// The endpoints of a block: the first says how many there are. Ends at the first that contradicts it.
pub(super) fn read_block(store: &impl Store, descriptor: Descriptor) -> Vec<abi::Endpoint> {
    let (first, elements) = (descriptor.block(), store.elements(Table::Endpoints));
    let mut block = Vec::new();
    if first == 0 || first >= elements {
        return block;
    }
    for index in first..elements {
        let words: EndpointWords = store.element(Table::Endpoints, index);
        let endpoint: abi::Endpoint = transmute!(words);
        let expected = block.last().map_or(endpoint.block_len, |last: &abi::Endpoint| last.block_len - 1);
        if endpoint.block_len == 0 || endpoint.block_len != expected {
            break;
        }
        block.push(endpoint);
        if endpoint.block_len == 1 {
            break;
        }
    }
    block
}

/// The rows of a service; `None`: its pages are not there.
pub(super) fn read_rows(store: &impl Store, descriptor: Descriptor) -> Option<Arc<[Row]>> {
    if !descriptor.has_rows() {
        return Some(Arc::default());
    }
    let words = store.page_rows() as usize / 2;
    let pages = 1usize.checked_shl(descriptor.log2_pages())?;
    let (first, page) = (descriptor.page() as usize * words, descriptor.page() as usize);
    if page + pages > store.elements(Table::Rows) as usize {
        return None;
    }
    let words = (first..first + pages * words).map(|word| store.load(Table::Rows, word));
    Some(words.flat_map(|word| [Row(word as u32), Row((word >> 32) as u32)]).collect())
}

/// How an endpoint on this node is delivered to; `None`: it is elsewhere.
pub(super) fn local_delivery(endpoint: &abi::Endpoint) -> Option<LocalDelivery> {
    match decode(endpoint, |_| None)?.path {
        Path::Local(delivery) => Some(delivery),
        Path::Tunnel { .. } | Path::Unreachable { .. } => None,
    }
}

/// The addresses in a table with their tags, whatever kind they are.
pub(super) fn addresses(store: &impl Store, table: Table) -> impl Iterator<Item = (Address, AddressTag)> {
    (0..store.elements(table)).filter_map(move |slot| {
        let [hi, lo, tag]: [u64; 3] = store.element(table, slot);
        (tag != 0).then_some((Address { hi, lo }, AddressTag(tag)))
    })
}

/// Live frontends with their slots.
pub(super) fn live_frontends(store: &impl Store) -> impl Iterator<Item = (u32, FrontendSlot)> {
    (0..store.elements(Table::Frontends))
        .map(|slot| (slot, FrontendSlot(store.load(Table::Frontends, slot as usize))))
        .filter(|(_, frontend)| frontend.is_live())
}

pub(super) fn frontend(slot: FrontendSlot, vip: Address) -> Frontend {
    Frontend { vip: vip.to_ip(), protocol: Protocol::from_transport(slot.transport()), port: slot.port() }
}
