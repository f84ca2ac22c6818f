//! Taking over tables from whoever wrote them last, wherever that was cut off.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use guenon_ebpf::abi::{ABI_VERSION, Address, AddressKind, AddressTag, Descriptor, FrontendSlot, MAX_VIPS, Meta};
use guenon_ebpf::probe::{home_of_address, home_of_frontend, home_of_local};

use super::addresses::Vip;
use super::extents::Extents;
use super::ids::Ids;
use super::locals::{key_in, value};
use super::nat::nat_addresses;
use super::next_hops::{decode_hop, decode_key, egress_of};
use super::observe::{frontend, live_frontends, local_delivery, read_block, read_name, read_rows, read_state};
use super::services::{NAME_WORDS, hop_of};
use super::slots::{Slots, Usage};
use super::store::{Store, Table};
use super::{Held, Tables, header, key_bits};
use crate::model::ServiceName;

impl<S: Store> Tables<S> {
    /// Builds the writer's knowledge from the words, and mends what a crash left half done. What may still be
    /// read is not used again before a grace period has passed.
    pub(super) fn recover(&mut self) {
        self.recover_next_hops();
        self.recover_services();
        self.recover_addresses();
        self.recover_frontends();
        self.drop_unused_vips();
        self.recover_locals();
        let grace = self.grace.request();
        self.grace.wait(grace);
        self.heal();
        self.recover_vips();
        self.recover_target_ports();
        self.recover_nat_endpoints();
        self.store.prepare(Table::Meta, word!(Meta, abi), u64::from(ABI_VERSION));
        self.renew_ports();
    }

    fn recover_next_hops(&mut self) {
        let capacity = self.store.elements(Table::NextHopKeys);
        self.hop_uses = vec![0; capacity as usize];
        self.egress_uses = vec![0; self.store.elements(Table::Interfaces) as usize];
        for index in 0..capacity {
            match decode_key(&self.store, index) {
                Some(key) if !self.hops.contains_key(&key) && decode_hop(&self.store, index).is_some() => {
                    self.egress_uses[egress_of(&self.store, index) as usize] += 1;
                    self.hops.insert(key, index);
                }
                Some(_) | None => self.clear_key(index),
            }
        }
        let used = self.hops.values().copied().collect();
        self.hop_ids = Ids::without(&used, capacity);
        let used = (0u32..).zip(&self.egress_uses).filter(|(_, uses)| **uses > 0).map(|(slot, _)| slot).collect();
        self.egress_slots = Ids::without(&used, self.egress_uses.len() as u32);
    }

    fn recover_services(&mut self) {
        let (elements, pages) = (self.store.elements(Table::Endpoints), self.store.elements(Table::Rows));
        self.blocks = Extents::new(1, elements);
        self.pages = Extents::new(0, pages);
        let mut counters = BTreeSet::new();
        let mut hops = Vec::new();
        for id in 0..self.store.elements(Table::Services) {
            let descriptor = self.descriptor(id);
            match self.adopt(id, descriptor, &mut counters) {
                Some(name) => {
                    let block = read_block(&self.store, descriptor);
                    hops.extend(block.iter().filter_map(hop_of));
                    for address in nat_addresses(&block) {
                        self.nat_endpoints.entry(address).or_default().uses += 1;
                    }
                    self.services.insert(name, id);
                    self.entries.insert(id, BTreeSet::new());
                }
                None => {
                    // No service, one whose removal was cut off, or a damaged one: its frontends go too, below.
                    if descriptor.0 != 0 {
                        self.store.publish(Table::Services, id as usize, 0);
                    }
                    if self.store.load(Table::ServiceNames, id as usize * NAME_WORDS) != 0 {
                        self.store.publish(Table::ServiceNames, id as usize * NAME_WORDS, 0);
                    }
                }
            }
        }
        self.count_hops(&hops, &[]);
        self.counters = Ids::without(&counters, elements);
        let used = self.entries.keys().copied().collect();
        self.service_ids = Ids::without(&used, self.store.elements(Table::Services));
    }

    /// Takes what a descriptor leads to; `None`: it leads nowhere, or to what another has.
    fn adopt(&mut self, id: u32, descriptor: Descriptor, counters: &mut BTreeSet<u32>) -> Option<ServiceName> {
        if !descriptor.is_present() {
            return None;
        }
        let name = read_name(&self.store, id).filter(|name| !self.services.contains_key(name))?;
        let block = read_block(&self.store, descriptor);
        let whole =
            block.last().is_none_or(|last| last.block_len == 1) && (descriptor.block() == 0) == block.is_empty();
        let known_hops: BTreeSet<u32> = self.hops.values().copied().collect();
        let sound = block.iter().all(|endpoint| {
            header::decode(endpoint, |hop| decode_key(&self.store, hop)).is_some()
                && hop_of(endpoint).is_none_or(|hop| known_hops.contains(&hop))
                && endpoint.counter < self.store.elements(Table::Endpoints)
                && !counters.contains(&endpoint.counter)
        });
        let rows = read_rows(&self.store, descriptor)?;
        let within = |index: u16| usize::from(index) < block.len();
        if !whole || !sound || !rows.iter().all(|row| within(row.primary()) && within(row.secondary())) {
            return None;
        }
        let (first, length) = (descriptor.block(), block.len() as u32);
        if !self.blocks.take_at(first, length) {
            return None;
        }
        if descriptor.has_rows() && !self.pages.take_at(descriptor.page(), 1 << descriptor.log2_pages()) {
            if length > 0 {
                self.blocks.release(first, length);
            }
            return None;
        }
        counters.extend(block.iter().map(|endpoint| endpoint.counter));
        Some(name)
    }

    fn recover_addresses(&mut self) {
        let vip_ids = self.store.elements(Table::Vips).min(MAX_VIPS);
        let mut ids = BTreeSet::new();
        for slot in self.address_slots.all() {
            let [hi, lo, tag]: [u64; 3] = self.store.element(Table::Addresses, slot);
            let (address, tag) = (Address { hi, lo }, AddressTag(tag));
            let ip = address.to_ip();
            if self.address_slots.usage(&self.store, slot) != Usage::Live {
                continue;
            }
            let reachable = reaches(&self.address_slots, home_of_address(address), slot);
            let known = self.vips.contains_key(&ip) || self.tunnels.contains_key(&ip);
            if reachable && !known && tag.kind() == AddressKind::Vip as u8 && tag.id() < vip_ids && ids.insert(tag.id())
            {
                self.vips.insert(ip, Vip { id: tag.id(), slot, uses: 0 });
                if tag.on_node() {
                    self.on_node.insert(ip);
                }
            } else if reachable && !known && tag.kind() == AddressKind::Tunnel as u8 {
                self.tunnels.insert(ip, slot);
            } else if let Some(endpoint) = self.nat_endpoints.get_mut(&ip)
                && reachable
                && !known
                && endpoint.slot.is_none()
                && tag.kind() == AddressKind::Endpoint as u8
            {
                endpoint.slot = Some(slot);
            } else {
                self.address_slots.withdraw(&self.store, slot);
            }
        }
        for slot in self.director_slots.all() {
            let [hi, lo, tag]: [u64; 3] = self.store.element(Table::Directors, slot);
            let address = Address { hi, lo };
            if self.director_slots.usage(&self.store, slot) != Usage::Live {
                continue;
            }
            let sound = AddressTag(tag).kind() == AddressKind::Director as u8
                && reaches(&self.director_slots, home_of_address(address), slot)
                && !self.directors.contains_key(&address.to_ip());
            if sound {
                self.directors.insert(address.to_ip(), slot);
            } else {
                self.director_slots.withdraw(&self.store, slot);
            }
        }
        self.vip_ids = Ids::without(&ids, vip_ids);
    }

    fn recover_frontends(&mut self) {
        let vips: HashMap<u32, Address> = self.vips.iter().map(|(ip, vip)| (vip.id, Address::from_ip(*ip))).collect();
        let live: Vec<(u32, FrontendSlot)> = live_frontends(&self.store).collect();
        for (slot, word) in live {
            let home = home_of_frontend(word.0 & FrontendSlot::KEY);
            let known = vips.get(&word.vip()).map(|vip| frontend(word, *vip));
            let sound = known.filter(|frontend| {
                reaches(&self.frontend_slots, home, slot)
                    && !self.frontends.contains_key(frontend)
                    && self.entries.contains_key(&word.service())
            });
            let Some(frontend) = sound else {
                self.frontend_slots.withdraw(&self.store, slot);
                continue;
            };
            self.frontends.insert(frontend, Held { slot, service: word.service() });
            if let Some(entry) = self.entries.get_mut(&word.service()) {
                entry.insert(frontend);
            }
            if let Some(vip) = self.vips.get_mut(&frontend.vip) {
                vip.uses += 1;
            }
        }
    }

    fn drop_unused_vips(&mut self) {
        let unused: Vec<_> = self.vips.iter().filter(|(_, vip)| vip.uses == 0).map(|(ip, vip)| (*ip, *vip)).collect();
        for (ip, vip) in unused {
            self.vips.remove(&ip);
            self.address_slots.withdraw(&self.store, vip.slot);
            self.vip_ids.release(vip.id);
        }
    }

    /// Brings `LOCALS` to what services in force say.
    fn recover_locals(&mut self) {
        for slot in self.local_slots.all() {
            if self.local_slots.usage(&self.store, slot) == Usage::Live {
                let key = key_in(&self.store, slot);
                if reaches(&self.local_slots, home_of_local(key.0, key.1), slot) && !self.locals.contains_key(&key) {
                    self.locals.insert(key, slot);
                } else {
                    self.local_slots.withdraw(&self.store, slot);
                }
            }
        }
        let mut changes = BTreeMap::new();
        for key in self.locals.keys() {
            if FrontendSlot(key.0).port() != 0 {
                changes.insert(*key, None);
            }
        }
        for (id, entry) in &self.entries {
            let block = read_block(&self.store, self.descriptor(*id));
            let local = block.iter().filter_map(|endpoint| Some((endpoint, local_delivery(endpoint)?)));
            for (endpoint, delivery) in local {
                for frontend in entry {
                    if let (Some(vip), Some(held)) = (self.vips.get(&frontend.vip), self.frontends.get(frontend)) {
                        let key = (key_bits(vip.id, frontend), Address::from_bytes(endpoint.address));
                        let delivery = self.with_port(&delivery, key, frontend);
                        changes.insert(key, Some(value(&delivery, key.0, held.slot, endpoint.counter)));
                    }
                }
            }
        }
        // What serves any port and no port that is left goes with them.
        let bases: BTreeSet<_> = changes.keys().map(|key| (key.0 & !0xffff, key.1)).collect();
        let stray: Vec<_> = self
            .locals
            .iter()
            .filter(|(key, _)| FrontendSlot(key.0).port() == 0 && !bases.contains(key))
            .map(|(key, slot)| (*key, *slot))
            .collect();
        for (key, slot) in stray {
            self.locals.remove(&key);
            self.local_slots.withdraw(&self.store, slot);
        }
        // There is room: what was in force fitted.
        if let Ok(plan) = self.plan_locals(changes) {
            self.add_locals(&plan);
            self.remove_locals(plan);
        }
    }

    fn heal(&mut self) {
        let store = &self.store;
        let address = |table: Table, slot: u32| {
            let [hi, lo, _]: [u64; 3] = store.element(table, slot);
            home_of_address(Address { hi, lo })
        };
        self.address_slots.rested();
        self.director_slots.rested();
        self.frontend_slots.rested();
        self.local_slots.rested();
        self.address_slots.heal(store, |slot| address(Table::Addresses, slot));
        self.director_slots.heal(store, |slot| address(Table::Directors, slot));
        self.frontend_slots
            .heal(store, |slot| home_of_frontend(store.load(Table::Frontends, slot as usize) & FrontendSlot::KEY));
        self.local_slots.heal(store, |slot| {
            let key = key_in(store, slot);
            home_of_local(key.0, key.1)
        });
        // All of the quarantine's slots have rested too; what else waits there is freed in its turn.
        self.quarantine.forget_slots();
    }

    /// Rewrites services whose tunnels name another port than is asked for now.
    fn renew_ports(&mut self) {
        let other = |id: &u32| {
            let block = read_block(&self.store, self.descriptor(*id));
            block.iter().filter_map(header::port_of).any(|port| port != self.gue_port)
        };
        if self.entries.keys().any(other) {
            for (name, state) in read_state(&self.store).services {
                // Where there is no room for it, the service stays as it is until something else of it changes.
                let put = crate::apply::Operation::PutService(name, Arc::clone(&state));
                if let Err(refusal) = crate::apply::DataPath::execute(self, &put) {
                    tracing::warn!(%refusal, "a service keeps its old GUE port");
                }
            }
        }
    }
}

fn reaches(slots: &Slots, home: u32, slot: u32) -> bool {
    slots.path(home).any(|on_path| on_path == slot)
}
