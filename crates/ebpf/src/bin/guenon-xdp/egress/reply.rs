//! What endpoints send: judged by the flow's entry, rewritten where it is a VIP's.

use aya_ebpf::bindings::{__sk_buff, BPF_F_PSEUDO_HDR};
use aya_ebpf::helpers::generated::bpf_l4_csum_replace;
use guenon_ebpf::abi::Address;
use guenon_ebpf::flow::{self, Outbound};
use guenon_ebpf::headers::protocol;
use guenon_ebpf::headers::transport::Ports;
use guenon_ebpf::nat::{self, Change, Head, TCP_HEAD, UDP_HEAD};
use guenon_ebpf::packet::Packet;
use guenon_ebpf::place::{Place, Subject};
use guenon_ebpf::reason::DropReason;

use super::accounts::End;
use super::skb::{self, Skb};
use super::{Targets, is_endpoint};
use crate::flows::{self, Set};
use crate::settings;

/// Judges and rewrites a TCP or UDP packet one of whose ports is one that endpoints listen on.
#[inline(never)]
#[unsafe(no_mangle)]
pub(super) extern "C" fn guenon_egress_reply(ctx: *mut __sk_buff, place: u64, targets: u32) -> u64 {
    end(ctx, Place(place), Targets::from_bits(targets))
}

/// The same for a plain packet, in a function of its own for either family: all its offsets are constants.
#[inline(always)]
pub(super) fn plain(ctx: *mut __sk_buff, v6: bool, udp: bool, targets: Targets) -> u64 {
    if v6 {
        guenon_egress_plain_v6(ctx, udp.into(), targets.bits())
    } else {
        guenon_egress_plain_v4(ctx, udp.into(), targets.bits())
    }
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn guenon_egress_plain_v4(ctx: *mut __sk_buff, udp: u32, targets: u32) -> u64 {
    end(ctx, Place::plain(false, udp != 0), Targets::from_bits(targets))
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn guenon_egress_plain_v6(ctx: *mut __sk_buff, udp: u32, targets: u32) -> u64 {
    end(ctx, Place::plain(true, udp != 0), Targets::from_bits(targets))
}

#[inline(always)]
fn end(ctx: *mut __sk_buff, place: Place, targets: Targets) -> u64 {
    judge(&Skb::new(ctx), place, targets).unwrap_or(End::UNTOUCHED).0
}

#[inline(always)]
fn judge(skb: &Skb, place: Place, targets: Targets) -> Option<End> {
    let (source, destination, end) = nat::ends(skb, place.at(), place.v6())?;
    let tcp = place.subject() == Subject::Tcp;
    let number = if tcp { protocol::TCP } else { protocol::UDP };
    let upper = place.upper();
    let read = if tcp { skb.bytes(upper).map(Head::tcp) } else { skb.bytes(upper).map(Head::udp) };
    let is_cut = read.is_none();
    let head = match read {
        Some(head) => head,
        None => Head::of_ports(Ports::read(skb.bytes::<4>(upper)?)),
    };
    let ports = head.ports();
    let schedule = settings::schedule();
    if targets.destination && is_endpoint(destination) {
        // On its way to an endpoint that is no longer there: the default route would send it back.
        let key = flow::key(&schedule, source, destination, ports, number);
        if flow::find(&Set::of(key)?, key).is_some() {
            return Some(End::refused(DropReason::NoRoute));
        }
    }
    if !targets.source {
        return None;
    }
    let key = flow::key(&schedule, destination, source, ports.reversed(), number);
    let mut set = Set::of(key)?;
    let (way, entry) = flow::find(&set, key)?;
    let (outbound, acknowledgement) = if tcp {
        // Only a first fragment is that short.
        if is_cut {
            return Some(End::refused(DropReason::FragReply));
        }
        let (flags, acknowledgement) = head.acknowledgement();
        (flow::outbound_tcp(&entry, flags, acknowledgement), acknowledgement)
    } else {
        (flow::outbound_udp(&entry), 0)
    };
    let now = flows::now();
    let frontend = match outbound {
        Outbound::Untouched => return None,
        Outbound::Direct => {
            if entry.is_direct() {
                flow::touch(&mut set, way, &entry, now);
            } else {
                flow::mark_direct(&mut set, way, key, now);
            }
            return None;
        }
        Outbound::Translate(frontend)
        | Outbound::Confirm(frontend)
        | Outbound::Close(frontend)
        | Outbound::Last(frontend) => frontend,
    };
    let vip = flows::vip(frontend.vip())?;
    if vip.generation as u8 != frontend.generation() {
        return None;
    }
    match outbound {
        Outbound::Confirm(_) => flow::confirm(&mut set, way, key, frontend, acknowledgement),
        Outbound::Close(_) => flow::close(&mut set, way, key),
        Outbound::Last(_) => flow::remove(&mut set, way),
        Outbound::Untouched | Outbound::Direct | Outbound::Translate(_) => {}
    }
    // Cut within its header, which only a raw socket sends.
    if is_cut {
        return Some(End::refused(DropReason::Truncated));
    }
    flow::touch(&mut set, way, &entry, now);
    let port = if entry.port() == 0 { ports.destination } else { entry.port() };
    let new = Ports { source: frontend.port().to_be(), destination: port };
    let seed = nat::seed(source, destination, end.saturating_sub(upper), number, place.v6());
    // A packet that could not be written whole must not leave in part.
    Some(match write(skb, place, (source, destination), head, seed, (vip.address, new)) {
        Some(()) => End::translated(frontend),
        None => End::refused(DropReason::Aborted),
    })
}

/// What changes of a packet: the end of the IP header, and the beginning of the upper one. On the stack, where the verifier
/// wants words to be aligned.
#[repr(C)]
struct Heads {
    /// Of IPv6 both addresses; of IPv4 in the last ten bytes checksum and addresses.
    ip: [u64; 4],
    upper: Head,
}

/// Gives a packet another source address and other ports; its addresses, upper header and the sum of its pseudo-header are
/// as given.
#[inline(always)]
fn write(
    skb: &Skb,
    place: Place,
    (source, destination): (Address, Address),
    head: Head,
    seed: u16,
    (vip, ports): (Address, Ports),
) -> Option<()> {
    let (at, upper) = (place.at(), place.upper());
    let change = Change::address(source, vip, place.v6());
    let ip = if place.v6() {
        [vip.hi, vip.lo, destination.hi, destination.lo]
    } else {
        let checksum = change.apply(nat::word(skb, at + 10)?);
        // The first two are not written. Zeros would be a call of memset.
        [vip.lo, vip.lo, u64::from(checksum) << 48, vip.lo >> 32 | destination.lo >> 32 << 32]
    };
    let tcp = place.subject() == Subject::Tcp;
    let sum = upper + if tcp { TCP_HEAD - 2 } else { UDP_HEAD - 2 };
    let field = head.checksum(!tcp);
    // Nothing is read from the packet from here on: the helper makes all pointers into it void.
    let finished = !tcp && field == 0 || is_surely_finished(skb, field, seed) || is_finished(skb, sum, field)?;
    let unfinished = if finished { None } else { Some(field) };
    let field = nat::checksum(field, change, Change::ports(head.ports(), ports), !tcp, unfinished);
    let heads = Heads { ip, upper: head.with(ports, field, !tcp) };
    match (place.v6(), tcp) {
        (false, true) => store::<10, TCP_HEAD>(skb, at + 10, upper, &heads),
        (false, false) => store::<10, UDP_HEAD>(skb, at + 10, upper, &heads),
        (true, true) => store::<32, TCP_HEAD>(skb, at + 8, upper, &heads),
        (true, false) => store::<32, UDP_HEAD>(skb, at + 8, upper, &heads),
    }
}

/// Writes the last `IP` bytes of the IP header, which are at `at`, and the first `UPPER` of the upper one.
#[inline(always)]
fn store<const IP: usize, const UPPER: usize>(skb: &Skb, at: usize, upper: usize, heads: &Heads) -> Option<()> {
    let first = (&raw const *heads).cast::<u8>().wrapping_add(32 - IP);
    if at + IP == upper {
        return skb::store(skb.ctx(), at, first, IP + UPPER);
    }
    // Options or extension headers in between.
    skb::store(skb.ctx(), upper, (&raw const heads.upper).cast(), UPPER)?;
    skb::store(skb.ctx(), at, first, IP)
}

/// Whether a checksum cannot be one that hardware is to finish: that one holds the sum of the pseudo-header, whatever was
/// rewritten on the way. The length in it is the packet's own, but of a packet that is yet to be segmented.
#[inline(always)]
fn is_surely_finished(skb: &Skb, field: u16, seed: u16) -> bool {
    !skb.is_segmented_later() && !nat::is_same_sum(field, seed)
}

/// Whether the checksum at `at` is finished, or hardware is to finish it. A program cannot ask; but the one helper that
/// knows goes the one way or the other with a change of the pseudo-header. What it wrote is overwritten.
#[inline(always)]
fn is_finished(skb: &Skb, at: usize, before: u16) -> Option<bool> {
    // SAFETY: the helper takes the context and an offset that it checks.
    if unsafe { bpf_l4_csum_replace(skb.ctx(), at as u32, 0, 1, BPF_F_PSEUDO_HDR.into()) } != 0 {
        return None;
    }
    Some(nat::was_finished(before, nat::word(&Skb::new(skb.ctx()), at)?))
}
