//! Counters and the small state of slow paths.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Packets and bytes. Bytes are those of the frame's linear part (all of it, but for multi-buffer frames).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Counter {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Elements of [`InterfaceCounters`].
pub const COUNTERS_PER_INTERFACE: usize = 128;
/// Index of the first [`Event`].
pub const FIRST_EVENT: usize = 8;
/// Index of drop reason 0; reason r counts at `FIRST_DROP + r`.
pub const FIRST_DROP: usize = 32;

/// One element of `COUNTERS`, per interface slot and CPU. The ledger:
/// `[RECEIVED] = [PASSED] + [TRANSMITTED] + [REDIRECTED] + sum of [FIRST_DROP..]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct InterfaceCounters(pub [Counter; COUNTERS_PER_INTERFACE]);

/// Every packet is counted here on entry.
pub const RECEIVED: usize = 0;
/// XDP_PASS.
pub const PASSED: usize = 1;
/// XDP_TX.
pub const TRANSMITTED: usize = 2;
/// XDP_REDIRECT.
pub const REDIRECTED: usize = 3;

/// What happened to a packet beside its verdict. Counted in addition, never part of the ledger; packets alone, no bytes.
/// A number is never reused: it is API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Event {
    /// A director sent it in GUE.
    Encapsulated = 0,
    /// A decap node stripped GUE.
    Decapsulated = 1,
    /// A director's own endpoint got it, with no tunnel.
    DeliveredHere = 2,
    /// An ICMP echo request to a VIP was answered.
    EchoAnswered = 3,
    /// "Fragmentation needed" or "packet too big" was sent to the client.
    TooBigAnswered = 4,
    /// An ICMP error about a VIP's flow followed that flow.
    IcmpErrorForwarded = 5,
    /// A router said that our own tunnel packet was too big (RFC 1191, RFC 8201).
    TunnelTooBig = 6,
    /// Congestion on the way was marked on the inner packet (RFC 6040).
    CongestionMarked = 7,
    /// To a VIP but no frontend, and passed, since the address is this node's too.
    PassedOnNode = 8,
    /// A fragment after the first followed its datagram.
    FragmentFollowed = 9,
    /// A packet for an endpoint got that endpoint's address and port (delivery `Nat`).
    Translated = 10,
    /// A reply got VIP and port back on its way out.
    ReplyTranslated = 11,
    /// A flow goes to its endpoint from another source port, since the client uses the same port there otherwise.
    FlowClash = 12,
    /// A flow that was in use gave way to a new one: `FLOWS` is too small.
    FlowEvicted = 13,
}

impl Event {
    /// Every event with its name in metrics, in order of number.
    pub const ALL: [(Self, &'static str); 14] = [
        (Self::Encapsulated, "encapsulated"),
        (Self::Decapsulated, "decapsulated"),
        (Self::DeliveredHere, "delivered_here"),
        (Self::EchoAnswered, "echo_answered"),
        (Self::TooBigAnswered, "too_big_answered"),
        (Self::IcmpErrorForwarded, "icmp_error_forwarded"),
        (Self::TunnelTooBig, "tunnel_too_big"),
        (Self::CongestionMarked, "congestion_marked"),
        (Self::PassedOnNode, "passed_on_node"),
        (Self::FragmentFollowed, "fragment_followed"),
        (Self::Translated, "translated"),
        (Self::ReplyTranslated, "reply_translated"),
        (Self::FlowClash, "flow_clash"),
        (Self::FlowEvicted, "flow_evicted"),
    ];
    /// Index in [`InterfaceCounters`].
    #[inline(always)]
    #[must_use]
    pub const fn index(self) -> usize {
        FIRST_EVENT + self as usize
    }
}

/// Counters that stand in one element of `FRONTEND_STATS` and `ENDPOINT_STATS`: number n in element
/// `n / COUNTERS_PER_PAGE`. The kernel keeps a pointer for each element of a per-CPU array (`pptrs` in
/// kernel/bpf/arraymap.c) and allocates each one by itself: with a counter an element, a packet among many services would
/// fetch a cold pointer before each cold counter, and a quarter of a million allocations would take 0.2 s.
pub const COUNTERS_PER_PAGE: usize = 64;
/// One element of `FRONTEND_STATS`, per CPU: 2 KiB.
pub type FrontendPage = [FrontendCounters; COUNTERS_PER_PAGE];
/// One element of `ENDPOINT_STATS`, per CPU: 1 KiB.
pub type EndpointPage = [Counter; COUNTERS_PER_PAGE];

/// Element and place in it of a counter's number.
#[inline(always)]
#[must_use]
pub const fn locate_counter(number: u32) -> (u32, usize) {
    (number / COUNTERS_PER_PAGE as u32, number as usize % COUNTERS_PER_PAGE)
}

/// What is counted for a frontend; its number is that of its slot in `FRONTENDS`. 32 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FrontendCounters {
    /// Packets that the director role took for this frontend (dropped ones included).
    pub directed: Counter,
    /// Packets that the decap role delivered for it.
    pub delivered: u64,
    /// Packets of this frontend that either role dropped.
    pub dropped: u64,
}

/// Ways of a set of `FRAGMENTS`.
pub const FRAGMENT_WAYS: usize = 4;
/// Sets in `FRAGMENTS` (a power of two).
pub const FRAGMENT_SETS: u32 = 4096;

/// One element of `FRAGMENTS`: what the first fragment of recent datagrams said. 64 bytes.
/// An entry is (keyed hash of source, destination, id and protocol; flow). The flow word carries 16 bits
/// of the key again, so that two halves of different writers never make an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FragmentSet(pub [[u64; 2]; FRAGMENT_WAYS]);

/// The one element of `LIMITER`, per CPU: a token bucket for ICMP answers. 16 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Limiter {
    /// When tokens were last added, ns of the monotonic clock.
    pub at: u64,
    /// Tokens left.
    pub tokens: u64,
}

/// A record of `EVENTS`: a router refused a tunnel packet of ours for its size. 24 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TunnelTooBig {
    /// The tunnel address that the packet was for.
    pub destination: super::Address,
    /// The MTU that the router named, bytes of IP.
    pub mtu: u32,
    /// Zero.
    pub reserved: u32,
}

const _: () = {
    assert!(size_of::<InterfaceCounters>() == 2048);
    assert!(size_of::<FrontendCounters>() == 32);
    assert!(size_of::<FragmentSet>() == 64);
    assert!(size_of::<TunnelTooBig>() == 24);
};
