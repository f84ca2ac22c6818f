//! What endpoints send: judged by the flow's entry, rewritten where it is a VIP's.

use aya_ebpf::bindings::{__sk_buff, BPF_F_PSEUDO_HDR};
use aya_ebpf::helpers::generated::bpf_l4_csum_replace;
use guenon_ebpf::abi::Address;
use guenon_ebpf::flow::{self, Frontend, Outbound};
use guenon_ebpf::headers::transport::Ports;
use guenon_ebpf::headers::{ipv4, ipv6, protocol};
use guenon_ebpf::nat::{self, Change, TCP_HEAD, UDP_HEAD};
use guenon_ebpf::packet::Packet;
use guenon_ebpf::place::{Place, Subject};
use guenon_ebpf::reason::DropReason;

use super::accounts::End;
use super::skb::{self, Skb};
use super::{is_endpoint, transport};
use crate::direct::is_target;
use crate::flows::{self, Set};
use crate::settings;

/// Judges and rewrites a TCP or UDP packet one of whose ports is one that endpoints listen on.
#[inline(never)]
#[unsafe(no_mangle)]
pub(super) extern "C" fn guenon_egress_reply(ctx: *mut __sk_buff, place: u64) -> u64 {
    judge(&Skb::new(ctx), Place(place)).unwrap_or(End::UNTOUCHED).0
}

#[inline(always)]
fn judge(skb: &Skb, place: Place) -> Option<End> {
    let (source, destination, _) = nat::ends(skb, place.at(), place.v6())?;
    let ports = Ports::read(skb.bytes::<4>(place.upper())?);
    let number = if place.subject() == Subject::Tcp { protocol::TCP } else { protocol::UDP };
    let schedule = settings::schedule();
    if is_target(transport(number), ports.destination_number()) && is_endpoint(destination) {
        // On its way to an endpoint that is no longer there: the default route would send it back.
        let key = flow::key(&schedule, source, destination, ports, number);
        if flow::find(&Set::of(key)?, key).is_some() {
            return Some(End::refused(DropReason::NoRoute));
        }
    }
    if !is_target(transport(number), ports.reversed().destination_number()) {
        return None;
    }
    let key = flow::key(&schedule, destination, source, ports.reversed(), number);
    let mut set = Set::of(key)?;
    let (way, entry) = flow::find(&set, key)?;
    let (outbound, acknowledgement) = if number == protocol::TCP {
        let Some(header) = skb.bytes::<TCP_HEAD>(place.upper()) else {
            return Some(End::refused(DropReason::FragReply));
        };
        let (flags, acknowledgement) = nat::acknowledgement(header);
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
        Outbound::Translate(frontend) | Outbound::Confirm(frontend) | Outbound::Last(frontend) => frontend,
    };
    if !flows::is_live(frontend) {
        return None;
    }
    match outbound {
        Outbound::Confirm(_) => flow::confirm(&mut set, way, key, frontend, acknowledgement),
        Outbound::Last(_) => flow::remove(&mut set, way),
        Outbound::Untouched | Outbound::Direct | Outbound::Translate(_) => {}
    }
    flow::touch(&mut set, way, &entry, now);
    let port = if entry.port() == 0 { ports.destination } else { entry.port() };
    let written = guenon_egress_write(skb.ctx(), place.0, frontend.bits(), port.into());
    // A packet that could not be written whole must not leave in part.
    Some(if written == 0 { End::refused(unwritten(skb.ctx(), place)) } else { End::translated(frontend) })
}

/// Why a packet could not be written.
#[inline(always)]
fn unwritten(ctx: *mut __sk_buff, place: Place) -> DropReason {
    // Cut within its header, which only a raw socket sends.
    let cut = Skb::new(ctx).bytes::<UDP_HEAD>(place.upper()).is_none();
    if cut { DropReason::Truncated } else { DropReason::Aborted }
}

/// Gives a packet its frontend's address and port as its source, and this destination port; 1 if that was done.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn guenon_egress_write(ctx: *mut __sk_buff, place: u64, frontend: u64, port: u32) -> u64 {
    let (place, frontend) = (Place(place), Frontend::from_bits(frontend));
    let Some(vip) = flows::vip(frontend.vip()) else { return 0 };
    let ports = Ports { source: frontend.port().to_be(), destination: port as u16 };
    let written = match (place.v6(), place.subject() == Subject::Tcp) {
        (false, true) => write_v4::<TCP_HEAD, 16>(ctx, place, ports, vip.address),
        (false, false) => write_v4::<UDP_HEAD, 6>(ctx, place, ports, vip.address),
        (true, true) => write_v6::<TCP_HEAD, 16>(ctx, place, ports, vip.address),
        (true, false) => write_v6::<UDP_HEAD, 6>(ctx, place, ports, vip.address),
    };
    written.is_some().into()
}

/// What changes of an IPv4 header, and the upper header, as they stand in a plain packet from byte 10 of the IP header on;
/// here from byte 6 on, since the verifier wants words on the stack to be aligned.
#[repr(C, align(8))]
struct Heads4<const UPPER: usize> {
    /// The header's checksum in the last two bytes.
    checksum: u64,
    addresses: u64,
    upper: [u8; UPPER],
}

/// The same of IPv6: from byte 8 of the IP header on.
#[repr(C, align(8))]
struct Heads6<const UPPER: usize> {
    source: Address,
    destination: Address,
    upper: [u8; UPPER],
}

/// Rewrites and sums up; the checksum is at byte `SUM` of the upper header.
#[inline(always)]
fn write_v4<const UPPER: usize, const SUM: usize>(
    ctx: *mut __sk_buff,
    place: Place,
    ports: Ports,
    vip: Address,
) -> Option<()> {
    let (at, upper) = (place.at(), place.upper());
    let sum = Sum::of::<UPPER, SUM>(ctx, upper)?;
    let skb = Skb::new(ctx);
    let (source, destination, _) = nat::ends(&skb, at, false)?;
    let change = Change::address(source, vip, false);
    let checksum = change.apply(nat::word(&skb, at + 10)?);
    let mut heads = Heads4 {
        checksum: u64::from(checksum) << 48,
        addresses: vip.lo >> 32 | destination.lo >> 32 << 32,
        upper: *skb.bytes(upper)?,
    };
    sum.write::<UPPER, SUM>(&mut heads.upper, ports, change);

    let first = (&raw const heads).cast::<u8>().wrapping_add(6);
    if upper == at + ipv4::LEN {
        return skb::store(ctx, at + 10, first, 10 + UPPER);
    }
    // Options in between.
    skb::store(ctx, upper, heads.upper.as_ptr(), UPPER)?;
    skb::store(ctx, at + 10, first, 10)
}

#[inline(always)]
fn write_v6<const UPPER: usize, const SUM: usize>(
    ctx: *mut __sk_buff,
    place: Place,
    ports: Ports,
    vip: Address,
) -> Option<()> {
    let (at, upper) = (place.at(), place.upper());
    let sum = Sum::of::<UPPER, SUM>(ctx, upper)?;
    let skb = Skb::new(ctx);
    let (source, destination, _) = nat::ends(&skb, at, true)?;
    let mut heads = Heads6 { source: vip, destination, upper: *skb.bytes(upper)? };
    sum.write::<UPPER, SUM>(&mut heads.upper, ports, Change::address(source, vip, true));

    let first = (&raw const heads).cast();
    if upper == at + ipv6::LEN {
        return skb::store(ctx, at + 8, first, 32 + UPPER);
    }
    // Extension headers in between.
    skb::store(ctx, upper, heads.upper.as_ptr(), UPPER)?;
    skb::store(ctx, at + 8, first, 16)
}

/// The checksum of a TCP or UDP header before its change.
struct Sum {
    field: u16,
    finished: bool,
}

impl Sum {
    #[inline(always)]
    fn of<const UPPER: usize, const SUM: usize>(ctx: *mut __sk_buff, upper: usize) -> Option<Self> {
        let field = nat::word(&Skb::new(ctx), upper + SUM)?;
        let finished = UPPER == UDP_HEAD && field == 0 || is_finished(ctx, upper + SUM, field)?;
        Some(Self { field, finished })
    }

    /// Sets ports and checksum.
    #[inline(always)]
    fn write<const UPPER: usize, const SUM: usize>(self, header: &mut [u8; UPPER], ports: Ports, addresses: Change) {
        let ports = nat::set_ports(header, ports);
        let unfinished = if self.finished { None } else { Some(self.field) };
        let sum = nat::checksum(self.field, addresses, ports, UPPER == UDP_HEAD, unfinished);
        header[SUM..SUM + 2].copy_from_slice(&sum.to_le_bytes());
    }
}

/// Whether the checksum at `at` is finished, or hardware is to finish it. A program cannot ask; but the one helper that
/// knows goes the one way or the other with a change of the pseudo-header. What it wrote is overwritten.
#[inline(always)]
fn is_finished(ctx: *mut __sk_buff, at: usize, before: u16) -> Option<bool> {
    // SAFETY: the helper takes the context and an offset that it checks.
    if unsafe { bpf_l4_csum_replace(ctx, at as u32, 0, 1, BPF_F_PSEUDO_HDR.into()) } != 0 {
        return None;
    }
    Some(nat::was_finished(before, nat::word(&Skb::new(ctx), at)?))
}
