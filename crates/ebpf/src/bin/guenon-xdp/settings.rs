//! Where and how the program runs: read-only data that the loader sets; constant from then on.

use guenon_ebpf::abi::{GUE_PORT, Settings};
use guenon_ebpf::hash::Schedule;

#[unsafe(no_mangle)]
static SETTINGS: Settings = Settings {
    hash: [0; 4],
    ifindex: 0,
    slot: 0,
    address_mask: 0,
    frontend_mask: 0,
    local_mask: 0,
    director_mask: 0,
    gue_port: GUE_PORT,
    roles: 0,
    partial_checksums: 0,
    reserved: [0; 4],
    too_big_rate: 0,
    flow_mask: 0,
    reserved1: 0,
};

macro_rules! setting {
    ($($(#[$doc:meta])* $name:ident: $type:ty;)+) => {
        $($(#[$doc])* #[inline(always)] pub(crate) fn $name() -> $type {
            // SAFETY: a field of a static. Volatile, since the loader has changed what the compiler sees.
            unsafe { core::ptr::read_volatile(&raw const SETTINGS.$name) }
        })+
    };
}

setting! {
    /// The interface that the program is attached to.
    ifindex: u32;
    /// Its slot in `COUNTERS`.
    slot: u32;
    /// Slots of `ADDRESSES` - 1.
    address_mask: u32;
    /// Slots of `FRONTENDS` - 1.
    frontend_mask: u32;
    /// Slots of `LOCALS` - 1.
    local_mask: u32;
    /// Slots of `DIRECTORS` - 1.
    director_mask: u32;
    /// UDP destination port of GUE.
    gue_port: u16;
    /// "Packet too big" answers a second and CPU.
    too_big_rate: u64;
    /// What it is there for.
    roles: u8;
    /// Whether checksums of what comes in may be unfinished.
    partial_checksums: u8;
    /// Sets of `FLOWS` - 1.
    flow_mask: u32;
}

/// Whether the program has this role.
#[inline(always)]
pub(crate) fn has_role(role: u8) -> bool {
    roles() & role != 0
}

/// Key schedule of the flow hash.
#[inline(always)]
pub(crate) fn schedule() -> Schedule {
    // SAFETY: as above.
    Schedule(unsafe { core::ptr::read_volatile(&raw const SETTINGS.hash) })
}
