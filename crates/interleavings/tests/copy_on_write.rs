//! One writer and its readers under every interleaving: a reader sees the old or the new, whole, and no live
//! frontend, address or delivery is ever hidden.

use std::collections::BTreeMap;
use std::net::IpAddr;

use guenon_ebpf::abi::{self, Address, FrontendSlot, Row};
use guenon_ebpf::hash::{DEFAULT_KEY, Schedule};
use guenon_ebpf::probe::{home_of_address, home_of_frontend};
use guenon_interleavings::apply::{DataPath, Operation};
use guenon_interleavings::datapath::atomic::AtomicU64;
use guenon_interleavings::datapath::tables::lookup::{
    Flow, Found, direct, find_address, find_local, find_vip, is_target_port, translation,
};
use guenon_interleavings::datapath::tables::{Grace, NoReaders, Store, Table, Tables};
use guenon_interleavings::model::{
    EndpointState, Frontend, LocalDelivery, Mac, Path, Protocol, ServiceName, ServiceState,
};
use loom::sync::{Arc, RwLock};
use loom::thread;

/// Tables as small as they can be.
#[derive(Clone)]
struct Model(Arc<BTreeMap<Table, Vec<AtomicU64>>>);

/// Elements of the tables that a model needs.
#[derive(Clone, Copy)]
struct Sizes {
    slots: usize,
    services: usize,
    pages: usize,
    endpoints: usize,
}

const PAGE_ROWS: u32 = 2;

impl Model {
    fn new(sizes: Sizes) -> Self {
        let elements = |table: Table| match table {
            Table::Addresses | Table::Frontends | Table::Locals => sizes.slots,
            Table::Services | Table::ServiceNames => sizes.services,
            Table::Rows => sizes.pages,
            Table::Endpoints => sizes.endpoints,
            Table::Directors
            | Table::NextHops
            | Table::NextHopKeys
            | Table::Interfaces
            | Table::Attachments
            | Table::Flows
            | Table::Meta => 1,
            // VIPs of one model, and TCP's ports below 128.
            Table::Vips | Table::TargetPorts => 2,
        };
        let words = |table: Table| {
            elements(table) * if table == Table::Rows { PAGE_ROWS as usize / 2 } else { table.element_words() }
        };
        let table = |table: Table| (table, (0..words(table)).map(|_| AtomicU64::new(0)).collect());
        Self(Arc::new(Table::ALL.into_iter().map(table).collect()))
    }
}

impl Store for Model {
    fn words(&self, table: Table) -> &[AtomicU64] {
        &self.0[&table]
    }
    fn page_rows(&self) -> u32 {
        PAGE_ROWS
    }
}

/// Grace periods: readers hold the lock while they look, as programs hold RCU's read side.
struct Rcu(Arc<RwLock<()>>, u64);

impl Grace for Rcu {
    fn request(&mut self) -> u64 {
        self.1 += 1;
        drop(self.0.write().expect("no reader panics"));
        self.1
    }
    fn passed(&mut self) -> u64 {
        self.1
    }
    fn wait(&mut self, _number: u64) {}
}

fn explore(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 100_000;
    builder.check(model);
}

fn vip(n: u8) -> IpAddr {
    [203, 0, 113, n].into()
}

fn name(n: u16) -> ServiceName {
    ServiceName::new("s", n.to_string())
}

/// A service with one endpoint, whose address and way both tell the generation.
fn service(ports: &[u16], generation: u8) -> std::sync::Arc<ServiceState> {
    std::sync::Arc::new(ServiceState {
        frontends: ports.iter().map(|port| frontend(*port)).collect(),
        client_ip: false,
        endpoints: (0..=generation % 2)
            .map(|n| EndpointState {
                address: [10, n, 0, generation].into(),
                path: Path::Unreachable { destination: [172, 16, n, generation].into() },
            })
            .collect(),
        // An odd generation's rows name its second endpoint.
        rows: (0..PAGE_ROWS).map(|_| Row::new(u16::from(generation % 2), 0)).collect(),
    })
}

fn frontend(port: u16) -> Frontend {
    Frontend { vip: vip(1), protocol: Protocol::Tcp, port }
}

/// The generation that a packet to this port is sent by; everything about it is checked.
fn generation_at(store: &Model, port: u16) -> Option<u8> {
    let flow = Flow {
        source: [198, 51, 100, 1].into(),
        destination: vip(1),
        protocol: Protocol::Tcp,
        source_port: 7,
        destination_port: port,
    };
    match direct(store, &Schedule::new(DEFAULT_KEY), &flow) {
        Found::Endpoint { row, endpoint, .. } => {
            let address = Address::from_bytes(endpoint.address).to_ip();
            let way = Address::from_bytes(std::array::from_fn(|n| endpoint.header[n])).to_ip();
            let IpAddr::V4(v4) = address else { panic!("{address} was never written") };
            let [_, n, _, generation] = v4.octets();
            assert_eq!(row.primary(), u16::from(n), "a mixture of row and endpoint");
            assert_eq!(n, generation % 2, "a mixture of row and endpoint");
            assert_eq!(way, IpAddr::from([172, 16, n, generation]), "a mixture of endpoints");
            Some(generation)
        }
        Found::NotAVip | Found::Tunnel | Found::NoFrontend { .. } | Found::NoBackend { .. } => None,
    }
}

/// A writer that goes from generation 0 to 1 to 2, with room for two at a time, and a reader.
fn three_generations(grace: impl Fn(Arc<RwLock<()>>) -> Box<dyn Grace> + Sync + Send + 'static) {
    explore(move || {
        let store = Model::new(Sizes { slots: 4, services: 1, pages: 2, endpoints: 4 });
        let lock = Arc::new(RwLock::new(()));
        let mut tables = Tables::open(store.clone(), grace(lock.clone()), 6080, 0);
        let put = |generation| Operation::PutService(name(0), service(&[80], generation));
        tables.execute(&put(0)).expect("there is room");
        let reader = thread::spawn(move || {
            let _reading = lock.read().expect("the writer does not panic");
            assert!(generation_at(&store, 80).is_some(), "a live frontend is hidden");
        });
        for generation in 1..3 {
            tables.execute(&put(generation)).expect("there is room after a grace period");
            tables.commit();
        }
        reader.join().expect("the reader does not panic");
    });
}

#[test]
fn a_packet_sees_one_generation_whole() {
    three_generations(|lock| Box::new(Rcu(lock, 0)));
}

/// The model sees what it must: without grace periods, a reader meets memory that is used again.
#[test]
#[should_panic(expected = "a mixture of")]
fn without_grace_periods_the_model_finds_a_mixture() {
    three_generations(|_| Box::<NoReaders>::default());
}

/// Ports of frontends on VIP id 0 that all begin their search in one slot of a table of `slots`.
fn ports_of_one_home(slots: u32) -> [u16; 3] {
    let home = |port: &u16| home_of_frontend(FrontendSlot::key(0, abi::Transport::Tcp as u8, *port)) & (slots - 1);
    let mut ports = (80..).filter(|port| home(port) == home(&80));
    std::array::from_fn(|_| ports.next().expect("there are many"))
}

#[test]
fn no_live_frontend_is_hidden_while_its_neighbours_come_and_go() {
    explore(|| {
        let [first, kept, last] = ports_of_one_home(16);
        let store = Model::new(Sizes { slots: 16, services: 3, pages: 3, endpoints: 4 });
        let lock = Arc::new(RwLock::new(()));
        let mut tables = Tables::open(store.clone(), Box::new(Rcu(lock.clone(), 0)), 6080, 0);
        tables.execute(&Operation::PutService(name(0), service(&[first], 0))).expect("there is room");
        tables.execute(&Operation::PutService(name(1), service(&[kept], 2))).expect("there is room");
        let reader = thread::spawn(move || {
            let _reading = lock.read().expect("the writer does not panic");
            assert_eq!(generation_at(&store, kept), Some(2), "a live frontend is hidden");
        });
        // Before it: withdrawn, and used again for another.
        tables.execute(&Operation::RemoveService(name(0))).expect("it is there");
        tables.commit();
        tables.execute(&Operation::PutService(name(2), service(&[last], 4))).expect("there is room");
        tables.commit();
        reader.join().expect("the reader does not panic");
    });
}

#[test]
fn a_frontend_changes_hands_with_no_gap() {
    explore(|| {
        let store = Model::new(Sizes { slots: 8, services: 2, pages: 2, endpoints: 3 });
        let lock = Arc::new(RwLock::new(()));
        let mut tables = Tables::open(store.clone(), Box::new(Rcu(lock.clone(), 0)), 6080, 0);
        tables.execute(&Operation::PutService(name(0), service(&[80], 0))).expect("there is room");
        let reader = thread::spawn(move || {
            let _reading = lock.read().expect("the writer does not panic");
            let seen = generation_at(&store, 80);
            assert!(seen == Some(0) || seen == Some(2), "{seen:?}");
        });
        tables.execute(&Operation::PutService(name(1), service(&[80], 2))).expect("there is room");
        tables.execute(&Operation::RemoveService(name(0))).expect("it is there");
        tables.commit();
        reader.join().expect("the reader does not panic");
    });
}

/// A service whose one endpoint is behind the veth `ifindex`, which also makes its MAC.
fn behind_veth(ifindex: u8) -> Operation {
    let mac = Some(Mac([2, 0, 0, 0, 0, ifindex]));
    let delivery = LocalDelivery::Veth { ifindex: ifindex.into(), mac, mtu: 1500 };
    let endpoint = EndpointState { address: [10, 0, 0, 1].into(), path: Path::Local(delivery) };
    let rows = (0..PAGE_ROWS).map(|_| Row::new(0, 0)).collect();
    let frontends = [frontend(80)].into();
    let state = ServiceState { frontends, client_ip: false, endpoints: vec![endpoint], rows };
    Operation::PutService(name(0), std::sync::Arc::new(state))
}

#[test]
fn a_delivery_changes_as_a_whole() {
    explore(|| {
        let store = Model::new(Sizes { slots: 16, services: 1, pages: 2, endpoints: 3 });
        let lock = Arc::new(RwLock::new(()));
        let mut tables = Tables::open(store.clone(), Box::new(Rcu(lock.clone(), 0)), 6080, 0);
        tables.execute(&behind_veth(5)).expect("there is room");
        let reader = thread::spawn(move || {
            let _reading = lock.read().expect("the writer does not panic");
            let endpoint = Address::from_ip([10, 0, 0, 1].into());
            let found = find_local(&store, 0, Protocol::Tcp, 80, endpoint).expect("a live delivery is hidden");
            assert_eq!(found.delivery.ifindex, u32::from(found.delivery.mac[5]), "a mixture of deliveries");
        });
        for ifindex in [6, 7] {
            tables.execute(&behind_veth(ifindex)).expect("there is room");
            tables.commit();
        }
        reader.join().expect("the reader does not panic");
    });
}

/// A service whose one endpoint gets its packets on a port of its own.
fn behind_nat(port: u16) -> Operation {
    let ports = std::sync::Arc::new([((Protocol::Tcp, 80), port)].into());
    let path = Path::Local(LocalDelivery::Nat { ports });
    let endpoints = vec![EndpointState { address: [10, 0, 0, 1].into(), path }];
    let rows = (0..PAGE_ROWS).map(|_| Row::new(0, 0)).collect();
    let state = ServiceState { frontends: [frontend(80)].into(), client_ip: false, endpoints, rows };
    Operation::PutService(name(0), std::sync::Arc::new(state))
}

#[test]
fn whatever_is_translated_inwards_can_be_translated_back() {
    explore(|| {
        let store = Model::new(Sizes { slots: 16, services: 1, pages: 2, endpoints: 3 });
        let lock = Arc::new(RwLock::new(()));
        let mut tables = Tables::open(store.clone(), Box::new(Rcu(lock.clone(), 0)), 6080, 0);
        let reader = thread::spawn(move || {
            let _reading = lock.read().expect("the writer does not panic");
            let Some(tag) = find_address(&store, Table::Addresses, Address::from_ip(vip(1))) else { return };
            let endpoint = Address::from_ip([10, 0, 0, 1].into());
            let sent = translation(&store, tag.id(), Protocol::Tcp, 80, endpoint);
            let (_, port) = sent.expect("a VIP is in force before its delivery");
            assert!(is_target_port(&store, Protocol::Tcp, port), "replies from {port} would leave as they are");
            assert_eq!(find_vip(&store, tag.id(), 0), Some(Address::from_ip(vip(1))), "replies find no VIP");
        });
        for port in [70, 100] {
            tables.execute(&behind_nat(port)).expect("there is room");
            tables.commit();
        }
        reader.join().expect("the reader does not panic");
    });
}

#[test]
fn no_address_is_hidden_while_its_neighbours_come_and_go() {
    explore(|| {
        let home = |address: &IpAddr| home_of_address(Address::from_ip(*address)) & 7;
        let mut of_one_home = (1..=255u8).map(vip).filter(|address| home(address) == home(&vip(1)));
        let [first, kept, last]: [IpAddr; 3] = std::array::from_fn(|_| of_one_home.next().expect("there are many"));
        let store = Model::new(Sizes { slots: 8, services: 1, pages: 1, endpoints: 2 });
        let lock = Arc::new(RwLock::new(()));
        let mut tables = Tables::open(store.clone(), Box::new(Rcu(lock.clone(), 0)), 6080, 0);
        tables.execute(&Operation::PutTunnel(first)).expect("there is room");
        tables.execute(&Operation::PutTunnel(kept)).expect("there is room");
        let reader = thread::spawn(move || {
            let _reading = lock.read().expect("the writer does not panic");
            assert!(find_address(&store, Table::Addresses, Address::from_ip(kept)).is_some(), "it is hidden");
            assert!(find_address(&store, Table::Addresses, Address::from_ip(vip(0))).is_none(), "it was never there");
        });
        tables.execute(&Operation::RemoveTunnel(first)).expect("it is there");
        tables.commit();
        tables.execute(&Operation::PutTunnel(last)).expect("there is room");
        reader.join().expect("the reader does not panic");
    });
}
