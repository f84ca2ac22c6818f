//! The flows of endpoints that are reached by `Nat`: what the bits of a [`FlowEntry`] mean, and by which rules they change.
//!
//! A flow is known as its endpoint sees it. An entry says to which frontend replies belong (`current`), and whose SYN the
//! endpoint has not answered yet (`pending`): only the SYN-ACK that acknowledges that very SYN confirms the flow, so
//! that a client port that was once used through a VIP does not spoil a direct connection from the same port.
//!
//! ```text
//! current  0..44 frontend, 44 direct, 45 clash, 46..58 acknowledgement that confirmed, 58..64 check
//! pending  0..44 frontend, 44..56 check, 56..64 data in the SYN, units of 256 bytes, rounded up
//! syn      0..32 its sequence number, 32..48 port in exchange (as on the wire), 48..64 tick of the last use
//! ```
//!
//! A frontend is 0..16 port, 16..36 VIP id, 36..44 the low bits of the VIP's generation; 0 = none. Checks are bits of the key.
//! The port in exchange is the client's own one where the endpoint sees another; in a clash entry, which stands under
//! [`clash_key`], it is the one that the endpoint sees.

use crate::abi::{Address, FLOW_WAYS, FlowEntry, FlowSet};
use crate::hash::{self, Schedule};
use crate::headers::transport::Ports;

/// Ticks after which a SYN that was not answered, or was refused, no longer holds its ports.
pub const UNANSWERED_TICKS: u16 = 4;
/// Ticks after which a direct connection that has been silent no longer holds its ports against a VIP's SYN.
pub const DIRECT_TICKS: u16 = 20;
/// Ticks after which a UDP flow that has been silent no longer holds its ports.
pub const DATAGRAM_TICKS: u16 = 8;
/// A flow that was used within so many ticks is in use: forgetting it is an eviction.
pub const IN_USE_TICKS: u16 = 4;
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

const KEY_WORD: usize = 0;
const CURRENT_WORD: usize = 1;
const PENDING_WORD: usize = 2;
const SYN_WORD: usize = 3;

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

/// The words of a set, as the kernel's side and tests reach them. Another CPU may write them between two calls.
pub trait Cells {
    /// A word.
    fn load(&self, way: usize, word: usize) -> u64;
    /// Writes a word.
    fn store(&mut self, way: usize, word: usize, value: u64);
    /// Writes the low half of a word alone.
    fn store_low(&mut self, way: usize, word: usize, value: u32);
    /// Writes the top 16 bits of a word alone.
    fn store_top(&mut self, way: usize, word: usize, value: u16);
}

impl Cells for FlowSet {
    fn load(&self, way: usize, word: usize) -> u64 {
        let FlowEntry { key, current, pending, syn } = self.0[way];
        [key, current, pending, syn][word]
    }
    fn store(&mut self, way: usize, word: usize, value: u64) {
        let FlowEntry { key, current, pending, syn } = &mut self.0[way];
        *[key, current, pending, syn][word] = value;
    }
    fn store_low(&mut self, way: usize, word: usize, value: u32) {
        let old = self.load(way, word);
        self.store(way, word, old & !0xffff_ffff | u64::from(value));
    }
    fn store_top(&mut self, way: usize, word: usize, value: u16) {
        let old = self.load(way, word);
        self.store(way, word, old & !(0xffff << 48) | u64::from(value) << 48);
    }
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

/// A SYN's sequence number, and how much data it has (Fast Open).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Syn {
    /// Sequence number.
    pub sequence: u32,
    /// Bytes of data.
    pub length: u32,
}

/// A packet on its way to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A TCP SYN.
    Syn(Syn),
    /// Any other TCP segment, or an ICMP error about the flow.
    Other,
    /// A UDP datagram.
    Datagram,
}

/// What a packet on its way to an endpoint finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inbound {
    /// Its own entry.
    Known,
    /// Its own entry, whose pending SYN it is from now on.
    Renew,
    /// Free ports: the flow gets an entry.
    New,
    /// Ports that are in use otherwise: the flow gets another source port, if it has none yet.
    Clash,
    /// No entry of its own: goes by its clash entry, or as it is.
    Search,
}

/// Judges a packet for `frontend` by the entry of its ports. An entry of a VIP that is gone counts as none: the caller
/// has left it out.
#[inline(always)]
#[must_use]
pub fn inbound(entry: Option<Entry>, frontend: Frontend, arrival: Arrival, now: u16) -> Inbound {
    let Some(entry) = entry else {
        return if matches!(arrival, Arrival::Other) { Inbound::Search } else { Inbound::New };
    };
    let own = entry.port() == 0;
    let (current, pending, age) = (entry.current(), entry.pending(), entry.age(now));
    match arrival {
        Arrival::Other if own && (current == frontend || pending == frontend) => Inbound::Known,
        Arrival::Other => Inbound::Search,
        Arrival::Syn(_) if own && (current == frontend || current.is_none() && is_waiting(&entry, frontend)) => {
            Inbound::Renew
        }
        Arrival::Syn(_)
            if current.is_none() && age > if entry.is_direct() { DIRECT_TICKS } else { UNANSWERED_TICKS } =>
        {
            Inbound::New
        }
        Arrival::Datagram if own && current == frontend => Inbound::Known,
        Arrival::Datagram if age > DATAGRAM_TICKS => Inbound::New,
        Arrival::Syn(_) | Arrival::Datagram => Inbound::Clash,
    }
}

#[inline(always)]
fn is_waiting(entry: &Entry, frontend: Frontend) -> bool {
    !entry.is_direct() && entry.pending() == frontend
}

/// What becomes of a packet that an endpoint sends, and of its flow's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outbound {
    /// Leaves as it is.
    Untouched,
    /// Leaves as it is; the ports are a direct connection's.
    Direct,
    /// Gets this frontend's address and port.
    Translate(Frontend),
    /// Likewise, and the flow is confirmed.
    Confirm(Frontend),
    /// Likewise, and the entry goes: the endpoint refused the connection.
    Last(Frontend),
}

/// TCP flag.
pub const SYN: u8 = 2;
/// TCP flag.
pub const RST: u8 = 4;
/// TCP flag.
pub const ACK: u8 = 16;

/// Judges a TCP segment by the entry of its ports.
#[inline(always)]
#[must_use]
pub fn outbound_tcp(entry: &Entry, flags: u8, acknowledgement: u32) -> Outbound {
    let current = entry.current();
    if flags & SYN != 0 {
        if flags & ACK == 0 {
            return Outbound::Direct;
        }
        if entry.answers(acknowledgement) {
            return Outbound::Confirm(entry.pending());
        }
        return if entry.answered(acknowledgement) { Outbound::Translate(current) } else { Outbound::Direct };
    }
    if !current.is_none() {
        return Outbound::Translate(current);
    }
    if flags & RST == 0 {
        return Outbound::Direct;
    }
    // What was not SYN-ACKed can only be refused; another RST ends a direct connection.
    if entry.answers(acknowledgement) { Outbound::Last(entry.pending()) } else { Outbound::Untouched }
}

/// Judges a UDP datagram by the entry of its ports.
#[inline(always)]
#[must_use]
pub fn outbound_udp(entry: &Entry) -> Outbound {
    if entry.current().is_none() { Outbound::Untouched } else { Outbound::Translate(entry.current()) }
}

/// The way and content of a key's entry.
#[inline(always)]
#[must_use]
pub fn find(cells: &impl Cells, key: u64) -> Option<(usize, Entry)> {
    let mut way = FLOW_WAYS;
    for candidate in 0..FLOW_WAYS {
        if cells.load(candidate, KEY_WORD) == key {
            way = candidate;
        }
    }
    if way == FLOW_WAYS {
        return None;
    }
    let entry = read(cells, way);
    // A writer takes the key away first and puts it back last.
    if entry.is_of(key) && cells.load(way, KEY_WORD) == key { Some((way, entry)) } else { None }
}

#[inline(always)]
fn read(cells: &impl Cells, way: usize) -> Entry {
    Entry {
        current: cells.load(way, CURRENT_WORD),
        pending: cells.load(way, PENDING_WORD),
        syn: cells.load(way, SYN_WORD),
    }
}

/// Notes that an entry was used.
#[inline(always)]
pub fn touch(cells: &mut impl Cells, way: usize, entry: &Entry, now: u16) {
    if entry.age(now) != 0 {
        cells.store_top(way, SYN_WORD, now);
    }
}

/// Makes this SYN the pending one of an entry.
#[inline(always)]
pub fn renew(cells: &mut impl Cells, way: usize, key: u64, frontend: Frontend, syn: Syn, now: u16) {
    cells.store_low(way, SYN_WORD, syn.sequence);
    cells.store_top(way, SYN_WORD, now);
    cells.store(way, PENDING_WORD, pending_word(key, frontend, syn.length));
}

/// The flow is confirmed by this acknowledgement.
#[inline(always)]
pub fn confirm(cells: &mut impl Cells, way: usize, key: u64, frontend: Frontend, acknowledgement: u32) {
    let answer = (u64::from(acknowledgement) & ANSWER) << ANSWER_SHIFT;
    cells.store(way, CURRENT_WORD, frontend.0 | answer | key & CURRENT_CHECK);
}

/// The ports are a direct connection's.
#[inline(always)]
pub fn mark_direct(cells: &mut impl Cells, way: usize, key: u64, now: u16) {
    cells.store(way, CURRENT_WORD, DIRECT | key & CURRENT_CHECK);
    cells.store(way, PENDING_WORD, pending_word(key, Frontend::NONE, 0));
    cells.store_top(way, SYN_WORD, now);
}

/// Forgets an entry.
#[inline(always)]
pub fn remove(cells: &mut impl Cells, way: usize) {
    cells.store(way, KEY_WORD, 0);
}

/// What a new entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fresh {
    /// A SYN is on its way.
    Pending(Syn),
    /// A UDP flow.
    Datagrams,
    /// A clash entry.
    Clash,
}

/// Makes an entry under `key`: in the place of its namesake, else of the least useful. `is_live`: whether a frontend's VIP
/// is still there. Whether a flow that was in use had to go.
#[inline(always)]
pub fn insert(
    cells: &mut impl Cells,
    key: u64,
    frontend: Frontend,
    fresh: Fresh,
    port: u16,
    now: u16,
    is_live: impl Fn(Frontend) -> bool,
) -> bool {
    let (mut way, mut most) = (0, 0);
    for candidate in 0..FLOW_WAYS {
        let worth = uselessness(cells, candidate, key, now, &is_live);
        if worth > most {
            (way, most) = (candidate, worth);
        }
    }
    let (current, pending, sequence) = match fresh {
        Fresh::Pending(syn) => (Frontend::NONE.0, pending_word(key, frontend, syn.length), syn.sequence),
        Fresh::Datagrams => (frontend.0, pending_word(key, Frontend::NONE, 0), 0),
        Fresh::Clash => (frontend.0 | CLASH, pending_word(key, Frontend::NONE, 0), 0),
    };
    cells.store(way, KEY_WORD, 0);
    cells.store(way, CURRENT_WORD, current | key & CURRENT_CHECK);
    cells.store(way, PENDING_WORD, pending);
    cells.store(way, SYN_WORD, u64::from(sequence) | u64::from(port) << 32 | u64::from(now) << 48);
    cells.store(way, KEY_WORD, key);
    most <= IN_USE
}

/// The greatest uselessness of a flow in use.
const IN_USE: u32 = IN_USE_TICKS as u32 + 1;
/// What an entry that was never confirmed counts, in ticks: half an hour.
const UNCONFIRMED: u32 = 120;

/// How little an entry is worth; at least 1.
#[inline(always)]
fn uselessness(cells: &impl Cells, way: usize, key: u64, now: u16, is_live: &impl Fn(Frontend) -> bool) -> u32 {
    let found = cells.load(way, KEY_WORD);
    let entry = read(cells, way);
    if found == key {
        return 1 << 20;
    }
    if found == 0 || !entry.is_of(found) {
        return 1 << 19;
    }
    let frontend = entry.frontend();
    if !frontend.is_none() && !is_live(frontend) {
        return 1 << 18;
    }
    let unconfirmed = if entry.current().is_none() { UNCONFIRMED } else { 0 };
    u32::from(entry.age(now)) + 1 + unconfirmed
}

#[inline(always)]
const fn pending_word(key: u64, frontend: Frontend, length: u32) -> u64 {
    let units = length.div_ceil(LENGTH_UNIT);
    let units = if units > 0xff { 0xff } else { units };
    frontend.0 | key >> 8 & PENDING_CHECK | (units as u64) << LENGTH_SHIFT
}
