//! A loaded program with maps that a test fills by hand.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::net::IpAddr;

use aya::maps::{Array, MapData, PerCpuArray};
use aya::programs::{ProgramError, TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader, Pod};
use guenon_controller::datapath::object::OBJECT;
use guenon_ebpf::abi::{
    self, Address, AddressKind, AddressSlot, AddressTag, Counter, Delivery, DeliveryMode, Descriptor, FrontendSlot,
    Interface, LocalSlot, NextHop, Settings, Transport,
};
use guenon_ebpf::hash::{DEFAULT_KEY, Schedule};
use guenon_ebpf::reason::DropReason;
use guenon_ebpf::{outer, probe};
use zerocopy::IntoBytes;

pub(crate) const XDP_DROP: u32 = 1;
pub(crate) const XDP_PASS: u32 = 2;
pub(crate) const XDP_TX: u32 = 3;
pub(crate) const XDP_REDIRECT: u32 = 4;

pub(crate) const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(crate) const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x22];
pub(crate) const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];
pub(crate) const ENDPOINT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x77];

const MASK: u32 = 1023;
/// The interface that test runs say they came in on.
const IFINDEX: u32 = 1;
const SLOT: u32 = 3;

/// Words of a map element, as aya takes them.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Raw<const N: usize>([u64; N]);

// SAFETY: an array of plain words has no padding and no invalid value.
unsafe impl<const N: usize> Pod for Raw<N> {}

impl<const N: usize> Raw<N> {
    fn of(value: &impl zerocopy::Immutable, bytes: &[u8]) -> Self {
        assert_eq!(size_of_val(value), N * 8);
        let mut raw = Self([0; N]);
        raw.0.as_mut_bytes().copy_from_slice(bytes);
        raw
    }
}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct Counters([Counter; abi::COUNTERS_PER_INTERFACE]);

// SAFETY: repr(transparent) over an array of plain words with no padding.
unsafe impl Pod for Counters {}

/// Loads one program of the object with maps of their least size.
pub(crate) fn load(settings: &Settings, program: &str) -> Ebpf {
    let mut ebpf = EbpfLoader::new()
        .override_global("SETTINGS", settings.as_bytes(), true)
        .load(OBJECT)
        .expect("the object is read and its maps are made");
    let xdp: &mut Xdp = ebpf.program_mut(program).expect("the program is in the object").try_into().unwrap();
    let loaded = xdp.load();
    if let Err(ProgramError::LoadError { io_error, verifier_log }) = loaded {
        panic!("{program}: {io_error}\n{verifier_log}");
    }
    loaded.unwrap_or_else(|error| panic!("{program}: {error:?}"));
    ebpf
}

/// A director and decap node on one interface.
pub(crate) struct Bed {
    ebpf: Ebpf,
    program: &'static str,
}

/// The entry point to try: the linear one on kernels that know no multi-buffer frames (before 5.18).
pub(crate) fn entry_point() -> &'static str {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap(), numbers.next().unwrap());
    if version >= (5, 18) { "guenon" } else { "guenon_linear" }
}

impl Bed {
    pub(crate) fn new() -> Self {
        let settings = Settings {
            hash: Schedule::new(DEFAULT_KEY).0,
            ifindex: IFINDEX,
            slot: SLOT,
            address_mask: MASK,
            frontend_mask: MASK,
            local_mask: MASK,
            director_mask: MASK,
            gue_port: abi::GUE_PORT,
            roles: abi::ROLE_DIRECTOR | abi::ROLE_DECAP,
            partial_checksums: 0,
            reserved: [0; 4],
            too_big_rate: 100,
            flow_mask: MASK,
            reserved1: 0,
        };
        let program = entry_point();
        Self { ebpf: load(&settings, program), program }
    }

    /// Runs one frame through the program: its verdict, and the frame as it left.
    pub(crate) fn run(&self, frame: &[u8]) -> (u32, Vec<u8>) {
        let xdp: &Xdp = self.ebpf.program(self.program).unwrap().try_into().unwrap();
        let mut out = vec![0; frame.len() + 256];
        let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::default() };
        let result = xdp.test_run(options).unwrap();
        out.truncate(result.data_size_out as usize);
        (result.return_value, out)
    }

    pub(crate) fn vip(&mut self, address: IpAddr, id: u32, flags: u8) {
        self.address(abi::map::ADDRESSES, address, AddressTag::new(AddressKind::Vip, id, flags));
    }

    pub(crate) fn tunnel(&mut self, address: IpAddr) {
        self.address(abi::map::ADDRESSES, address, AddressTag::new(AddressKind::Tunnel, 0, 0));
    }

    pub(crate) fn director(&mut self, address: IpAddr) {
        self.address(abi::map::DIRECTORS, address, AddressTag::new(AddressKind::Director, 0, 0));
    }

    /// Service 5 with VIP 0, one frontend and one endpoint in the tunnel.
    pub(crate) fn tunnel_service(
        &mut self,
        vip: IpAddr,
        port: u16,
        source: IpAddr,
        destination: IpAddr,
        endpoint: IpAddr,
        mtu: u64,
    ) {
        self.vip(vip, 0, 0);
        let mut element = outer::endpoint(source, destination, endpoint, abi::GUE_PORT).expect("one family");
        element.next_hop = 4;
        element.counter = 9;
        element.block_len = 1;
        self.set::<16>(abi::map::ENDPOINTS, 8, Raw::of(&element, element.as_bytes()));
        let hop = NextHop { mac_interface: NextHop::pack(GATEWAY_MAC, 2), mtu };
        self.set::<2>(abi::map::NEXT_HOPS, 4, Raw::of(&hop, hop.as_bytes()));
        let interface = Interface { ifindex: IFINDEX, mtu: 1500, mac: OUR_MAC, ..Interface::default() };
        self.set::<4>(abi::map::INTERFACES, 2, Raw::of(&interface, interface.as_bytes()));
        let descriptor = Descriptor::new(1, 0, 8, false);
        self.set::<1>(abi::map::SERVICES, 5, Raw::of(&descriptor, descriptor.as_bytes()));
        for transport in [Transport::Tcp, Transport::Udp] {
            let slot = FrontendSlot::new(0, transport, port, 5);
            let index = probe::home_of_frontend(slot.0 & FrontendSlot::KEY) & MASK;
            self.set::<1>(abi::map::FRONTENDS, index, Raw::of(&slot, slot.as_bytes()));
        }
    }

    /// An endpoint of this node.
    pub(crate) fn local(&mut self, vip: IpAddr, port: u16, endpoint: IpAddr, mode: DeliveryMode) {
        self.vip(vip, 0, 0);
        let tag = FrontendSlot::key(0, Transport::Tcp as u8, port);
        let address = Address::from_ip(endpoint);
        let delivery = Delivery { mac: ENDPOINT_MAC, mode: mode as u8, reserved: 0, ifindex: 7, mtu: 1500, port: 0 };
        let slot = LocalSlot { address, tag, delivery, frontend: 11, counter: 9 };
        self.set::<6>(abi::map::LOCALS, probe::home_of_local(tag, address) & MASK, Raw::of(&slot, slot.as_bytes()));
    }

    /// Packets counted at this index, on all CPUs.
    pub(crate) fn count(&self, index: usize) -> u64 {
        let counters: PerCpuArray<&MapData, Counters> = self.ebpf.map("COUNTERS").unwrap().try_into().unwrap();
        counters.get(&SLOT, 0).unwrap().iter().map(|cpu| cpu.0[index].packets).sum()
    }

    /// Every drop reason that was counted.
    pub(crate) fn drops(&self) -> Vec<(DropReason, u64)> {
        let counts = DropReason::ALL.iter().map(|&reason| (reason, self.count(abi::FIRST_DROP + reason as usize)));
        counts.filter(|&(_, count)| count > 0).collect()
    }

    /// Every packet is under exactly one verdict.
    pub(crate) fn assert_balanced(&self) {
        let ends = [abi::PASSED, abi::TRANSMITTED, abi::REDIRECTED].into_iter();
        let ends = ends.chain(abi::FIRST_DROP..abi::COUNTERS_PER_INTERFACE);
        assert_eq!(self.count(abi::RECEIVED), ends.map(|index| self.count(index)).sum::<u64>());
    }

    fn address(&mut self, map: &str, address: IpAddr, tag: AddressTag) {
        let address = Address::from_ip(address);
        let slot = AddressSlot { address, tag: tag.0 };
        self.set::<3>(map, probe::home_of_address(address) & MASK, Raw::of(&slot, slot.as_bytes()));
    }

    fn set<const N: usize>(&mut self, map: &str, index: u32, value: Raw<N>) {
        let mut array: Array<&mut MapData, Raw<N>> = self.ebpf.map_mut(map).unwrap().try_into().unwrap();
        array.set(index, value, 0).unwrap();
    }
}
