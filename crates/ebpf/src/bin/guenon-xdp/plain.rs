//! The common way, at full speed: no tags, no options, no fragments, TCP or UDP, and nothing amiss.
//!
//! It takes the steps of the general way ([`crate::way`], [`crate::director`], [`crate::decap`]) with offsets that are
//! constants, and changes and counts nothing until it is sure to come through. What is not plain, for whatever
//! reason, is `None`, and takes the general way from its start, which finds the reason.

use guenon_ebpf::abi::{
    Address, AddressKind, AddressTag, DeliveryMode, Endpoint, EndpointKind, Event, FrontendSlot, LocalSlot, NextHop,
    ROLE_DECAP, ROLE_DIRECTOR, Transport,
};
use guenon_ebpf::headers::ethernet;
use guenon_ebpf::headers::ipv4::Ipv4;
use guenon_ebpf::headers::ipv6::Ipv6;
use guenon_ebpf::headers::protocol;
use guenon_ebpf::headers::transport::UDP_LEN;
use guenon_ebpf::outer::Facts;
use guenon_ebpf::packet::Packet;
use guenon_ebpf::parse::{self, Ip};
use guenon_ebpf::tunnel::{self, Inner, Outer};
use guenon_ebpf::verdict::Verdict;
use guenon_ebpf::{ecn, hash};

use crate::frame::Frame;
use crate::ledger::Ledger;
use crate::settings::{self, has_role};
use crate::{deliver, direct, encapsulate, tables, translate};

/// Where a plain frame's packet begins.
const AT: usize = ethernet::LEN;

/// The action for a plain packet, or where it goes on ([`Verdict::goes_on`]).
#[inline(always)]
pub(crate) fn take<const FRAGS: bool>(frame: Frame<FRAGS>) -> Option<u64> {
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
                other(frame, tag, header.protocol())
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
                other(frame, tag, header.next_header())
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

/// Not for us, but perhaps for an endpoint of this node.
#[inline(always)]
fn other<const FRAGS: bool>(frame: Frame<FRAGS>, tag: AddressTag, protocol: u8) -> Option<u64> {
    // What may take back a flow goes the general way.
    if tag.kind() == AddressKind::Endpoint as u8 && protocol != protocol::TCP { None } else { pass(frame) }
}

/// Not for us.
#[inline(always)]
fn pass<const FRAGS: bool>(frame: Frame<FRAGS>) -> Option<u64> {
    Some(Ledger::open(frame.linear_len())?.close(Ok(Verdict::PASS)).into())
}

/// A VIP's packet into the tunnel.
#[inline(always)]
fn direct<const FRAGS: bool>(frame: Frame<FRAGS>, ip: &Ip, vip: AddressTag) -> Option<u64> {
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
    if endpoint.kind == EndpointKind::Local as u8 {
        if endpoint.delivery.mode == DeliveryMode::Nat as u8 {
            return None;
        }
        let bytes = frame.linear_len();
        let verdict = deliver::deliver(frame, ip, AT, &endpoint.delivery).ok()?;
        return directed(bytes, frontend, endpoint, Event::DeliveredHere, verdict);
    }
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
    // As it came: what is not kept over the call does not take room on the stack.
    let bytes = frame.linear_len() - header_len;
    directed(bytes, frontend, endpoint, Event::Encapsulated, encapsulate::send(interface))
}

/// The accounts of a VIP's packet that came through.
#[inline(always)]
fn directed(bytes: usize, frontend: u32, endpoint: &Endpoint, event: Event, verdict: Verdict) -> Option<u64> {
    let mut ledger = Ledger::open(bytes)?;
    ledger.frontend(frontend);
    ledger.directed();
    ledger.endpoint(endpoint.counter);
    ledger.event(event);
    Some(ledger.close(Ok(verdict)).into())
}

/// A plain packet to a tunnel address of ours: out of the tunnel if it is a director's, else not for us.
#[inline(always)]
fn decap<const FRAGS: bool>(frame: Frame<FRAGS>, outer: &Ip) -> Option<u64> {
    if !has_role(ROLE_DECAP) || outer.protocol != protocol::UDP {
        return pass(frame);
    }
    let udp: &[u8; UDP_LEN] = frame.bytes(outer.upper)?;
    let port = tunnel::destination_port(udp);
    if port != settings::gue_port() {
        return if direct::is_target(Transport::Udp, port) { None } else { pass(frame) };
    }
    if !frame.reaches(outer.end) || !tables::is_director(outer.source) {
        return None;
    }
    let outer = tunnel::outer_plain(outer);
    let inner = tunnel::inner(&frame, &outer).ok()?;
    if inner.v6 {
        let ip = parse::plain_v6(inner.at, Ipv6(frame.bytes(inner.at)?))?;
        hand_over(frame, &outer, &inner, &ip)
    } else {
        let ip = parse::plain_v4(inner.at, Ipv4(frame.bytes(inner.at)?))?;
        hand_over(frame, &outer, &inner, &ip)
    }
}

/// A plain inner packet to its endpoint.
#[inline(always)]
fn hand_over<const FRAGS: bool>(frame: Frame<FRAGS>, outer: &Outer, inner: &Inner, ip: &Ip) -> Option<u64> {
    if ip.end > inner.end || ecn::decapsulate(outer.traffic_class, ip.traffic_class) != Some(ip.traffic_class) {
        return None;
    }
    let vip = tables::address(ip.destination);
    if vip.kind() != AddressKind::Vip as u8 {
        return None;
    }
    let bytes = frame.linear_len();
    let (index, local) = find(&frame, vip, inner.endpoint, ip)?;
    if local.delivery.mode == DeliveryMode::Nat as u8 {
        return translate::begin_plain(ip, AT, index).goes_on();
    }
    let verdict = deliver::deliver(frame, ip, AT, &local.delivery).ok()?;

    let mut ledger = Ledger::open(bytes)?;
    ledger.frontend(local.frontend);
    ledger.delivered();
    ledger.endpoint(local.counter);
    ledger.event(Event::Decapsulated);
    Some(ledger.close(Ok(verdict)).into())
}

#[inline(always)]
fn find<const FRAGS: bool>(
    frame: &Frame<FRAGS>,
    vip: AddressTag,
    endpoint: Address,
    ip: &Ip,
) -> Option<(u32, &'static LocalSlot)> {
    let ports = parse::ports(frame, ip).ok()?;
    tables::local(FrontendSlot::key(vip.id(), transport(ip.protocol), ports.destination_number()), endpoint)
}

#[inline(always)]
fn transport(protocol: u8) -> u8 {
    if protocol == protocol::TCP { Transport::Tcp as u8 } else { Transport::Udp as u8 }
}
