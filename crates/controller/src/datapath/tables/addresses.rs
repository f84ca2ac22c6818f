//! VIPs, tunnel addresses and directors. What `VIPS` says: in `nat.rs`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use guenon_ebpf::abi::{ADDRESS_ON_NODE, Address, AddressKind, AddressTag};
use guenon_ebpf::probe::home_of_address;

use super::quarantine::Retired;
use super::slots::Slots;
use super::store::{Store, Table};
use super::{Tables, full};
use crate::apply::Refusal;

/// A VIP in force.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vip {
    pub(super) id: u32,
    pub(super) slot: u32,
    /// Frontends on it.
    pub(super) uses: u32,
}

impl<S: Store> Tables<S> {
    pub(super) fn put_tunnel(&mut self, address: IpAddr) -> Result<(), Refusal> {
        if self.tunnels.contains_key(&address) {
            return Ok(());
        }
        if self.vips.contains_key(&address) {
            return Err(Refusal::Inconsistent(format!("accept tunnels on {address}: it is a VIP")));
        }
        let known = self.nat_endpoints.get_mut(&address).and_then(|known| known.slot.take());
        let slot = match known {
            Some(slot) => slot,
            None => self.address_vacancy(address, &BTreeSet::new(), 1)?,
        };
        fill(&self.address_slots, &self.store, slot, address, AddressTag::new(AddressKind::Tunnel, 0, 0));
        self.tunnels.insert(address, slot);
        Ok(())
    }

    pub(super) fn remove_tunnel(&mut self, address: IpAddr) {
        let Some(slot) = self.tunnels.remove(&address) else { return };
        if !self.becomes_nat_endpoint(address, slot) {
            self.address_slots.withdraw(&self.store, slot);
            self.quarantine.push(Retired::Address(slot));
        }
    }

    pub(super) fn put_director(&mut self, address: IpAddr) -> Result<(), Refusal> {
        if self.directors.contains_key(&address) {
            return Ok(());
        }
        let (used, capacity) = (self.directors.len(), self.director_slots.capacity());
        let refused = || full(Table::Directors.map(), 1, capacity - used, capacity);
        if used >= capacity {
            return Err(refused());
        }
        let home = home_of_address(Address::from_ip(address));
        let slot = self.director_slots.vacancy(&self.store, home, &BTreeSet::new(), None).ok_or_else(refused)?;
        fill(&self.director_slots, &self.store, slot, address, AddressTag::new(AddressKind::Director, 0, 0));
        self.directors.insert(address, slot);
        Ok(())
    }

    pub(super) fn remove_director(&mut self, address: IpAddr) {
        if let Some(slot) = self.directors.remove(&address) {
            self.director_slots.withdraw(&self.store, slot);
            self.quarantine.push(Retired::Director(slot));
        }
    }

    /// What is said of an address that is no VIP (yet) is remembered, and holds from its first packet on.
    pub(super) fn set_on_node(&mut self, address: IpAddr, on_node: bool) {
        let changed = if on_node { self.on_node.insert(address) } else { self.on_node.remove(&address) };
        if changed && let Some(vip) = self.vips.get(&address) {
            self.address_slots.retag(&self.store, vip.slot, vip_tag(vip.id, on_node).0);
        }
    }

    /// A slot for an address that is about to become a VIP or tunnel address, the `nth` of one change.
    pub(super) fn address_vacancy(
        &self,
        address: IpAddr,
        reserved: &BTreeSet<u32>,
        nth: usize,
    ) -> Result<u32, Refusal> {
        let endpoints = self.nat_endpoints.values().filter(|known| known.slot.is_some()).count();
        let (used, capacity) = (self.vips.len() + self.tunnels.len() + endpoints, self.address_slots.capacity());
        let refused = || full(Table::Addresses.map(), nth, capacity.saturating_sub(used), capacity);
        if used + nth > capacity {
            return Err(refused());
        }
        let home = home_of_address(Address::from_ip(address));
        self.address_slots.vacancy(&self.store, home, reserved, None).ok_or_else(refused)
    }

    pub(super) fn put_vip(&mut self, address: IpAddr, id: u32, slot: u32) {
        if let Some(known) = self.nat_endpoints.get_mut(&address) {
            known.slot = None;
        }
        self.write_vip(id, address);
        let tag = vip_tag(id, self.on_node.contains(&address));
        fill(&self.address_slots, &self.store, slot, address, tag);
        self.vips.insert(address, Vip { id, slot, uses: 0 });
    }

    /// Withdraws a VIP whose last frontend is about to go, so that its packets are passed rather than dropped.
    pub(super) fn remove_vip(&mut self, address: IpAddr) {
        let Some(vip) = self.vips.remove(&address) else { return };
        if !self.becomes_nat_endpoint(address, vip.slot) {
            self.address_slots.withdraw(&self.store, vip.slot);
            self.quarantine.push(Retired::Address(vip.slot));
        }
        self.quarantine.push(Retired::Vip(vip.id));
    }
}

fn vip_tag(id: u32, on_node: bool) -> AddressTag {
    AddressTag::new(AddressKind::Vip, id, if on_node { ADDRESS_ON_NODE } else { 0 })
}

pub(super) fn fill(slots: &Slots, store: &impl Store, slot: u32, address: IpAddr, tag: AddressTag) {
    let Address { hi, lo } = Address::from_ip(address);
    slots.fill(store, slot, &[(0, hi), (1, lo)], tag.0);
}
