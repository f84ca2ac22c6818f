//! The decap node: out of the tunnel, to the endpoint that the director chose.

use guenon_ebpf::abi::{
    Address, AddressKind, DeliveryMode, Event, FrontendSlot, LocalSlot, ROLE_DECAP, ROLE_DIRECTOR, Transport,
};
use guenon_ebpf::headers::icmp::Message;
use guenon_ebpf::headers::ipv4::Ipv4;
use guenon_ebpf::headers::ipv6::Ipv6;
use guenon_ebpf::headers::{Fragment, protocol};
use guenon_ebpf::packet::Packet;
use guenon_ebpf::parse::{self, Ip};
use guenon_ebpf::reason::DropReason;
use guenon_ebpf::tunnel::{self, Inner, Outer};
use guenon_ebpf::verdict::{Outcome, Verdict};

use crate::frame::Frame;
use crate::ledger::Ledger;
use crate::settings::{gue_port, has_role};
use crate::{congestion, deliver, direct, icmp, tables, translate, tunnel_icmp};

/// Takes an IPv4 packet to a tunnel address of ours. Only UDP to the GUE port is the decap role's; the
/// rest goes on untouched.
#[inline(always)]
pub(crate) fn receive_v4<const FRAGS: bool>(
    frame: Frame<FRAGS>,
    ledger: &mut Ledger,
    at: usize,
    header: Ipv4<'_>,
) -> Outcome {
    if header.protocol() == protocol::ICMP && has_role(ROLE_DIRECTOR) {
        tunnel_icmp::v4(&frame, ledger, at, header);
        return Ok(Verdict::PASS);
    }
    if !has_role(ROLE_DECAP) || !tunnel::is_gue_v4(&frame, at, header, gue_port()) {
        direct::look::<FRAGS>(frame.ctx(), at, false);
        return Ok(Verdict::PASS);
    }
    receive(frame, ledger, at, tunnel::outer_v4(&frame, at, header)?)
}

/// Takes an IPv6 packet to a tunnel address of ours.
#[inline(always)]
pub(crate) fn receive_v6<const FRAGS: bool>(
    frame: Frame<FRAGS>,
    ledger: &mut Ledger,
    at: usize,
    header: Ipv6<'_>,
) -> Outcome {
    if header.next_header() == protocol::ICMPV6 && has_role(ROLE_DIRECTOR) {
        tunnel_icmp::v6(&frame, ledger, at, header);
        return Ok(Verdict::PASS);
    }
    if !has_role(ROLE_DECAP) || !tunnel::is_gue_v6(&frame, at, header, gue_port()) {
        direct::look::<FRAGS>(frame.ctx(), at, true);
        return Ok(Verdict::PASS);
    }
    receive(frame, ledger, at, tunnel::outer_v6(&frame, at, header)?)
}

/// A GUE packet: `at` is where its outer IP header begins.
#[inline(always)]
fn receive<const FRAGS: bool>(frame: Frame<FRAGS>, ledger: &mut Ledger, at: usize, outer: Outer) -> Outcome {
    if !tables::is_director(outer.source) {
        return Err(DropReason::UnknownDirector.into());
    }
    if outer.fragment {
        return Err(DropReason::OuterFragment.into());
    }
    let inner = tunnel::inner(&frame, &outer)?;
    if inner.v6 {
        let header = Ipv6(frame.bytes(inner.at).ok_or(DropReason::InnerMalformed)?);
        if header.version() != 6 {
            return Err(DropReason::GueProtocol.into());
        }
        let ip = parse::ipv6(&frame, inner.at, header).map_err(tunnel::inner_reason)?;
        accept(frame, ledger, at, &outer, &inner, &ip)
    } else {
        let header = Ipv4(frame.bytes(inner.at).ok_or(DropReason::InnerMalformed)?);
        if header.version() != 4 {
            return Err(DropReason::GueProtocol.into());
        }
        let ip = parse::ipv4(&frame, inner.at, header).map_err(tunnel::inner_reason)?;
        accept(frame, ledger, at, &outer, &inner, &ip)
    }
}

/// The inner packet, whose header was found right: to its endpoint.
#[inline(always)]
fn accept<const FRAGS: bool>(
    mut frame: Frame<FRAGS>,
    ledger: &mut Ledger,
    at: usize,
    outer: &Outer,
    inner: &Inner,
    ip: &Ip,
) -> Outcome {
    if ip.end > inner.end {
        return Err(DropReason::InnerMalformed.into());
    }
    let vip = tables::address(ip.destination);
    if vip.kind() != AddressKind::Vip as u8 {
        return Err(DropReason::InnerNotVip.into());
    }
    let (index, local) = find(&frame, vip.id(), inner.endpoint, ip)?;
    let LocalSlot { frontend, counter, delivery, .. } = local;
    ledger.frontend(*frontend);
    congestion::carry_over(&mut frame, ledger, outer.traffic_class, ip)?;
    if delivery.mode == DeliveryMode::Nat as u8 {
        return Ok(translate::begin(ip, at, index, true));
    }
    let outcome = deliver::deliver(frame, ip, at, delivery)?;
    ledger.delivered();
    ledger.endpoint(*counter);
    ledger.event(Event::Decapsulated);
    Ok(outcome)
}

/// How a packet for this VIP and endpoint is delivered, by its port, or, for a fragment without one, by its
/// protocol.
#[inline(always)]
fn find<const FRAGS: bool>(
    frame: &Frame<FRAGS>,
    vip: u32,
    endpoint: Address,
    ip: &Ip,
) -> Result<(u32, &'static LocalSlot), DropReason> {
    let (protocol, port) = if !parse::has_ports(ip) {
        match parse::icmp(frame, ip).map_err(tunnel::inner_reason)? {
            Message::Error => {
                let quoted = icmp::quoted(frame, ip).map_err(tunnel::inner_reason)?;
                (quoted.protocol, quoted.ports.destination_number())
            }
            Message::Echo | Message::Discovery | Message::Other => return Err(DropReason::NoFrontend),
        }
    } else if ip.fragment == Fragment::Later {
        (ip.protocol, 0)
    } else {
        let ports = parse::ports(frame, ip).map_err(tunnel::inner_reason)?;
        (ip.protocol, ports.destination_number())
    };
    let transport = if protocol == protocol::TCP { Transport::Tcp } else { Transport::Udp } as u8;
    if let Some(local) = tables::local(FrontendSlot::key(vip, transport, port), endpoint) {
        return Ok(local);
    }
    if port != 0 && tables::frontend(vip, transport, port).is_none() {
        return Err(DropReason::NoFrontend);
    }
    Err(DropReason::NotOurEndpoint)
}
