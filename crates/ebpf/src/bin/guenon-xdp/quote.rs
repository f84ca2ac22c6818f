//! ICMP errors on their way to an endpoint of delivery `Nat`: they speak of what the endpoint sent as it left the node, and
//! must speak of it as the endpoint knows it.

use guenon_ebpf::headers::transport::Ports;
use guenon_ebpf::headers::{icmp, protocol};
use guenon_ebpf::nat::{self, Change, Side};
use guenon_ebpf::parse;
use guenon_ebpf::place::Place;
use guenon_ebpf::reason::DropReason;

use crate::frame::Frame;
use crate::tables;

/// Gives the error its endpoint's address, and the packet that it quotes the endpoint's address and port as its source,
/// and as its destination the port that the endpoint sees.
#[inline(always)]
pub(crate) fn rewrite<const FRAGS: bool>(
    ctx: *mut aya_ebpf::bindings::xdp_md,
    place: Place,
    port: u16,
) -> Result<(), DropReason> {
    if write::<FRAGS>(ctx, place.0, port.into()) == 0 { Err(DropReason::IcmpQuote) } else { Ok(()) }
}

once! {
    fn write, guenon_nat_quote, guenon_nat_quote_linear(ctx, place: u64, port: u32) {
        translate(Frame::<FRAGS>::new(ctx), Place(place), port as u16).is_some().into()
    }
}

#[inline(always)]
fn translate<const FRAGS: bool>(mut frame: Frame<FRAGS>, place: Place, port: u16) -> Option<()> {
    let local = tables::local_slot(place.local()).ok()?;
    let (at, upper, v6) = (place.at(), place.upper(), place.v6());
    let quoted = upper + icmp::LEN;
    let (_, _, end) = nat::ends(&frame, at, v6)?;
    let (protocol, inner) = parse::quoted_upper(&frame, upper, end, v6).ok()?;
    let sum_at = inner + nat::checksum_at(protocol);

    // The message is summed with all that changes in the quotation; an IPv4 header's own sum makes up for its change.
    let (mut message, addresses) = if v6 {
        let outer = nat::set_v6(frame.bytes_mut(at)?, Side::Destination, local.address);
        let addresses = nat::set_v6(frame.bytes_mut(quoted)?, Side::Source, local.address);
        (outer.and(addresses), addresses)
    } else {
        nat::set_v4(frame.bytes_mut(at)?, Side::Destination, local.address);
        let addresses = nat::set_v4(frame.bytes_mut(quoted)?, Side::Source, local.address);
        (Change::NONE, addresses)
    };
    let new = Ports { source: local.delivery.port.to_be(), destination: port };
    let ports = nat::set_ports::<4>(frame.bytes_mut(inner)?, new);
    message = message.and(ports);
    if sum_at + 2 <= end
        && let Some(field) = nat::word(&frame, sum_at)
        && (field != 0 || protocol == protocol::TCP)
    {
        let sum = nat::finished(field, addresses.and(ports), protocol == protocol::UDP);
        *frame.bytes_mut(sum_at)? = sum.to_le_bytes();
        message = message.and(Change::word(field, sum));
    }
    let field = nat::word(&frame, upper + 2)?;
    *frame.bytes_mut(upper + 2)? = message.apply(field).to_le_bytes();
    Some(())
}
