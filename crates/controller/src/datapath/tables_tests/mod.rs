//! Random sequences of operations, cut off anywhere, watched by readers.

mod changes;
mod lookups;
mod nat;
mod random;
mod readers;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use guenon_ebpf::abi::{self, Address, Row};
use guenon_ebpf::hash::{DEFAULT_KEY, Schedule};
use proptest::prelude::*;

use self::lookups::*;
use super::tables::lookup::{Flow, Found, direct, find_address, find_local, find_vip, is_target_port, translation};
use super::tables::{Capacities, Grace, NoReaders, Released, Store, Table, Tables, endpoint_shares, read_state};
use crate::apply::{DataPath, Operation, Refusal};
use crate::datapath::memory::Memory;
use crate::model::{
    Egress, EndpointState, Frontend, LocalDelivery, Mac, NextHopKey, NextHopState, Path, Protocol, ServiceName,
    ServiceState, State, TargetPorts,
};

const SMALL: Capacities =
    Capacities { services: 6, frontends: 16, endpoints: 64, row_pages: 12, locals: 64, flows: 64 };
const PORT: u16 = 6080;

fn open<S: Store>(store: S) -> Tables<S> {
    Tables::open(store, Box::<NoReaders>::default(), PORT, 7)
}

fn vip(n: u8) -> IpAddr {
    if n.is_multiple_of(2) {
        IpAddr::from(Ipv4Addr::new(203, 0, 113, n))
    } else {
        IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n.into()))
    }
}

fn hop_key(n: u8) -> NextHopKey {
    NextHopKey { interface: format!("eth{n}"), gateway: IpAddr::from([10, 0, 0, n]) }
}

fn hop(n: u8) -> NextHopState {
    NextHopState {
        mac: (!n.is_multiple_of(3)).then_some(Mac([2, 0, 0, 0, 0, n])),
        mtu: 1500 - u32::from(n),
        egress: Egress {
            ifindex: u32::from(n) + 2,
            mac: Mac([2, 0, 0, 0, 1, n]),
            mtu: 1500,
            tags: (0..u16::from(n % 3)).map(|tag| (0x8100, tag + 5)).collect(),
        },
    }
}

fn endpoint(n: u8) -> EndpointState {
    let v4 = IpAddr::from([10, 1, 0, n]);
    let v6 = IpAddr::from(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n.into()));
    let own6 = IpAddr::from(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0xffff));
    let own4 = IpAddr::from([10, 9, 9, 9]);
    let tunnel = |source, destination| Path::Tunnel { source, destination, next_hop: hop_key(1 + n % 2) };
    let nat = || Path::Local(LocalDelivery::Nat { ports: TargetPorts::default() });
    let (address, path) = match n % 8 {
        // Pods; on an address that is a tunnel address now and then, on one that is a VIP, of both families.
        _ if n >= NAT => match n % 4 {
            0 => (v4, nat()),
            1 => (v6, nat()),
            2 => (vip(10 + n % 3), nat()),
            _ => (vip(n % 5), nat()),
        },
        0 => (v4, tunnel(own4, v4)),
        1 => (v6, tunnel(own6, v6)),
        2 => (v6, tunnel(own4, IpAddr::from([10, 2, 0, n]))),
        3 => (v4, tunnel(own6, v6)),
        4 => (v4, Path::Local(LocalDelivery::Local)),
        5 => {
            (v4, Path::Local(LocalDelivery::Veth { ifindex: n.into(), mac: Some(Mac([2, 0, 0, 0, 2, n])), mtu: 1400 }))
        }
        6 => (v6, Path::Local(LocalDelivery::None)),
        _ => (v4, Path::Unreachable { destination: v6 }),
    };
    EndpointState { address, path }
}

/// Endpoints from this number on have delivery `Nat`.
const NAT: u8 = 24;

fn service(
    frontends: &[(u8, bool, u16)],
    endpoints: &[u8],
    log2: Option<u32>,
    seed: u16,
    client_ip: bool,
) -> ServiceState {
    let mut endpoints: Vec<_> = endpoints.iter().map(|n| endpoint(*n)).collect();
    endpoints.sort_by_key(|endpoint| endpoint.address);
    endpoints.dedup_by_key(|endpoint| endpoint.address);
    let count = endpoints.len() as u16;
    let rows = log2.filter(|_| count > 0).map_or(0, |log2| 1024u16 << log2);
    let row = |n: u16| Row::new(n.wrapping_mul(seed) % count, (n ^ seed) % count);
    let frontends: BTreeSet<Frontend> = frontends
        .iter()
        .map(|(n, tcp, port)| Frontend {
            vip: vip(*n),
            protocol: if *tcp { Protocol::Tcp } else { Protocol::Udp },
            port: *port,
        })
        .collect();
    for (n, endpoint) in endpoints.iter_mut().enumerate() {
        if let Path::Local(LocalDelivery::Nat { ports }) = &mut endpoint.path {
            let listens =
                |frontend: &Frontend| ((frontend.protocol, frontend.port), 8000 + frontend.port + seed + n as u16);
            *ports = Arc::new(frontends.iter().map(listens).collect());
        }
    }
    ServiceState { frontends, client_ip, endpoints, rows: (0..rows).map(row).collect() }
}

fn services() -> impl Strategy<Value = ServiceState> {
    let frontend = (0u8..5, any::<bool>(), 80u16..82);
    (
        prop::collection::vec(frontend, 0..4),
        prop::collection::btree_set(0u8..NAT + 12, 0..7),
        prop::option::of(0u32..2),
        0u16..4,
        any::<bool>(),
    )
        .prop_map(|(frontends, endpoints, log2, seed, client_ip)| {
            service(&frontends, &endpoints.into_iter().collect::<Vec<_>>(), log2, seed, client_ip)
        })
}

fn operations() -> impl Strategy<Value = Operation> {
    let name = (0u8..4).prop_map(|n| ServiceName::new("shop", format!("s{n}")));
    prop_oneof![
        8 => (name.clone(), services()).prop_map(|(name, state)| Operation::PutService(name, Arc::new(state))),
        3 => name.prop_map(Operation::RemoveService),
        2 => (0u8..6, any::<bool>()).prop_map(|(n, on)| Operation::SetOnNode(vip(n), on)),
        1 => (10u8..13).prop_map(|n| Operation::PutTunnel(vip(n))),
        1 => (10u8..13).prop_map(|n| Operation::RemoveTunnel(vip(n))),
        1 => (20u8..24).prop_map(|n| Operation::PutDirector(vip(n))),
        1 => (20u8..24).prop_map(|n| Operation::RemoveDirector(vip(n))),
        2 => (1u8..5, 0u8..9).prop_map(|(key, n)| Operation::PutNextHop(hop_key(key), hop(n))),
        1 => (3u8..5).prop_map(|n| Operation::RemoveNextHop(hop_key(n))),
    ]
}

/// What must be in force after operations: the obvious way.
#[derive(Clone, Default)]
struct Model {
    state: State,
    on_node: BTreeSet<IpAddr>,
}

impl Model {
    fn apply(&mut self, operation: &Operation) {
        let state = &mut self.state;
        match operation {
            Operation::PutTunnel(address) => drop(state.tunnels.insert(*address)),
            Operation::RemoveTunnel(address) => drop(state.tunnels.remove(address)),
            Operation::PutDirector(address) => drop(state.directors.insert(*address)),
            Operation::RemoveDirector(address) => drop(state.directors.remove(address)),
            Operation::PutNextHop(key, hop) => drop(state.next_hops.insert(key.clone(), hop.clone())),
            Operation::RemoveNextHop(key) => drop(state.next_hops.remove(key)),
            Operation::PutService(name, service) => {
                for other in state.services.values_mut() {
                    if !other.frontends.is_disjoint(&service.frontends) {
                        let mut changed = ServiceState::clone(other);
                        changed.drop_frontends(|frontend| service.frontends.contains(frontend));
                        *other = Arc::new(changed);
                    }
                }
                state.services.insert(name.clone(), service.clone());
            }
            Operation::RemoveService(name) => drop(state.services.remove(name)),
            Operation::SetOnNode(address, true) => drop(self.on_node.insert(*address)),
            Operation::SetOnNode(address, false) => drop(self.on_node.remove(address)),
        }
        let vips: BTreeSet<IpAddr> = frontends(state).keys().map(|frontend| frontend.vip).collect();
        state.on_node = &self.on_node & &vips;
    }
}

fn with_hops<S: Store>(store: S) -> (Tables<S>, Model) {
    let (mut tables, mut model) = (open(store), Model::default());
    for n in 1..3 {
        let operation = Operation::PutNextHop(hop_key(n), hop(n));
        tables.execute(&operation).unwrap();
        model.apply(&operation);
    }
    (tables, model)
}
