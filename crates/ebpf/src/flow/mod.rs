//! The flows of endpoints that are reached by `Nat`: what the bits of a [`FlowEntry`] mean, and by which rules they change.
//!
//! A flow is known as its endpoint sees it. An entry says to which frontend replies belong (`current`), and whose SYN the
//! endpoint has not answered yet (`pending`): only the SYN-ACK that acknowledges that very SYN confirms the flow, so
//! that a client port that was once used through a VIP does not spoil a direct connection from the same port.
//!
//! ```text
//! current  0..44 frontend, 44 direct, 45 clash, 46..58 acknowledgement that confirmed, 58..64 check
//! pending  0..44 frontend (none: datagrams, or a connection that has ended), 44..56 check, 56..64 data in the SYN, units of 256 bytes, rounded up
//! syn      0..32 its sequence number, 32..48 port in exchange (as on the wire), 48..64 tick of the last use
//! ```
//!
//! A frontend is 0..16 port, 16..36 VIP id, 36..44 the low bits of the VIP's generation; 0 = none. Checks are bits of the key.
//! The port in exchange is the client's own one where the endpoint sees another; in a clash entry, which stands under
//! [`clash_key`], it is the one that the endpoint sees.

mod rules;
mod set;

pub use rules::*;
pub use set::*;

use crate::abi::{Address, FlowEntry};
use crate::hash::{self, Schedule};
use crate::headers::transport::Ports;

/// Ports that are tried for a flow that clashes.
pub const PORT_TRIES: u32 = 8;

const FRONTEND: u64 = (1 << 44) - 1;
const DIRECT: u64 = 1 << 44;
const CLASH: u64 = 1 << 45;
const ANSWER_SHIFT: u32 = 46;
const ANSWER: u64 = 0xfff;
const CURRENT_CHECK: u64 = 0x3f << 58;
const PENDING_CHECK: u64 = 0xfff << 44;
const LENGTH_SHIFT: u32 = 56;
const LENGTH_UNIT: u32 = 256;

/// A frontend as entries name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frontend(u64);

impl Frontend {
    /// None.
    pub const NONE: Self = Self(0);

    /// The frontend with this VIP id, generation of the VIP and port (the number).
    #[inline(always)]
    #[must_use]
    pub const fn new(vip: u32, generation: u64, port: u16) -> Self {
        Self((port as u64 | (vip as u64) << 16 | generation << 36) & FRONTEND)
    }
    /// All of it in 44 bits.
    #[inline(always)]
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }
    /// What [`Self::bits`] gave; higher bits are left out.
    #[inline(always)]
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits & FRONTEND)
    }
    /// VIP id.
    #[inline(always)]
    #[must_use]
    pub const fn vip(self) -> u32 {
        (self.0 >> 16) as u32 & 0xf_ffff
    }
    /// The low bits of the VIP's generation.
    #[inline(always)]
    #[must_use]
    pub const fn generation(self) -> u8 {
        (self.0 >> 36) as u8
    }
    /// Port number.
    #[inline(always)]
    #[must_use]
    pub const fn port(self) -> u16 {
        self.0 as u16
    }
    /// Whether it is none.
    #[inline(always)]
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

/// The key of a flow as its endpoint sees it; ports as [`Ports`] has them, the client's first. Never 0.
#[inline(always)]
#[must_use]
pub const fn key(schedule: &Schedule, client: Address, endpoint: Address, ports: Ports, protocol: u8) -> u64 {
    let key = hash::flow(schedule, client, endpoint, ports.source, ports.destination, protocol);
    if key == 0 { 1 } else { key }
}

/// The key under which a flow that clashes finds its substitute port; `key` is that of its own ports.
#[inline(always)]
#[must_use]
pub const fn clash_key(key: u64, frontend: Frontend) -> u64 {
    let x = (key ^ frontend.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = x ^ (x >> 31);
    if x == 0 { 1 } else { x }
}

/// The port to try in place of one that clashes, as on the wire: one of the upper half, never the same twice.
#[inline(always)]
#[must_use]
pub const fn substitute(clash_key: u64, attempt: u32) -> u16 {
    let step = (clash_key >> 40) as u32 | 1;
    let number = ((clash_key >> 20) as u32).wrapping_add(step.wrapping_mul(attempt));
    (0x8000 | (number & 0x7fff) as u16).swap_bytes()
}

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    current: u64,
    pending: u64,
    syn: u64,
}

impl Entry {
    /// The entry of an agent's or test's copy; `None` if it is empty or of two writers.
    #[must_use]
    pub const fn of(entry: &FlowEntry) -> Option<Self> {
        let FlowEntry { key, current, pending, syn } = *entry;
        let read = Self { current, pending, syn };
        if key != 0 && read.is_of(key) { Some(read) } else { None }
    }
    /// The frontend that the flow is confirmed to belong to.
    #[inline(always)]
    #[must_use]
    pub const fn current(&self) -> Frontend {
        Frontend(self.current & FRONTEND)
    }
    /// The frontend whose SYN is, or was last, on its way to the endpoint.
    #[inline(always)]
    #[must_use]
    pub const fn pending(&self) -> Frontend {
        Frontend(self.pending & FRONTEND)
    }
    /// Current, else pending.
    #[inline(always)]
    #[must_use]
    pub const fn frontend(&self) -> Frontend {
        if self.current().is_none() { self.pending() } else { self.current() }
    }
    /// Whether a direct connection uses the ports.
    #[inline(always)]
    #[must_use]
    pub const fn is_direct(&self) -> bool {
        self.current & DIRECT != 0
    }
    /// Whether it tells a clashing flow's substitute port.
    #[inline(always)]
    #[must_use]
    pub const fn is_clash(&self) -> bool {
        self.current & CLASH != 0
    }
    /// The port in exchange, as on the wire; 0 = none.
    #[inline(always)]
    #[must_use]
    pub const fn port(&self) -> u16 {
        (self.syn >> 32) as u16
    }
    /// Ticks since it was used.
    #[inline(always)]
    #[must_use]
    pub const fn age(&self, now: u16) -> u16 {
        now.wrapping_sub((self.syn >> 48) as u16)
    }
    /// Whether this acknowledgement is of the pending SYN or of data in it.
    #[inline(always)]
    const fn answers(&self, acknowledgement: u32) -> bool {
        let most = (self.pending >> LENGTH_SHIFT) as u32 * LENGTH_UNIT;
        !self.pending().is_none() && acknowledgement.wrapping_sub(self.syn as u32).wrapping_sub(1) <= most
    }
    /// Whether this acknowledgement is the one that confirmed the flow, as far as is remembered.
    #[inline(always)]
    const fn answered(&self, acknowledgement: u32) -> bool {
        !self.current().is_none() && (self.current >> ANSWER_SHIFT) & ANSWER == acknowledgement as u64 & ANSWER
    }
    #[inline(always)]
    const fn is_of(&self, key: u64) -> bool {
        (self.current ^ key) & CURRENT_CHECK == 0 && ((self.pending ^ key >> 8) & PENDING_CHECK) == 0
    }
}
