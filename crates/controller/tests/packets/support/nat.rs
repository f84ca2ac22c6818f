//! A node with endpoints of delivery `Nat`: both programs, on maps of their own that they share.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, Map, MapData, PerCpuArray};
use aya::programs::{ProgramError, SchedClassifier, TestRun, TestRunOptions, Xdp};
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfLoader, Pod};
use guenon_controller::datapath::object::OBJECT;
use guenon_ebpf::abi::{
    self, Address, AddressKind, AddressSlot, AddressTag, Delivery, DeliveryMode, Event, FlowEntry, FrontendSlot,
    LocalSlot, Settings, Transport, VipSlot, locate_target_port,
};
use guenon_ebpf::flow;
use guenon_ebpf::hash::{DEFAULT_KEY, Schedule};
use guenon_ebpf::headers::transport::Ports;
use guenon_ebpf::probe;
use guenon_ebpf::reason::DropReason;
use zerocopy::{FromBytes, IntoBytes};

use super::bed::{DIRECTOR4, POD4, POD6, TUNNEL4, TUNNEL6, VIP4, VIP6};
use super::expect::hex;
use super::frame::{Tag, tagged};
use super::tunnel::Tunnel;

pub const PASS: u32 = 2;
pub const DROP: u32 = 1;
pub const TX: u32 = 3;
/// `TC_ACT_UNSPEC`: on to the next program.
pub const NEXT: u32 = u32::MAX;
pub const SHOT: u32 = 2;
/// Where the pods listen.
pub const TARGET: u16 = 8080;
/// Two frontends of each VIP lead to it.
pub const WEB: u16 = 80;
pub const ALT: u16 = 81;
/// A frontend of the pod's node itself.
pub const HOST: u16 = 82;
/// Sets of four flows.
const SETS: u32 = 64;
const MASK: u32 = 1023;
const SLOT: u32 = 3;
pub const GENERATION: u64 = 0x103;

#[derive(Clone, Copy)]
#[repr(transparent)]
struct Raw<const N: usize>([u64; N]);

// SAFETY: an array of plain words has no padding and no invalid value.
unsafe impl<const N: usize> Pod for Raw<N> {}

pub struct Node {
    loaded: Option<Loaded>,
}

/// Loaded programs, to be used by one test after the other: what takes time is the kernel's verifier, above all in an emulated guest.
static LOADED: Mutex<Vec<Loaded>> = Mutex::new(Vec::new());

struct Loaded {
    bpf: Ebpf,
    program: &'static str,
    partial_checksums: u8,
}

impl Drop for Node {
    fn drop(&mut self) {
        // After a failure nobody knows what it holds.
        if let (Some(loaded), false) = (self.loaded.take(), std::thread::panicking()) {
            LOADED.lock().unwrap_or_else(PoisonError::into_inner).push(loaded);
        }
    }
}

/// What a program did with a frame.
#[derive(Debug, PartialEq)]
pub struct Run {
    pub action: u32,
    pub frame: Vec<u8>,
    pub events: Vec<Event>,
    pub drop: Option<DropReason>,
}

impl Loaded {
    fn new(program: &'static str, partial_checksums: u8) -> Self {
        let settings = Settings {
            hash: Schedule::new(DEFAULT_KEY).0,
            ifindex: 1,
            slot: SLOT,
            address_mask: MASK,
            frontend_mask: MASK,
            local_mask: MASK,
            director_mask: MASK,
            gue_port: abi::GUE_PORT,
            roles: abi::ROLE_DIRECTOR | abi::ROLE_DECAP,
            partial_checksums,
            flow_mask: SETS - 1,
            ..Settings::default()
        };
        let mut bpf =
            EbpfLoader::new().override_global("SETTINGS", settings.as_bytes(), true).load(OBJECT).expect("the object");
        let xdp: &mut Xdp = bpf.program_mut(program).unwrap().try_into().unwrap();
        told(xdp.load());
        let egress: &mut SchedClassifier = bpf.program_mut("guenon_egress").unwrap().try_into().unwrap();
        told(egress.load());
        Self { bpf, program, partial_checksums }
    }
}

impl Node {
    pub fn new() -> Self {
        Self::with("guenon", 0)
    }

    pub fn with(program: &'static str, partial_checksums: u8) -> Self {
        // Kernels that know no multi-buffer frames take the other one alone.
        let knows_frags = KernelVersion::current().unwrap() >= KernelVersion::new(5, 18, 0);
        let program = if knows_frags { program } else { "guenon_linear" };
        let mut free = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |loaded: &Loaded| loaded.program == program && loaded.partial_checksums == partial_checksums;
        let found = free.iter().position(fits).map(|at| free.swap_remove(at));
        drop(free);
        let mut node = match found {
            Some(loaded) => Self { loaded: Some(loaded) },
            None => {
                let mut node = Self { loaded: Some(Loaded::new(program, partial_checksums)) };
                node.fill();
                node
            }
        };
        node.forget();
        node
    }

    /// What tests have left.
    fn forget(&mut self) {
        for set in 0..SETS {
            self.set::<16>(abi::map::FLOWS, set, Raw([0; 16]));
        }
        for map in [abi::map::FRAGMENTS, abi::map::NAT_FRAGMENTS] {
            (0..abi::FRAGMENT_SETS).for_each(|set| self.set::<8>(map, set, Raw([0; 8])));
        }
        let map = self.bpf_mut().map_mut(abi::map::HAIRPINS).unwrap();
        let mut trie: LpmTrie<&mut MapData, [u8; 16], u32> = LpmTrie::try_from(map).unwrap();
        let keys: Vec<_> = trie.keys().map(Result::unwrap).collect();
        keys.iter().for_each(|key| trie.remove(key).unwrap());
        self.clock(0);
        self.vip(1, VIP4, GENERATION);
        self.vip(2, VIP6, GENERATION);
    }

    fn bpf(&self) -> &Ebpf {
        &self.loaded.as_ref().unwrap().bpf
    }

    fn bpf_mut(&mut self) -> &mut Ebpf {
        &mut self.loaded.as_mut().unwrap().bpf
    }

    fn program(&self) -> &'static str {
        self.loaded.as_ref().unwrap().program
    }

    fn fill(&mut self) {
        let node = self;
        for (id, vip) in [(1, VIP4), (2, VIP6)] {
            node.address(abi::map::ADDRESSES, vip, AddressTag::new(AddressKind::Vip, id, 0));
        }
        for (id, pod, host) in [(1, POD4, TUNNEL4), (2, POD6, TUNNEL6)] {
            node.address(abi::map::ADDRESSES, pod, AddressTag::new(AddressKind::Endpoint, 0, 0));
            node.address(abi::map::ADDRESSES, host, AddressTag::new(AddressKind::Tunnel, 0, 0));
            for transport in [Transport::Tcp, Transport::Udp] {
                for port in [WEB, ALT] {
                    node.local(id, transport, port, pod, TARGET);
                }
                node.local(id, transport, HOST, host, TARGET);
                node.local(id, transport, 0, pod, 0);
            }
        }
        for (id, pod) in [(1, POD4), (2, POD6)] {
            let delivery = Delivery { mode: DeliveryMode::Nat as u8, ..Delivery::default() };
            let endpoint = abi::Endpoint {
                kind: abi::EndpointKind::Local as u8,
                header_len: 0,
                block_len: 1,
                next_hop: 0,
                checksum: 0,
                counter: 9,
                header: [0; abi::MAX_HEADER],
                address: Address::from_ip(pod).to_bytes(),
                delivery,
                reserved: [0; 8],
            };
            node.set::<16>(abi::map::ENDPOINTS, 8 * id, raw(endpoint.as_bytes()));
            node.set::<1>(abi::map::SERVICES, id, raw(abi::Descriptor::new(1, 0, 8 * id, false).as_bytes()));
        }
        node.address(abi::map::DIRECTORS, DIRECTOR4, AddressTag::new(AddressKind::Director, 0, 0));
        for transport in [Transport::Tcp, Transport::Udp] {
            let (word, bit) = locate_target_port(transport as u8, TARGET);
            node.set(abi::map::TARGET_PORTS, word, Raw([1 << bit]));
        }
    }

    /// Gives a VIP id to this address.
    pub fn vip(&mut self, id: u32, vip: IpAddr, generation: u64) {
        let slot = VipSlot { address: Address::from_ip(vip), generation };
        self.set::<3>(abi::map::VIPS, id, raw(slot.as_bytes()));
    }

    /// Sets the coarse clock.
    pub fn clock(&mut self, ticks: u64) {
        let meta = abi::Meta { clock: ticks, ..abi::Meta::default() };
        self.set::<{ size_of::<abi::Meta>() / 8 }>(abi::map::META, 0, raw(meta.as_bytes()));
    }

    /// Clients of this prefix are not answered by an uplink.
    pub fn hairpin(&mut self, address: IpAddr, prefix: u32, value: u32) {
        let map = self.bpf_mut().map_mut(abi::map::HAIRPINS).unwrap();
        let mut trie: LpmTrie<&mut MapData, [u8; 16], u32> = LpmTrie::try_from(map).unwrap();
        trie.insert(&Key::new(prefix, Address::from_ip(address).to_bytes()), value, 0).unwrap();
    }

    fn local(&mut self, vip: u32, transport: Transport, port: u16, endpoint: IpAddr, target: u16) {
        let tag = FrontendSlot::key(vip, transport as u8, port);
        let address = Address::from_ip(endpoint);
        let delivery = Delivery { mode: DeliveryMode::Nat as u8, port: target, ..Delivery::default() };
        let slot = LocalSlot { address, tag, delivery, frontend: u32::from(port), counter: 9 };
        let home = probe::home_of_local(tag, address);
        let free =
            (0..).map(|step| (home + step) & MASK).find(|index| self.get::<6>(abi::map::LOCALS, *index).0[2] == 0);
        self.set::<6>(abi::map::LOCALS, free.unwrap(), raw(slot.as_bytes()));
        if port == 0 {
            return;
        }
        // As many services as VIPs, each with the pod of its family as the one endpoint.
        let slot = FrontendSlot::new(vip, transport, port, vip).0;
        let home = probe::home_of_frontend(slot & FrontendSlot::KEY);
        let index = (0..).map(|step| (home + step) & MASK).find(|index| {
            let there = self.get::<1>(abi::map::FRONTENDS, *index).0[0];
            there == 0 || there == slot
        });
        self.set::<1>(abi::map::FRONTENDS, index.unwrap(), Raw([slot]));
    }

    fn address(&mut self, map: &str, address: IpAddr, tag: AddressTag) {
        let address = Address::from_ip(address);
        let slot = AddressSlot { address, tag: tag.0 };
        let home = probe::home_of_address(address);
        let free = (0..).map(|step| (home + step) & MASK).find(|index| self.get::<3>(map, *index).0[2] == 0);
        self.set::<3>(map, free.unwrap(), raw(slot.as_bytes()));
    }

    /// A frame that comes in.
    #[track_caller]
    pub fn receive(&mut self, frame: &[u8]) -> Run {
        let before = self.counters(abi::map::COUNTERS);
        let xdp: &Xdp = self.bpf().program(self.program()).unwrap().try_into().unwrap();
        let mut out = vec![0; frame.len() + 256];
        let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::default() };
        let result =
            xdp.test_run(options).unwrap_or_else(|error| panic!("{error:?} of {} bytes: {}", frame.len(), hex(frame)));
        out.truncate(result.data_size_out as usize);
        self.account(abi::map::COUNTERS, &before, result.return_value, out)
    }

    /// A frame that leaves.
    #[track_caller]
    pub fn send(&mut self, frame: &[u8]) -> Run {
        let before = self.counters(abi::map::EGRESS_COUNTERS);
        let egress: &SchedClassifier = self.bpf().program("guenon_egress").unwrap().try_into().unwrap();
        let mut out = vec![0; frame.len() + 256];
        let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::default() };
        let result = egress
            .test_run(options)
            .unwrap_or_else(|error| panic!("{error:?} of {} bytes: {}", frame.len(), hex(frame)));
        out.truncate(result.data_size_out as usize);
        self.account(abi::map::EGRESS_COUNTERS, &before, result.return_value, out)
    }

    /// A packet for this endpoint comes in through the tunnel; what is passed, without link header.
    #[track_caller]
    pub fn deliver(&mut self, endpoint: IpAddr, ip: &[u8]) -> (Run, Vec<u8>) {
        self.deliver_tagged(endpoint, ip, &[])
    }

    /// The same in a frame with tags.
    #[track_caller]
    pub fn deliver_tagged(&mut self, endpoint: IpAddr, ip: &[u8], tags: &[Tag]) -> (Run, Vec<u8>) {
        let tunnel = Tunnel::new(DIRECTOR4, TUNNEL4, ip.to_vec()).naming(endpoint);
        let run = self.receive(&tagged(tags, &tunnel.ip()));
        let inner = run.frame.get(14 + 4 * tags.len()..).unwrap_or_default().to_vec();
        if run.action == PASS {
            assert_eq!(run.frame[..14 + 4 * tags.len()], tagged(tags, ip)[..14 + 4 * tags.len()], "the link header");
        }
        (run, inner)
    }

    /// A packet that leaves by an uplink, without link header.
    #[track_caller]
    pub fn leave(&mut self, ip: &[u8]) -> (Run, Vec<u8>) {
        let run = self.send(&tagged(&[], ip));
        let ip = run.frame[14..].to_vec();
        (run, ip)
    }

    /// The flow's entry, as the endpoint sees the flow.
    pub fn entry(&self, client: SocketAddr, endpoint: SocketAddr, protocol: u8) -> Option<flow::Entry> {
        let ports = Ports { source: client.port().to_be(), destination: endpoint.port().to_be() };
        let (from, to) = (Address::from_ip(client.ip()), Address::from_ip(endpoint.ip()));
        let key = flow::key(&Schedule::new(DEFAULT_KEY), from, to, ports, protocol);
        let set = self.get::<16>(abi::map::FLOWS, key as u32 & (SETS - 1)).0;
        let entries = set.chunks_exact(4).map(|words| FlowEntry::read_from_bytes(words.as_bytes()).unwrap());
        entries.filter(|entry| entry.key == key).find_map(|entry| flow::Entry::of(&entry))
    }

    #[track_caller]
    fn account(&self, map: &str, before: &[u64], action: u32, frame: Vec<u8>) -> Run {
        let after = self.counters(map);
        let grown = |index: usize| after[index] - before[index];
        let ends: u64 = (1..4).chain(abi::FIRST_DROP..abi::COUNTERS_PER_INTERFACE).map(grown).sum();
        assert_eq!((grown(abi::RECEIVED), ends), (1, 1), "one packet, one verdict");
        let events = Event::ALL.iter().map(|(event, _)| *event).filter(|event| grown(event.index()) > 0).collect();
        let drop = DropReason::ALL.iter().copied().find(|reason| grown(abi::FIRST_DROP + *reason as usize) > 0);
        Run { action, frame, events, drop }
    }

    fn counters(&self, map: &str) -> Vec<u64> {
        let counters: PerCpuArray<&MapData, Raw<{ size_of::<abi::InterfaceCounters>() / 8 }>> =
            self.bpf().map(map).unwrap().try_into().unwrap();
        let values = counters.get(&SLOT, 0).unwrap();
        (0..abi::COUNTERS_PER_INTERFACE).map(|index| values.iter().map(|cpu| cpu.0[2 * index]).sum()).collect()
    }

    fn set<const N: usize>(&mut self, map: &str, index: u32, value: Raw<N>) {
        let mut array: Array<&mut MapData, Raw<N>> = self.bpf_mut().map_mut(map).unwrap().try_into().unwrap();
        array.set(index, value, 0).unwrap();
    }

    fn get<const N: usize>(&self, map: &str, index: u32) -> Raw<N> {
        let map: &Map = self.bpf().map(map).unwrap();
        let array: Array<&MapData, Raw<N>> = map.try_into().unwrap();
        array.get(&index, 0).unwrap()
    }
}

fn raw<const N: usize>(bytes: &[u8]) -> Raw<N> {
    let mut raw = Raw([0; N]);
    raw.0.as_mut_bytes().copy_from_slice(bytes);
    raw
}

fn told(loaded: Result<(), ProgramError>) {
    if let Err(ProgramError::LoadError { io_error, verifier_log }) = &loaded {
        let log = verifier_log.to_string();
        let lines: Vec<&str> = log.lines().collect();
        panic!("{io_error}\n{}", lines[lines.len().saturating_sub(60)..].join("\n"));
    }
    loaded.unwrap();
}
