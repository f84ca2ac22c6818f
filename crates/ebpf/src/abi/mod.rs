//! The layout of every map: the contract between the XDP program and the agent.
//!
//! Rules of the house: no implicit padding, sizes asserted at compile time, addresses and ports of
//! packets in network byte order where they are bytes, words in the CPU's order where the program
//! loads them whole. Whoever changes a layout or the meaning of a bit raises [`ABI_VERSION`]; an agent that
//! finds another version pinned builds new maps and swaps the programs (it never reinterprets).
//!
//! How the tables hang together:
//!
//! ```text
//! ADDRESSES  dst address -> VIP id | tunnel address            (open addressing)
//! FRONTENDS  VIP id, protocol, port -> service id              (open addressing, one word a slot)
//! SERVICES   service id -> descriptor: row pages, endpoint block   (one word: the store that puts
//!                                                                   a change in force)
//! ROWS       page -> 1024 rows: (primary, secondary) in the service's endpoint block
//! ENDPOINTS  block + index -> outer header, next hop, or local delivery
//! NEXT_HOPS  index -> MAC and egress (one word), MTU
//! INTERFACES slot -> ifindex, MAC, tags
//! LOCALS     VIP id, protocol, port, endpoint address -> delivery  (open addressing; decap)
//! DIRECTORS  outer source -> allowed                           (open addressing; decap)
//! FLOWS      client, endpoint, ports -> frontend              (sets of four; delivery Nat)
//! VIPS       VIP id -> address                                 (what replies get back)
//! TARGET_PORTS  ports that endpoints of delivery Nat listen on (one bit each)
//! ```

mod counters;
mod endpoint;
mod flows;
mod service;
mod settings;
mod slots;

pub use counters::*;
pub use endpoint::*;
pub use flows::*;
pub use service::*;
pub use settings::*;
pub use slots::*;

/// Version of every layout and of the meaning of every bit in this module and of the hash.
pub const ABI_VERSION: u32 = 3;

/// Map names, as pinned under `/sys/fs/bpf/guenon/maps/` (15 characters at most: the kernel's limit).
pub mod map {
    /// [`super::AddressSlot`]: VIPs and local tunnel addresses. Mapped.
    pub const ADDRESSES: &str = "ADDRESSES";
    /// [`super::FrontendSlot`]. Mapped.
    pub const FRONTENDS: &str = "FRONTENDS";
    /// [`super::Descriptor`]. Mapped.
    pub const SERVICES: &str = "SERVICES";
    /// [`super::RowPage`]. Mapped.
    pub const ROWS: &str = "ROWS";
    /// [`super::Endpoint`]. Mapped.
    pub const ENDPOINTS: &str = "ENDPOINTS";
    /// [`super::NextHop`]. Mapped.
    pub const NEXT_HOPS: &str = "NEXT_HOPS";
    /// [`super::Interface`]. Mapped.
    pub const INTERFACES: &str = "INTERFACES";
    /// [`super::LocalSlot`]. Mapped.
    pub const LOCALS: &str = "LOCALS";
    /// [`super::AddressSlot`] with kind [`super::AddressKind::Director`]. Mapped.
    pub const DIRECTORS: &str = "DIRECTORS";
    /// [`super::NextHopKey`]: what the next hop of the same index stands for; never read by the program. Mapped.
    pub const NEXT_HOP_KEYS: &str = "NEXT_HOP_KEYS";
    /// [`super::Attachment`]: the interface that counts in the same slot of `COUNTERS`; never read by the program. Mapped.
    pub const ATTACHMENTS: &str = "ATTACHMENTS";
    /// [`super::ServiceName`]: read by the agent and `guenon status`, never by the program. Mapped.
    pub const SERVICE_NAMES: &str = "SERVICE_NAMES";
    /// [`super::Meta`], one element: version and revision. Mapped; read first of all.
    pub const META: &str = "META";
    /// [`super::InterfaceCounters`] by interface slot. Per CPU.
    pub const COUNTERS: &str = "COUNTERS";
    /// [`super::FrontendCounters`] by index of the slot in `FRONTENDS`. Per CPU.
    pub const FRONTEND_STATS: &str = "FRONTEND_STATS";
    /// [`super::Counter`] by [`super::Endpoint::counter`]. Per CPU.
    pub const ENDPOINT_STATS: &str = "ENDPOINT_STATS";
    /// [`super::FragmentSet`]: which flow the first fragment of a datagram belonged to.
    pub const FRAGMENTS: &str = "FRAGMENTS";
    /// [`super::Limiter`], one element: bounds "packet too big" answers. Per CPU.
    pub const LIMITER: &str = "LIMITER";
    /// [`super::VipSlot`] by VIP id: what replies get back. Mapped.
    pub const VIPS: &str = "VIPS";
    /// Bits of [`super::locate_target_port`]. Mapped.
    pub const TARGET_PORTS: &str = "TARGET_PORTS";
    /// [`super::FlowSet`]: flows of endpoints of this node with delivery `Nat`; the programs write it. Mapped, to be read.
    pub const FLOWS: &str = "FLOWS";
    /// [`super::FragmentSet`]: what the first fragment of a reply was, or of a packet that was translated.
    pub const NAT_FRAGMENTS: &str = "NAT_FRAGMENTS";
    /// Longest prefix (of 128 bits, IPv4-mapped) -> [`super::HAIRPIN`] or 0: clients whose packets leave this node, by its
    /// routes, where replies cannot be translated. What is in no prefix is answered.
    pub const HAIRPINS: &str = "HAIRPINS";
    /// [`super::InterfaceCounters`] by interface slot: the program on the way out. Per CPU.
    pub const EGRESS_COUNTERS: &str = "EGRESS_COUNTERS";
    /// Ring buffer of [`super::TunnelTooBig`].
    pub const EVENTS: &str = "EVENTS";
}
