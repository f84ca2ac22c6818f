//! What delivery `Nat` needs beside slots of `LOCALS`: addresses of VIPs by id, target ports, endpoints' addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use guenon_ebpf::abi::{self, Address, AddressKind, AddressTag, DeliveryMode, FrontendSlot, Transport, VipSlot};
use guenon_ebpf::abi::{EndpointKind, locate_target_port};

use super::Tables;
use super::addresses::fill;
use super::locals::{LocalKey, delivery};
use super::lookup::find_local;
use super::store::{Store, Table};
use crate::apply::Refusal;
use crate::model::{EndpointState, Frontend, LocalDelivery, Path, Protocol, TargetPorts};

const VIP_WORDS: usize = size_of::<VipSlot>() / 8;

/// An address of endpoints of this node of delivery `Nat`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct NatEndpoint {
    /// Services that have such an endpoint.
    pub(super) uses: u32,
    /// Its slot in `ADDRESSES`; `None` where the address is a VIP or tunnel address, which says more.
    pub(super) slot: Option<u32>,
}

/// Endpoints of delivery `Nat` of a put.
#[derive(Debug, Default)]
pub(super) struct NatEndpoints {
    all: BTreeSet<IpAddr>,
    /// Those whose addresses are new, with their slots.
    inserted: Vec<(IpAddr, u32)>,
}

impl<S: Store> Tables<S> {
    /// Finds slots for addresses that are new. `vips` become VIPs by the same put: address, id, slot.
    pub(super) fn plan_nat_endpoints(
        &self,
        all: BTreeSet<IpAddr>,
        vips: &[(IpAddr, u32, u32)],
    ) -> Result<NatEndpoints, Refusal> {
        let mut reserved: BTreeSet<u32> = vips.iter().map(|(_, _, slot)| *slot).collect();
        let mut inserted = Vec::new();
        for address in &all {
            let known = self.nat_endpoints.contains_key(address)
                || self.vips.contains_key(address)
                || self.tunnels.contains_key(address)
                || vips.iter().any(|(vip, _, _)| vip == address);
            if !known {
                let slot = self.address_vacancy(*address, &reserved, vips.len() + inserted.len() + 1)?;
                reserved.insert(slot);
                inserted.push((*address, slot));
            }
        }
        Ok(NatEndpoints { all, inserted })
    }

    /// Endpoints are about to be in force.
    pub(super) fn put_nat_endpoints(&mut self, plan: &NatEndpoints) {
        for (address, slot) in &plan.inserted {
            fill(&self.address_slots, &self.store, *slot, *address, endpoint_tag());
            self.nat_endpoints.entry(*address).or_default().slot = Some(*slot);
        }
        for address in &plan.all {
            self.nat_endpoints.entry(*address).or_default().uses += 1;
        }
    }

    /// A service no longer has these endpoints, or has counted them once more.
    pub(super) fn leave_nat_endpoints(&mut self, addresses: &[IpAddr]) {
        for address in addresses {
            let Some(known) = self.nat_endpoints.get_mut(address) else { continue };
            known.uses = known.uses.saturating_sub(1);
            if known.uses > 0 {
                continue;
            }
            if let Some(slot) = self.nat_endpoints.remove(address).and_then(|known| known.slot) {
                self.address_slots.withdraw(&self.store, slot);
                self.quarantine.push(super::quarantine::Retired::Address(slot));
            }
        }
    }

    /// What was a VIP or tunnel address is an endpoint's all the same: its slot says so from now on. `false`: it is none.
    pub(super) fn becomes_nat_endpoint(&mut self, address: IpAddr, slot: u32) -> bool {
        let Some(known) = self.nat_endpoints.get_mut(&address) else { return false };
        known.slot = Some(slot);
        self.address_slots.retag(&self.store, slot, endpoint_tag().0);
        true
    }

    /// Says which VIP has this id: before the VIP is in force. Replies read the address, then the generation.
    pub(super) fn write_vip(&self, id: u32, address: IpAddr) {
        let Address { hi, lo } = Address::from_ip(address);
        let first = id as usize * VIP_WORDS;
        self.store.publish(Table::Vips, first, hi);
        self.store.publish(Table::Vips, first + 1, lo);
    }

    /// The id is free. Flows of the VIP that had it are void from the generation's change on; that comes first, so that
    /// nobody takes half an address for one.
    pub(super) fn clear_vip(&self, id: u32) {
        let first = id as usize * VIP_WORDS;
        let generation = self.store.load(Table::Vips, first + word!(VipSlot, generation));
        self.store.publish(Table::Vips, first + word!(VipSlot, generation), generation.wrapping_add(1));
        self.store.publish(Table::Vips, first + 1, 0);
        self.store.publish(Table::Vips, first, 0);
    }

    /// An endpoint listens on this port. The bit stays when it does no longer, until the tables are opened anew: it costs
    /// a lookup for packets from that port, and nothing else.
    pub(super) fn set_target_port(&self, transport: Transport, port: u16) {
        let (word, bit) = locate_target_port(transport as u8, port);
        let word = word as usize;
        let now = self.store.load(Table::TargetPorts, word);
        if now & 1 << bit == 0 {
            self.store.publish(Table::TargetPorts, word, now | 1 << bit);
        }
    }

    /// Where an endpoint of delivery `Nat` listens is told by its slot alone. If a change to another delivery has already
    /// overwritten that, nobody knows: nothing is delivered until the change is made again.
    pub(super) fn with_port(&self, planned: &LocalDelivery, key: LocalKey, frontend: &Frontend) -> LocalDelivery {
        let LocalDelivery::Nat { .. } = planned else { return planned.clone() };
        let written = self.locals.get(&key).map(|slot| delivery(self.local_value(*slot)));
        let listens = written.filter(|written| written.mode == DeliveryMode::Nat as u8 && written.port != 0);
        let ports = listens.map(|written| ((frontend.protocol, frontend.port), written.port));
        LocalDelivery::Nat { ports: Arc::new(ports.into_iter().collect()) }
    }

    /// Ids of VIPs that are not in force any more are cleared; those in force are told right.
    pub(super) fn recover_vips(&mut self) {
        let in_force: BTreeMap<u32, IpAddr> = self.vips.iter().map(|(address, vip)| (vip.id, *address)).collect();
        for id in 0..self.store.elements(Table::Vips) {
            let [hi, lo, _]: [u64; VIP_WORDS] = self.store.element(Table::Vips, id);
            let told = Address { hi, lo };
            let wanted = in_force.get(&id).map_or(Address::default(), |address| Address::from_ip(*address));
            if told == wanted {
                continue;
            }
            if told != Address::default() {
                self.clear_vip(id);
            }
            if let Some(address) = in_force.get(&id) {
                self.write_vip(id, *address);
            }
        }
    }

    /// Target ports are those of local deliveries in force.
    pub(super) fn recover_target_ports(&self) {
        let mut words = vec![0; self.store.elements(Table::TargetPorts) as usize];
        for (key, slot) in &self.locals {
            let abi::Delivery { mode, port, .. } = delivery(self.local_value(*slot));
            if mode == DeliveryMode::Nat as u8 && port != 0 {
                let (word, bit) = locate_target_port(FrontendSlot(key.0).transport() as u8, port);
                if let Some(word) = words.get_mut(word as usize) {
                    *word |= 1_u64 << bit;
                }
            }
        }
        for (word, value) in words.into_iter().enumerate() {
            if self.store.load(Table::TargetPorts, word) != value {
                self.store.publish(Table::TargetPorts, word, value);
            }
        }
    }

    /// Every endpoint in force has its address in `ADDRESSES`. After the tables have been mended: slots must be safe to take.
    pub(super) fn recover_nat_endpoints(&mut self) {
        let missing = |(address, known): (&IpAddr, &NatEndpoint)| {
            let said = self.vips.contains_key(address) || self.tunnels.contains_key(address);
            (known.slot.is_none() && !said).then_some(*address)
        };
        let missing: Vec<IpAddr> = self.nat_endpoints.iter().filter_map(missing).collect();
        for address in missing {
            match self.address_vacancy(address, &BTreeSet::new(), 1) {
                Ok(slot) => {
                    fill(&self.address_slots, &self.store, slot, address, endpoint_tag());
                    self.nat_endpoints.entry(address).or_default().slot = Some(slot);
                }
                Err(refusal) => tracing::warn!(%refusal, %address, "the address of an endpoint is not told"),
            }
        }
    }
}

impl<S: Store> Tables<S> {
    /// VIPs shall have the ids that they have in `other`, and what is void there shall be void here, so that flows can be
    /// carried over. To be called on empty tables; [`Self::forget_ids`] ends it.
    pub fn keep_ids(&mut self, other: &impl Store) {
        let capacity = self.store.elements(Table::Vips);
        for id in 0..capacity.min(other.elements(Table::Vips)) {
            let generation = id as usize * VIP_WORDS + word!(VipSlot, generation);
            self.store.prepare(Table::Vips, generation, other.load(Table::Vips, generation));
        }
        let vips = super::observe::addresses(other, Table::Addresses);
        let vips = vips.filter(|(_, tag)| tag.kind() == AddressKind::Vip as u8 && tag.id() < capacity);
        self.kept_vips = vips.map(|(address, tag)| (address.to_ip(), tag.id())).collect();
        let mut ids: BTreeSet<u32> = self.vips.values().map(|vip| vip.id).collect();
        ids.extend(self.kept_vips.values());
        self.vip_ids = super::Ids::without(&ids, capacity);
    }

    /// Ids of VIPs that have not come are free.
    pub fn forget_ids(&mut self) {
        for id in std::mem::take(&mut self.kept_vips).into_values() {
            self.vip_ids.release(id);
        }
    }
}

/// Where endpoints of delivery `Nat` listen. A port of which two VIPs say different things, or one nothing, is left out: the
/// state differs from what is wanted then, and is written anew.
pub(super) fn read_target_ports(
    store: &impl Store,
    frontends: &BTreeSet<Frontend>,
    vips: &BTreeMap<IpAddr, u32>,
    endpoints: &mut [EndpointState],
) {
    let mut last = TargetPorts::default();
    for endpoint in endpoints {
        let Path::Local(LocalDelivery::Nat { ports }) = &mut endpoint.path else { continue };
        let address = Address::from_ip(endpoint.address);
        let mut found: BTreeMap<(Protocol, u16), BTreeSet<Option<u16>>> = BTreeMap::new();
        for Frontend { vip, protocol, port } in frontends {
            let slot = vips.get(vip).and_then(|vip| find_local(store, *vip, *protocol, *port, address));
            let listens = slot.filter(|slot| slot.delivery.mode == DeliveryMode::Nat as u8);
            found.entry((*protocol, *port)).or_default().insert(listens.map(|slot| slot.delivery.port));
        }
        let agreed =
            |told: BTreeSet<Option<u16>>| (told.len() == 1).then(|| told.into_iter().next()).flatten().flatten();
        let listens = found.into_iter().filter_map(|(port, told)| Some((port, agreed(told)?))).collect();
        if *last != listens {
            last = Arc::new(listens);
        }
        *ports = Arc::clone(&last);
    }
}

/// Addresses of a block's endpoints of delivery `Nat`.
pub(super) fn nat_addresses(block: &[abi::Endpoint]) -> Vec<IpAddr> {
    let is_nat = |endpoint: &&abi::Endpoint| {
        endpoint.kind == EndpointKind::Local as u8 && endpoint.delivery.mode == DeliveryMode::Nat as u8
    };
    block.iter().filter(is_nat).map(|endpoint| Address::from_bytes(endpoint.address).to_ip()).collect()
}

const fn endpoint_tag() -> AddressTag {
    AddressTag::new(AddressKind::Endpoint, 0, 0)
}
