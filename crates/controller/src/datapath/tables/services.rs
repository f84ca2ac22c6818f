//! Services: rows and endpoints written beside what is live, put in force by one store.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use guenon_ebpf::abi::{self, Descriptor, FrontendSlot, MAX_ROWS, PAGE_ROWS, Row};
use guenon_ebpf::probe::home_of_frontend;
use zerocopy::transmute;

use super::header::{ENDPOINT_WORDS, EndpointWords, encode};
use super::locals::{LocalKey, LocalPlan, LocalValue, value};
use super::observe::{local_delivery, read_block};
use super::quarantine::Retired;
use super::store::{Store, Table};
use super::{Held, Tables, full, key_bits};
use crate::apply::Refusal;
use crate::model::{Frontend, Path, ServiceName, ServiceState};

pub(super) const NAME_WORDS: usize = size_of::<abi::ServiceName>() / 8;

/// A put, decided in full before anything is written.
struct Put {
    /// Id of the service, and whether it is new.
    id: u32,
    is_new: bool,
    before: Descriptor,
    /// Endpoints of the block in force.
    old_len: u32,
    block: Vec<EndpointWords>,
    /// Endpoint block and rows that are in force already stay.
    keep_block: bool,
    keep_rows: bool,
    /// Counters that the new endpoints take, and those that the old ones leave.
    new_counters: usize,
    old_counters: Vec<u32>,
    /// Next hops of the new block and of the old.
    new_hops: Vec<u32>,
    old_hops: Vec<u32>,
    /// VIPs that are new: address, id, slot.
    vips: Vec<(IpAddr, u32, u32)>,
    /// Frontends that are new, those taken from other services, those that go.
    inserted: Vec<(Frontend, u64, u32)>,
    taken: Vec<(Frontend, Held)>,
    withdrawn: Vec<(Frontend, Held)>,
    locals: LocalPlan,
}

impl<S: Store> Tables<S> {
    pub(super) fn put_service(&mut self, name: &ServiceName, state: &Arc<ServiceState>) -> Result<(), Refusal> {
        let put = self.plan_put(name, state)?;
        self.carry_out(name, state, put);
        Ok(())
    }

    pub(super) fn remove_service(&mut self, name: &ServiceName) {
        let Some(id) = self.services.remove(name) else { return };
        let Some(frontends) = self.entries.remove(&id) else { return };
        let descriptor = self.descriptor(id);
        let block = read_block(&self.store, descriptor);
        let held: Vec<(Frontend, Held)> =
            frontends.iter().filter_map(|frontend| Some((*frontend, *self.frontends.get(frontend)?))).collect();
        let mut changes = BTreeMap::new();
        self.old_locals(&held, &block, &mut changes);

        self.withdraw_frontends(&held);
        // Nobody is led here any more; without its name the service is not there.
        self.store.publish(Table::ServiceNames, id as usize * NAME_WORDS, 0);
        if let Ok(plan) = self.plan_locals(changes) {
            self.add_locals(&plan);
            self.remove_locals(plan);
        }
        self.retire(descriptor, block.len() as u32, true, true);
        for endpoint in &block {
            self.quarantine.push(Retired::Counter(endpoint.counter));
        }
        self.count_hops(&[], &block.iter().filter_map(hop_of).collect::<Vec<_>>());
        self.quarantine.push(Retired::Service(id));
    }

    fn plan_put(&self, name: &ServiceName, state: &ServiceState) -> Result<Put, Refusal> {
        let page_rows = self.store.page_rows();
        check(name, state, page_rows)?;
        let old_id = self.services.get(name).copied();
        let before = old_id.map_or(Descriptor::default(), |id| self.descriptor(id));
        let old_block = read_block(&self.store, before);

        let id = match old_id {
            Some(id) => id,
            None => *self
                .service_ids
                .peek(1)
                .first()
                .ok_or_else(|| full(Table::Services.map(), 1, 0, self.store.elements(Table::Services) as usize))?,
        };

        // Endpoints: counters stay with their addresses.
        let mut counters: HashMap<IpAddr, u32> = old_block
            .iter()
            .map(|endpoint| (abi::Address::from_bytes(endpoint.address).to_ip(), endpoint.counter))
            .collect();
        let needed = state.endpoints.iter().filter(|endpoint| !counters.contains_key(&endpoint.address)).count();
        if needed > self.counters.free() {
            let capacity = self.store.elements(Table::Endpoints) as usize;
            return Err(full(abi::map::ENDPOINT_STATS, needed, self.counters.free(), capacity));
        }
        let mut fresh = self.counters.peek(needed).into_iter();
        let mut new_hops = Vec::new();
        let mut block = Vec::with_capacity(state.endpoints.len());
        let mut local = Vec::new();
        for (index, endpoint) in state.endpoints.iter().enumerate() {
            let counter = counters.remove(&endpoint.address).or_else(|| fresh.next()).unwrap_or_default();
            let next_hop = match &endpoint.path {
                Path::Tunnel { next_hop, .. } => {
                    let hop = self.hops.get(next_hop).ok_or_else(|| {
                        Refusal::Inconsistent(format!("put service {name}: next hop {next_hop:?} is not there"))
                    })?;
                    new_hops.push(hop.index);
                    hop.index
                }
                Path::Local(delivery) => {
                    local.push((abi::Address::from_ip(endpoint.address), delivery, counter));
                    0
                }
                Path::Unreachable { .. } => 0,
            };
            let left = (state.endpoints.len() - index) as u16;
            let written = encode(endpoint, self.gue_port, next_hop, counter, left).ok_or_else(|| {
                Refusal::Inconsistent(format!(
                    "put service {name}: the tunnel to endpoint {} joins two address families",
                    endpoint.address
                ))
            })?;
            block.push(transmute!(written));
        }

        // Frontends.
        let mut vip_ids = self.vip_ids.peek(state.frontends.len()).into_iter();
        let mut vips: Vec<(IpAddr, u32, u32)> = Vec::new();
        let mut address_slots = BTreeSet::new();
        let mut frontend_slots = BTreeSet::new();
        let (mut inserted, mut taken, mut wanted) = (Vec::new(), Vec::new(), Vec::new());
        for frontend in &state.frontends {
            let known = self.vips.get(&frontend.vip).map(|vip| vip.id);
            let known = known.or_else(|| vips.iter().find(|vip| vip.0 == frontend.vip).map(|vip| vip.1));
            let vip = match known {
                Some(id) => id,
                None => {
                    if self.tunnels.contains_key(&frontend.vip) {
                        return Err(Refusal::Inconsistent(format!(
                            "put service {name}: VIP {} is a tunnel address of this node",
                            frontend.vip
                        )));
                    }
                    let slot = self.address_vacancy(frontend.vip, &address_slots, vips.len() + 1)?;
                    address_slots.insert(slot);
                    let capacity = self.address_slots.capacity();
                    let id = vip_ids.next().ok_or_else(|| full(Table::Addresses.map(), vips.len() + 1, 0, capacity))?;
                    vips.push((frontend.vip, id, slot));
                    id
                }
            };
            let bits = key_bits(vip, frontend);
            let slot = match self.frontends.get(frontend) {
                Some(held) => {
                    if held.service != id || old_id.is_none() {
                        taken.push((*frontend, *held));
                    }
                    held.slot
                }
                None => {
                    let (used, capacity) = (self.frontends.len(), self.frontend_slots.capacity());
                    let slot = self.frontend_slots.vacancy(&self.store, home_of_frontend(bits), &frontend_slots, None);
                    let slot = slot.filter(|_| used + inserted.len() < capacity).ok_or_else(|| {
                        full(Table::Frontends.map(), inserted.len() + 1, capacity.saturating_sub(used), capacity)
                    })?;
                    frontend_slots.insert(slot);
                    inserted.push((*frontend, bits, slot));
                    slot
                }
            };
            wanted.push((bits, slot));
        }
        let mine = old_id.and_then(|id| self.entries.get(&id));
        let mine: Vec<(Frontend, Held)> = mine
            .into_iter()
            .flatten()
            .filter_map(|frontend| Some((*frontend, *self.frontends.get(frontend)?)))
            .collect();

        // Local deliveries: what was there of this service and of frontends taken over, then what shall be.
        let mut changes = BTreeMap::new();
        self.old_locals(&mine, &old_block, &mut changes);
        for (frontend, held) in &taken {
            self.old_locals(
                &[(*frontend, *held)],
                &read_block(&self.store, self.descriptor(held.service)),
                &mut changes,
            );
        }
        for (bits, slot) in &wanted {
            for (address, delivery, counter) in &local {
                changes.insert((*bits, *address), Some(value(delivery, *slot, *counter)));
            }
        }
        let locals = self.plan_locals(changes)?;

        // Room for what is written anew.
        let old_words: Vec<EndpointWords> = old_block.iter().map(|endpoint| transmute!(*endpoint)).collect();
        let keep_block = old_words == block;
        if !keep_block && !self.blocks.fits(block.len() as u32) {
            return Err(self.no_room(Table::Endpoints, block.len(), self.blocks.free()));
        }
        let keep_rows = self.rows_equal(before, &state.rows);
        let pages = state.rows.len() / page_rows as usize;
        if !keep_rows && !self.pages.fits(pages as u32) {
            return Err(self.no_room(Table::Rows, pages, self.pages.free()));
        }

        Ok(Put {
            id,
            is_new: old_id.is_none(),
            before,
            old_len: old_block.len() as u32,
            block,
            keep_block,
            keep_rows,
            new_counters: needed,
            old_counters: counters.into_values().collect(),
            new_hops,
            old_hops: old_block.iter().filter_map(hop_of).collect(),
            vips,
            inserted,
            taken,
            withdrawn: mine.into_iter().filter(|(frontend, _)| !state.frontends.contains(frontend)).collect(),
            locals,
        })
    }

    /// The order keeps every packet on either the old configuration or the new: deliveries before what leads to them, the
    /// descriptor before new frontends, frontends before the VIP that makes packets look for them; removals the
    /// other way round.
    fn carry_out(&mut self, name: &ServiceName, state: &ServiceState, put: Put) {
        let Put { id, is_new, before, block, keep_block, keep_rows, .. } = put;
        for _ in 0..put.new_counters {
            self.counters.take();
        }
        self.add_locals(&put.locals);

        let first = if keep_block { before.block() } else { self.write_block(&block) };
        let (page, log2) = if keep_rows { (before.page(), before.log2_pages()) } else { self.write_rows(&state.rows) };
        let mut descriptor = Descriptor::new(page, log2, first, state.client_ip);
        if state.rows.is_empty() {
            descriptor.0 &= !Descriptor::HAS_ROWS;
        }
        if is_new {
            self.service_ids.take();
            self.write_name(id, name);
            self.services.insert(name.clone(), id);
        }
        if descriptor != before {
            self.store.publish(Table::Services, id as usize, descriptor.0);
        }

        for (_, vip, _) in &put.vips {
            let taken = self.vip_ids.take();
            debug_assert_eq!(taken, Some(*vip));
        }
        let mut mine = self.entries.remove(&id).unwrap_or_default();
        for (frontend, held) in &put.taken {
            let word = FrontendSlot(self.frontend_slots.tag(&self.store, held.slot));
            let tag = (word.0 & FrontendSlot::KEY) | u64::from(id) << 40;
            self.frontend_slots.retag(&self.store, held.slot, tag);
            if let Some(other) = self.entries.get_mut(&held.service) {
                other.remove(frontend);
            }
            self.frontends.insert(*frontend, Held { slot: held.slot, service: id });
            mine.insert(*frontend);
        }
        for (frontend, bits, slot) in &put.inserted {
            self.frontend_slots.fill(&self.store, *slot, &[], *bits | u64::from(id) << 40);
            self.frontends.insert(*frontend, Held { slot: *slot, service: id });
            mine.insert(*frontend);
        }
        for (address, vip, slot) in &put.vips {
            self.put_vip(*address, *vip, *slot);
        }
        for (frontend, _, _) in &put.inserted {
            if let Some(vip) = self.vips.get_mut(&frontend.vip) {
                vip.uses += 1;
            }
        }
        self.withdraw_frontends(&put.withdrawn);
        for (frontend, _) in &put.withdrawn {
            mine.remove(frontend);
        }
        self.entries.insert(id, mine);
        self.remove_locals(put.locals);

        self.retire(before, put.old_len, !keep_rows, !keep_block);
        for counter in &put.old_counters {
            self.quarantine.push(Retired::Counter(*counter));
        }
        if !keep_block {
            self.count_hops(&put.new_hops, &put.old_hops);
        }
    }

    /// What `LOCALS` holds for these frontends and the endpoints of this block, as changes that remove it.
    fn old_locals(
        &self,
        frontends: &[(Frontend, Held)],
        block: &[abi::Endpoint],
        changes: &mut BTreeMap<LocalKey, Option<LocalValue>>,
    ) {
        for endpoint in block.iter().filter(|endpoint| local_delivery(endpoint).is_some()) {
            for (frontend, _) in frontends {
                if let Some(vip) = self.vips.get(&frontend.vip) {
                    changes.insert((key_bits(vip.id, frontend), abi::Address::from_bytes(endpoint.address)), None);
                }
            }
        }
    }

    /// Takes frontends out of force, VIPs that lose their last one first.
    fn withdraw_frontends(&mut self, frontends: &[(Frontend, Held)]) {
        for (frontend, _) in frontends {
            let Some(vip) = self.vips.get_mut(&frontend.vip) else { continue };
            vip.uses -= 1;
            if vip.uses == 0 {
                self.remove_vip(frontend.vip);
            }
        }
        for (frontend, held) in frontends {
            self.frontends.remove(frontend);
            self.frontend_slots.withdraw(&self.store, held.slot);
            self.quarantine.push(Retired::Frontend(held.slot));
        }
    }

    fn rows_equal(&self, descriptor: Descriptor, rows: &[Row]) -> bool {
        let page_rows = self.store.page_rows() as usize;
        if !descriptor.has_rows() || rows.is_empty() {
            return !descriptor.has_rows() && rows.is_empty();
        }
        let first = descriptor.page() as usize * page_rows / 2;
        rows.len() == page_rows << descriptor.log2_pages()
            && rows.chunks(2).enumerate().all(|(word, pair)| self.store.load(Table::Rows, first + word) == two(pair))
    }

    /// Writes rows to free pages: first page, log2 of their number.
    fn write_rows(&mut self, rows: &[Row]) -> (u32, u32) {
        let page_rows = self.store.page_rows() as usize;
        let pages = (rows.len() / page_rows) as u32;
        let Some(page) = (pages > 0).then(|| self.pages.take(pages)).flatten() else { return (0, 0) };
        let first = page as usize * page_rows / 2;
        for (word, pair) in rows.chunks(2).enumerate() {
            self.store.prepare(Table::Rows, first + word, two(pair));
        }
        (page, pages.ilog2())
    }

    /// Writes endpoints to free elements: the first. Element 0 is never used; it stands for "no block".
    fn write_block(&mut self, block: &[EndpointWords]) -> u32 {
        let length = block.len() as u32;
        let Some(first) = (length > 0).then(|| self.blocks.take(length)).flatten() else { return 0 };
        for (word, value) in block.iter().flatten().enumerate() {
            self.store.prepare(Table::Endpoints, first as usize * ENDPOINT_WORDS + word, *value);
        }
        first
    }

    fn write_name(&self, id: u32, name: &ServiceName) {
        let text = name.to_string();
        let mut written = abi::ServiceName { len: text.len() as u16, text: [0; 318] };
        written.text[..text.len()].copy_from_slice(text.as_bytes());
        let words: [u64; NAME_WORDS] = transmute!(written);
        for (word, value) in words.into_iter().enumerate().rev() {
            self.store.publish(Table::ServiceNames, id as usize * NAME_WORDS + word, value);
        }
    }

    /// Gives rows and endpoints of a descriptor to the quarantine.
    fn retire(&mut self, descriptor: Descriptor, endpoints: u32, rows: bool, block: bool) {
        if rows && descriptor.has_rows() {
            self.quarantine.push(Retired::Pages(descriptor.page(), 1 << descriptor.log2_pages()));
        }
        if block && endpoints > 0 {
            self.quarantine.push(Retired::Block(descriptor.block(), endpoints));
        }
    }

    pub(super) fn count_hops(&mut self, entered: &[u32], left: &[u32]) {
        let mut balance: BTreeMap<u32, i64> = BTreeMap::new();
        entered.iter().for_each(|hop| *balance.entry(*hop).or_default() += 1);
        left.iter().for_each(|hop| *balance.entry(*hop).or_default() -= 1);
        balance.retain(|_, change| *change != 0);
        if balance.is_empty() {
            return;
        }
        for hop in self.hops.values_mut() {
            if let Some(change) = balance.get(&hop.index) {
                hop.uses = hop.uses.saturating_add_signed(*change as i32);
            }
        }
    }

    fn no_room(&self, table: Table, needed: usize, free: u32) -> Refusal {
        full(table.map(), needed, free as usize, self.store.elements(table) as usize)
    }
}

/// The next hop of an endpoint that has one.
pub(super) fn hop_of(endpoint: &abi::Endpoint) -> Option<u32> {
    let tunnel = [abi::EndpointKind::Tunnel4 as u8, abi::EndpointKind::Tunnel6 as u8];
    tunnel.contains(&endpoint.kind).then_some(endpoint.next_hop)
}

fn two(pair: &[Row]) -> u64 {
    pair.iter().rev().fold(0, |word, row| word << 32 | u64::from(row.0))
}

/// Refuses what the tables cannot say.
fn check(name: &ServiceName, state: &ServiceState, page_rows: u32) -> Result<(), Refusal> {
    let refuse = |what: String| Err(Refusal::Inconsistent(format!("put service {name}: {what}")));
    let rows = state.rows.len();
    let most = (page_rows * (MAX_ROWS / PAGE_ROWS)) as usize;
    if rows != 0 && (!rows.is_power_of_two() || rows < page_rows as usize || rows > most) {
        return refuse(format!("it has {rows} rows"));
    }
    if state.endpoints.len() > usize::from(u16::MAX) {
        return refuse(format!("it has {} endpoints, more than 65,535", state.endpoints.len()));
    }
    let beyond = |index: u16| usize::from(index) >= state.endpoints.len();
    if let Some(row) = state.rows.iter().find(|row| beyond(row.primary()) || beyond(row.secondary())) {
        return refuse(format!("a row names endpoints {} and {}", row.primary(), row.secondary()));
    }
    let addresses: BTreeSet<IpAddr> = state.endpoints.iter().map(|endpoint| endpoint.address).collect();
    if addresses.len() != state.endpoints.len() {
        return refuse("an endpoint is there twice".to_owned());
    }
    if name.to_string().len() > 318 {
        return refuse("its name is longer than 318 bytes".to_owned());
    }
    Ok(())
}
