//! The data path in a real kernel: pins, links, adoption, change-over. Needs root.

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
use crate::netlink::tests::net::Net;

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
    fn in_force(&self) -> (u32, u32) {
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

#[test]
fn a_restart_adopts_what_is_there_and_changes_nothing() {
    let bed = Bed::new();
    let before = bed.with(|kernel| {
        kernel.execute(&put_next_hop()).unwrap();
        kernel.execute(&put("web", 80, 7)).unwrap();
        assert_eq!(kernel.commit(), 1);
        let attached = kernel.attach("eth0").expect("a veth takes it");
        assert_eq!((attached.mode, attached.slot), (Mode::Native, 0));
        kernel.observe()
    });
    bed.ping();
    let (in_force, maps) = (bed.in_force(), bed.reader().store().id());
    assert_eq!(in_force.0, in_force.1, "netlink names the link's program");
    let after = bed.with(|kernel| {
        kernel.attach("eth0").expect("it is attached already");
        kernel.observe()
    });
    assert_eq!(after, before);
    assert_eq!((bed.in_force(), bed.reader().store().id()), (in_force, maps));
    assert!(received(&mut bed.reader()) >= 3);
    assert_eq!(bed.reader().state().unwrap(), before);
    assert_eq!(endpoint_of(bed.reader().store(), 80), Some([10, 0, 0, 7].into()));
}

#[test]
fn another_setting_swaps_the_program_and_keeps_the_link() {
    let bed = Bed::new();
    bed.with(|kernel| kernel.attach("eth0").unwrap());
    let before = bed.in_force();
    bed.with_options(Options { too_big_rate: 7, ..bed.options() }, |kernel| kernel.attach("eth0").unwrap());
    let after = bed.in_force();
    assert_ne!(after, before);
    assert_eq!(after.0, after.1);
    bed.ping();
}

#[test]
fn a_second_writer_is_kept_out_and_told_who_holds_the_lock() {
    let bed = Bed::new();
    bed.with(|_| {
        let Err(error) = Kernel::open(bed.options()).map(drop) else { panic!("two writers") };
        assert!(matches!(error, DataPathError::Locked { .. }), "{error}");
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        let error = detach_all(&bed.pin_dir, bed.state.path()).expect_err("the agent runs");
        assert!(matches!(error, DataPathError::Locked { .. }), "{error}");
    });
}

#[test]
fn somebody_elses_program_is_never_taken_over() {
    let bed = Bed::new();
    let foreign = program::load_pass().expect("a program");
    let link = bed.net.inside(|| {
        sys::create_xdp_link(foreign.fd.as_fd(), super::interfaces::index_of("eth0").unwrap(), sys::XDP_NATIVE).unwrap()
    });
    bed.with(|kernel| {
        let error = kernel.attach("eth0").expect_err("it is taken").to_string();
        assert!(error.contains(&format!("id {}", foreign.id)) && error.contains("guenon_pass"), "{error}");
        assert!(!bed.pin_dir.join("links/eth0").exists());
    });
    assert_eq!(sys::link_info(link.as_fd()).unwrap().0, foreign.id, "it is still there");
    drop(link);
    bed.with(|kernel| kernel.attach("eth0").expect("it is free now"));
}

#[rstest::rstest]
#[case::all([0, 0], "lacks CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, which")]
// The kernel would take the maps, and the verifier refuse the program at each interface.
#[case::one([1 << 12, 1 << (39 - 32)], "lacks CAP_PERFMON, without which")]
fn a_missing_capability_is_named_before_anything_is_changed(#[case] has: [u32; 2], #[case] told: &str) {
    let ([low, high], bed) = (has, Bed::new());
    let error = bed.net.inside(|| {
        let header = [0x2008_0522u32, 0];
        let sets = [low, low, 0, high, high, 0];
        // SAFETY: version 3 of capset(2) reads a header of two words and a set of six; this thread alone loses its
        // capabilities, and ends right after.
        let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, &raw const sets) };
        assert_eq!(result, 0);
        Kernel::open(bed.options()).map(drop).expect_err("it may not").to_string()
    });
    assert!(error.contains(told), "{error}");
    assert!(!bed.pin_dir.exists());
}

#[test]
fn an_interface_that_is_not_there_is_named() {
    let bed = Bed::new();
    let error = bed.with(|kernel| kernel.attach("eth9").expect_err("there is none"));
    assert!(error.to_string().contains("`eth9`") && error.to_string().contains("--interface"), "{error}");
}

#[test]
fn other_capacities_get_new_maps_with_everything_carried_over() {
    let bed = Bed::new();
    let before = bed.with(|kernel| {
        kernel.execute(&put_next_hop()).unwrap();
        kernel.execute(&put("web", 80, 7)).unwrap();
        kernel.commit();
        kernel.attach("eth0").unwrap();
        // A flow, as programs write it: key, and words that are theirs.
        for (word, value) in (8..12).zip([77, 1, 2, 3]) {
            kernel.store().publish(Table::Flows, word, value);
        }
        kernel.observe()
    });
    bed.ping();
    let (program, maps, counted) = (bed.in_force(), bed.reader().store().id(), received(&mut bed.reader()));
    let mut reader = bed.reader();
    let larger = Options { capacities: Capacities { frontends: 256, ..SMALL }, ..bed.options() };
    let after = bed.with_options(larger.clone(), |kernel| {
        assert_eq!(endpoint_of(kernel.store(), 80), Some([10, 0, 0, 7].into()));
        let flow: Vec<u64> = (8..12).map(|word| kernel.store().load(Table::Flows, word)).collect();
        assert_eq!(flow, [77, 1, 2, 3], "flows go on where they were");
        kernel.observe()
    });
    assert_eq!(after, before);
    assert_ne!(bed.in_force(), program);
    assert_ne!(bed.reader().store().id(), maps);
    bed.ping();
    assert!(received(&mut reader) >= counted + 3, "a reader follows, and counters go on");
    assert_eq!(reader.meta().revision, 1);
    for leftover in ["maps-new", "maps-old"] {
        assert!(!bed.pin_dir.join(leftover).exists(), "{leftover}");
    }
    // And once more, now without change.
    let (program, counted) = (bed.in_force(), received(&mut reader));
    bed.with_options(larger, |kernel| kernel.attach("eth0").unwrap());
    assert_eq!(bed.in_force(), program);
    assert!(received(&mut reader) >= counted);
}

#[test]
fn another_number_of_flows_keeps_those_that_are_known() {
    let bed = Bed::new();
    // Whoever finds a key in a set finds its flow.
    let flow = |kernel: &Kernel, key: u64| {
        let sets = kernel.store().elements(Table::Flows);
        let set: [u64; 16] = kernel.store().element(Table::Flows, key as u32 & (sets - 1));
        set.chunks_exact(4).find(|entry| entry[0] == key).map(<[u64]>::to_vec)
    };
    let keys = [0x15, 0x3a, 0xfff3];
    let before = bed.with(|kernel| {
        kernel.attach("eth0").unwrap();
        kernel.commit();
        let sets = kernel.store().elements(Table::Flows);
        for key in keys {
            let mut set = FlowSet::default();
            flow::insert(&mut set, key, flow::Frontend::new(1, 1, 80), flow::Fresh::Datagrams, 0, 0, |_| true);
            let FlowEntry { key, current, pending, syn } = set.0[0];
            for (word, value) in [key, current, pending, syn].into_iter().enumerate() {
                kernel.store().publish(Table::Flows, (key as u32 & (sets - 1)) as usize * 16 + word, value);
            }
        }
        keys.map(|key| flow(kernel, key).expect("it is there"))
    });
    for flows in [1024, 16] {
        let capacities = Capacities { flows, ..SMALL };
        let after = bed.with_options(Options { capacities, ..bed.options() }, |kernel| {
            assert_eq!(kernel.store().elements(Table::Flows), flows / 4);
            keys.map(|key| flow(kernel, key).expect("it was carried over"))
        });
        assert_eq!(after, before, "{flows}");
    }
}

#[test]
fn another_versions_maps_stay_in_force_until_the_first_revision() {
    let bed = Bed::new();
    bed.with(|kernel| {
        kernel.attach("eth0").unwrap();
        kernel.commit();
        kernel.store().publish(Table::Meta, std::mem::offset_of!(Meta, abi) / 8, 99);
    });
    bed.ping();
    let (program, maps) = (bed.in_force(), {
        let error = Reader::open(&bed.pin_dir, bed.state.path()).expect_err("another version").to_string();
        assert!(error.contains("99"), "{error}");
        bed.pin_dir.join("maps")
    });
    bed.with(|kernel| {
        kernel.attach("eth0").expect("it waits");
        assert_eq!(bed.in_force(), program, "nothing is swapped before the new tables are filled");
        kernel.execute(&put_next_hop()).unwrap();
        kernel.execute(&put("web", 80, 7)).unwrap();
        kernel.commit();
        assert_ne!(bed.in_force(), program);
    });
    assert!(maps.exists() && !bed.pin_dir.join("maps-new").exists() && !bed.pin_dir.join("maps-old").exists());
    let mut reader = bed.reader();
    assert!(received(&mut reader) >= 3, "interfaces' counters are carried over");
    assert_eq!(endpoint_of(reader.store(), 80), Some([10, 0, 0, 7].into()));
    let attached = reader.attachments();
    assert_eq!((attached.len(), attached[0].mode), (1, Mode::Native));
}

#[test]
fn an_interface_that_comes_back_counts_on() {
    let bed = Bed::new();
    bed.with(|kernel| {
        kernel.attach("eth0").unwrap();
        bed.ping();
        let counted = received(&mut bed.reader());
        bed.net.ip("link delete eth0");
        assert!(matches!(kernel.attach("eth0"), Err(DataPathError::NoInterface(_))));
        bed.net.veth(("eth0", "02:00:00:00:00:16"), &bed.peer, ("gw", "02:00:00:00:00:01"));
        bed.net.address("172.17.2.2/24", "eth0");
        bed.peer.address("172.17.2.1/24", "gw");
        assert_eq!(kernel.attach("eth0").expect("it is back").slot, 0);
        bed.ping();
        assert!(received(&mut bed.reader()) >= counted + 3);
    });
}

#[test]
fn generic_mode_is_taken_when_asked_for_and_changed_when_asked_otherwise() {
    let bed = Bed::new();
    let generic = Options { mode: AttachMode::Generic, ..bed.options() };
    assert_eq!(bed.with_options(generic, |kernel| kernel.attach("eth0").unwrap().mode), Mode::Generic);
    bed.ping();
    assert_eq!(bed.with(|kernel| kernel.attach("eth0").unwrap().mode), Mode::Generic, "auto keeps what is there");
    let native = Options { mode: AttachMode::Native, ..bed.options() };
    assert_eq!(bed.with_options(native, |kernel| kernel.attach("eth0").unwrap().mode), Mode::Native);
    bed.ping();
}

#[test]
fn the_far_end_of_a_veth_gets_a_program_that_outlives_the_agent() {
    let bed = Bed::new();
    let far = bed.peer.index("gw");
    let on_far = || bed.peer.inside(|| super::interfaces::program_on(far).unwrap());
    let namespace = std::fs::File::open(bed.peer.path()).expect("the namespace");
    bed.with(|kernel| {
        kernel.attach_far_end("eth0", namespace.as_fd(), far).expect("it is attached");
        kernel.attach_far_end("eth0", namespace.as_fd(), far).expect("once more is nothing");
        assert_eq!(kernel.far_ends().unwrap(), ["eth0"]);
        assert_eq!(kernel.linked().unwrap(), Vec::<String>::new());
    });
    assert_ne!(on_far(), 0);
    bed.with(|kernel| kernel.detach_far_end("eth0").unwrap());
    assert_eq!(on_far(), 0);
}

#[test]
fn detaching_leaves_nothing_behind() {
    let bed = Bed::new();
    bed.with(|kernel| {
        kernel.attach("eth0").unwrap();
        kernel.commit();
    });
    let detached = detach_all(&bed.pin_dir, bed.state.path()).expect("it is detached");
    assert_eq!((detached.interfaces, detached.maps), (vec!["eth0".to_owned()], 25));
    assert!(!bed.pin_dir.exists());
    assert_eq!(std::fs::read_dir(bed.state.path()).unwrap().count(), 0);
    let on = bed.net.inside(|| super::interfaces::program_on(super::interfaces::index_of("eth0").unwrap()).unwrap());
    assert_eq!(on, 0);
    assert_eq!(detach_all(&bed.pin_dir, bed.state.path()).expect("nothing left").maps, 0);
}

#[test]
fn an_endpoint_that_takes_over_an_index_starts_from_nothing() {
    let bed = Bed::new();
    bed.with(|kernel| {
        kernel.execute(&put_next_hop()).unwrap();
        // Another frontend keeps the VIP, and with it the home of the slot.
        kernel.execute(&put("other", 443, 9)).unwrap();
        kernel.execute(&put("web", 80, 7)).unwrap();
        kernel.commit();
        let count = |kernel: &Kernel| {
            let reading = kernel.reading(Extent::ALL).unwrap();
            let web = reading.frontends.iter().find(|of| of.frontend == frontend(80)).expect("it is in force");
            let endpoint = reading.endpoints.iter().find(|of| of.service.name == "web").expect("it is in force");
            (web.counters.directed.packets, endpoint.counter.packets)
        };
        // What a program would count: the maps are written here to that end alone.
        let slots = super::tables::frontend_slots(kernel.store());
        let (_, slot) = slots[&frontend(80)].clone();
        write_ones::<FrontendPage>(kernel, "FRONTEND_STATS", slot);
        let counters = super::tables::endpoint_counters(kernel.store());
        let (_, index) = counters.into_iter().find(|((name, _), _)| name.name == "web").expect("it is in force");
        write_ones::<EndpointPage>(kernel, "ENDPOINT_STATS", index);
        let cpus = sys::possible_cpus().unwrap() as u64;
        assert_eq!(count(kernel), (cpus, cpus));
        kernel.execute(&Operation::RemoveService(ServiceName::new("shop", "web"))).unwrap();
        kernel.commit();
        kernel.settle();
        kernel.execute(&put("web", 80, 7)).unwrap();
        kernel.commit();
        assert_eq!(super::tables::frontend_slots(kernel.store())[&frontend(80)].1, slot, "the same slot again");
        assert_eq!(count(kernel).0, 0);
    });
    let reading = bed.reader().reading(Extent::ALL).unwrap();
    assert!(reading.frontends.iter().all(|of| of.counters.directed.packets == 0), "the base is kept for readers");
}

/// Writes ones to every word of a counter, on every CPU, and zeros to the others of its page.
fn write_ones<Page>(kernel: &Kernel, map: &str, number: u32) {
    let (page, at) = locate_counter(number);
    let words = size_of::<Page>() / 8;
    let of_one = words / COUNTERS_PER_PAGE;
    let own = at * of_one..(at + 1) * of_one;
    let values: Vec<u64> =
        (0..words * sys::possible_cpus().unwrap()).map(|word| u64::from(own.contains(&(word % words)))).collect();
    sys::update_elem(kernel.store().fd(map).unwrap(), page, &values).unwrap();
}

/// A process that is killed when the test ends, however it ends.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Not a test of its own: the process that the next one kills.
#[test]
#[ignore = "a helper process of a_writer_killed_at_any_moment_leaves_traffic_in_order"]
fn endless_writer() {
    let (Ok(pin_dir), Ok(state_dir)) = (std::env::var("GNT_PIN_DIR"), std::env::var("GNT_STATE_DIR")) else { return };
    let bed_less = Options {
        pin_dir: pin_dir.into(),
        state_dir: state_dir.into(),
        capacities: SMALL,
        gue_port: 6080,
        hash: Schedule::new(DEFAULT_KEY),
        mode: AttachMode::Auto,
        egress: EgressHook::Auto,
        too_big_rate: 100,
        director: true,
        decap: true,
    };
    let mut kernel = Kernel::open(bed_less).expect("the data path opens");
    kernel.execute(&put_next_hop()).unwrap();
    for n in 0u64.. {
        kernel.execute(&put("kept", 80, if n.is_multiple_of(2) { 7 } else { 8 })).unwrap();
        let other = format!("s{}", n % 5);
        if n.is_multiple_of(3) {
            kernel.execute(&Operation::RemoveService(ServiceName::new("shop", other))).unwrap();
        } else {
            kernel.execute(&put(&other, 1000 + (n % 11) as u16, (n % 100) as u8 + 1)).unwrap();
        }
        kernel.commit();
    }
}

#[test]
fn a_writer_killed_at_any_moment_leaves_traffic_in_order() {
    let bed = Bed::new();
    bed.with(|kernel| {
        kernel.execute(&put_next_hop()).unwrap();
        kernel.execute(&put("kept", 80, 7)).unwrap();
        kernel.commit();
    });
    for round in 0..10 {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "datapath::kernel_tests::endless_writer", "--ignored", "--nocapture"])
            .env("GNT_PIN_DIR", &bed.pin_dir)
            .env("GNT_STATE_DIR", bed.state.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("this test's own binary starts");
        let child = Killed(child);
        let revision = bed.reader().meta().revision;
        crate::netlink::tests::net::wait_for("the writer to write", || bed.reader().meta().revision > revision + 2);
        std::thread::sleep(Duration::from_micros(round * 731));
        drop(child);
        let reader = bed.reader();
        let seen = endpoint_of(reader.store(), 80);
        assert!(seen == Some([10, 0, 0, 7].into()) || seen == Some([10, 0, 0, 8].into()), "{seen:?}");
        bed.with(|kernel| {
            assert_eq!(endpoint_of(kernel.store(), 80), seen, "the next writer leaves it in force");
            for (name, service) in kernel.observe().services {
                for frontend in &service.frontends {
                    assert!(endpoint_of(kernel.store(), frontend.port).is_some(), "{frontend} of {name}");
                }
            }
        });
    }
}
