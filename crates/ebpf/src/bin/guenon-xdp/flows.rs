//! Flows of endpoints of delivery `Nat`: looked up for every packet, made and changed by those that open connections.

use guenon_ebpf::abi::{Address, Event, VipSlot};
use guenon_ebpf::flow::{self, Arrival, Cells, Entry, Fresh, Frontend, Inbound};
use guenon_ebpf::headers::transport::Ports;
use guenon_ebpf::reason::DropReason;
use guenon_ebpf::verdict::Verdict;

use crate::frame::opaque;
use crate::ledger::Ledger;
use crate::{maps, settings};

/// A set of `FLOWS`, which programs on other CPUs may be writing.
pub(crate) struct Set(*mut u64);

impl Set {
    /// The set of this key.
    #[inline(always)]
    pub(crate) fn of(key: u64) -> Option<Self> {
        maps::FLOWS.get_ptr_mut(key as u32 & settings::flow_mask()).map(|set| Self(set.cast()))
    }

    #[inline(always)]
    fn word(&self, way: usize, word: usize) -> *mut u64 {
        // SAFETY: a set has four entries of four words each.
        unsafe { self.0.add(((opaque(way) & 3) << 2) + word) }
    }
}

impl Cells for Set {
    #[inline(always)]
    fn load(&self, way: usize, word: usize) -> u64 {
        // SAFETY: a word of the set.
        unsafe { self.word(way, word).read_volatile() }
    }
    #[inline(always)]
    fn store(&mut self, way: usize, word: usize, value: u64) {
        // SAFETY: as above.
        unsafe { self.word(way, word).write_volatile(value) }
    }
    #[inline(always)]
    fn store_low(&mut self, way: usize, word: usize, value: u32) {
        // SAFETY: as above; its first half.
        unsafe { self.word(way, word).cast::<u32>().write_volatile(value) }
    }
    #[inline(always)]
    fn store_top(&mut self, way: usize, word: usize, value: u16) {
        // SAFETY: as above; its last two bytes.
        unsafe { self.word(way, word).cast::<u16>().add(3).write_volatile(value) }
    }
}

/// Coarse time.
#[inline(always)]
pub(crate) fn now() -> u16 {
    // SAFETY: the one element of the map, of which the agent changes this word by one store.
    maps::META.get_ptr(0).map_or(0, |meta| unsafe { (&raw const (*meta).clock).read_volatile() } as u16)
}

/// The VIP with this id.
#[inline(always)]
pub(crate) fn vip(id: u32) -> Option<VipSlot> {
    let slot = maps::VIPS.get_ptr(id)?;
    // SAFETY: an element of the map; the address does not change while the generation stays.
    Some(unsafe {
        VipSlot {
            address: (&raw const (*slot).address).read_volatile(),
            generation: (&raw const (*slot).generation).read_volatile(),
        }
    })
}

/// Whether a frontend's VIP is still the one that it was.
#[inline(always)]
pub(crate) fn is_live(frontend: Frontend) -> bool {
    vip(frontend.vip()).is_some_and(|vip| vip.generation as u8 == frontend.generation())
}

/// The entry of a key, unless its VIP is gone.
#[inline(always)]
pub(crate) fn live(set: &Set, key: u64) -> Option<(usize, Entry)> {
    let (way, entry) = flow::find(set, key)?;
    let frontend = entry.frontend();
    if frontend.is_none() || is_live(frontend) { Some((way, entry)) } else { None }
}

/// A packet's flow, as the endpoint sees it but for a substitute port.
pub(crate) struct Flow {
    pub(crate) client: Address,
    pub(crate) endpoint: &'static Address,
    /// The client's, then the endpoint's.
    pub(crate) ports: Ports,
    pub(crate) protocol: u8,
    pub(crate) frontend: Frontend,
    pub(crate) arrival: Arrival,
}

impl Flow {
    #[inline(always)]
    pub(crate) fn key(&self, source: u16) -> u64 {
        let ports = Ports { source, destination: self.ports.destination };
        flow::key(&settings::schedule(), self.client, *self.endpoint, ports, self.protocol)
    }
}

/// What a packet on its way to its endpoint finds: its source port, with [`STRANGE`] where the flow is to be taken in
/// first. What is known is noted as used.
#[inline(always)]
pub(crate) fn look(flow: &Flow) -> u64 {
    let source = flow.ports.source.into();
    match recognise(flow) {
        Inbound::Known | Inbound::Renew => source,
        Inbound::New => source | STRANGE | NEW,
        Inbound::Clash => source | STRANGE | CLASH,
        Inbound::Search => source | STRANGE,
    }
}

/// What [`look`] has found.
#[inline(always)]
pub(crate) fn found(looked: u64) -> Inbound {
    if looked & NEW != 0 {
        Inbound::New
    } else if looked & CLASH != 0 {
        Inbound::Clash
    } else {
        Inbound::Search
    }
}

/// A packet that is dropped, in the same terms.
#[inline(always)]
pub(crate) fn refused(reason: DropReason) -> u64 {
    (reason as u64) << REASON_SHIFT | REFUSED
}

#[inline(always)]
fn recognise(flow: &Flow) -> Inbound {
    let key = flow.key(flow.ports.source);
    let Some(mut set) = Set::of(key) else { return Inbound::Search };
    let now = now();
    let Some((way, entry)) = flow::find(&set, key) else {
        return flow::inbound(None, flow.frontend, flow.arrival, now);
    };
    let found = entry.frontend();
    // The frontend of this packet is known to be live: no need to ask for it again.
    let gone = found != flow.frontend && !found.is_none() && !is_live(found);
    let inbound = flow::inbound(if gone { None } else { Some(entry) }, flow.frontend, flow.arrival, now);
    match inbound {
        Inbound::Known => flow::touch(&mut set, way, &entry, now),
        Inbound::Renew => {
            if let Arrival::Syn(syn) = flow.arrival {
                flow::renew(&mut set, way, key, flow.frontend, syn, now);
            }
        }
        Inbound::New | Inbound::Clash | Inbound::Search => {}
    }
    inbound
}

// What is known of a packet's flow, in one word: in the low 16 bits the source port that the endpoint is to see.
const CLASHED: u64 = 1 << 16;
const EVICTED: u64 = 1 << 17;
/// The packet is dropped.
pub(crate) const REFUSED: u64 = 1 << 18;
/// The flow is to be taken in.
pub(crate) const STRANGE: u64 = 1 << 19;
const NEW: u64 = 1 << 20;
const CLASH: u64 = 1 << 21;
const REASON_SHIFT: u32 = 32;

/// Takes in a flow that [`look`] did not know, in the terms of [`outcome`].
#[inline(always)]
pub(crate) fn enter(flow: &Flow, inbound: Inbound) -> u64 {
    let source = flow.ports.source;
    let now = now();
    let key = flow.key(source);
    let clash = flow::clash_key(key, flow.frontend);
    if inbound != Inbound::New || flow.arrival == Arrival::Datagram {
        let port = substitute(flow, clash, now);
        if port != 0 {
            return port.into();
        }
    }
    match inbound {
        Inbound::New => u64::from(source) | make(flow, key, 0, now),
        Inbound::Clash => exchange(flow, clash, now),
        Inbound::Known | Inbound::Renew | Inbound::Search => source.into(),
    }
}

/// The port that a clashing flow was given before, if the endpoint sees it there still; else 0.
#[inline(always)]
fn substitute(flow: &Flow, clash: u64, now: u16) -> u16 {
    let Some(mut set) = Set::of(clash) else { return 0 };
    let Some((way, entry)) = live(&set, clash) else { return 0 };
    if !entry.is_clash() {
        return 0;
    }
    flow::touch(&mut set, way, &entry, now);
    let port = entry.port();
    let key = flow.key(port);
    let Some(mut set) = Set::of(key) else { return 0 };
    let Some((way, entry)) = live(&set, key) else { return 0 };
    if entry.port() != flow.ports.source || entry.is_clash() || entry.frontend() != flow.frontend {
        return 0;
    }
    if let Arrival::Syn(syn) = flow.arrival {
        flow::renew(&mut set, way, key, flow.frontend, syn, now);
    } else {
        flow::touch(&mut set, way, &entry, now);
    }
    port
}

/// A flow whose ports are in use otherwise gets another source port.
#[inline(always)]
fn exchange(flow: &Flow, clash: u64, now: u16) -> u64 {
    for attempt in 0..flow::PORT_TRIES {
        let port = flow::substitute(clash, attempt);
        let key = flow.key(port);
        let Some(set) = Set::of(key) else { continue };
        if port == flow.ports.source || flow::find(&set, key).is_some() {
            continue;
        }
        let made = make(flow, key, flow.ports.source, now);
        let Some(mut set) = Set::of(clash) else { return refused(DropReason::NoPort) };
        let evicted = flow::insert(&mut set, clash, flow.frontend, Fresh::Clash, port, now, is_live);
        return u64::from(port) | CLASHED | made | if evicted { EVICTED } else { 0 };
    }
    refused(DropReason::NoPort)
}

/// Makes a flow's entry.
#[inline(always)]
fn make(flow: &Flow, key: u64, port: u16, now: u16) -> u64 {
    let Some(mut set) = Set::of(key) else { return 0 };
    let fresh = match flow.arrival {
        Arrival::Syn(syn) => Fresh::Pending(syn),
        Arrival::Datagram => Fresh::Datagrams,
        Arrival::Other => return 0,
    };
    if flow::insert(&mut set, key, flow.frontend, fresh, port, now, is_live) { EVICTED } else { 0 }
}

/// Counts what [`enter`] did, and gives the source port that the endpoint is to see.
#[inline(always)]
pub(crate) fn outcome(ledger: &mut Ledger, entered: u64) -> Result<u16, Verdict> {
    if entered & REFUSED != 0 {
        return Err(Verdict::drop_number((entered >> REASON_SHIFT) as u8));
    }
    if entered & CLASHED != 0 {
        ledger.event(Event::FlowClash);
    }
    if entered & EVICTED != 0 {
        ledger.event(Event::FlowEvicted);
    }
    Ok(entered as u16)
}
