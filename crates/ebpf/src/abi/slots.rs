//! Slots of the open-addressed tables.
//!
//! One rule makes them safe to change under readers: the word that says what a slot is (`tag`,
//! or the slot itself where it is one word) is written last and alone, by one aligned 8-byte store.
//! Where the key does not fit that word, a slot is given a new key only after a grace period has
//! passed since it was withdrawn, and its key words are zeroed in between (see [`crate::probe`]).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An IP address as two words: the sixteen bytes on the wire, each half read little-endian.
/// IPv4 is IPv4-mapped (`::ffff:a.b.c.d`, RFC 4291 section 2.5.5.2).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Address {
    /// Bytes 0..8.
    pub hi: u64,
    /// Bytes 8..16.
    pub lo: u64,
}

impl Address {
    /// The address with these sixteen bytes, as they stand in an IPv6 header.
    #[inline(always)]
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
        Self { hi: u64::from_le_bytes([a, b, c, d, e, f, g, h]), lo: u64::from_le_bytes([i, j, k, l, m, n, o, p]) }
    }

    /// The IPv4 address with these four bytes, as they stand in an IPv4 header.
    #[inline(always)]
    #[must_use]
    pub const fn from_v4(bytes: [u8; 4]) -> Self {
        Self { hi: 0, lo: 0xffff_0000 | ((u32::from_le_bytes(bytes) as u64) << 32) }
    }

    /// The sixteen bytes, as in an IPv6 header.
    #[inline(always)]
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        let [a, b, c, d, e, f, g, h] = self.hi.to_le_bytes();
        let [i, j, k, l, m, n, o, p] = self.lo.to_le_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    /// Whether it is IPv4 (IPv4-mapped).
    #[inline(always)]
    #[must_use]
    pub const fn is_v4(self) -> bool {
        self.hi == 0 && self.lo as u32 == 0xffff_0000
    }

    /// From the standard library's type; IPv4 becomes IPv4-mapped.
    #[must_use]
    pub const fn from_ip(ip: core::net::IpAddr) -> Self {
        match ip {
            core::net::IpAddr::V4(v4) => Self::from_v4(v4.octets()),
            core::net::IpAddr::V6(v6) => Self::from_bytes(v6.octets()),
        }
    }

    /// To the standard library's type; IPv4-mapped becomes IPv4.
    #[must_use]
    pub fn to_ip(self) -> core::net::IpAddr {
        core::net::Ipv6Addr::from(self.to_bytes()).to_canonical()
    }
}

/// What an [`AddressSlot`] stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum AddressKind {
    /// Never used: a search ends here.
    Empty = 0,
    /// A VIP; the tag's id is the VIP id.
    Vip = 1,
    /// An address of this node on which GUE is accepted.
    Tunnel = 2,
    /// A director that may send to this node (table `DIRECTORS`).
    Director = 3,
    /// An endpoint of this node with delivery `Nat`: what is sent to it directly is passed, and takes flows back.
    Endpoint = 4,
    /// Withdrawn: a search goes on past it.
    Withdrawn = 255,
}

/// Flag of an address tag: the address is configured on this node too.
pub const ADDRESS_ON_NODE: u8 = 1;

/// One slot of `ADDRESSES` or `DIRECTORS`: 24 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AddressSlot {
    /// The key.
    pub address: Address,
    /// [`AddressTag`]; written last.
    pub tag: u64,
}

/// The tag of an [`AddressSlot`]: bits 0..32 id, 32..40 [`AddressKind`], 40..48 flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressTag(pub u64);

impl AddressTag {
    /// A tag of this kind, id and flags.
    #[must_use]
    pub const fn new(kind: AddressKind, id: u32, flags: u8) -> Self {
        Self(id as u64 | (kind as u64) << 32 | (flags as u64) << 40)
    }
    /// The VIP id.
    #[inline(always)]
    #[must_use]
    pub const fn id(self) -> u32 {
        self.0 as u32
    }
    /// The number of the [`AddressKind`].
    #[inline(always)]
    #[must_use]
    pub const fn kind(self) -> u8 {
        (self.0 >> 32) as u8
    }
    /// Whether [`ADDRESS_ON_NODE`] is set.
    #[inline(always)]
    #[must_use]
    pub const fn on_node(self) -> bool {
        (self.0 >> 40) as u8 & ADDRESS_ON_NODE != 0
    }
}

/// Transport protocols of frontends, by the number that the tables use (not IANA's).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Transport {
    /// TCP, IANA 6.
    Tcp = 0,
    /// UDP, IANA 17.
    Udp = 1,
}

/// VIP ids are below this.
pub const MAX_VIPS: u32 = 1 << 20;
/// Service ids are below this.
pub const MAX_SERVICES: u32 = 1 << 24;

/// One slot of `FRONTENDS`, whole in one word, so that every change of it is one store:
/// bits 0..16 port, 16..18 [`Transport`], 18..20 state (0 empty, 1 live, 2 withdrawn),
/// 20..40 VIP id, 40..64 service id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FrontendSlot(pub u64);

impl FrontendSlot {
    /// Never used: a search ends here.
    pub const EMPTY: Self = Self(0);
    /// Withdrawn: a search goes on past it.
    pub const WITHDRAWN: Self = Self(2 << 18);
    /// Mask of the bits that make the key (and "live").
    pub const KEY: u64 = (1 << 40) - 1;

    /// The live slot of this frontend.
    #[must_use]
    pub const fn new(vip: u32, transport: Transport, port: u16, service: u32) -> Self {
        Self(Self::key(vip, transport as u8, port) | (service as u64) << 40)
    }
    /// The bits under [`Self::KEY`] of a live frontend. `port` is the number, not wire bytes.
    #[inline(always)]
    #[must_use]
    pub const fn key(vip: u32, transport: u8, port: u16) -> u64 {
        port as u64 | (transport as u64) << 16 | 1 << 18 | (vip as u64) << 20
    }
    /// Port number.
    #[inline(always)]
    #[must_use]
    pub const fn port(self) -> u16 {
        self.0 as u16
    }
    /// The transport protocol.
    #[must_use]
    pub const fn transport(self) -> Transport {
        if (self.0 >> 16) & 3 == 0 { Transport::Tcp } else { Transport::Udp }
    }
    /// Whether the slot holds a frontend.
    #[inline(always)]
    #[must_use]
    pub const fn is_live(self) -> bool {
        (self.0 >> 18) & 3 == 1
    }
    /// VIP id.
    #[inline(always)]
    #[must_use]
    pub const fn vip(self) -> u32 {
        (self.0 >> 20) as u32 & (MAX_VIPS - 1)
    }
    /// Service id.
    #[inline(always)]
    #[must_use]
    pub const fn service(self) -> u32 {
        (self.0 >> 40) as u32
    }
}

/// One slot of `LOCALS`: how to deliver what a packet for this frontend and endpoint is. 48 bytes.
///
/// The key is the endpoint's address and the frontend's key bits ([`FrontendSlot::key`]). Port 0
/// stands for "any frontend of this VIP and protocol": it serves fragments after the first, which
/// carry no port. A director's own endpoint does not pass here: its [`super::Endpoint`] holds the delivery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct LocalSlot {
    /// The endpoint's address, part of the key.
    pub address: Address,
    /// Frontend key bits; 0 = empty, [`LocalSlot::WITHDRAWN`]; written last.
    pub tag: u64,
    /// How to deliver.
    pub delivery: super::Delivery,
    /// Index of the frontend's slot in `FRONTENDS`, for its counters; `u32::MAX` for port 0.
    pub frontend: u32,
    /// Index in `ENDPOINT_STATS`.
    pub counter: u32,
}

impl LocalSlot {
    /// The tag of a withdrawn slot.
    pub const WITHDRAWN: u64 = 2 << 18;
}

/// One element of `VIPS`, by VIP id: what replies get back. 24 bytes. Written before the VIP is in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VipSlot {
    /// The VIP; the unspecified IPv6 address (all zero) = the id is free.
    pub address: Address,
    /// How often the id has been given to another VIP: flows of an earlier one are told by the low eight bits.
    pub generation: u64,
}

/// Ports of one protocol that some endpoint of delivery `Nat` listens on: the first thing that is asked of a packet that
/// leaves. Bit n % 64 of element `protocol * 1024 + n / 64`.
pub const TARGET_PORT_WORDS: u32 = 2 * 1024;

/// Element and bit of a port in `TARGET_PORTS`; `port` is the number.
#[inline(always)]
#[must_use]
pub const fn locate_target_port(transport: u8, port: u16) -> (u32, u32) {
    ((transport as u32 & 1) * 1024 + (port >> 6) as u32, port as u32 & 63)
}

const _: () = {
    assert!(size_of::<VipSlot>() == 24);
    assert!(size_of::<AddressSlot>() == 24);
    assert!(size_of::<FrontendSlot>() == 8);
    assert!(size_of::<LocalSlot>() == 48);
};
