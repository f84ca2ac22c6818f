//! Flows of endpoints that are reached by `Nat`: how replies get VIP and port back.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Ways of a set of `FLOWS`.
pub const FLOW_WAYS: usize = 4;
/// Seconds of one tick of [`super::Meta::clock`].
pub const FLOW_TICK_SECONDS: u64 = 15;

/// Prefixes in `HAIRPINS`.
pub const MAX_HAIRPINS: u32 = 16_384;
/// A value of `HAIRPINS`: packets to the prefix leave by a device without the program on the way out, or not at all. 0: by
/// one that has it (a narrower prefix within a wider one).
pub const HAIRPIN: u32 = 1;

/// A key of `HAIRPINS`, as the kernel lays it out: 20 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct HairpinKey {
    /// Bits of the prefix; IPv4 counts from 96.
    pub prefix: u32,
    /// The sixteen bytes of the address ([`super::Address::to_bytes`]).
    pub address: [u8; 16],
}

/// One flow, as its endpoint sees it: client address and port, endpoint address and port, protocol. 32 bytes.
///
/// Words are written one by one, by programs on several CPUs: `current` and `pending` carry bits of the key, so that
/// halves of two entries never make one. The meaning of their bits is [`crate::flow`]'s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FlowEntry {
    /// Keyed hash of the flow as the endpoint sees it; 0 = empty.
    pub key: u64,
    /// The frontend that the flow is confirmed to belong to, its age and state.
    pub current: u64,
    /// The frontend whose SYN the endpoint has not answered yet.
    pub pending: u64,
    /// That SYN's sequence number and length; the client's own port where the endpoint sees another.
    pub syn: u64,
}

/// One element of `FLOWS`: two cache lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FlowSet(pub [FlowEntry; FLOW_WAYS]);

const _: () = {
    assert!(size_of::<HairpinKey>() == 20);
    assert!(size_of::<FlowEntry>() == 32);
    assert!(size_of::<FlowSet>() == 128);
};
