//! What a put does, decided in full before anything is written.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use guenon_ebpf::abi::{self, Address, Descriptor, MAX_ROWS, PAGE_ROWS};
use guenon_ebpf::probe::home_of_frontend;
use zerocopy::transmute;

use super::header::{EndpointWords, encode};
use super::locals::{LocalPlan, value};
use super::nat::{NatEndpoints, nat_addresses};
use super::observe::read_block;
use super::services::hop_of;
use super::store::{Store, Table};
use super::{Held, Tables, full, key_bits};
use crate::apply::Refusal;
use crate::model::{Frontend, LocalDelivery, Path, ServiceName, ServiceState};

/// A put, decided.
pub(super) struct Put {
    /// Id of the service, and whether it is new.
    pub(super) id: u32,
    pub(super) is_new: bool,
    /// What is in force, and endpoints of its block.
    pub(super) before: Descriptor,
    pub(super) old_len: u32,
    /// Endpoint block and rows that are in force already stay.
    pub(super) keep_block: bool,
    pub(super) keep_rows: bool,
    pub(super) endpoints: Endpoints,
    /// Next hops of the old block.
    pub(super) old_hops: Vec<u32>,
    pub(super) frontends: Frontends,
    pub(super) withdrawn: Vec<(Frontend, Held)>,
    pub(super) locals: LocalPlan,
    /// Endpoints of delivery `Nat`: those of now, with slots of `ADDRESSES` for new ones, and those of before.
    pub(super) nat: NatEndpoints,
    pub(super) old_nat: Vec<IpAddr>,
}

/// The endpoints of a put.
pub(super) struct Endpoints {
    pub(super) block: Vec<EndpointWords>,
    /// How many counters they take, and which ones the old endpoints leave.
    pub(super) new_counters: usize,
    pub(super) old_counters: Vec<u32>,
    /// Their next hops, one for each that has one.
    pub(super) hops: Vec<u32>,
    /// Those on this node: address, delivery, counter.
    local: Vec<(Address, LocalDelivery, u32)>,
}

/// The frontends of a put.
#[derive(Default)]
pub(super) struct Frontends {
    /// VIPs that are new: address, id, slot.
    pub(super) vips: Vec<(IpAddr, u32, u32)>,
    /// New: key bits, slot.
    pub(super) inserted: Vec<(Frontend, u64, u32)>,
    /// Held by other services until now.
    pub(super) taken: Vec<(Frontend, Held)>,
    /// All of them: key bits, slot.
    all: Vec<(u64, u32)>,
}

impl<S: Store> Tables<S> {
    pub(super) fn plan_put(&self, name: &ServiceName, state: &ServiceState) -> Result<Put, Refusal> {
        let page_rows = self.store.page_rows();
        check(name, state, page_rows)?;
        let old_id = self.services.get(name).copied();
        let before = old_id.map_or(Descriptor::default(), |id| self.descriptor(id));
        let old_block = read_block(&self.store, before);
        let id = match old_id {
            Some(id) => id,
            None => {
                let capacity = self.store.elements(Table::Services) as usize;
                *self.service_ids.peek(1).first().ok_or_else(|| full(Table::Services.map(), 1, 0, capacity))?
            }
        };
        let endpoints = self.plan_endpoints(name, state, &old_block)?;
        let frontends = self.plan_frontends(name, state, old_id)?;
        let mine: Vec<(Frontend, Held)> = old_id
            .and_then(|id| self.entries.get(&id))
            .into_iter()
            .flatten()
            .filter_map(|frontend| Some((*frontend, *self.frontends.get(frontend)?)))
            .collect();

        // Local deliveries: what was there of this service and of frontends taken over, then what shall be.
        let mut changes = BTreeMap::new();
        self.old_locals(&mine, &old_block, &mut changes);
        for (frontend, held) in &frontends.taken {
            let block = read_block(&self.store, self.descriptor(held.service));
            self.old_locals(&[(*frontend, *held)], &block, &mut changes);
        }
        for (bits, slot) in &frontends.all {
            for (address, delivery, counter) in &endpoints.local {
                changes.insert((*bits, *address), Some(value(delivery, *bits, *slot, *counter)));
            }
        }
        let locals = self.plan_locals(changes)?;

        let nat = endpoints.local.iter().filter(|(_, delivery, _)| matches!(delivery, LocalDelivery::Nat { .. }));
        let nat = nat.map(|(address, _, _)| address.to_ip()).collect();
        let nat = self.plan_nat_endpoints(nat, &frontends.vips)?;

        // Room for what is written anew.
        let old_words: Vec<EndpointWords> = old_block.iter().map(|endpoint| transmute!(*endpoint)).collect();
        let keep_block = old_words == endpoints.block;
        if !keep_block && !self.blocks.fits(endpoints.block.len() as u32) {
            return Err(self.no_room(Table::Endpoints, endpoints.block.len(), self.blocks.free()));
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
            keep_block,
            keep_rows,
            endpoints,
            old_hops: old_block.iter().filter_map(hop_of).collect(),
            frontends,
            withdrawn: mine.into_iter().filter(|(frontend, _)| !state.frontends.contains(frontend)).collect(),
            locals,
            nat,
            old_nat: nat_addresses(&old_block),
        })
    }

    /// Writes the endpoint block out; counters stay with their addresses.
    fn plan_endpoints(
        &self,
        name: &ServiceName,
        state: &ServiceState,
        old_block: &[abi::Endpoint],
    ) -> Result<Endpoints, Refusal> {
        let mut counters: HashMap<IpAddr, u32> = old_block
            .iter()
            .map(|endpoint| (Address::from_bytes(endpoint.address).to_ip(), endpoint.counter))
            .collect();
        let new_counters = state.endpoints.iter().filter(|endpoint| !counters.contains_key(&endpoint.address)).count();
        if new_counters > self.counters.free() {
            let capacity = self.store.elements(Table::Endpoints) as usize;
            return Err(full(abi::map::ENDPOINT_STATS, new_counters, self.counters.free(), capacity));
        }
        let mut fresh = self.counters.peek(new_counters).into_iter();
        let (mut block, mut hops, mut local) = (Vec::with_capacity(state.endpoints.len()), Vec::new(), Vec::new());
        for (index, endpoint) in state.endpoints.iter().enumerate() {
            let counter = counters.remove(&endpoint.address).or_else(|| fresh.next()).unwrap_or_default();
            let next_hop = match &endpoint.path {
                Path::Tunnel { next_hop, .. } => {
                    let hop = self.hops.get(next_hop).ok_or_else(|| {
                        Refusal::Inconsistent(format!("put service {name}: next hop {next_hop:?} is not there"))
                    })?;
                    hops.push(*hop);
                    *hop
                }
                Path::Local(delivery) => {
                    local.push((Address::from_ip(endpoint.address), delivery.clone(), counter));
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
        Ok(Endpoints { block, new_counters, old_counters: counters.into_values().collect(), hops, local })
    }

    /// Finds slots for frontends and VIPs that are new.
    fn plan_frontends(&self, name: &ServiceName, state: &ServiceState, id: Option<u32>) -> Result<Frontends, Refusal> {
        let mut vip_ids = self.vip_ids.peek(state.frontends.len()).into_iter();
        let mut promoted = 0;
        let (mut address_slots, mut frontend_slots) = (BTreeSet::new(), BTreeSet::new());
        let mut plan = Frontends::default();
        for frontend in &state.frontends {
            let known = self.vips.get(&frontend.vip).map(|vip| vip.id);
            let known = known.or_else(|| plan.vips.iter().find(|vip| vip.0 == frontend.vip).map(|vip| vip.1));
            let vip = match known {
                Some(id) => id,
                None => {
                    if self.tunnels.contains_key(&frontend.vip) {
                        return Err(Refusal::Inconsistent(format!(
                            "put service {name}: VIP {} is a tunnel address of this node",
                            frontend.vip
                        )));
                    }
                    let needed = plan.vips.len() + 1 - promoted;
                    let slot = match self.nat_endpoints.get(&frontend.vip).and_then(|known| known.slot) {
                        Some(slot) => {
                            promoted += 1;
                            slot
                        }
                        None => self.address_vacancy(frontend.vip, &address_slots, needed)?,
                    };
                    address_slots.insert(slot);
                    let capacity = self.address_slots.capacity();
                    let kept = self.kept_vips.get(&frontend.vip).copied();
                    let id = kept.or_else(|| vip_ids.next());
                    let id = id.ok_or_else(|| full(Table::Addresses.map(), needed, 0, capacity))?;
                    plan.vips.push((frontend.vip, id, slot));
                    id
                }
            };
            let bits = key_bits(vip, frontend);
            let slot = match self.frontends.get(frontend) {
                Some(held) => {
                    if Some(held.service) != id {
                        plan.taken.push((*frontend, *held));
                    }
                    held.slot
                }
                None => {
                    let (used, capacity) = (self.frontends.len(), self.frontend_slots.capacity());
                    let home = home_of_frontend(bits);
                    let slot = self
                        .frontend_slots
                        .vacancy(&self.store, home, &frontend_slots, None)
                        .filter(|_| used + plan.inserted.len() < capacity)
                        .ok_or_else(|| {
                            let (needed, free) = (plan.inserted.len() + 1, capacity.saturating_sub(used));
                            full(Table::Frontends.map(), needed, free, capacity)
                        })?;
                    frontend_slots.insert(slot);
                    plan.inserted.push((*frontend, bits, slot));
                    slot
                }
            };
            plan.all.push((bits, slot));
        }
        Ok(plan)
    }
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
