//! Constants of a loaded program, and the sizes of the tables.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Slots of `INTERFACES`, `COUNTERS` and `ATTACHMENTS`.
pub const MAX_INTERFACES: u32 = 64;
/// The well-known port of GUE (IANA).
pub const GUE_PORT: u16 = 6080;

/// What a program knows of where and how it runs: its read-only data (symbol `SETTINGS`), so each is an
/// immediate in its code. Another value means another program, swapped in by an atomic link update.
/// 80 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct Settings {
    /// Key schedule of the flow hash ([`crate::hash::Schedule`]).
    pub hash: [u64; 4],
    /// The interface that this program is attached to.
    pub ifindex: u32,
    /// Its slot in `COUNTERS` and `ATTACHMENTS`.
    pub slot: u32,
    /// Slots of `ADDRESSES` - 1.
    pub address_mask: u32,
    /// Slots of `FRONTENDS` - 1.
    pub frontend_mask: u32,
    /// Slots of `LOCALS` - 1.
    pub local_mask: u32,
    /// Slots of `DIRECTORS` - 1.
    pub director_mask: u32,
    /// UDP destination port of GUE, as a number.
    pub gue_port: u16,
    /// Bit 0: director, bit 1: decap.
    pub roles: u8,
    /// 1: checksums of what comes in may be unfinished (a veth, or generic mode).
    pub partial_checksums: u8,
    /// Zero.
    pub reserved: [u8; 4],
    /// "Packet too big" answers a second and CPU.
    pub too_big_rate: u64,
    /// Sets of `FLOWS` - 1.
    pub flow_mask: u32,
    /// Zero.
    pub reserved1: u32,
}

/// [`Settings::roles`]: directs VIP traffic.
pub const ROLE_DIRECTOR: u8 = 1;
/// [`Settings::roles`]: strips GUE.
pub const ROLE_DECAP: u8 = 2;

const _: () = assert!(size_of::<Settings>() == 80);
