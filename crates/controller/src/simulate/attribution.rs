//! Whose counters are whose: frontends and endpoints by the index at which the program counts them.

use std::net::IpAddr;

use guenon_ebpf::abi::{self, Address, Descriptor};
use zerocopy::transmute;

use crate::datapath::private::{PrivateError, PrivateProgram};
use crate::datapath::tables::lookup::{find_address, find_frontend};
use crate::datapath::tables::{Store, Table};
use crate::model::{Frontend, LocalDelivery, NextHopKey, NextHopState, Path, ServiceName, State};

const ENDPOINT_WORDS: usize = size_of::<abi::Endpoint>() / 8;

/// Every frontend and endpoint in force, with the count that was seen last.
#[derive(Debug, Default)]
pub(super) struct Attribution {
    frontends: Vec<(u32, u64, Frontend, ServiceName)>,
    endpoints: Vec<(u32, u64, IpAddr, ServiceName, Option<u32>)>,
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
    /// Finds in the tables where each frontend and endpoint of `state` counts.
    pub(super) fn new(store: &impl Store, state: &State) -> Self {
        let mut found = Self::default();
        for (name, service) in &state.services {
            let mut id = None;
            for frontend in &service.frontends {
                let vip = find_address(store, Table::Addresses, Address::from_ip(frontend.vip));
                let slot = vip.and_then(|vip| find_frontend(store, vip.id(), frontend.protocol, frontend.port));
                if let Some((slot, word)) = slot {
                    id = Some(word.service());
                    found.frontends.push((slot, 0, *frontend, name.clone()));
                }
            }
            let Some(id) = id else { continue };
            let block = Descriptor(store.load(Table::Services, id as usize)).block();
            for (index, endpoint) in service.endpoints.iter().enumerate() {
                let index = block + u32::try_from(index).unwrap_or(u32::MAX);
                let words: [u64; ENDPOINT_WORDS] = store.element(Table::Endpoints, index);
                let written: abi::Endpoint = transmute!(words);
                let interface = device(&endpoint.path, |key| state.next_hops.get(key));
                found.endpoints.push((written.counter, 0, endpoint.address, name.clone(), interface));
            }
        }
        found
    }

    /// Reads all counters: who has counted since the last call.
    pub(super) fn read(&mut self, program: &PrivateProgram) -> Result<Counted, PrivateError> {
        let mut counted = Counted::default();
        for (slot, seen, frontend, service) in &mut self.frontends {
            let now = program.frontend_counters(*slot)?;
            let now = now.directed.packets + now.delivered + now.dropped;
            if now != *seen {
                *seen = now;
                counted.frontend = Some(*frontend);
                counted.service = Some(service.clone());
            }
        }
        for (index, seen, address, service, interface) in &mut self.endpoints {
            let now = program.endpoint_counter(*index)?.packets;
            if now != *seen {
                *seen = now;
                counted.endpoint = Some(*address);
                counted.interface = *interface;
                counted.service.get_or_insert_with(|| service.clone());
            }
        }
        Ok(counted)
    }
}

fn device<'a>(path: &Path, next_hop: impl Fn(&NextHopKey) -> Option<&'a NextHopState>) -> Option<u32> {
    match path {
        Path::Tunnel { next_hop: key, .. } => next_hop(key).map(|next_hop| next_hop.egress.ifindex),
        Path::Local(LocalDelivery::Veth { ifindex, .. }) => Some(*ifindex),
        Path::Local(LocalDelivery::Local | LocalDelivery::None) | Path::Unreachable { .. } => None,
    }
}
