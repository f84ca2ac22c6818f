//! The tables of the data path: one writer over words of memory, and readers that take the program's steps.
//!
//! The writer never changes what is in force. It writes what is new beside it, and one store of the
//! service's descriptor puts that in force; what is old rests in quarantine until no packet can be reading it.
//! The same writer runs on BPF maps and on ordinary memory.

/// Index of the word in which a field of an element begins.
macro_rules! word {
    ($element:ty, $field:ident) => {
        const { std::mem::offset_of!($element, $field) / 8 }
    };
}

mod addresses;
pub mod attachments;
mod blocks;
mod extents;
mod header;
mod ids;
mod locals;
pub mod lookup;
mod nat;
mod next_hops;
mod observe;
mod put;
mod quarantine;
mod recover;
mod services;
mod slots;
mod store;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use guenon_ebpf::abi::{Descriptor, FrontendSlot, Meta};

use crate::apply::{DataPath, Operation, Refusal};
use crate::model::{Frontend, NextHopKey, ServiceName, State};

pub use observe::{
    Occupancy, endpoint_counters, endpoint_shares, frontend_slots, occupancy, read_meta, read_next_hops, read_state,
    service_names,
};
pub use quarantine::{Grace, NoReaders};
pub use store::{Capacities, MAX_DIRECTORS, MAX_NEXT_HOPS, Store, Table};

use addresses::Vip;
use extents::Extents;
use ids::Ids;
use locals::{LocalKey, LocalValue};
use nat::NatEndpoint;
use quarantine::{Quarantine, Retired};
use slots::Slots;

/// The one writer of a set of tables.
pub struct Tables<S> {
    store: S,
    grace: Box<dyn Grace>,
    gue_port: u16,
    hash_fingerprint: u64,
    quarantine: Quarantine,
    released: Vec<Released>,

    address_slots: Slots,
    director_slots: Slots,
    frontend_slots: Slots,
    local_slots: Slots,

    vips: BTreeMap<IpAddr, Vip>,
    tunnels: BTreeMap<IpAddr, u32>,
    directors: BTreeMap<IpAddr, u32>,
    /// Addresses of endpoints of this node of delivery `Nat`.
    nat_endpoints: BTreeMap<IpAddr, NatEndpoint>,
    /// Ids that VIPs had in other tables, and keep here: flows name them.
    kept_vips: BTreeMap<IpAddr, u32>,
    on_node: BTreeSet<IpAddr>,
    frontends: HashMap<Frontend, Held>,
    services: HashMap<ServiceName, u32>,
    /// By service id: its frontends.
    entries: HashMap<u32, BTreeSet<Frontend>>,
    locals: HashMap<LocalKey, u32>,
    shared: HashMap<LocalKey, BTreeMap<u16, LocalValue>>,
    /// Index of each next hop.
    hops: BTreeMap<NextHopKey, u32>,
    /// By index of `NEXT_HOPS`: endpoints in force that go there.
    hop_uses: Vec<u32>,

    pages: Extents,
    blocks: Extents,
    service_ids: Ids,
    vip_ids: Ids,
    counters: Ids,
    hop_ids: Ids,
    egress_slots: Ids,
    /// By slot of `INTERFACES`: next hops that lead there, those not yet cleared included.
    egress_uses: Vec<u32>,
}

/// A frontend in force.
#[derive(Clone, Copy, Debug)]
struct Held {
    slot: u32,
    service: u32,
}

/// A counter that nothing counts in any more: whoever uses it next starts from what it shows now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// Index in `FRONTEND_STATS`.
    Frontend(u32),
    /// Index in `ENDPOINT_STATS`.
    Endpoint(u32),
}

impl<S: Store> Tables<S> {
    /// Takes over tables, as whoever wrote to them last left them: empty, in order, or cut off in the middle of a
    /// change. `gue_port` is what tunnels' headers shall name.
    pub fn open(store: S, grace: Box<dyn Grace>, gue_port: u16, hash_fingerprint: u64) -> Self {
        let mut tables = Self {
            address_slots: Slots::new(&store, Table::Addresses),
            director_slots: Slots::new(&store, Table::Directors),
            frontend_slots: Slots::new(&store, Table::Frontends),
            local_slots: Slots::new(&store, Table::Locals),
            pages: Extents::default(),
            blocks: Extents::default(),
            service_ids: Ids::without(&BTreeSet::new(), 0),
            vip_ids: Ids::without(&BTreeSet::new(), 0),
            counters: Ids::without(&BTreeSet::new(), 0),
            hop_ids: Ids::without(&BTreeSet::new(), 0),
            egress_slots: Ids::without(&BTreeSet::new(), 0),
            egress_uses: Vec::new(),
            store,
            grace,
            gue_port,
            hash_fingerprint,
            quarantine: Quarantine::default(),
            released: Vec::new(),
            vips: BTreeMap::new(),
            tunnels: BTreeMap::new(),
            directors: BTreeMap::new(),
            nat_endpoints: BTreeMap::new(),
            kept_vips: BTreeMap::new(),
            on_node: BTreeSet::new(),
            frontends: HashMap::new(),
            services: HashMap::new(),
            entries: HashMap::new(),
            locals: HashMap::new(),
            shared: HashMap::new(),
            hops: BTreeMap::new(),
            hop_uses: Vec::new(),
        };
        tables.recover();
        tables
    }

    /// The memory.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// Ends the writing and gives the memory back.
    pub fn into_store(self) -> S {
        self.store
    }

    /// Counters whose last user is gone, since the last call.
    pub fn take_released(&mut self) -> Vec<Released> {
        std::mem::take(&mut self.released)
    }

    /// Waits until all that was taken out of force can be used again.
    pub fn settle(&mut self) {
        self.quarantine.wait(&mut *self.grace);
        self.reclaim();
    }

    /// Slots of `FRONTENDS` and indices of `ENDPOINT_STATS` that count for something in force.
    pub fn counting(&self) -> (BTreeSet<u32>, BTreeSet<u32>) {
        let blocks = self.services.values().map(|id| observe::read_block(&self.store, self.descriptor(*id)));
        let counters = blocks.flatten().map(|endpoint| endpoint.counter).collect();
        (self.frontends.values().map(|held| held.slot).collect(), counters)
    }

    /// How much is in use, what waits for a grace period included.
    pub fn occupancy(&self) -> Vec<Occupancy> {
        let total = |table: Table| self.store.elements(table) as usize;
        let of = |table: Table, free: usize| Occupancy {
            map: table.map(),
            used: total(table) - free,
            capacity: total(table),
        };
        let mut all = occupancy(&self.store);
        for (table, free) in [
            (Table::Services, self.service_ids.free()),
            (Table::Rows, self.pages.free() as usize),
            // The first is never used.
            (Table::Endpoints, self.blocks.free() as usize + 1),
            (Table::NextHops, self.hop_ids.free()),
            (Table::Interfaces, self.egress_slots.free()),
        ] {
            all.iter_mut().filter(|known| known.map == table.map()).for_each(|known| *known = of(table, free));
        }
        all
    }

    fn try_execute(&mut self, operation: &Operation) -> Result<(), Refusal> {
        match operation {
            Operation::PutTunnel(address) => self.put_tunnel(*address),
            Operation::RemoveTunnel(address) => {
                self.remove_tunnel(*address);
                Ok(())
            }
            Operation::PutDirector(address) => self.put_director(*address),
            Operation::RemoveDirector(address) => {
                self.remove_director(*address);
                Ok(())
            }
            Operation::PutNextHop(key, state) => self.put_next_hop(key, state),
            Operation::RemoveNextHop(key) => self.remove_next_hop(key),
            Operation::PutService(name, state) => self.put_service(name, state),
            Operation::RemoveService(name) => {
                self.remove_service(name);
                Ok(())
            }
            Operation::SetOnNode(vip, on_node) => {
                self.set_on_node(*vip, *on_node);
                Ok(())
            }
        }
    }

    /// Frees what has waited long enough.
    fn reclaim(&mut self) {
        for retired in self.quarantine.ripe(&mut *self.grace) {
            match retired {
                Retired::Pages(first, count) => self.pages.release(first, count),
                Retired::Block(first, count) => self.blocks.release(first, count),
                Retired::Service(id) => {
                    self.store.publish(Table::Services, id as usize, 0);
                    self.service_ids.release(id);
                }
                Retired::Vip(id) => {
                    self.clear_vip(id);
                    self.vip_ids.release(id);
                }
                Retired::Address(slot) => self.address_slots.reclaim(&self.store, slot),
                Retired::Director(slot) => self.director_slots.reclaim(&self.store, slot),
                Retired::Frontend(slot) => {
                    self.frontend_slots.reclaim(&self.store, slot);
                    self.released.push(Released::Frontend(slot));
                }
                Retired::Local(slot) => self.local_slots.reclaim(&self.store, slot),
                Retired::Counter(counter) => {
                    self.counters.release(counter);
                    self.released.push(Released::Endpoint(counter));
                }
                Retired::NextHop(index) => self.free_next_hop(index),
                Retired::Egress(slot) => self.egress_slots.release(slot),
            }
        }
    }

    fn descriptor(&self, id: u32) -> Descriptor {
        Descriptor(self.store.load(Table::Services, id as usize))
    }
}

impl<S: Store> DataPath for Tables<S> {
    fn observe(&self) -> State {
        read_state(&self.store)
    }

    fn execute(&mut self, operation: &Operation) -> Result<(), Refusal> {
        self.reclaim();
        match self.try_execute(operation) {
            Err(Refusal::Full { .. }) if !self.quarantine.is_empty() => {
                self.settle();
                self.try_execute(operation)
            }
            outcome => outcome,
        }
    }

    fn commit(&mut self) -> u64 {
        self.quarantine.seal(&mut *self.grace);
        self.reclaim();
        let seconds =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let revision = self.store.load(Table::Meta, word!(Meta, revision)) + 1;
        self.store.prepare(Table::Meta, word!(Meta, hash_fingerprint), self.hash_fingerprint);
        self.store.prepare(Table::Meta, word!(Meta, revision_at), seconds);
        self.store.publish(Table::Meta, word!(Meta, revision), revision);
        revision
    }
}

/// Refuses for lack of room.
fn full(map: &'static str, needed: usize, free: usize, capacity: usize) -> Refusal {
    let flag = match map {
        guenon_ebpf::abi::map::SERVICES => "--max-services",
        guenon_ebpf::abi::map::FRONTENDS | guenon_ebpf::abi::map::ADDRESSES => "--max-frontends",
        guenon_ebpf::abi::map::ROWS => "--max-row-pages",
        guenon_ebpf::abi::map::ENDPOINTS | guenon_ebpf::abi::map::ENDPOINT_STATS => "--max-endpoints",
        guenon_ebpf::abi::map::LOCALS => "--max-locals",
        _ => "no flag: this one is fixed in the build",
    };
    Refusal::Full { map, needed, free, capacity, flag }
}

/// Key bits of a frontend.
fn key_bits(vip: u32, frontend: &Frontend) -> u64 {
    FrontendSlot::key(vip, frontend.protocol.transport() as u8, frontend.port)
}
