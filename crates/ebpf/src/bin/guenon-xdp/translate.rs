//! Delivery `Nat`: a VIP's packet gets its endpoint's address and port and goes to this node's stack, which routes it on.
//!
//! All of this runs in functions of its own, behind the general way's: neither has stack left for the other.

use aya_ebpf::bindings::xdp_action::XDP_ABORTED;
use aya_ebpf::bindings::xdp_md;
use guenon_ebpf::abi::{Address, Event, FrontendSlot, LocalSlot};
use guenon_ebpf::flow::{Arrival, Frontend};
use guenon_ebpf::headers::transport::Ports;
use guenon_ebpf::headers::{icmp, protocol};
use guenon_ebpf::nat::{self, Change, Side, TCP_HEAD, UDP_HEAD};
use guenon_ebpf::packet::Packet;
use guenon_ebpf::parse::{self, Ip};
use guenon_ebpf::place::{Place, Subject};
use guenon_ebpf::reason::DropReason;
use guenon_ebpf::verdict::{Outcome, Verdict};

use crate::flows::{self, Flow};
use crate::frame::Frame;
use crate::ledger::Ledger;
use crate::{deliver, quote, route, settings, tables};

/// Where a packet for this slot of `LOCALS` goes on: here. `tunnel`: it came through one.
#[inline(always)]
pub(crate) fn begin(ip: &Ip, link_len: usize, local: u32, tunnel: bool) -> Verdict {
    Verdict::translate(Place::rough(ip, link_len, local, tunnel))
}

/// The same for a packet whose headers the caller has at hand.
#[inline(always)]
pub(crate) fn begin_plain(ip: &Ip, link_len: usize, local: u32) -> Verdict {
    Verdict::translate(Place::rough(ip, link_len, local, true).fill(ip))
}

/// The action for a packet that goes on.
#[inline(always)]
pub(crate) fn take<const FRAGS: bool>(ctx: *mut xdp_md, place: u64) -> u64 {
    let (place, mut entered) = if Place(place).is_rough() {
        let place = locate::<FRAGS>(ctx, place);
        (place, look::<FRAGS>(ctx, place))
    } else {
        let known = if Place(place).v6() { guenon_nat_known_v6(ctx, place) } else { guenon_nat_known_v4(ctx, place) };
        if known & LOOKED == 0 {
            return known;
        }
        (place, known & !LOOKED)
    };
    if entered & flows::STRANGE != 0 {
        entered = enter::<FRAGS>(ctx, place, entered);
    }
    finish::<FRAGS>(ctx, place, entered)
}

/// Not the action for a packet, but what [`look`] gives.
const LOOKED: u64 = 1 << 62;

/// The common way: of a plain packet of a known flow, all at once.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn guenon_nat_known_v4(ctx: *mut xdp_md, place: u64) -> u64 {
    known(ctx, Place(place).plain_upper(false))
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn guenon_nat_known_v6(ctx: *mut xdp_md, place: u64) -> u64 {
    known(ctx, Place(place).plain_upper(true))
}

#[inline(always)]
fn known(ctx: *mut xdp_md, place: Place) -> u64 {
    let frame = Frame::<true>::new(ctx);
    let Some(mut ledger) = Ledger::open(frame.linear_len()) else { return XDP_ABORTED.into() };
    let Ok(local) = tables::local_slot(place.local()) else {
        return flows::refused(DropReason::Aborted) | LOOKED;
    };
    let looked = match read(&frame, place, local) {
        Ok(flow) => flows::look(&flow),
        Err(reason) => flows::refused(reason),
    };
    if looked & (flows::STRANGE | flows::REFUSED) != 0 {
        return looked | LOOKED;
    }
    let outcome = deliver_to(frame, &mut ledger, place, local, looked);
    u64::from(ledger.close(outcome))
}

once! {
    /// Reads the headers of a packet once more: the general way has no room to hand them on.
    fn locate, guenon_nat_place, guenon_nat_place_linear(ctx, place: u64) {
        let place = Place(place);
        match parse::ip(&Frame::<FRAGS>::new(ctx), place.at(), place.v6()) {
            Some(ip) => place.fill(&ip).0,
            None => place.0,
        }
    }
}

once! {
    /// Looks for the packet's flow: what it finds, in the terms of [`flows`].
    fn look, guenon_nat_look, guenon_nat_look_linear(ctx, place: u64) {
        let place = Place(place);
        if place.subject() == Subject::Later {
            return 0;
        }
        match flow(&Frame::<FRAGS>::new(ctx), place) {
            Ok(flow) => flows::look(&flow),
            Err(reason) => flows::refused(reason),
        }
    }
}

once! {
    /// Takes in a flow that was not found.
    fn enter, guenon_nat_enter, guenon_nat_enter_linear(ctx, place: u64, looked: u64) {
        match flow(&Frame::<FRAGS>::new(ctx), Place(place)) {
            Ok(flow) => {
                let opens = flow.arrival != Arrival::Other;
                if opens && !route::is_answerable(flow.client) {
                    return flows::refused(DropReason::Hairpin);
                }
                flows::enter(&flow, flows::found(looked))
            }
            Err(reason) => flows::refused(reason),
        }
    }
}

once! {
    /// Strips the tunnel, rewrites the packet and counts its verdict.
    fn finish, guenon_nat, guenon_nat_linear(ctx, place: u64, entered: u64) {
        let frame = Frame::<FRAGS>::new(ctx);
        let Some(mut ledger) = Ledger::resume(frame.linear_len()) else { return XDP_ABORTED.into() };
        let place = Place(place);
        let outcome = match tables::local_slot(place.local()) {
            Ok(local) => deliver_to(frame, &mut ledger, place, local, entered),
            Err(reason) => Err(reason.into()),
        };
        u64::from(ledger.close(outcome))
    }
}

#[inline(always)]
fn deliver_to<const FRAGS: bool>(
    frame: Frame<FRAGS>,
    ledger: &mut Ledger,
    place: Place,
    local: &'static LocalSlot,
    entered: u64,
) -> Outcome {
    ledger.frontend(local.frontend);
    if place.is_rough() {
        return Err(DropReason::Aborted.into());
    }
    let port = flows::outcome(ledger, entered)?;
    let frame = deliver::strip(frame, place.between(), place.link_len(), place.v6()).ok_or(DropReason::Aborted)?;
    rewrite(frame, place.stripped(), local, port)?;
    if place.tunnel() {
        ledger.delivered();
        ledger.endpoint(local.counter);
        ledger.event(Event::Decapsulated);
    } else {
        ledger.event(Event::DeliveredHere);
    }
    ledger.event(Event::Translated);
    Ok(Verdict::PASS)
}

#[inline(always)]
fn rewrite<const FRAGS: bool>(
    mut frame: Frame<FRAGS>,
    place: Place,
    local: &'static LocalSlot,
    port: u16,
) -> Result<(), DropReason> {
    match place.subject() {
        Subject::Later => set_address(&mut frame, place, local.address).map(|_| ()).ok_or(DropReason::Aborted),
        Subject::Error => quote::rewrite::<FRAGS>(frame.ctx(), place, port),
        Subject::Tcp | Subject::Udp => {
            let new = Ports { source: port, destination: local.delivery.port.to_be() };
            write(&mut frame, place, local.address, new).ok_or(DropReason::Aborted)
        }
    }
}

/// The packet's flow; of an ICMP error, the one that it tells of.
#[inline(always)]
fn flow<const FRAGS: bool>(frame: &Frame<FRAGS>, place: Place) -> Result<Flow, DropReason> {
    read(frame, place, tables::local_slot(place.local())?)
}

/// The same, of a packet for this slot.
#[inline(always)]
fn read<const FRAGS: bool>(frame: &Frame<FRAGS>, place: Place, local: &'static LocalSlot) -> Result<Flow, DropReason> {
    let frontend = frontend(local).ok_or(DropReason::NotOurEndpoint)?;
    let (source, _, end) = nat::ends(frame, place.at(), place.v6()).ok_or(DropReason::Aborted)?;
    let destination = local.delivery.port.to_be();
    let upper = place.upper();
    let (client, source, protocol, arrival) = match place.subject() {
        Subject::Tcp => {
            let header: &[u8; TCP_HEAD] = frame.bytes(upper).ok_or(DropReason::FragmentBad)?;
            // A first fragment may be that short, and then its checksum is in the next one.
            if upper + TCP_HEAD > end {
                return Err(DropReason::FragmentBad);
            }
            (source, Ports::read(header).source, protocol::TCP, nat::segment(header, upper, end))
        }
        Subject::Udp => {
            let header: &[u8; UDP_HEAD] = frame.bytes(upper).ok_or(DropReason::FragmentBad)?;
            (source, Ports::read(header).source, protocol::UDP, Arrival::Datagram)
        }
        Subject::Error | Subject::Later => {
            let (_, client, _) = nat::ends(frame, upper + icmp::LEN, place.v6()).ok_or(DropReason::IcmpQuote)?;
            let (protocol, ports) = parse::quoted_ports(frame, upper, end, place.v6())?;
            (client, ports.source, protocol, Arrival::Other)
        }
    };
    let ports = Ports { source, destination };
    Ok(Flow { client, endpoint: &local.address, ports, protocol, frontend, arrival })
}

#[inline(always)]
fn frontend(local: &'static LocalSlot) -> Option<Frontend> {
    // The tag is laid out as a frontend's slot is. It may have been withdrawn since it was found.
    let slot = FrontendSlot(tables::tag(local));
    if !slot.is_live() {
        return None;
    }
    Some(Frontend::new(slot.vip(), flows::vip(slot.vip())?.generation, slot.port()))
}

#[inline(always)]
fn set_address<const FRAGS: bool>(frame: &mut Frame<FRAGS>, place: Place, new: Address) -> Option<Change> {
    let at = place.at();
    Some(if place.v6() {
        nat::set_v6(frame.bytes_mut(at)?, Side::Destination, new)
    } else {
        nat::set_v4(frame.bytes_mut(at)?, Side::Destination, new)
    })
}

/// Address, ports and checksums of a TCP or UDP packet.
#[inline(always)]
fn write<const FRAGS: bool>(frame: &mut Frame<FRAGS>, place: Place, address: Address, new: Ports) -> Option<()> {
    let upper = place.upper();
    let seed = if settings::partial_checksums() != 0 {
        let protocol = if place.subject() == Subject::Tcp { protocol::TCP } else { protocol::UDP };
        let (source, destination, end) = nat::ends(frame, place.at(), place.v6())?;
        Some(nat::seed(source, destination, end.saturating_sub(upper), protocol, place.v6()))
    } else {
        None
    };
    let addresses = set_address(frame, place, address)?;
    if place.subject() == Subject::Tcp {
        let header: &mut [u8; TCP_HEAD] = frame.bytes_mut(upper)?;
        let ports = nat::set_ports(header, new);
        let sum = nat::checksum(u16::from_le_bytes([header[16], header[17]]), addresses, ports, false, seed);
        [header[16], header[17]] = sum.to_le_bytes();
    } else {
        let header: &mut [u8; UDP_HEAD] = frame.bytes_mut(upper)?;
        let ports = nat::set_ports(header, new);
        let sum = nat::checksum(u16::from_le_bytes([header[6], header[7]]), addresses, ports, true, seed);
        [header[6], header[7]] = sum.to_le_bytes();
    }
    Some(())
}
