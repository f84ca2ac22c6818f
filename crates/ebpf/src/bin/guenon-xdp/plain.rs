//! The common way, at full speed: no tags, no options, no fragments, TCP or UDP, and nothing amiss.
//!
//! It takes the steps of the general way ([`crate::way`], [`crate::director`], [`crate::decap`]) with offsets that are
//! constants, and changes and counts nothing until it is sure to come through. What is not plain, for whatever
//! reason, is `None`, and takes the general way from its start, which finds the reason.

use guenon_ebpf::abi::{
    Address, AddressKind, AddressTag, DeliveryMode, EndpointKind, Event, FrontendSlot, LocalSlot, NextHop, ROLE_DECAP,
    ROLE_DIRECTOR, Transport,
};
use guenon_ebpf::headers::ethernet;
use guenon_ebpf::headers::ipv4::Ipv4;
use guenon_ebpf::headers::ipv6::Ipv6;
use guenon_ebpf::headers::protocol;
use guenon_ebpf::headers::transport::UDP_LEN;
use guenon_ebpf::outer::Facts;
use guenon_ebpf::packet::Packet;
use guenon_ebpf::parse::{self, Ip};
use guenon_ebpf::tunnel;
use guenon_ebpf::verdict::Verdict;
use guenon_ebpf::{ecn, hash};

use crate::frame::Frame;
use crate::ledger::Ledger;
use crate::settings::{self, has_role};
use crate::{deliver, encapsulate, tables};

/// Where a plain frame's packet begins.
const AT: usize = ethernet::LEN;

/// The action for a plain packet.
#[inline(always)]
pub(crate) fn take<const FRAGS: bool>(frame: Frame<FRAGS>) -> Option<u32> {
    let link: &[u8; AT] = frame.bytes(0)?;
    match ethernet::ethertype(link) {
        ethernet::IPV4 => {
            let header = Ipv4(frame.bytes(AT)?);
            let tag = tables::address(header.destination());
            if is_vip(tag) {
                direct(frame, &parse::plain_v4(AT, header)?, tag)
            } else if is_tunnel(tag) {
                decap(frame, &parse::plain_v4(AT, header)?)
            } else {
                pass(frame)
            }
        }
        ethernet::IPV6 => {
            let header = Ipv6(frame.bytes(AT)?);
            let destination = header.destination();
            if destination.is_v4() {
                return None;
            }
            let tag = tables::address(destination);
            if is_vip(tag) {
                direct(frame, &parse::plain_v6(AT, header)?, tag)
            } else if is_tunnel(tag) {
                decap(frame, &parse::plain_v6(AT, header)?)
            } else {
                pass(frame)
            }
        }
        ethernet::VLAN | ethernet::SERVICE_VLAN => None,
        _ => pass(frame),
    }
}

#[inline(always)]
fn is_vip(tag: AddressTag) -> bool {
    tag.kind() == AddressKind::Vip as u8 && has_role(ROLE_DIRECTOR)
}

#[inline(always)]
fn is_tunnel(tag: AddressTag) -> bool {
    tag.kind() == AddressKind::Tunnel as u8 && has_role(ROLE_DIRECTOR | ROLE_DECAP)
}

/// Not for us.
#[inline(always)]
fn pass<const FRAGS: bool>(frame: Frame<FRAGS>) -> Option<u32> {
    Some(Ledger::open(frame.linear_len())?.close(Ok(Verdict::PASS)))
}

/// A VIP's packet into the tunnel.
#[inline(always)]
fn direct<const FRAGS: bool>(frame: Frame<FRAGS>, ip: &Ip, vip: AddressTag) -> Option<u32> {
    let bytes = frame.linear_len();
    if !frame.reaches(ip.end) {
        return None;
    }
    let ports = parse::ports(&frame, ip).ok()?;
    let (frontend, slot) = tables::frontend(vip.id(), transport(ip.protocol), ports.destination_number())?;
    let descriptor = tables::descriptor(slot.service()).ok()?;
    if !descriptor.has_rows() {
        return None;
    }
    let schedule = settings::schedule();
    let entropy = hash::flow(&schedule, ip.source, ip.destination, ports.source, ports.destination, ip.protocol);
    let row = if descriptor.client_ip() { hash::client(&schedule, ip.source) } else { entropy };
    let primary = tables::row(descriptor, row).ok()?.primary();
    let endpoint = tables::endpoint(descriptor.block().wrapping_add(u32::from(primary))).ok()?;
    let v6 = endpoint.kind == EndpointKind::Tunnel6 as u8;
    if !v6 && endpoint.kind != EndpointKind::Tunnel4 as u8 {
        return None;
    }
    let hop = tables::next_hop(endpoint.next_hop).ok()?;
    let header_len = endpoint.header_len as usize;
    if NextHop::is_unresolved(hop.mac_interface) || header_len + ip.packet_len() > encapsulate::mtu(hop) {
        return None;
    }
    let interface = tables::interface(NextHop::unpack(hop.mac_interface).1).ok()?;
    if interface.ifindex == 0 || interface.tag_count != 0 {
        return None;
    }
    let facts = Facts {
        header_len,
        inner_len: ip.packet_len(),
        protocol: ip.gue_protocol(),
        traffic_class: ip.traffic_class,
        entropy,
    };
    let mut frame = frame.grow(header_len)?;
    encapsulate::write_link(&mut frame, hop, interface, 0, v6)?;
    encapsulate::write_outer(&mut frame, AT, endpoint, &facts, v6)?;

    let mut ledger = Ledger::open(bytes)?;
    ledger.frontend(frontend);
    ledger.directed();
    ledger.endpoint(endpoint.counter);
    ledger.event(Event::Encapsulated);
    Some(ledger.close(Ok(encapsulate::send(interface))))
}

/// A director's packet out of the tunnel.
#[inline(always)]
fn decap<const FRAGS: bool>(frame: Frame<FRAGS>, outer: &Ip) -> Option<u32> {
    let bytes = frame.linear_len();
    let udp: &[u8; UDP_LEN] = frame.bytes(outer.upper)?;
    if !has_role(ROLE_DECAP)
        || outer.protocol != protocol::UDP
        || tunnel::destination_port(udp) != settings::gue_port()
        || !frame.reaches(outer.end)
        || !tables::is_director(outer.source)
    {
        return None;
    }
    let outer = tunnel::outer_plain(outer);
    let inner = tunnel::inner(&frame, &outer).ok()?;
    let ip = if inner.v6 {
        parse::plain_v6(inner.at, Ipv6(frame.bytes(inner.at)?))?
    } else {
        parse::plain_v4(inner.at, Ipv4(frame.bytes(inner.at)?))?
    };
    if ip.end > inner.end || ecn::decapsulate(outer.traffic_class, ip.traffic_class) != Some(ip.traffic_class) {
        return None;
    }
    let vip = tables::address(ip.destination);
    if vip.kind() != AddressKind::Vip as u8 {
        return None;
    }
    let local = find(&frame, vip, inner.endpoint, &ip)?;
    if local.delivery.mode != DeliveryMode::Local as u8 {
        return None;
    }
    let verdict = deliver::pass(frame, &ip, AT).ok()?;

    let mut ledger = Ledger::open(bytes)?;
    ledger.frontend(local.frontend);
    ledger.delivered();
    ledger.endpoint(local.counter);
    ledger.event(Event::Decapsulated);
    Some(ledger.close(Ok(verdict)))
}

#[inline(always)]
fn find<const FRAGS: bool>(
    frame: &Frame<FRAGS>,
    vip: AddressTag,
    endpoint: Address,
    ip: &Ip,
) -> Option<&'static LocalSlot> {
    let ports = parse::ports(frame, ip).ok()?;
    tables::local(FrontendSlot::key(vip.id(), transport(ip.protocol), ports.destination_number()), endpoint)
}

#[inline(always)]
fn transport(protocol: u8) -> u8 {
    if protocol == protocol::TCP { Transport::Tcp as u8 } else { Transport::Udp as u8 }
}
