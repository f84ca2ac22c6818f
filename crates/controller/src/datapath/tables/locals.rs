//! Local deliveries: what the decap role looks up by frontend and endpoint.

use std::collections::{BTreeMap, BTreeSet};

use guenon_ebpf::abi::{Address, Delivery, DeliveryMode, FrontendSlot, LocalSlot};
use guenon_ebpf::probe::home_of_local;
use zerocopy::transmute;

use super::header::encode_delivery;
use super::quarantine::Retired;
use super::slots::Slots;
use super::store::{Store, Table};
use super::{Tables, full};
use crate::apply::Refusal;
use crate::model::{LocalDelivery, Protocol};

/// Key bits of a frontend (port 0: any port of its VIP and protocol), and the endpoint's address.
pub(super) type LocalKey = (u64, Address);

/// The words of a slot behind its tag: delivery (two), frontend and counter (one).
pub(super) type LocalValue = [u64; 3];

const SLOT_WORDS: usize = size_of::<LocalSlot>() / 8;
const FIRST_VALUE: usize = 3;
const PORT: u64 = 0xffff;

/// What a service's put or removal does to `LOCALS`, decided before anything is written.
#[derive(Debug, Default)]
pub(super) struct LocalPlan {
    steps: Vec<(LocalKey, Step)>,
    shared: BTreeMap<LocalKey, BTreeMap<u16, LocalValue>>,
}

#[derive(Debug)]
enum Step {
    /// A new key.
    Insert { slot: u32, value: LocalValue },
    /// One word of the value changes.
    Update { slot: u32, word: usize, value: u64 },
    /// More than that changes: the key gets a second slot, then loses the first.
    Replace { from: u32, to: u32, value: LocalValue, behind: bool },
    /// The key goes.
    Remove { slot: u32 },
}

/// The value of a delivery to a frontend of these key bits.
pub(super) fn value(delivery: &LocalDelivery, bits: u64, frontend: u32, counter: u32) -> LocalValue {
    let slot = FrontendSlot(bits);
    let asked = (Protocol::from_transport(slot.transport()), slot.port());
    let [first, second]: [u64; 2] = transmute!(encode_delivery(delivery, Some(asked)));
    [first, second, u64::from(frontend) | u64::from(counter) << 32]
}

/// The delivery of a value.
pub(super) fn delivery([first, second, _]: LocalValue) -> Delivery {
    transmute!([first, second])
}

/// What serves fragments after the first: they have no port, so none is rewritten, and no frontend is counted, since they
/// may be of any.
fn of_any_port(value: LocalValue) -> LocalValue {
    let [first, second]: [u64; 2] = transmute!(Delivery { port: 0, ..delivery(value) });
    [first, second, value[2] | u64::from(u32::MAX)]
}

/// The key that serves fragments after the first.
fn any_port((bits, address): LocalKey) -> LocalKey {
    (bits & !PORT, address)
}

impl<S: Store> Tables<S> {
    /// Decides how to bring `LOCALS` from what is there to these values (`None` = gone).
    pub(super) fn plan_locals(&self, changes: BTreeMap<LocalKey, Option<LocalValue>>) -> Result<LocalPlan, Refusal> {
        let mut shared: BTreeMap<LocalKey, BTreeMap<u16, LocalValue>> = BTreeMap::new();
        for (key, value) in &changes {
            let ports = shared
                .entry(any_port(*key))
                .or_insert_with_key(|shared| self.shared.get(shared).cloned().unwrap_or_default());
            let port = FrontendSlot(key.0).port();
            match value {
                Some(value) => ports.insert(port, of_any_port(*value)),
                None => ports.remove(&port),
            };
        }
        let any: Vec<_> = shared.iter().map(|(key, ports)| (*key, ports.values().next().copied())).collect();

        let mut plan = LocalPlan { steps: Vec::new(), shared };
        let mut reserved = BTreeSet::new();
        let mut inserts = 0;
        for (key, wanted) in changes.into_iter().chain(any) {
            let home = home_of_local(key.0, key.1);
            let refused = |inserts: usize| {
                let capacity = self.local_slots.capacity();
                full(Table::Locals.map(), inserts, capacity.saturating_sub(self.locals.len()), capacity)
            };
            let slots = &self.local_slots;
            let step = match (self.locals.get(&key).copied(), wanted) {
                (None, None) => continue,
                (Some(slot), None) => Step::Remove { slot },
                (None, Some(value)) => {
                    inserts += 1;
                    let slot = slots.vacancy(&self.store, home, &reserved, None).ok_or_else(|| refused(inserts))?;
                    reserved.insert(slot);
                    Step::Insert { slot, value }
                }
                (Some(from), Some(value)) => {
                    let now = self.local_value(from);
                    let mut differ = (0..value.len()).filter(|word| now[*word] != value[*word]);
                    match (differ.next(), differ.next()) {
                        (None, _) => continue,
                        (Some(word), None) => Step::Update { slot: from, word, value: value[word] },
                        (Some(_), Some(_)) => {
                            let behind = slots.vacancy(&self.store, home, &reserved, Some(from));
                            let to = behind.or_else(|| slots.vacancy(&self.store, home, &reserved, None));
                            let to = to.ok_or_else(|| refused(inserts + 1))?;
                            reserved.insert(to);
                            Step::Replace { from, to, value, behind: behind.is_some() }
                        }
                    }
                }
            };
            plan.steps.push((key, step));
        }
        if self.locals.len() + inserts > self.local_slots.capacity() {
            let capacity = self.local_slots.capacity();
            return Err(full(Table::Locals.map(), inserts, capacity.saturating_sub(self.locals.len()), capacity));
        }
        Ok(plan)
    }

    /// Carries out what adds and changes: before the rest of a change, so that nothing arrives unknown.
    pub(super) fn add_locals(&mut self, plan: &LocalPlan) {
        for (key, step) in &plan.steps {
            if let Some(port) = self.target_port(step) {
                self.set_target_port(FrontendSlot(key.0).transport(), port);
            }
            match step {
                Step::Insert { slot, value } => {
                    fill(&self.local_slots, &self.store, *slot, *key, *value);
                    self.locals.insert(*key, *slot);
                }
                Step::Update { slot, word, value } => {
                    let word = *slot as usize * SLOT_WORDS + FIRST_VALUE + word;
                    self.store.publish(Table::Locals, word, *value);
                }
                Step::Replace { from, to, value, behind } => {
                    fill(&self.local_slots, &self.store, *to, *key, *value);
                    self.locals.insert(*key, *to);
                    if !behind {
                        // A search that has passed the new slot must still find the old one.
                        let grace = self.grace.request();
                        self.grace.wait(grace);
                    }
                    self.withdraw_local(*from);
                }
                Step::Remove { .. } => {}
            }
        }
    }

    /// The port that a step leads to, where its delivery changes ports.
    fn target_port(&self, step: &Step) -> Option<u16> {
        let value = match step {
            Step::Insert { value, .. } | Step::Replace { value, .. } => *value,
            Step::Update { slot, word, value } => {
                let mut whole = self.local_value(*slot);
                whole[*word] = *value;
                whole
            }
            Step::Remove { .. } => return None,
        };
        let Delivery { mode, port, .. } = delivery(value);
        (mode == DeliveryMode::Nat as u8 && port != 0).then_some(port)
    }

    /// Carries out what removes: after the rest of a change.
    pub(super) fn remove_locals(&mut self, plan: LocalPlan) {
        for (key, step) in &plan.steps {
            if let Step::Remove { slot } = step {
                self.withdraw_local(*slot);
                self.locals.remove(key);
            }
        }
        for (key, ports) in plan.shared {
            if ports.is_empty() {
                self.shared.remove(&key);
            } else {
                self.shared.insert(key, ports);
            }
        }
    }

    pub(super) fn withdraw_local(&mut self, slot: u32) {
        self.local_slots.withdraw(&self.store, slot);
        self.quarantine.push(Retired::Local(slot));
    }

    /// The value in a live slot.
    pub(super) fn local_value(&self, slot: u32) -> LocalValue {
        let words: [u64; SLOT_WORDS] = self.store.element(Table::Locals, slot);
        [words[FIRST_VALUE], words[FIRST_VALUE + 1], words[FIRST_VALUE + 2]]
    }
}

/// The key in a live slot.
pub(super) fn key_in(store: &impl Store, slot: u32) -> LocalKey {
    let [hi, lo, tag, ..]: [u64; SLOT_WORDS] = store.element(Table::Locals, slot);
    (tag, Address { hi, lo })
}

fn fill(slots: &Slots, store: &impl Store, slot: u32, (bits, address): LocalKey, [a, b, c]: LocalValue) {
    slots.fill(store, slot, &[(0, address.hi), (1, address.lo), (3, a), (4, b), (5, c)], bits);
}
