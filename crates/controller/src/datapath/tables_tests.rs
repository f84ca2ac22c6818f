//! Random sequences of operations, cut off anywhere, watched by readers.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use guenon_ebpf::abi::{self, Address, Row};
use guenon_ebpf::hash::{DEFAULT_KEY, Schedule};
use proptest::prelude::*;

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

fn frontends(state: &State) -> BTreeMap<Frontend, ServiceName> {
    let of = |(name, service): (&ServiceName, &Arc<ServiceState>)| {
        service.frontends.iter().map(|frontend| (*frontend, name.clone())).collect::<Vec<_>>()
    };
    state.services.iter().flat_map(of).collect()
}

/// Lookups say what the state says: for the director and for the decap role.
fn assert_lookups(store: &impl Store, state: &State) {
    let schedule = Schedule::new(DEFAULT_KEY);
    for (frontend, name) in frontends(state) {
        let service = &state.services[&name];
        for source_port in 1000..1010 {
            let flow = flow_to(&frontend, source_port);
            match direct(store, &schedule, &flow) {
                Found::NoBackend { .. } => assert!(service.rows.is_empty(), "{frontend} of {name}"),
                Found::Endpoint { row, endpoint, .. } => {
                    let expected = &service.endpoints[usize::from(row.primary())];
                    assert_eq!(Address::from_bytes(endpoint.address).to_ip(), expected.address);
                    assert!(service.rows.contains(&row));
                }
                other @ (Found::NotAVip | Found::Tunnel | Found::NoFrontend { .. }) => {
                    panic!("{frontend} of {name} leads to {other:?}")
                }
            }
        }
        let tag = find_address(store, Table::Addresses, Address::from_ip(frontend.vip)).unwrap();
        assert_eq!(tag.on_node(), state.on_node.contains(&frontend.vip));
        assert_eq!(vip_told(store, tag.id()), Address::from_ip(frontend.vip), "replies get their VIP back");
        for endpoint in &service.endpoints {
            let address = Address::from_ip(endpoint.address);
            for port in [frontend.port, 0] {
                let found = find_local(store, tag.id(), frontend.protocol, port, address);
                match &endpoint.path {
                    Path::Local(delivery) => {
                        let found = found.unwrap_or_else(|| panic!("{frontend} for {}", endpoint.address));
                        let expected = written(delivery, frontend.protocol, port);
                        // Fragments are delivered as to the least port, of which a killed writer may have forgotten where it leads.
                        let forgotten =
                            port == 0 && found.delivery == abi::Delivery::default() && some_port_is_lost(state);
                        assert!(forgotten || found.delivery == expected, "{frontend}, {port}: {found:?}, {expected:?}");
                        if found.delivery.port != 0 {
                            let (protocol, listens) = (frontend.protocol, found.delivery.port);
                            assert!(is_target_port(store, protocol, listens), "{frontend}: replies pass untouched");
                            let sent = translation(store, tag.id(), protocol, port, address);
                            assert_eq!(sent, Some((address, listens)));
                        }
                        assert_eq!(found.frontend == u32::MAX, port == 0);
                    }
                    Path::Tunnel { .. } | Path::Unreachable { .. } => assert_eq!(found, None),
                }
            }
        }
    }
    // Addresses of endpoints that are neither VIPs nor tunnel addresses are told as such, and no others.
    let vips: BTreeSet<IpAddr> = frontends(state).keys().map(|frontend| frontend.vip).collect();
    for n in 0..NAT + 12 {
        let address = endpoint(n).address;
        if !vips.contains(&address) && !state.tunnels.contains(&address) {
            let tag = find_address(store, Table::Addresses, Address::from_ip(address));
            let is_told = tag.is_some_and(|tag| tag.kind() == abi::AddressKind::Endpoint as u8);
            assert_eq!(is_told, nat_endpoints(state).contains(&address), "{address}");
        }
    }
    for n in 0..5 {
        for port in 80..82 {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let frontend = Frontend { vip: vip(n), protocol, port };
                if !frontends(state).contains_key(&frontend) {
                    let found = direct(store, &schedule, &flow_to(&frontend, 1));
                    assert!(matches!(found, Found::NotAVip | Found::NoFrontend { .. }), "{frontend}: {found:?}");
                }
            }
        }
    }
}

/// Endpoints of this node with delivery `Nat`.
fn nat_endpoints(state: &State) -> BTreeSet<IpAddr> {
    let endpoints = state.services.values().flat_map(|service| &service.endpoints);
    let nat = endpoints.filter(|endpoint| matches!(endpoint.path, Path::Local(LocalDelivery::Nat { .. })));
    nat.map(|endpoint| endpoint.address).collect()
}

fn vip_told(store: &impl Store, id: u32) -> Address {
    let [hi, lo, _]: [u64; 3] = store.element(Table::Vips, id);
    Address { hi, lo }
}

/// A service whose endpoints of delivery `Nat` tell no ports.
fn without_ports(service: &ServiceState) -> ServiceState {
    let mut service = service.clone();
    for endpoint in &mut service.endpoints {
        if let Path::Local(LocalDelivery::Nat { ports }) = &mut endpoint.path {
            *ports = TargetPorts::default();
        }
    }
    service
}

/// Whether some endpoint of delivery `Nat` has a frontend for which it is not known where it listens.
fn some_port_is_lost(state: &State) -> bool {
    state.services.values().any(|service| {
        let asked: BTreeSet<_> = service.frontends.iter().map(|frontend| (frontend.protocol, frontend.port)).collect();
        let told = |endpoint: &EndpointState| match &endpoint.path {
            Path::Local(LocalDelivery::Nat { ports }) => ports.len() == asked.len(),
            Path::Local(_) | Path::Tunnel { .. } | Path::Unreachable { .. } => true,
        };
        !service.endpoints.iter().all(told)
    })
}

/// Where each endpoint of delivery `Nat` listens.
fn target_ports(service: &ServiceState) -> BTreeSet<(IpAddr, Protocol, u16, u16)> {
    let mut all = BTreeSet::new();
    for endpoint in &service.endpoints {
        if let Path::Local(LocalDelivery::Nat { ports }) = &endpoint.path {
            all.extend(ports.iter().map(|((protocol, port), listens)| (endpoint.address, *protocol, *port, *listens)));
        }
    }
    all
}

/// A delivery as the program reads it, for frontends of this protocol and port; 0: for fragments after the first.
fn written(delivery: &LocalDelivery, protocol: Protocol, port: u16) -> abi::Delivery {
    let nat = |port| abi::Delivery { mode: abi::DeliveryMode::Nat as u8, port, ..abi::Delivery::default() };
    match delivery {
        LocalDelivery::Nat { .. } if port == 0 => nat(0),
        // A port that was forgotten by a writer that was killed: nothing is delivered until it is written anew.
        LocalDelivery::Nat { ports } => {
            ports.get(&(protocol, port)).map_or(abi::Delivery::default(), |port| nat(*port))
        }
        LocalDelivery::None => abi::Delivery::default(),
        LocalDelivery::Local => abi::Delivery { mode: abi::DeliveryMode::Local as u8, ..abi::Delivery::default() },
        LocalDelivery::Veth { ifindex, mac, mtu } => abi::Delivery {
            mac: mac.map_or([0; 6], |mac| mac.0),
            mode: abi::DeliveryMode::Veth as u8,
            reserved: 0,
            ifindex: *ifindex,
            mtu: u16::try_from(*mtu).expect("an MTU of a test"),
            port: 0,
        },
    }
}

/// Destination port in a tunnel's header.
fn gue_port(endpoint: &abi::Endpoint) -> Option<u16> {
    let udp = match endpoint.kind {
        kind if kind == abi::EndpointKind::Tunnel4 as u8 => 20,
        kind if kind == abi::EndpointKind::Tunnel6 as u8 => 40,
        _ => return None,
    };
    Some(u16::from_be_bytes([endpoint.header[udp + 2], endpoint.header[udp + 3]]))
}

fn flow_to(frontend: &Frontend, source_port: u16) -> Flow {
    Flow {
        source: IpAddr::from([198, 51, 100, 7]),
        destination: frontend.vip,
        protocol: frontend.protocol,
        source_port,
        destination_port: frontend.port,
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

/// Memory whose writes come to nothing after some number of them: a process that was killed.
#[derive(Clone)]
struct Dying {
    memory: Memory,
    left: std::rc::Rc<Cell<u64>>,
}

impl Store for Dying {
    fn words(&self, table: Table) -> &[AtomicU64] {
        self.memory.words(table)
    }
    fn prepare(&self, table: Table, word: usize, value: u64) {
        if let Some(left) = self.left.get().checked_sub(1) {
            self.left.set(left);
            self.memory.prepare(table, word, value);
        }
    }
    fn publish(&self, table: Table, word: usize, value: u64) {
        if let Some(left) = self.left.get().checked_sub(1) {
            self.left.set(left);
            self.memory.publish(table, word, value);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn what_is_observed_is_what_was_put(
        steps in prop::collection::vec((operations(), any::<bool>(), prop::bool::weighted(0.1)), 1..40)
    ) {
        let memory = Memory::new(&SMALL);
        let (mut tables, mut model) = with_hops(memory.clone());
        for (operation, commit, restart) in steps {
            match tables.execute(&operation) {
                Ok(()) => model.apply(&operation),
                Err(Refusal::Full { .. }) => {}
                Err(refusal @ Refusal::Inconsistent(_)) => panic!("{refusal}"),
            }
            if commit {
                tables.commit();
            }
            if restart {
                tables = open(memory.clone());
                model.on_node = model.state.on_node.clone();
            }
            prop_assert_eq!(&tables.observe(), &model.state);
            assert_lookups(&memory, &model.state);
        }
        // All that was taken is given back.
        for name in model.state.services.keys() {
            tables.execute(&Operation::RemoveService(name.clone())).unwrap();
        }
        tables.commit();
        tables.settle();
        for occupancy in tables.occupancy() {
            let left = match occupancy.map {
                abi::map::ADDRESSES => model.state.tunnels.len(),
                abi::map::DIRECTORS => model.state.directors.len(),
                abi::map::NEXT_HOPS => model.state.next_hops.len(),
                abi::map::INTERFACES => model.state.next_hops.values().map(|hop| &hop.egress).collect::<BTreeSet<_>>().len(),
                _ => 0,
            };
            prop_assert_eq!(occupancy.used, left, "{}", occupancy.map);
        }
        prop_assert!(memory.words(Table::Frontends).iter().all(|word| word.load(Ordering::Relaxed) == 0));
        prop_assert!((0..memory.elements(Table::Vips)).all(|id| vip_told(&memory, id) == Address::default()));
        prop_assert!(memory.words(Table::Locals).iter().all(|word| word.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn a_writer_killed_anywhere_leaves_what_the_next_one_mends(
        before in prop::collection::vec(operations(), 0..12),
        last in operations(),
        left in 0u64..1400,
        after in prop::collection::vec(operations(), 0..6),
    ) {
        let memory = Memory::new(&SMALL);
        let left_cell = std::rc::Rc::new(Cell::new(u64::MAX));
        let (mut tables, mut model) = with_hops(Dying { memory: memory.clone(), left: left_cell.clone() });
        for operation in before {
            if tables.execute(&operation).is_ok() {
                model.apply(&operation);
            }
            tables.commit();
        }
        left_cell.set(left);
        let mut then = model.clone();
        if tables.execute(&last).is_ok() {
            then.apply(&last);
        }
        drop(tables);

        let mut tables = open(memory.clone());
        let found = tables.observe();
        for (name, service) in &found.services {
            let part = |whole: &State| whole.services.get(name).is_some_and(|whole| {
                let (whole, found) = (without_ports(whole), without_ports(service));
                whole.rows == found.rows && whole.endpoints == found.endpoints && whole.client_ip == found.client_ip
            });
            prop_assert!(part(&model.state) || part(&then.state), "{name} is neither old nor new");
            // Each target port is old or new, or not told.
            let of = |whole: &State| whole.services.get(name).map(|whole| target_ports(whole)).unwrap_or_default();
            let known = &of(&model.state) | &of(&then.state);
            prop_assert!(target_ports(service).is_subset(&known), "{name} has target ports of its own");
        }
        let (old, new) = (frontends(&model.state), frontends(&then.state));
        for (frontend, name) in frontends(&found) {
            prop_assert!(old.get(&frontend) == Some(&name) || new.get(&frontend) == Some(&name), "{frontend}");
        }
        for (frontend, name) in &old {
            if new.get(frontend) == Some(name) {
                let still = frontends(&found);
                prop_assert_eq!(still.get(frontend), Some(name), "an untouched frontend is lost");
            }
        }
        assert_lookups(&memory, &found);

        // The next writer brings it to what shall be, and goes on from there.
        let mut model = then;
        let wanted = model.clone();
        for name in found.services.keys().filter(|name| !wanted.state.services.contains_key(name)) {
            tables.execute(&Operation::RemoveService(name.clone())).unwrap();
        }
        for address in &found.tunnels - &wanted.state.tunnels {
            tables.execute(&Operation::RemoveTunnel(address)).unwrap();
        }
        for address in &wanted.state.tunnels - &found.tunnels {
            tables.execute(&Operation::PutTunnel(address)).unwrap();
        }
        for address in &found.directors - &wanted.state.directors {
            tables.execute(&Operation::RemoveDirector(address)).unwrap();
        }
        for address in &wanted.state.directors - &found.directors {
            tables.execute(&Operation::PutDirector(address)).unwrap();
        }
        for (key, hop) in &wanted.state.next_hops {
            tables.execute(&Operation::PutNextHop(key.clone(), hop.clone())).unwrap();
        }
        for n in 0..6 {
            tables.execute(&Operation::SetOnNode(vip(n), wanted.on_node.contains(&vip(n)))).unwrap();
        }
        for (name, service) in &wanted.state.services {
            tables.execute(&Operation::PutService(name.clone(), service.clone())).unwrap();
        }
        for key in found.next_hops.keys().filter(|key| !wanted.state.next_hops.contains_key(key)) {
            tables.execute(&Operation::RemoveNextHop(key.clone())).unwrap();
        }
        prop_assert_eq!(&tables.observe(), &model.state);
        for operation in after {
            if tables.execute(&operation).is_ok() {
                model.apply(&operation);
            }
            tables.commit();
        }
        prop_assert_eq!(&tables.observe(), &model.state);
        assert_lookups(&memory, &model.state);
    }
}

/// Grace periods among threads: readers hold the lock while they look.
struct Threads {
    lock: Arc<RwLock<()>>,
    asked: u64,
}

impl Grace for Threads {
    fn request(&mut self) -> u64 {
        drop(self.lock.write().unwrap());
        self.asked += 1;
        self.asked
    }
    fn passed(&mut self) -> u64 {
        self.asked
    }
    fn wait(&mut self, _number: u64) {}
}

#[test]
fn readers_never_miss_a_live_frontend_nor_see_a_mixture() {
    let memory = Memory::new(&SMALL);
    let lock = Arc::new(RwLock::new(()));
    let mut tables = Tables::open(memory.clone(), Box::new(Threads { lock: lock.clone(), asked: 0 }), PORT, 0);
    for n in 1..3 {
        tables.execute(&Operation::PutNextHop(hop_key(n), hop(n))).unwrap();
    }
    // Even generations hold endpoints 0..4, odd ones 8..12; every row names its primary twice.
    let generation = |n: u64| {
        let endpoints: Vec<u8> = if n.is_multiple_of(2) { vec![0, 1, 2, 3] } else { vec![8, 9, 10, 11, 4] };
        Arc::new(service(&[(0, true, 80), (1, true, 80)], &endpoints, Some(0), 3, false))
    };
    let kept = ServiceName::new("shop", "kept");
    tables.execute(&Operation::PutService(kept.clone(), generation(0))).unwrap();
    tables.commit();
    let stop = AtomicBool::new(false);
    let looked = AtomicU64::new(0);
    let wholes = [generation(0), generation(1)];
    std::thread::scope(|scope| {
        for reader in 0..2u16 {
            let (memory, lock, stop, looked, wholes) = (memory.clone(), &lock, &stop, &looked, &wholes);
            scope.spawn(move || {
                let schedule = Schedule::new(DEFAULT_KEY);
                let mut port = reader;
                while !stop.load(Ordering::Relaxed) {
                    port = port.wrapping_add(1);
                    let frontend = Frontend { vip: vip((port % 2) as u8), protocol: Protocol::Tcp, port: 80 };
                    let guard = lock.read().unwrap();
                    let found = direct(&memory, &schedule, &flow_to(&frontend, port));
                    drop(guard);
                    let Found::Endpoint { row, endpoint, .. } = found else { panic!("{frontend}: {found:?}") };
                    let address = Address::from_bytes(endpoint.address).to_ip();
                    let belongs = |whole: &Arc<ServiceState>| {
                        whole.endpoints.get(usize::from(row.primary())).is_some_and(|e| e.address == address)
                    };
                    assert!(wholes.iter().any(belongs), "{address} in row {row:?}");
                    looked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut n = 0;
        while looked.load(Ordering::Relaxed) < 200_000 || n < 300 {
            n += 1;
            tables.execute(&Operation::PutService(kept.clone(), generation(n))).unwrap();
            // Others come and go around it: same tables, same slots' neighbours.
            let other = ServiceName::new("shop", format!("s{}", n % 3));
            let ports: Vec<_> = (0..3).map(|k| (((n + k) % 5) as u8, k == 1, 90 + (n % 7) as u16)).collect();
            if n % 4 == 0 {
                tables.execute(&Operation::RemoveService(other)).unwrap();
            } else {
                let put = Operation::PutService(other, Arc::new(service(&ports, &[4, 5, 12], Some(0), 1, true)));
                tables.execute(&put).unwrap();
            }
            tables.commit();
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_change_costs_what_it_changes() {
    let memory = Memory::new(&SMALL);
    let (mut tables, _) = with_hops(memory.clone());
    let name = ServiceName::new("shop", "web");
    let put = |tables: &mut Tables<Memory>, state: ServiceState| {
        tables.execute(&Operation::PutService(name.clone(), Arc::new(state))).unwrap();
        tables.commit();
    };
    let snapshot = |memory: &Memory| -> BTreeMap<Table, Vec<u64>> {
        let words = |table| memory.words(table).iter().map(|word| word.load(Ordering::Relaxed)).collect();
        Table::ALL.into_iter().filter(|table| *table != Table::Meta).map(|table| (table, words(table))).collect()
    };
    let changed = |before: &BTreeMap<Table, Vec<u64>>, after: &BTreeMap<Table, Vec<u64>>| -> Vec<(Table, usize)> {
        let count = |table: &Table| before[table].iter().zip(&after[table]).filter(|(a, b)| a != b).count();
        before.keys().map(|table| (*table, count(table))).filter(|(_, count)| *count > 0).collect()
    };
    put(&mut tables, service(&[(0, true, 80)], &[0, 8, 5], Some(0), 3, false));

    // The same again: nothing.
    let before = snapshot(&memory);
    put(&mut tables, service(&[(0, true, 80)], &[0, 8, 5], Some(0), 3, false));
    assert_eq!(changed(&before, &snapshot(&memory)), []);

    // Another MAC for a next hop: one word.
    let mut gateway = hop(1);
    gateway.mac = Some(Mac([6; 6]));
    tables.execute(&Operation::PutNextHop(hop_key(1), gateway)).unwrap();
    let after = snapshot(&memory);
    assert_eq!(changed(&before, &after), [(Table::NextHops, 1)]);

    // Other rows, same endpoints: the descriptor and rows.
    put(&mut tables, service(&[(0, true, 80)], &[0, 8, 5], Some(0), 2, false));
    let before = snapshot(&memory);
    let tables_changed: Vec<Table> = changed(&after, &before).into_iter().map(|(table, _)| table).collect();
    assert_eq!(tables_changed, [Table::Services, Table::Rows]);

    // Another endpoint, rows that say the same: the descriptor and endpoints.
    let mut other = service(&[(0, true, 80)], &[0, 8, 5], Some(0), 2, false);
    let Path::Tunnel { next_hop, .. } = &mut other.endpoints[0].path else { panic!("endpoint 0 is behind a tunnel") };
    *next_hop = hop_key(2);
    put(&mut tables, other);
    let tables_changed: Vec<Table> = changed(&before, &snapshot(&memory)).into_iter().map(|(table, _)| table).collect();
    assert_eq!(tables_changed, [Table::Services, Table::Endpoints]);
}

#[test]
fn counters_stay_with_their_endpoints() {
    let memory = Memory::new(&SMALL);
    let (mut tables, _) = with_hops(memory.clone());
    let name = ServiceName::new("shop", "web");
    let counters = |memory: &Memory| -> BTreeMap<IpAddr, u32> {
        let schedule = Schedule::new(DEFAULT_KEY);
        let frontend = Frontend { vip: vip(0), protocol: Protocol::Tcp, port: 80 };
        (0..4000)
            .filter_map(|port| match direct(memory, &schedule, &flow_to(&frontend, port)) {
                Found::Endpoint { endpoint, .. } => {
                    Some((Address::from_bytes(endpoint.address).to_ip(), endpoint.counter))
                }
                Found::NotAVip | Found::Tunnel | Found::NoFrontend { .. } | Found::NoBackend { .. } => None,
            })
            .collect()
    };
    let put = |tables: &mut Tables<Memory>, endpoints: &[u8]| {
        let state = service(&[(0, true, 80)], endpoints, Some(0), 1, false);
        tables.execute(&Operation::PutService(name.clone(), Arc::new(state))).unwrap();
        tables.commit();
        tables.settle();
    };
    put(&mut tables, &[0, 8, 16]);
    let first = counters(&memory);
    assert_eq!(first.values().collect::<BTreeSet<_>>().len(), 3);
    put(&mut tables, &[0, 16, 3]);
    let second = counters(&memory);
    for n in [0, 16] {
        let address = endpoint(n).address;
        assert_eq!(first[&address], second[&address]);
    }
    let gone = first[&endpoint(8).address];
    assert!(tables.take_released().contains(&Released::Endpoint(gone)));
}

#[test]
fn shares_are_those_of_the_rows() {
    let memory = Memory::new(&SMALL);
    let (mut tables, _) = with_hops(memory.clone());
    let (with_rows, without) = (ServiceName::new("shop", "rows"), ServiceName::new("shop", "none"));
    let mut state = service(&[(1, true, 80)], &[4, 12, 20], Some(0), 1, false);
    // A quarter, three quarters, nothing.
    state.rows = (0..1024).map(|n| Row::new(u16::from(n % 4 != 0), 2)).collect();
    let addresses: Vec<IpAddr> = state.endpoints.iter().map(|endpoint| endpoint.address).collect();
    tables.execute(&Operation::PutService(with_rows.clone(), Arc::new(state))).unwrap();
    let none = service(&[(1, true, 81)], &[4], None, 1, false);
    tables.execute(&Operation::PutService(without, Arc::new(none))).unwrap();
    tables.commit();
    let expected = addresses.into_iter().zip([0.25, 0.75, 0.0]).map(|(address, of)| ((with_rows.clone(), address), of));
    assert_eq!(endpoint_shares(&memory), expected.collect::<BTreeMap<_, _>>());
}

#[test]
fn a_service_that_does_not_fit_changes_nothing() {
    let memory = Memory::new(&Capacities { row_pages: 3, ..SMALL });
    let (mut tables, _) = with_hops(memory);
    let put = |name: &str, log2, port| {
        let state = service(&[(0, true, port)], &[0, 8], Some(log2), 3, false);
        Operation::PutService(ServiceName::new("shop", name), Arc::new(state))
    };
    tables.execute(&put("a", 1, 80)).unwrap();
    let before = tables.observe();
    let refusal = tables.execute(&put("b", 1, 81)).unwrap_err();
    assert!(matches!(refusal, Refusal::Full { map: "ROWS", needed: 2, free: 1, capacity: 3, .. }), "{refusal}");
    assert!(refusal.to_string().contains("--max-row-pages"), "{refusal}");
    assert_eq!(tables.observe(), before);
    tables.execute(&put("b", 0, 81)).unwrap();
}

#[test]
fn another_gue_port_is_written_to_tunnels_that_are_in_force() {
    let memory = Memory::new(&SMALL);
    let (mut tables, _) = with_hops(memory.clone());
    let state = Arc::new(service(&[(0, true, 80)], &[0, 1, 5], Some(0), 3, false));
    tables.execute(&Operation::PutService(ServiceName::new("shop", "web"), state)).unwrap();
    let before = read_state(&memory);
    drop(Tables::open(memory.clone(), Box::<NoReaders>::default(), 7000, 0));
    assert_eq!(read_state(&memory), before);
    let frontend = Frontend { vip: vip(0), protocol: Protocol::Tcp, port: 80 };
    let ports: BTreeSet<u16> = (0..2000)
        .filter_map(|port| match direct(&memory, &Schedule::new(DEFAULT_KEY), &flow_to(&frontend, port)) {
            Found::Endpoint { endpoint, .. } => gue_port(&endpoint),
            Found::NotAVip | Found::Tunnel | Found::NoFrontend { .. } | Found::NoBackend { .. } => None,
        })
        .collect();
    assert_eq!(ports, [7000].into());
}

#[test]
fn a_vips_id_is_told_before_it_is_in_force_and_void_for_the_next_one() {
    let memory = Memory::new(&SMALL);
    let (mut tables, _) = with_hops(memory.clone());
    let name = ServiceName::new("shop", "web");
    let put = |tables: &mut Tables<Memory>, vip: u8| {
        let state = service(&[(vip, true, 80)], &[NAT], Some(0), 1, false);
        tables.execute(&Operation::PutService(name.clone(), Arc::new(state))).unwrap();
        tables.commit();
    };
    let id = |n: u8| find_address(&memory, Table::Addresses, Address::from_ip(vip(n))).expect("a VIP").id();
    put(&mut tables, 0);
    let first = id(0);
    assert_eq!(find_vip(&memory, first, 0), Some(Address::from_ip(vip(0))));
    put(&mut tables, 1);
    tables.settle();
    assert_eq!(find_vip(&memory, first, 0), None, "replies of its flows leave as they are");
    assert_eq!(vip_told(&memory, first), Address::default());
    // All other ids come first; then the next VIP gets it, of another generation.
    let elements = memory.elements(Table::Vips);
    let last = (0..elements).map(|n| (n % 5) as u8).find(|n| {
        put(&mut tables, *n);
        tables.settle();
        id(*n) == first
    });
    let last = last.expect("ids are used again");
    assert_eq!(find_vip(&memory, first, 0), None);
    assert_eq!(find_vip(&memory, first, 1), Some(Address::from_ip(vip(last))));
}

#[test]
fn another_target_port_is_one_word_of_a_local_delivery_and_its_bit_comes_first() {
    let memory = Memory::new(&SMALL);
    let (mut tables, _) = with_hops(memory.clone());
    let name = ServiceName::new("shop", "web");
    let state = |seed| Arc::new(service(&[(0, true, 80), (0, false, 81)], &[NAT], None, seed, false));
    tables.execute(&Operation::PutService(name.clone(), state(0))).unwrap();
    let block =
        |memory: &Memory| memory.words(Table::Endpoints).iter().map(|w| w.load(Ordering::Relaxed)).collect::<Vec<_>>();
    let before = block(&memory);
    tables.execute(&Operation::PutService(name, state(5))).unwrap();
    assert_eq!(block(&memory), before);
    let pod = Address::from_ip(endpoint(NAT).address);
    let id = find_address(&memory, Table::Addresses, Address::from_ip(vip(0))).expect("a VIP").id();
    assert_eq!(translation(&memory, id, Protocol::Tcp, 80, pod), Some((pod, 8085)));
    assert_eq!(translation(&memory, id, Protocol::Udp, 81, pod), Some((pod, 8086)));
    assert_eq!(translation(&memory, id, Protocol::Udp, 0, pod), Some((pod, 0)), "a fragment after the first");
    assert_eq!(translation(&memory, id, Protocol::Tcp, 81, pod), None);
    assert!(is_target_port(&memory, Protocol::Tcp, 8085) && is_target_port(&memory, Protocol::Udp, 8086));
    assert!(!is_target_port(&memory, Protocol::Udp, 8085));
    // A bit that nobody needs stays until the tables are opened anew.
    assert!(is_target_port(&memory, Protocol::Tcp, 8080));
    drop(open(memory.clone()));
    assert!(!is_target_port(&memory, Protocol::Tcp, 8080) && is_target_port(&memory, Protocol::Tcp, 8085));
}

#[test]
fn in_other_tables_vips_keep_their_ids_and_void_ones_stay_void() {
    let old = Memory::new(&SMALL);
    let (mut tables, _) = with_hops(old.clone());
    let put = |tables: &mut Tables<Memory>, name: &str, vip: u8| {
        let state = Arc::new(service(&[(vip, true, 80)], &[NAT + vip], Some(0), 1, false));
        tables.execute(&Operation::PutService(ServiceName::new("shop", name), state)).unwrap();
    };
    for (name, vip) in [("c", 0), ("b", 1), ("a", 2)] {
        put(&mut tables, name, vip);
    }
    tables.execute(&Operation::RemoveService(ServiceName::new("shop", "b"))).unwrap();
    tables.commit();
    tables.settle();

    let new = Memory::new(&Capacities { frontends: 32, ..SMALL });
    let (mut tables, _) = with_hops(new.clone());
    tables.keep_ids(&old);
    for (name, vip) in [("a", 2), ("c", 0)] {
        put(&mut tables, name, vip);
    }
    tables.forget_ids();
    let id =
        |memory: &Memory, n: u8| find_address(memory, Table::Addresses, Address::from_ip(vip(n))).expect("a VIP").id();
    for n in [0, 2] {
        assert_eq!(id(&new, n), id(&old, n));
        assert_eq!(find_vip(&new, id(&new, n), 0), Some(Address::from_ip(vip(n))));
    }
    put(&mut tables, "b", 1);
    let taken: BTreeSet<u32> = (0..3).map(|n| id(&new, n)).collect();
    assert_eq!(taken.len(), 3, "no id is given twice");
    assert_eq!(find_vip(&new, 1, 0), None, "it was another VIP's");
}
