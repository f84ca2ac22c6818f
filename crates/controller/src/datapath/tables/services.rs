//! Services: what is new is put in force by one store, what is old taken out of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use guenon_ebpf::abi::{self, Descriptor, FrontendSlot};
use zerocopy::transmute;

use super::locals::{LocalKey, LocalValue};
use super::nat::nat_addresses;
use super::observe::{local_delivery, read_block};
use super::put::Put;
use super::quarantine::Retired;
use super::store::{Store, Table};
use super::{Held, Tables, key_bits};
use crate::apply::Refusal;
use crate::model::{Frontend, ServiceName, ServiceState};

pub(super) const NAME_WORDS: usize = size_of::<abi::ServiceName>() / 8;

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
        let plan = self.plan_locals(changes.clone()).or_else(|_| {
            self.settle();
            self.plan_locals(changes)
        });
        match plan {
            Ok(plan) => {
                self.add_locals(&plan);
                self.remove_locals(plan);
            }
            // Another service's fragments would need a slot that is not there; a restart clears it up.
            Err(refusal) => tracing::error!(%refusal, service = %name, "local deliveries of a removed service stay"),
        }
        self.leave_nat_endpoints(&nat_addresses(&block));
        self.retire(descriptor, block.len() as u32, true, true);
        for endpoint in &block {
            self.quarantine.push(Retired::Counter(endpoint.counter));
        }
        self.count_hops(&[], &block.iter().filter_map(hop_of).collect::<Vec<_>>());
        self.quarantine.push(Retired::Service(id));
    }

    /// The order keeps every packet on either the old configuration or the new: deliveries before what leads to them, the
    /// descriptor before new frontends, frontends before the VIP that makes packets look for them; removals the
    /// other way round.
    fn carry_out(&mut self, name: &ServiceName, state: &ServiceState, put: Put) {
        let Put { id, is_new, before, keep_block, keep_rows, endpoints, frontends, .. } = put;
        for _ in 0..endpoints.new_counters {
            self.counters.take();
        }
        self.put_nat_endpoints(&put.nat);
        self.add_locals(&put.locals);

        let first = if keep_block { before.block() } else { self.write_block(&endpoints.block) };
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

        for (address, vip, _) in &frontends.vips {
            let taken = self.kept_vips.remove(address).or_else(|| self.vip_ids.take());
            debug_assert_eq!(taken, Some(*vip));
        }
        let mut mine = self.entries.remove(&id).unwrap_or_default();
        for (frontend, held) in &frontends.taken {
            let word = FrontendSlot(self.frontend_slots.tag(&self.store, held.slot));
            let tag = (word.0 & FrontendSlot::KEY) | u64::from(id) << 40;
            self.frontend_slots.retag(&self.store, held.slot, tag);
            if let Some(other) = self.entries.get_mut(&held.service) {
                other.remove(frontend);
            }
            self.frontends.insert(*frontend, Held { slot: held.slot, service: id });
            mine.insert(*frontend);
        }
        for (frontend, bits, slot) in &frontends.inserted {
            self.frontend_slots.fill(&self.store, *slot, &[], *bits | u64::from(id) << 40);
            self.frontends.insert(*frontend, Held { slot: *slot, service: id });
            mine.insert(*frontend);
        }
        for (address, vip, slot) in &frontends.vips {
            self.put_vip(*address, *vip, *slot);
        }
        for (frontend, _, _) in &frontends.inserted {
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
        self.leave_nat_endpoints(&put.old_nat);

        self.retire(before, put.old_len, !keep_rows, !keep_block);
        for counter in &endpoints.old_counters {
            self.quarantine.push(Retired::Counter(*counter));
        }
        if !keep_block {
            self.count_hops(&endpoints.hops, &put.old_hops);
        }
    }

    /// What `LOCALS` holds for these frontends and the endpoints of this block, as changes that remove it.
    pub(super) fn old_locals(
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

    fn write_name(&self, id: u32, name: &ServiceName) {
        let text = name.to_string();
        let mut written = abi::ServiceName { len: text.len() as u16, text: [0; 318] };
        written.text[..text.len()].copy_from_slice(text.as_bytes());
        let words: [u64; NAME_WORDS] = transmute!(written);
        for (word, value) in words.into_iter().enumerate().rev() {
            self.store.publish(Table::ServiceNames, id as usize * NAME_WORDS + word, value);
        }
    }

    /// Endpoints have begun to use these next hops, and ceased to use those.
    pub(super) fn count_hops(&mut self, entered: &[u32], left: &[u32]) {
        entered.iter().for_each(|hop| self.hop_uses[*hop as usize] += 1);
        left.iter().for_each(|hop| self.hop_uses[*hop as usize] -= 1);
    }
}

/// The next hop of an endpoint that has one.
pub(super) fn hop_of(endpoint: &abi::Endpoint) -> Option<u32> {
    let tunnel = [abi::EndpointKind::Tunnel4 as u8, abi::EndpointKind::Tunnel6 as u8];
    tunnel.contains(&endpoint.kind).then_some(endpoint.next_hop)
}
