//! Endpoints and the ways to them: outer header, next hop, interface, local delivery.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The longest outer header: IPv6 (40), UDP (8), GUE (4), private data naming an IPv6 endpoint (20).
pub const MAX_HEADER: usize = 72;

/// How an [`Endpoint`] is reached from this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EndpointKind {
    /// No route to its tunnel address: `no_route`.
    Unreachable = 0,
    /// GUE in IPv4.
    Tunnel4 = 1,
    /// GUE in IPv6.
    Tunnel6 = 2,
    /// On this very node: delivered with no encapsulation.
    Local = 3,
}

/// One element of `ENDPOINTS`: 128 bytes, two cache lines. Element 0 is never used: block 0 stands for "no endpoints".
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct Endpoint {
    /// [`EndpointKind`].
    pub kind: u8,
    /// Bytes of `header` in use: outer IP + UDP + GUE + private data. 32, 40 or 52 in IPv4; 52, 60
    /// or 72 in IPv6.
    pub header_len: u8,
    /// How many elements of the block are left from this one on (1 = the last).
    pub block_len: u16,
    /// Index in `NEXT_HOPS`.
    pub next_hop: u32,
    /// Outer IPv4: ones'-complement sum (not inverted, folded to 16 bits, little-endian words) of the header with
    /// zero in total length, DSCP/ECN and checksum.
    pub checksum: u32,
    /// Index in `ENDPOINT_STATS`; survives changes of the block.
    pub counter: u32,
    /// Outer IP, UDP, GUE and private data; what the packet decides (lengths, DSCP/ECN, flow label, checksum,
    /// UDP source port, GUE's protocol) is zero. [`EndpointKind::Unreachable`]: the tunnel address in the first 16
    /// bytes, as in [`Self::address`], for people.
    pub header: [u8; MAX_HEADER],
    /// The endpoint's own address: its identity.
    pub address: [u8; 16],
    /// For [`EndpointKind::Local`].
    pub delivery: Delivery,
    /// Zero.
    pub reserved: [u8; 8],
}

/// How a packet is handed to a local endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DeliveryMode {
    /// No delivery.
    None = 0,
    /// Passed to this node's own stack: the VIP is on its loopback.
    Local = 1,
    /// Redirected to a veth, behind which the VIP is on a loopback.
    Veth = 2,
    /// Destination rewritten to the endpoint's own address and to a port of its own, then passed to this node's stack,
    /// which routes it there; replies get VIP and port back where they leave the node.
    Nat = 3,
}

/// Mode, device and MAC of a local delivery: 16 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct Delivery {
    /// Destination MAC of the frame (`Veth`); zero = not resolved yet: `no_neighbour`.
    pub mac: [u8; 6],
    /// [`DeliveryMode`].
    pub mode: u8,
    /// Zero.
    pub reserved: u8,
    /// Device to redirect to (`Veth`).
    pub ifindex: u32,
    /// MTU of that device, bytes of IP, no more than 65,535; 0 = do not check.
    pub mtu: u16,
    /// Where the endpoint listens (`Nat`), as a number. In [`LocalSlot`](super::LocalSlot) alone: an [`Endpoint`] serves
    /// all frontends of its service, so a director looks its own one up there. 0 for port 0 (later fragments).
    pub port: u16,
}

/// One element of `NEXT_HOPS`: 16 bytes, each half written by one store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NextHop {
    /// Bytes 0..6 in memory: destination MAC (zero = not resolved: `no_neighbour`); 6..8: slot in `INTERFACES`
    /// of the egress, little-endian.
    pub mac_interface: u64,
    /// Path MTU in force towards here, bytes of IP, in the low half; high half zero.
    pub mtu: u64,
}

impl NextHop {
    /// The word of this MAC and egress.
    #[must_use]
    pub const fn pack(mac: [u8; 6], interface: u16) -> u64 {
        let [a, b, c, d, e, f] = mac;
        let [g, h] = interface.to_le_bytes();
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
    /// MAC and egress slot of a word.
    #[inline(always)]
    #[must_use]
    pub const fn unpack(word: u64) -> ([u8; 6], u16) {
        let [a, b, c, d, e, f, g, h] = word.to_le_bytes();
        ([a, b, c, d, e, f], u16::from_le_bytes([g, h]))
    }
    /// Whether the MAC in the word is not known yet.
    #[inline(always)]
    #[must_use]
    pub const fn is_unresolved(word: u64) -> bool {
        word & 0x0000_ffff_ffff_ffff == 0
    }
}

/// One element of `INTERFACES`: a device to send from. 32 bytes. Slot n < [`super::MAX_INTERFACES`];
/// a slot that changes is written anew elsewhere and the next hops are pointed there.
///
/// A VLAN device is no target: its slot names the device beneath, and the tags to send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct Interface {
    /// The kernel's index of the (lowest) device; 0 = slot free.
    pub ifindex: u32,
    /// MTU of the device, bytes of IP.
    pub mtu: u32,
    /// Source MAC of what is sent.
    pub mac: [u8; 6],
    /// Number of VLAN tags to send, 0..=2.
    pub tag_count: u8,
    /// Zero.
    pub reserved0: u8,
    /// The tags as on the wire: TPID, TCI; outer first.
    pub tags: [[u8; 4]; 2],
    /// Zero.
    pub reserved: [u8; 8],
}

/// One element of `NEXT_HOP_KEYS`: 32 bytes. All zero = the next hop is free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NextHopKey {
    /// The gateway, or the destination itself where it is on-link.
    pub gateway: super::Address,
    /// Name of the route's interface, zero-padded.
    pub interface: [u8; 16],
}

/// One element of `ATTACHMENTS`: 32 bytes. A name keeps its slot for as long as the maps live, so that
/// its counters go on when the device comes back with another index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct Attachment {
    /// Name of the interface, zero-padded; all zero = slot free.
    pub interface: [u8; 16],
    /// The kernel's index at the last attachment; 0 = not attached now.
    pub ifindex: u32,
    /// 0 not attached, 1 native (driver), 2 generic.
    pub mode: u8,
    /// The program on the way out: 0 not attached, 1 by a tcx link, 2 by clsact. The agent goes by it: see `HAIRPINS`.
    pub egress: u8,
    /// Zero.
    pub reserved: [u8; 10],
}

const _: () = {
    assert!(size_of::<NextHopKey>() == 32);
    assert!(size_of::<Attachment>() == 32);
    assert!(size_of::<Endpoint>() == 128);
    assert!(size_of::<Delivery>() == 16);
    assert!(size_of::<NextHop>() == 16);
    assert!(size_of::<Interface>() == 32);
};
