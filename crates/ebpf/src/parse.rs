//! What a packet to a VIP is: judged header by header, after its destination was found to be a VIP.

use crate::abi::Address;
use crate::headers::icmp::{self, Message};
use crate::headers::ipv4::{self, Ipv4};
use crate::headers::ipv6::{self, Hidden, Ipv6};
use crate::headers::transport::{Ports, TCP_LEN, UDP_LEN};
use crate::headers::{Fragment, be16, protocol};
use crate::packet::Packet;
use crate::reason::DropReason;

/// What an IP header says, in the terms of both versions. Offsets are from the frame's first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip {
    /// Where the IP header begins.
    pub at: usize,
    /// Where the upper-layer header begins.
    pub upper: usize,
    /// Where the packet ends, as its header says; the frame may go on (padding).
    pub end: usize,
    /// Whether it is IPv6.
    pub v6: bool,
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// IANA number of the upper-layer protocol.
    pub protocol: u8,
    /// Whether it may not be fragmented: IPv4 with DF, or IPv6.
    pub dont_fragment: bool,
    /// Whole, or a fragment.
    pub fragment: Fragment,
    /// Identification of the datagram that it is a fragment of.
    pub id: u32,
}

impl Ip {
    /// Bytes of the packet.
    #[inline(always)]
    #[must_use]
    pub const fn packet_len(&self) -> usize {
        self.end - self.at
    }

    /// GUE's name for what the packet is.
    #[inline(always)]
    #[must_use]
    pub const fn gue_protocol(&self) -> u8 {
        if self.v6 { protocol::IPV6 } else { protocol::IPV4 }
    }
}

/// Judges the IPv4 header at `at`.
///
/// # Errors
///
/// The reason for which the packet is dropped.
#[inline(always)]
pub fn ipv4(packet: &impl Packet, at: usize, header: Ipv4<'_>) -> Result<Ip, DropReason> {
    let header_len = header.header_len();
    let total = header.total_len();
    if header.version() != 4 || header_len < ipv4::LEN || total < header_len {
        return Err(DropReason::BadHeader);
    }
    if !packet.reaches(at + total) {
        return Err(DropReason::Truncated);
    }
    let word = header.fragment_word();
    let fragment = if word & (ipv4::MORE_FRAGMENTS | ipv4::OFFSET_MASK) == 0 {
        Fragment::Whole
    } else if word & ipv4::OFFSET_MASK == 0 {
        Fragment::First
    } else {
        Fragment::Later
    };
    Ok(Ip {
        at,
        upper: at + header_len,
        end: at + total,
        v6: false,
        source: header.source(),
        destination: header.destination(),
        traffic_class: header.traffic_class(),
        protocol: header.protocol(),
        dont_fragment: word & ipv4::DONT_FRAGMENT != 0,
        fragment,
        id: header.id() as u32,
    })
}

/// What the IP header at `at` says, of a packet of this family; `None` if it is not right.
#[inline(always)]
pub fn ip(packet: &impl Packet, at: usize, v6: bool) -> Option<Ip> {
    if v6 { ipv6(packet, at, Ipv6(packet.bytes(at)?)).ok() } else { ipv4(packet, at, Ipv4(packet.bytes(at)?)).ok() }
}

/// The IPv4 header of a plain packet: no options, no fragment, TCP or UDP. Whether the packet is all there is
/// left to the caller.
#[inline(always)]
#[must_use]
pub const fn plain_v4(at: usize, header: Ipv4<'_>) -> Option<Ip> {
    let word = header.fragment_word();
    let protocol = header.protocol();
    if header.0[0] != 0x45 || word & (ipv4::MORE_FRAGMENTS | ipv4::OFFSET_MASK) != 0 || !is_transport(protocol) {
        return None;
    }
    Some(Ip {
        at,
        upper: at + ipv4::LEN,
        end: at + header.total_len(),
        v6: false,
        source: header.source(),
        destination: header.destination(),
        traffic_class: header.traffic_class(),
        protocol,
        dont_fragment: word & ipv4::DONT_FRAGMENT != 0,
        fragment: Fragment::Whole,
        id: 0,
    })
}

/// The IPv6 header of a plain packet: no extension header, TCP or UDP.
#[inline(always)]
#[must_use]
pub const fn plain_v6(at: usize, header: Ipv6<'_>) -> Option<Ip> {
    let protocol = header.next_header();
    if header.version() != 6 || !is_transport(protocol) {
        return None;
    }
    Some(Ip {
        at,
        upper: at + ipv6::LEN,
        end: at + ipv6::LEN + header.payload_len(),
        v6: true,
        source: header.source(),
        destination: header.destination(),
        traffic_class: header.traffic_class(),
        protocol,
        dont_fragment: true,
        fragment: Fragment::Whole,
        id: 0,
    })
}

/// Judges the IPv6 header at `at` and walks its extension headers.
///
/// # Errors
///
/// The reason for which the packet is dropped.
#[inline(always)]
pub fn ipv6(packet: &impl Packet, at: usize, header: Ipv6<'_>) -> Result<Ip, DropReason> {
    if header.version() != 6 {
        return Err(DropReason::BadHeader);
    }
    let end = at + ipv6::LEN + header.payload_len();
    if !packet.reaches(end) {
        return Err(DropReason::Truncated);
    }
    let upper = match ipv6::upper(packet, header.next_header(), at + ipv6::LEN, end) {
        Ok(upper) => upper,
        Err(Hidden::Cut) => return Err(DropReason::Truncated),
        Err(Hidden::Unreadable) => return Err(DropReason::OptionsTooLong),
    };
    Ok(Ip {
        at,
        upper: upper.at,
        end,
        v6: true,
        source: header.source(),
        destination: header.destination(),
        traffic_class: header.traffic_class(),
        protocol: upper.protocol,
        dont_fragment: true,
        fragment: upper.fragment,
        id: upper.id,
    })
}

/// Whether the protocol is one that frontends have, so that [`ports`] may be asked.
#[inline(always)]
#[must_use]
pub const fn has_ports(ip: &Ip) -> bool {
    is_transport(ip.protocol)
}

#[inline(always)]
const fn is_transport(number: u8) -> bool {
    number == protocol::TCP || number == protocol::UDP
}

/// The ports of a TCP or UDP packet that is whole or a first fragment.
///
/// # Errors
///
/// The reason for which the packet is dropped.
#[inline(always)]
pub fn ports(packet: &impl Packet, ip: &Ip) -> Result<Ports, DropReason> {
    if ip.fragment != Fragment::Whole {
        // At least what ICMP quotes must be there; the rest may be in the next fragment.
        if ip.upper + 8 > ip.end {
            return Err(DropReason::FragmentBad);
        }
        return Ok(Ports::read(packet.bytes::<8>(ip.upper).ok_or(DropReason::FragmentBad)?));
    }
    if ip.protocol == protocol::TCP {
        if ip.upper + TCP_LEN > ip.end {
            return Err(DropReason::Truncated);
        }
        let header: &[u8; TCP_LEN] = packet.bytes(ip.upper).ok_or(DropReason::Truncated)?;
        let header_len = (header[12] >> 4) as usize * 4;
        if header_len < TCP_LEN || ip.upper + header_len > ip.end {
            return Err(DropReason::BadHeader);
        }
        return Ok(Ports::read(header));
    }
    if ip.upper + UDP_LEN > ip.end {
        return Err(DropReason::Truncated);
    }
    let header: &[u8; UDP_LEN] = packet.bytes(ip.upper).ok_or(DropReason::Truncated)?;
    let len = be16(header, 4) as usize;
    if len < UDP_LEN || ip.upper + len > ip.end {
        return Err(DropReason::BadHeader);
    }
    Ok(Ports::read(header))
}

/// What kind of ICMP message a packet is; one that is none, or a fragment, is [`Message::Other`].
///
/// # Errors
///
/// The reason for which the packet is dropped.
#[inline(always)]
pub fn icmp(packet: &impl Packet, ip: &Ip) -> Result<Message, DropReason> {
    let wanted = if ip.v6 { protocol::ICMPV6 } else { protocol::ICMP };
    if ip.protocol != wanted || ip.fragment != Fragment::Whole {
        return Ok(Message::Other);
    }
    if ip.upper + icmp::LEN > ip.end {
        return Err(DropReason::Truncated);
    }
    let header: &[u8; icmp::LEN] = packet.bytes(ip.upper).ok_or(DropReason::Truncated)?;
    Ok(if ip.v6 { icmp::v6_message(header[0]) } else { icmp::v4_message(header[0]) })
}

/// The flow that a quoted packet belongs to, seen from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// The client.
    pub client: Address,
    /// TCP or UDP.
    pub protocol: u8,
    /// The client's port first.
    pub ports: Ports,
}

/// The flow of the packet that an ICMP error to a VIP quotes. The VIP must have sent it, and eight bytes
/// of its TCP or UDP header must be there, in IPv6 behind no other extension header than a fragment's: what
/// endpoints send has none.
///
/// # Errors
///
/// [`DropReason::IcmpQuote`].
#[inline(always)]
pub fn quoted(packet: &impl Packet, ip: &Ip) -> Result<Quoted, DropReason> {
    let client = quoted_client(packet, ip)?;
    let (protocol, ports) = quoted_ports(packet, ip.upper, ip.end, ip.v6)?;
    Ok(Quoted { client, protocol, ports })
}

/// The client of a quoted packet, which the VIP must have sent.
///
/// # Errors
///
/// [`DropReason::IcmpQuote`].
#[inline(always)]
pub fn quoted_client(packet: &impl Packet, ip: &Ip) -> Result<Address, DropReason> {
    let at = ip.upper + icmp::LEN;
    let (source, client) = if ip.v6 {
        let header = Ipv6(packet.bytes(at).ok_or(DropReason::IcmpQuote)?);
        (header.source(), header.destination())
    } else {
        let header = Ipv4(packet.bytes(at).ok_or(DropReason::IcmpQuote)?);
        (header.source(), header.destination())
    };
    if source == ip.destination { Ok(client) } else { Err(DropReason::IcmpQuote) }
}

/// Protocol and ports of the packet quoted by the ICMP message at `upper`; the ports are those of the way to
/// the VIP.
///
/// # Errors
///
/// [`DropReason::IcmpQuote`].
#[inline(always)]
pub fn quoted_ports(packet: &impl Packet, upper: usize, end: usize, v6: bool) -> Result<(u8, Ports), DropReason> {
    let (protocol, upper) = quoted_upper(packet, upper, end, v6)?;
    let ports = Ports::read(packet.bytes::<8>(upper).ok_or(DropReason::IcmpQuote)?);
    Ok((protocol, ports.reversed()))
}

/// Protocol (TCP or UDP) of the packet quoted by the ICMP message at `upper`, and where its TCP or UDP header begins, of
/// which eight bytes are there if the message is.
///
/// # Errors
///
/// [`DropReason::IcmpQuote`].
#[inline(always)]
pub fn quoted_upper(packet: &impl Packet, upper: usize, end: usize, v6: bool) -> Result<(u8, usize), DropReason> {
    let at = upper + icmp::LEN;
    let (protocol, upper) = if v6 {
        let header = Ipv6(packet.bytes(at).ok_or(DropReason::IcmpQuote)?);
        if header.version() != 6 {
            return Err(DropReason::IcmpQuote);
        }
        let upper = at + ipv6::LEN;
        if header.next_header() == protocol::FRAGMENT {
            let extension: &[u8; 8] = packet.bytes(upper).ok_or(DropReason::IcmpQuote)?;
            if ipv6::fragment(extension).0 == Fragment::Later {
                return Err(DropReason::IcmpQuote);
            }
            (extension[0], upper + 8)
        } else {
            (header.next_header(), upper)
        }
    } else {
        let header = Ipv4(packet.bytes(at).ok_or(DropReason::IcmpQuote)?);
        let later = header.fragment_word() & ipv4::OFFSET_MASK != 0;
        if header.version() != 4 || header.header_len() < ipv4::LEN || later {
            return Err(DropReason::IcmpQuote);
        }
        (header.protocol(), at + header.header_len())
    };
    if !is_transport(protocol) || upper + 8 > end {
        return Err(DropReason::IcmpQuote);
    }
    Ok((protocol, upper))
}
