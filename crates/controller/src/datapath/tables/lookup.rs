//! The program's steps as pure functions over the words: for tests, for `guenon status`, and for
//! the model of interleavings.

use std::net::IpAddr;

use guenon_ebpf::abi::{
    self, Address, AddressKind, AddressTag, DeliveryMode, Descriptor, FrontendSlot, LocalSlot, Row, VipSlot,
    locate_target_port,
};
use guenon_ebpf::hash::{self, Schedule};
use guenon_ebpf::probe::{PROBE_LIMIT, home_of_address, home_of_frontend, home_of_local};
use zerocopy::transmute;

use super::header::EndpointWords;
use super::store::{Store, Table};
use crate::model::Protocol;

/// What the program looks at in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The client.
    pub source: IpAddr,
    /// The VIP, perhaps.
    pub destination: IpAddr,
    /// Transport protocol.
    pub protocol: Protocol,
    /// The client's port.
    pub source_port: u16,
    /// The frontend's port, perhaps.
    pub destination_port: u16,
}

/// What becomes of a packet, as far as the tables decide it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// For no VIP: passed.
    NotAVip,
    /// For a tunnel address of this node.
    Tunnel,
    /// For a VIP, but no frontend; passed if the address is this node's too.
    NoFrontend {
        /// The address is configured on this node.
        on_node: bool,
    },
    /// For a frontend whose service has no row.
    NoBackend {
        /// Slot of the frontend.
        frontend: u32,
        /// Id of the service.
        service: u32,
    },
    /// For this endpoint.
    Endpoint {
        /// Slot of the frontend.
        frontend: u32,
        /// Id of the service.
        service: u32,
        /// The row.
        row: Row,
        /// The row's primary.
        endpoint: abi::Endpoint,
    },
}

/// The director's way: address, frontend, descriptor, row, endpoint.
pub fn direct(store: &impl Store, schedule: &Schedule, flow: &Flow) -> Found {
    let (source, destination) = (Address::from_ip(flow.source), Address::from_ip(flow.destination));
    let Some(tag) = find_address(store, Table::Addresses, destination) else { return Found::NotAVip };
    if tag.kind() == AddressKind::Tunnel as u8 {
        return Found::Tunnel;
    }
    if tag.kind() != AddressKind::Vip as u8 {
        return Found::NotAVip;
    }
    let Some((frontend, slot)) = find_frontend(store, tag.id(), flow.protocol, flow.destination_port) else {
        return Found::NoFrontend { on_node: tag.on_node() };
    };
    let service = slot.service();
    let descriptor = Descriptor(store.load(Table::Services, service as usize));
    if !descriptor.has_rows() {
        return Found::NoBackend { frontend, service };
    }
    let hash = if descriptor.client_ip() {
        hash::client(schedule, source)
    } else {
        // The program reads the ports' bytes as they stand in the packet.
        let (sport, dport) = (flow.source_port.swap_bytes(), flow.destination_port.swap_bytes());
        hash::flow(schedule, source, destination, sport, dport, flow.protocol.number())
    };
    let (row, endpoint) = pick(store, descriptor, hash);
    Found::Endpoint { frontend, service, row, endpoint }
}

/// Row and primary endpoint of a hash.
pub fn pick(store: &impl Store, descriptor: Descriptor, hash: u64) -> (Row, abi::Endpoint) {
    let page_rows = store.page_rows();
    let index = hash as u32 & ((page_rows << descriptor.log2_pages()) - 1);
    let word = (descriptor.page() * page_rows + index) as usize;
    let row = Row((store.load(Table::Rows, word / 2) >> (32 * (word % 2))) as u32);
    let words: EndpointWords = store.element(Table::Endpoints, descriptor.block() + u32::from(row.primary()));
    (row, transmute!(words))
}

/// Looks up an address.
pub fn find_address(store: &impl Store, table: Table, address: Address) -> Option<AddressTag> {
    let mask = store.elements(table) - 1;
    let home = home_of_address(address);
    for step in 0..PROBE_LIMIT.min(mask.saturating_add(1)) {
        let first = (home.wrapping_add(step) & mask) as usize * 3;
        let tag = AddressTag(store.load(table, first + 2));
        if tag.kind() == AddressKind::Empty as u8 {
            return None;
        }
        if tag.kind() != AddressKind::Withdrawn as u8
            && store.load(table, first) == address.hi
            && store.load(table, first + 1) == address.lo
        {
            return Some(tag);
        }
    }
    None
}

/// Looks up a frontend: its slot, and what is in it.
pub fn find_frontend(store: &impl Store, vip: u32, protocol: Protocol, port: u16) -> Option<(u32, FrontendSlot)> {
    let mask = store.elements(Table::Frontends) - 1;
    let key = FrontendSlot::key(vip, protocol.transport() as u8, port);
    let home = home_of_frontend(key);
    for step in 0..PROBE_LIMIT.min(mask.saturating_add(1)) {
        let slot = home.wrapping_add(step) & mask;
        let word = store.load(Table::Frontends, slot as usize);
        if word & FrontendSlot::KEY == key {
            return Some((slot, FrontendSlot(word)));
        }
        if word == FrontendSlot::EMPTY.0 {
            return None;
        }
    }
    None
}

/// The decap role's lookup: VIP, protocol, port (0: a fragment after the first) and the endpoint that the packet names.
pub fn find_local(store: &impl Store, vip: u32, protocol: Protocol, port: u16, endpoint: Address) -> Option<LocalSlot> {
    let mask = store.elements(Table::Locals) - 1;
    let key = FrontendSlot::key(vip, protocol.transport() as u8, port);
    let home = home_of_local(key, endpoint);
    for step in 0..PROBE_LIMIT.min(mask.saturating_add(1)) {
        let slot = home.wrapping_add(step) & mask;
        let tag = store.load(Table::Locals, slot as usize * 6 + 2);
        if tag == 0 {
            return None;
        }
        if tag == key {
            let words: [u64; 6] = store.element(Table::Locals, slot);
            if words[0] == endpoint.hi && words[1] == endpoint.lo {
                return Some(transmute!(words));
            }
        }
    }
    None
}

/// Where delivery `Nat` sends a packet to this frontend and endpoint: address and port (0: the port stays, of a fragment
/// after the first). `None`: its delivery is another, or there is none.
pub fn translation(
    store: &impl Store,
    vip: u32,
    protocol: Protocol,
    port: u16,
    endpoint: Address,
) -> Option<(Address, u16)> {
    let slot = find_local(store, vip, protocol, port, endpoint)?;
    (slot.delivery.mode == DeliveryMode::Nat as u8).then_some((slot.address, slot.delivery.port))
}

/// The first question about a packet that leaves: whether some endpoint of delivery `Nat` listens on its source port.
pub fn is_target_port(store: &impl Store, protocol: Protocol, port: u16) -> bool {
    let (word, bit) = locate_target_port(protocol.transport() as u8, port);
    store.load(Table::TargetPorts, word as usize) >> bit & 1 == 1
}

/// The VIP of an id, for flows that have it of this generation (its low eight bits); `None`: they are void.
pub fn find_vip(store: &impl Store, id: u32, generation: u8) -> Option<Address> {
    let [hi, lo, now]: [u64; size_of::<VipSlot>() / 8] = store.element(Table::Vips, id);
    let address = Address { hi, lo };
    (address != Address::default() && now as u8 == generation).then_some(address)
}
