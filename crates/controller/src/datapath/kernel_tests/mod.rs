//! The data path in a real kernel: pins, links, adoption, change-over. Needs root.

mod change_over;
mod counting;
mod interfaces;
mod killed;
mod opening;

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use guenon_ebpf::abi::{
    COUNTERS_PER_PAGE, EndpointPage, FlowEntry, FlowSet, FrontendPage, Meta, RECEIVED, Row, locate_counter,
};
use guenon_ebpf::flow;
use guenon_ebpf::hash::{DEFAULT_KEY, Schedule};

use super::tables::attachments::Mode;
use super::tables::lookup::{Flow, Found, direct};
use super::tables::{Capacities, Store, Table};
use super::{AttachMode, DataPathError, EgressHook, Extent, Kernel, Options, Reader, detach_all, program, sys};
use crate::apply::{DataPath, Operation};
use crate::model::{
    Egress, EndpointState, Frontend, Mac, NextHopKey, NextHopState, Path as Way, Protocol, ServiceName, ServiceState,
};
use crate::netlink::tests::net::{Net, wait_for};

const SMALL: Capacities =
    Capacities { services: 16, frontends: 64, endpoints: 256, row_pages: 64, locals: 64, flows: 64 };
static COUNT: AtomicU32 = AtomicU32::new(0);

/// Directories of a test's own, and a veth between two namespaces; all of it removed when dropped.
pub(super) struct Bed {
    pub(super) net: Net,
    pub(super) peer: Net,
    pub(super) pin_dir: PathBuf,
    pub(super) state: tempfile::TempDir,
}

impl Bed {
    pub(super) fn new() -> Self {
        let (net, peer) = (Net::new(), Net::new());
        net.veth(("eth0", "02:00:00:00:00:16"), &peer, ("gw", "02:00:00:00:00:01"));
        net.address("172.17.2.2/24", "eth0");
        peer.address("172.17.2.1/24", "gw");
        let name = format!("gnt-dp-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let pin_dir = Path::new("/sys/fs/bpf").join(name);
        Self { net, peer, pin_dir, state: tempfile::tempdir().expect("a directory") }
    }

    pub(super) fn options(&self) -> Options {
        Options {
            pin_dir: self.pin_dir.clone(),
            state_dir: self.state.path().to_owned(),
            capacities: SMALL,
            gue_port: 6080,
            hash: Schedule::new(DEFAULT_KEY),
            mode: AttachMode::Auto,
            egress: EgressHook::Auto,
            too_big_rate: 100,
            director: true,
            decap: true,
        }
    }

    /// Opens the data path in the test's namespace and does something with it.
    pub(super) fn with<T: Send>(&self, work: impl FnOnce(&mut Kernel) -> T + Send) -> T {
        self.with_options(self.options(), work)
    }

    pub(super) fn with_options<T: Send>(&self, options: Options, work: impl FnOnce(&mut Kernel) -> T + Send) -> T {
        self.net.inside(|| work(&mut Kernel::open(options).expect("the data path opens")))
    }

    /// Three datagrams from the peer arrive: what is for no VIP passes.
    pub(super) fn ping(&self) {
        let within = Some(Duration::from_secs(5));
        let receiver = self.net.inside(|| std::net::UdpSocket::bind("172.17.2.2:7").expect("the address is there"));
        receiver.set_read_timeout(within).unwrap();
        let sender = self.peer.inside(|| std::net::UdpSocket::bind("172.17.2.1:0").expect("the address is there"));
        for n in 0..3u8 {
            sender.send_to(&[n], "172.17.2.2:7").expect("there is a route");
            let mut bytes = [9];
            receiver.recv(&mut bytes).expect("it arrives");
            assert_eq!(bytes, [n]);
        }
    }

    /// Ids of program and link in force.
    pub(super) fn in_force(&self) -> (u32, u32) {
        let link = sys::open_pin(&self.pin_dir.join("links/eth0")).expect("the link is pinned");
        let (program, _) = sys::link_info(link.as_fd()).expect("a link");
        (
            program,
            self.net.inside(|| super::interfaces::program_on(super::interfaces::index_of("eth0").unwrap()).unwrap()),
        )
    }

    pub(super) fn reader(&self) -> Reader {
        Reader::open(&self.pin_dir, self.state.path()).expect("the pins are readable")
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if let Err(error) = self.net.inside(|| detach_all(&self.pin_dir, self.state.path())) {
            eprintln!("{error}");
        }
    }
}

fn key() -> NextHopKey {
    NextHopKey { interface: "eth0".to_owned(), gateway: [172, 17, 2, 1].into() }
}

fn put_next_hop() -> Operation {
    let mac = Mac([2, 0, 0, 0, 0, 1]);
    let egress = Egress { ifindex: 2, mac: Mac([2, 0, 0, 0, 0, 0x16]), mtu: 1500, tags: Vec::new() };
    Operation::PutNextHop(key(), NextHopState { mac: Some(mac), mtu: 1500, egress })
}

fn frontend(port: u16) -> Frontend {
    Frontend { vip: [203, 0, 113, 10].into(), protocol: Protocol::Tcp, port }
}

/// A service on one port whose every row leads to the endpoint 10.0.0.`n`, after one that none leads to.
fn put(name: &str, port: u16, n: u8) -> Operation {
    let endpoint = |n: u8| EndpointState {
        address: [10, 0, 0, n].into(),
        path: Way::Tunnel { source: [172, 17, 2, 2].into(), destination: [10, 0, 0, n].into(), next_hop: key() },
    };
    let state = ServiceState {
        frontends: [frontend(port)].into(),
        client_ip: false,
        endpoints: vec![endpoint(0), endpoint(n)],
        rows: (0..1024).map(|_| Row::new(1, 0)).collect(),
    };
    Operation::PutService(ServiceName::new("shop", name), Arc::new(state))
}

fn endpoint_of(store: &impl Store, port: u16) -> Option<std::net::IpAddr> {
    let flow = Flow {
        source: [198, 51, 100, 1].into(),
        destination: frontend(port).vip,
        protocol: Protocol::Tcp,
        source_port: 999,
        destination_port: port,
    };
    match direct(store, &Schedule::new(DEFAULT_KEY), &flow) {
        Found::Endpoint { endpoint, .. } => Some(guenon_ebpf::abi::Address::from_bytes(endpoint.address).to_ip()),
        Found::NotAVip | Found::Tunnel | Found::NoFrontend { .. } | Found::NoBackend { .. } => None,
    }
}

fn received(reader: &mut Reader) -> u64 {
    let reading = reader.reading(Extent::ALL).expect("the counters are readable");
    reading.interfaces.iter().find(|of| of.name == "eth0").map_or(0, |of| of.total().at(RECEIVED).packets)
}
