//! What endpoints send: judged by the flow's entry, rewritten where it is a VIP's.

use aya_ebpf::bindings::{__sk_buff, BPF_F_PSEUDO_HDR};
use aya_ebpf::helpers::generated::bpf_l4_csum_replace;
use guenon_ebpf::abi::Address;
use guenon_ebpf::flow::{self, Frontend, Outbound};
use guenon_ebpf::headers::transport::Ports;
use guenon_ebpf::headers::{ipv4, ipv6, protocol};
use guenon_ebpf::nat::{self, Change, Place, Side, Subject, TCP_HEAD, UDP_HEAD};
use guenon_ebpf::packet::Packet;
use guenon_ebpf::reason::DropReason;

use super::accounts::End;
use super::skb::Skb;
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
    Some(if written == 0 { End::refused(DropReason::Aborted) } else { End::translated(frontend) })
}

/// Gives a packet its frontend's address and port as its source, and this destination port; 1 if that was done.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn guenon_egress_write(ctx: *mut __sk_buff, place: u64, frontend: u64, port: u32) -> u64 {
    let (place, frontend) = (Place(place), Frontend::from_bits(frontend));
    let Some(vip) = flows::vip(frontend.vip()) else { return 0 };
    let ports = Ports { source: frontend.port().to_be(), destination: port as u16 };
    let written = match (place.v6(), place.subject() == Subject::Tcp) {
        (false, true) => write::<{ ipv4::LEN }, 10, TCP_HEAD, 16>(ctx, place, vip.address, ports),
        (false, false) => write::<{ ipv4::LEN }, 10, UDP_HEAD, 6>(ctx, place, vip.address, ports),
        (true, true) => write::<{ ipv6::LEN }, 8, TCP_HEAD, 16>(ctx, place, vip.address, ports),
        (true, false) => write::<{ ipv6::LEN }, 8, UDP_HEAD, 6>(ctx, place, vip.address, ports),
    };
    written.is_some().into()
}

/// What changes of an IP header of `IP` bytes stands from byte `FROM` on; of the upper header of `UPPER` bytes, the
/// checksum is at byte `SUM`.
#[inline(always)]
fn write<const IP: usize, const FROM: usize, const UPPER: usize, const SUM: usize>(
    ctx: *mut __sk_buff,
    place: Place,
    vip: Address,
    ports: Ports,
) -> Option<()> {
    let udp = UPPER == UDP_HEAD;
    let (at, upper) = (place.at(), place.upper());
    let before = nat::word(&Skb::new(ctx), upper + SUM)?;
    let finished = udp && before == 0 || is_finished(ctx, upper + SUM, before)?;
    let skb = Skb::new(ctx);

    let mut bytes = [0; 56];
    const { assert!(IP - FROM + UPPER <= 56) };
    let addresses = set_source::<IP, FROM>(skb.bytes(at)?, &mut bytes, vip);
    let mut header: [u8; UPPER] = *skb.bytes(upper)?;
    let ports = nat::set_ports(&mut header, ports);
    let sum = nat::checksum(before, addresses, ports, udp, if finished { None } else { Some(before) });
    header[SUM..SUM + 2].copy_from_slice(&sum.to_le_bytes());

    let head = IP - FROM;
    bytes[head..head + UPPER].copy_from_slice(&header);
    if upper == at + IP {
        return Skb::store(ctx, at + FROM, &bytes, head + UPPER);
    }
    // Options or extension headers in between.
    Skb::store(ctx, upper, &header, UPPER)?;
    Skb::store(ctx, at + FROM, &bytes, head)
}

/// Copies the IP header from byte `FROM` on, with another source.
#[inline(always)]
pub(super) fn set_source<const IP: usize, const FROM: usize>(
    header: &[u8; IP],
    bytes: &mut [u8; 56],
    source: Address,
) -> Change {
    if IP == ipv6::LEN {
        let mut copy = [0; ipv6::LEN];
        copy.copy_from_slice(header);
        let change = nat::set_v6(&mut copy, Side::Source, source);
        bytes[..IP - FROM].copy_from_slice(&copy[FROM..]);
        change
    } else {
        let mut copy = [0; ipv4::LEN];
        copy.copy_from_slice(header);
        let change = nat::set_v4(&mut copy, Side::Source, source);
        bytes[..IP - FROM].copy_from_slice(&copy[FROM..]);
        change
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
