//! ICMP errors that an endpoint, or its node, sends about a VIP's flow: they speak of the endpoint, and must speak of the VIP.

use aya_ebpf::bindings::__sk_buff;
use guenon_ebpf::abi::Address;
use guenon_ebpf::flow::{self, Frontend};
use guenon_ebpf::headers::transport::Ports;
use guenon_ebpf::headers::{icmp, protocol};
use guenon_ebpf::nat::{self, Change, Side};
use guenon_ebpf::packet::Packet;
use guenon_ebpf::parse;
use guenon_ebpf::place::Place;
use guenon_ebpf::reason::DropReason;

use super::accounts::End;
use super::skb::{self, Skb, set_address};
use super::{is_endpoint, transport};
use crate::direct::is_target;
use crate::flows::{self, Set};
use crate::settings;

/// Judges and rewrites an ICMP error.
#[inline(never)]
#[unsafe(no_mangle)]
pub(super) extern "C" fn guenon_egress_message(ctx: *mut __sk_buff, place: u64) -> u64 {
    judge(&Skb::new(ctx), Place(place)).unwrap_or(End::UNTOUCHED).0
}

#[inline(always)]
fn judge(skb: &Skb, place: Place) -> Option<End> {
    let (_, outer, end) = nat::ends(skb, place.at(), place.v6())?;
    let (client, endpoint, _) = nat::ends(skb, place.upper() + icmp::LEN, place.v6())?;
    let (number, inner) = parse::quoted_upper(skb, place.upper(), end, place.v6()).ok()?;
    let ports = Ports::read(skb.bytes::<4>(inner)?);
    let schedule = settings::schedule();
    if is_endpoint(outer) && outer == client {
        // On its way to an endpoint that is no longer there, about what that had sent.
        let key = flow::key(&schedule, endpoint, client, ports.reversed(), number);
        let known = flow::find(&Set::of(key)?, key).is_some();
        return if known { Some(End::refused(DropReason::NoRoute)) } else { None };
    }
    if !is_target(transport(number), ports.destination_number()) {
        return None;
    }
    let key = flow::key(&schedule, client, endpoint, ports, number);
    let (_, entry) = flow::find(&Set::of(key)?, key)?;
    let frontend = entry.frontend();
    if frontend.is_none() || !flows::is_live(frontend) {
        return None;
    }
    let port = if entry.port() == 0 { ports.source } else { entry.port() };
    let written = guenon_egress_quote(skb.ctx(), place.0, frontend.bits(), port.into());
    Some(if written == 0 { End::refused(DropReason::Aborted) } else { End::translated(frontend) })
}

/// Rewrites the error; 1 if that was done.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn guenon_egress_quote(ctx: *mut __sk_buff, place: u64, frontend: u64, port: u32) -> u64 {
    let (place, frontend) = (Place(place), Frontend::from_bits(frontend));
    let Some(vip) = flows::vip(frontend.vip()) else { return 0 };
    let ports = Ports { source: port as u16, destination: frontend.port().to_be() };
    write(ctx, place, vip.address, ports).is_some().into()
}

#[inline(always)]
fn write(ctx: *mut __sk_buff, place: Place, vip: Address, new: Ports) -> Option<()> {
    let (at, upper, v6) = (place.at(), place.upper(), place.v6());
    let quoted = upper + icmp::LEN;
    let skb = Skb::new(ctx);
    let (sender, _, end) = nat::ends(&skb, at, v6)?;
    let (_, endpoint, _) = nat::ends(&skb, quoted, v6)?;
    let (number, inner) = parse::quoted_upper(&skb, upper, end, v6).ok()?;

    let sum_at = inner + nat::checksum_at(number);
    let old = Ports::read(skb.bytes::<4>(inner)?);
    let addresses = Change::address(endpoint, vip, v6);
    let ports = Change::ports(old, new);
    // An IPv4 header's own sum makes up for its change; an IPv6 header has none, and the outer one is summed too.
    let mut message = if v6 { addresses.and(ports) } else { ports };
    if v6 && sender == endpoint {
        message = message.and(addresses);
    }
    let sum = match nat::word(&skb, sum_at) {
        Some(field) if sum_at + 2 <= end && (field != 0 || number == protocol::TCP) => {
            let sum = nat::finished(field, addresses.and(ports), number == protocol::UDP);
            message = message.and(Change::word(field, sum));
            Some(sum)
        }
        _ => None,
    };
    let field = message.apply(nat::word(&skb, upper + 2)?);

    if let Some(sum) = sum {
        skb::store(ctx, sum_at, (&raw const sum).cast(), 2)?;
    }
    skb::store(ctx, inner, (&raw const new).cast(), size_of::<Ports>())?;
    skb::store(ctx, upper + 2, (&raw const field).cast(), 2)?;
    set_address(ctx, quoted, v6, Side::Destination, vip)?;
    if sender == endpoint { set_address(ctx, at, v6, Side::Source, vip) } else { Some(()) }
}
