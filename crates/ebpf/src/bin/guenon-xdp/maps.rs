//! The maps. The loader sets how many elements they have; those here are the least that work.

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::LpmTrie;
use aya_ebpf::maps::{Array, PerCpuArray, RingBuf};
use guenon_ebpf::abi::{
    AddressSlot, Attachment, Descriptor, Endpoint, EndpointPage, FRAGMENT_SETS, FlowSet, FragmentSet, FrontendPage,
    FrontendSlot, Interface, InterfaceCounters, Limiter, LocalSlot, MAX_HAIRPINS, MAX_INTERFACES, Meta, NextHop,
    NextHopKey, RowPage, ServiceName, TARGET_PORT_WORDS, VipSlot,
};

macro_rules! mapped {
    ($($name:ident: $type:ty = $entries:expr;)+) => {
        $(#[map] pub(crate) static $name: Array<$type> = Array::with_max_entries($entries, BPF_F_MMAPABLE);)+
    };
}

mapped! {
    ADDRESSES: AddressSlot = 1024;
    FRONTENDS: FrontendSlot = 1024;
    SERVICES: Descriptor = 256;
    ROWS: RowPage = 256;
    ENDPOINTS: Endpoint = 1024;
    NEXT_HOPS: NextHop = 256;
    INTERFACES: Interface = MAX_INTERFACES;
    LOCALS: LocalSlot = 1024;
    DIRECTORS: AddressSlot = 1024;
    NEXT_HOP_KEYS: NextHopKey = 256;
    ATTACHMENTS: Attachment = MAX_INTERFACES;
    SERVICE_NAMES: ServiceName = 256;
    VIPS: VipSlot = 1024;
    TARGET_PORTS: u64 = TARGET_PORT_WORDS;
    FLOWS: FlowSet = 1024;
    META: Meta = 1;
}

#[map]
pub(crate) static COUNTERS: PerCpuArray<InterfaceCounters> = PerCpuArray::with_max_entries(MAX_INTERFACES, 0);
#[map]
pub(crate) static FRONTEND_STATS: PerCpuArray<FrontendPage> = PerCpuArray::with_max_entries(16, 0);
#[map]
pub(crate) static ENDPOINT_STATS: PerCpuArray<EndpointPage> = PerCpuArray::with_max_entries(16, 0);
#[map]
pub(crate) static FRAGMENTS: Array<FragmentSet> = Array::with_max_entries(FRAGMENT_SETS, 0);
#[map]
pub(crate) static NAT_FRAGMENTS: Array<FragmentSet> = Array::with_max_entries(FRAGMENT_SETS, 0);
#[map]
pub(crate) static HAIRPINS: LpmTrie<[u8; 16], u32> = LpmTrie::with_max_entries(MAX_HAIRPINS, 0);
#[map]
pub(crate) static EGRESS_COUNTERS: PerCpuArray<InterfaceCounters> = PerCpuArray::with_max_entries(MAX_INTERFACES, 0);
#[map]
pub(crate) static LIMITER: PerCpuArray<Limiter> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(64 * 1024, 0);
