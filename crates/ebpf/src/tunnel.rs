//! The receiving end of the tunnel: outer header, GUE, and what routers say of tunnel packets.

use crate::abi::{Address, TunnelTooBig};
use crate::gue;
use crate::headers::icmp;
use crate::headers::ipv4::{self, Ipv4};
use crate::headers::ipv6::{self, Ipv6};
use crate::headers::transport::{Ports, UDP_LEN};
use crate::headers::{Fragment, be16, be32, protocol};
use crate::packet::Packet;
use crate::parse::Ip;
use crate::reason::DropReason;

/// What the outer headers of a GUE packet say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    /// Outer source.
    pub source: Address,
    /// Outer destination.
    pub destination: Address,
    /// Where the UDP header begins.
    pub udp: usize,
    /// Where the outer IP packet ends.
    pub end: usize,
    /// Outer DSCP and ECN.
    pub traffic_class: u8,
    /// Whether it is a (first) fragment.
    pub fragment: bool,
}

/// Whether an IPv4 packet to a tunnel address is GUE: UDP to this port. A fragment after the first cannot tell.
#[inline(always)]
#[must_use]
pub fn is_gue_v4(packet: &impl Packet, at: usize, header: Ipv4<'_>, port: u16) -> bool {
    header.protocol() == protocol::UDP
        && header.version() == 4
        && header.header_len() >= ipv4::LEN
        && header.fragment_word() & ipv4::OFFSET_MASK == 0
        && is_to_port(packet, at + header.header_len(), port)
}

/// Whether an IPv6 packet to a tunnel address is GUE. Behind extension headers it is not looked for, but for a
/// fragment header.
#[inline(always)]
#[must_use]
pub fn is_gue_v6(packet: &impl Packet, at: usize, header: Ipv6<'_>, port: u16) -> bool {
    let at = at + ipv6::LEN;
    if header.version() != 6 {
        return false;
    }
    match header.next_header() {
        protocol::UDP => is_to_port(packet, at, port),
        protocol::FRAGMENT => match packet.bytes::<8>(at) {
            Some(fragment) => {
                fragment[0] == protocol::UDP
                    && ipv6::fragment(fragment).0 != Fragment::Later
                    && is_to_port(packet, at + 8, port)
            }
            None => false,
        },
        _ => false,
    }
}

#[inline(always)]
fn is_to_port(packet: &impl Packet, udp: usize, port: u16) -> bool {
    match packet.bytes::<UDP_LEN>(udp) {
        Some(header) => destination_port(header) == port,
        None => false,
    }
}

/// The destination port of a UDP header, as a number.
#[inline(always)]
#[must_use]
pub const fn destination_port(header: &[u8; UDP_LEN]) -> u16 {
    Ports::read(header).destination_number()
}

/// The outer headers of what [`is_gue_v4`] found.
///
/// # Errors
///
/// [`DropReason::Truncated`].
#[inline(always)]
pub fn outer_v4(packet: &impl Packet, at: usize, header: Ipv4<'_>) -> Result<Outer, DropReason> {
    let end = at + header.total_len();
    if !packet.reaches(end) {
        return Err(DropReason::Truncated);
    }
    Ok(Outer {
        source: header.source(),
        destination: header.destination(),
        udp: at + header.header_len(),
        end,
        traffic_class: header.traffic_class(),
        fragment: header.fragment_word() & ipv4::MORE_FRAGMENTS != 0,
    })
}

/// The outer headers of what [`is_gue_v6`] found.
///
/// # Errors
///
/// [`DropReason::Truncated`].
#[inline(always)]
pub fn outer_v6(packet: &impl Packet, at: usize, header: Ipv6<'_>) -> Result<Outer, DropReason> {
    let end = at + ipv6::LEN + header.payload_len();
    if !packet.reaches(end) {
        return Err(DropReason::Truncated);
    }
    let fragment = header.next_header() == protocol::FRAGMENT;
    Ok(Outer {
        source: header.source(),
        destination: header.destination(),
        udp: at + ipv6::LEN,
        end,
        traffic_class: header.traffic_class(),
        fragment,
    })
}

/// The outer headers of a plain packet.
#[inline(always)]
#[must_use]
pub const fn outer_plain(ip: &Ip) -> Outer {
    Outer {
        source: ip.source,
        destination: ip.destination,
        udp: ip.upper,
        end: ip.end,
        traffic_class: ip.traffic_class,
        fragment: false,
    }
}

/// Where the inner packet lies, and for which endpoint it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner {
    /// Where it begins.
    pub at: usize,
    /// Where the UDP datagram ends.
    pub end: usize,
    /// Whether GUE says that it is IPv6.
    pub v6: bool,
    /// The endpoint that the packet names: in its private data, else the outer destination.
    pub endpoint: Address,
}

/// Judges UDP length, GUE header and private data of a whole packet.
///
/// # Errors
///
/// The reason for which the packet is dropped.
#[inline(always)]
pub fn inner(packet: &impl Packet, outer: &Outer) -> Result<Inner, DropReason> {
    let head: &[u8; UDP_LEN + gue::LEN] = packet.bytes(outer.udp).ok_or(DropReason::GueLength)?;
    let udp_len = be16(head, 4) as usize;
    let end = outer.udp + udp_len;
    if udp_len < UDP_LEN + gue::LEN || end > outer.end {
        return Err(DropReason::GueLength);
    }
    let gue = gue::parse(&[head[8], head[9], head[10], head[11]], udp_len - UDP_LEN)?;
    let private = outer.udp + UDP_LEN + gue::LEN;
    let at = private + gue.private_len;
    if gue.private_len == 0 {
        return Ok(Inner { at, end, v6: gue.v6, endpoint: outer.destination });
    }
    let head: &[u8; gue::PRIVATE_LEN] = packet.bytes(private).ok_or(DropReason::GueLength)?;
    let endpoint = if gue::parse_private(head, gue.private_len)? {
        Address::from_bytes(*packet.bytes(private + gue::PRIVATE_LEN).ok_or(DropReason::GueLength)?)
    } else {
        Address::from_v4(*packet.bytes(private + gue::PRIVATE_LEN).ok_or(DropReason::GueLength)?)
    };
    Ok(Inner { at, end, v6: gue.v6, endpoint })
}

/// What a reason found in an inner packet is called.
#[inline(always)]
#[must_use]
pub const fn inner_reason(reason: DropReason) -> DropReason {
    if matches!(reason, DropReason::Truncated | DropReason::BadHeader | DropReason::IcmpQuote) {
        DropReason::InnerMalformed
    } else {
        reason
    }
}

/// "Fragmentation needed" about a tunnel packet that we sent: to `at`'s destination, quoting UDP from there to the
/// GUE port.
#[inline(always)]
#[must_use]
pub fn too_big_v4(packet: &impl Packet, at: usize, header: Ipv4<'_>, port: u16) -> Option<TunnelTooBig> {
    if header.version() != 4 || header.header_len() < ipv4::LEN {
        return None;
    }
    let at = at + header.header_len();
    let message: &[u8; icmp::LEN] = packet.bytes(at)?;
    if message[0] != icmp::UNREACHABLE || message[1] != icmp::FRAGMENTATION_NEEDED {
        return None;
    }
    let quoted = Ipv4(packet.bytes(at + icmp::LEN)?);
    let udp = at + icmp::LEN + quoted.header_len();
    if quoted.version() != 4
        || quoted.header_len() < ipv4::LEN
        || quoted.protocol() != protocol::UDP
        || quoted.source() != header.destination()
        || !is_to_port(packet, udp, port)
    {
        return None;
    }
    Some(TunnelTooBig { destination: quoted.destination(), mtu: be16(message, 6) as u32, reserved: 0 })
}

/// ICMPv6 "packet too big" about a tunnel packet that we sent.
#[inline(always)]
#[must_use]
pub fn too_big_v6(packet: &impl Packet, at: usize, header: Ipv6<'_>, port: u16) -> Option<TunnelTooBig> {
    let at = at + ipv6::LEN;
    let message: &[u8; icmp::LEN] = packet.bytes(at)?;
    if message[0] != icmp::V6_TOO_BIG {
        return None;
    }
    let quoted = Ipv6(packet.bytes(at + icmp::LEN)?);
    if quoted.version() != 6
        || quoted.next_header() != protocol::UDP
        || quoted.source() != header.destination()
        || !is_to_port(packet, at + icmp::LEN + ipv6::LEN, port)
    {
        return None;
    }
    let mtu = be32(message, 4);
    Some(TunnelTooBig { destination: quoted.destination(), mtu, reserved: 0 })
}
