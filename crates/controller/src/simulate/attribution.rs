//! Whose counters are whose: frontends and endpoints by the index at which the program counts them.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use guenon_ebpf::abi::{self, Address, Descriptor};
use zerocopy::transmute;

use crate::datapath::private::{PrivateError, PrivateProgram};
use crate::datapath::tables::lookup::{find_address, find_frontend};
use crate::datapath::tables::{Store, Table};
use crate::model::{Frontend, LocalDelivery, NextHopKey, NextHopState, Path, ServiceName, State};

const ENDPOINT_WORDS: usize = size_of::<abi::Endpoint>() / 8;

/// How far into a frame the address of a VIP can stand: behind tags, outer IPv6, UDP, GUE with private data.
const HEAD: usize = 512;

/// Every frontend and endpoint in force, with the count that was seen last.
///
/// A packet can only have been counted for a frontend whose VIP it names. So of all counters (a system call each) only
/// those are read, the likeliest first, whose VIP stands somewhere in the frame's head; what has counted is
/// taken from the counters alone.
#[derive(Debug, Default)]
pub(super) struct Attribution {
    services: Vec<ServiceCounts>,
    frontends: Vec<FrontendCount>,
    /// Frontends by the bytes of their VIP.
    v4: HashMap<[u8; 4], Vec<usize>>,
    v6: HashMap<[u8; 16], Vec<usize>>,
}

#[derive(Debug)]
struct ServiceCounts {
    name: ServiceName,
    endpoints: Vec<EndpointCount>,
}

#[derive(Debug)]
struct FrontendCount {
    slot: u32,
    seen: u64,
    frontend: Frontend,
    service: usize,
}

#[derive(Debug)]
struct EndpointCount {
    index: u32,
    seen: u64,
    address: IpAddr,
    interface: Option<u32>,
}

/// Who counted a packet.
#[derive(Debug, Default)]
pub(super) struct Counted {
    pub(super) frontend: Option<Frontend>,
    pub(super) service: Option<ServiceName>,
    pub(super) endpoint: Option<IpAddr>,
    /// The device behind which the endpoint is.
    pub(super) interface: Option<u32>,
}

impl Attribution {
    /// Finds in the tables where each frontend and endpoint of `state` counts, and what their counters show now.
    pub(super) fn new(store: &impl Store, state: &State, program: &PrivateProgram) -> Result<Self, PrivateError> {
        let mut found = Self::default();
        for (name, service) in &state.services {
            let (index, mut id) = (found.services.len(), None);
            for frontend in &service.frontends {
                let vip = find_address(store, Table::Addresses, Address::from_ip(frontend.vip));
                let slot = vip.and_then(|vip| find_frontend(store, vip.id(), frontend.protocol, frontend.port));
                if let Some((slot, word)) = slot {
                    id = Some(word.service());
                    found.add(FrontendCount { slot, seen: 0, frontend: *frontend, service: index });
                }
            }
            let Some(id) = id else { continue };
            let block = Descriptor(store.load(Table::Services, id as usize)).block();
            let counts = (block..).zip(&service.endpoints).map(|(index, endpoint)| {
                let words: [u64; ENDPOINT_WORDS] = store.element(Table::Endpoints, index);
                let written: abi::Endpoint = transmute!(words);
                let interface = device(&endpoint.path, |key| state.next_hops.get(key));
                EndpointCount { index: written.counter, seen: 0, address: endpoint.address, interface }
            });
            found.services.push(ServiceCounts { name: name.clone(), endpoints: counts.collect() });
        }
        found.settle(program)?;
        Ok(found)
    }

    /// Takes what all counters show for known.
    pub(super) fn settle(&mut self, program: &PrivateProgram) -> Result<(), PrivateError> {
        for frontend in &mut self.frontends {
            frontend.has_counted(program)?;
        }
        for endpoint in self.services.iter_mut().flat_map(|service| &mut service.endpoints) {
            endpoint.has_counted(program)?;
        }
        Ok(())
    }

    /// Who has counted since the last call, when only this frame was run.
    pub(super) fn read(&mut self, program: &PrivateProgram, frame: &[u8]) -> Result<Counted, PrivateError> {
        let mut services = BTreeSet::new();
        let mut counted = Counted::default();
        for candidate in self.candidates(frame) {
            let frontend = &mut self.frontends[candidate];
            if frontend.has_counted(program)? {
                counted.frontend = Some(frontend.frontend);
                counted.service = Some(self.services[frontend.service].name.clone());
                services = BTreeSet::from([frontend.service]);
                break;
            }
            // Fragments at a decap node name no port: only the endpoint counts them.
            services.insert(frontend.service);
        }
        for service in services {
            let ServiceCounts { name, endpoints } = &mut self.services[service];
            for endpoint in endpoints {
                if endpoint.has_counted(program)? {
                    counted.endpoint = Some(endpoint.address);
                    counted.interface = endpoint.interface;
                    counted.service.get_or_insert_with(|| name.clone());
                    return Ok(counted);
                }
            }
        }
        Ok(counted)
    }

    fn add(&mut self, frontend: FrontendCount) {
        let index = self.frontends.len();
        match frontend.frontend.vip {
            IpAddr::V4(vip) => self.v4.entry(vip.octets()).or_default().push(index),
            IpAddr::V6(vip) => self.v6.entry(vip.octets()).or_default().push(index),
        }
        self.frontends.push(frontend);
    }

    /// Frontends whose VIP stands in the head of a frame, those whose port stands there too first.
    fn candidates(&self, frame: &[u8]) -> Vec<usize> {
        let head = &frame[..frame.len().min(HEAD)];
        let v4 = head.array_windows::<4>().filter_map(|bytes| self.v4.get(bytes));
        let v6 = head.array_windows::<16>().filter_map(|bytes| self.v6.get(bytes));
        let found: BTreeSet<usize> = v4.chain(v6).flatten().copied().collect();
        let named = |index: &usize| {
            let port = self.frontends[*index].frontend.port.to_be_bytes();
            head.array_windows::<2>().any(|bytes| *bytes == port)
        };
        let (mut candidates, others): (Vec<usize>, Vec<usize>) = found.into_iter().partition(named);
        candidates.extend(others);
        candidates
    }
}

impl FrontendCount {
    fn has_counted(&mut self, program: &PrivateProgram) -> Result<bool, PrivateError> {
        let now = program.frontend_counters(self.slot)?;
        let now = now.directed.packets + now.delivered + now.dropped;
        Ok(std::mem::replace(&mut self.seen, now) != now)
    }
}

impl EndpointCount {
    fn has_counted(&mut self, program: &PrivateProgram) -> Result<bool, PrivateError> {
        let now = program.endpoint_counter(self.index)?.packets;
        Ok(std::mem::replace(&mut self.seen, now) != now)
    }
}

fn device<'a>(path: &Path, next_hop: impl Fn(&NextHopKey) -> Option<&'a NextHopState>) -> Option<u32> {
    match path {
        Path::Tunnel { next_hop: key, .. } => next_hop(key).map(|next_hop| next_hop.egress.ifindex),
        Path::Local(LocalDelivery::Veth { ifindex, .. }) => Some(*ifindex),
        Path::Local(LocalDelivery::Local | LocalDelivery::Nat { .. } | LocalDelivery::None)
        | Path::Unreachable { .. } => None,
    }
}
