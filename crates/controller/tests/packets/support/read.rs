//! A strict reader of what leaves the program: every length agrees with every other, every checksum is right.

use etherparse::{
    Icmpv4Slice, Icmpv6Slice, IpNumber, LinkExtSlice, NetSlice, SlicedPacket, TcpSlice, TransportSlice, UdpSlice,
};

/// What is wrong with a frame; `None` for an IP packet in perfect order, tunnel packets and the packets in them
/// included. The inner packet of a tunnel is the client's affair and is only read if `inner` is set.
pub fn fault(frame: &[u8], inner: bool) -> Option<String> {
    let packet = match SlicedPacket::from_ethernet(frame) {
        Ok(packet) => packet,
        Err(error) => return Some(format!("does not parse: {error}")),
    };
    let tags = packet.link_exts.iter().filter(|tag| matches!(tag, LinkExtSlice::Vlan(_))).count();
    let start = 14 + 4 * tags;
    ip_fault(&frame[start..], inner)
}

/// The same for an IP packet, which must fill its bytes exactly.
pub fn ip_fault(ip: &[u8], inner: bool) -> Option<String> {
    let packet = match SlicedPacket::from_ip(ip) {
        Ok(packet) => packet,
        Err(error) => return Some(format!("IP does not parse: {error}")),
    };
    let (length, fragment) = match &packet.net {
        Some(NetSlice::Ipv4(v4)) => {
            let header = v4.header().to_header();
            if header.header_checksum != header.calc_header_checksum() {
                return Some(format!("IPv4 header checksum {:#06x}", header.header_checksum));
            }
            (usize::from(header.total_len), header.is_fragmenting_payload())
        }
        Some(NetSlice::Ipv6(v6)) => (40 + usize::from(v6.header().payload_length()), v6.is_payload_fragmented()),
        Some(NetSlice::Arp(_)) | None => return Some("not IP".to_owned()),
    };
    if length != ip.len() {
        return Some(format!("IP says {length} bytes, the frame carries {}", ip.len()));
    }
    if fragment {
        return None;
    }
    let addresses = addresses(packet.net.as_ref()?);
    match packet.transport.as_ref() {
        Some(TransportSlice::Udp(udp)) => udp_fault(udp, addresses, inner),
        Some(TransportSlice::Tcp(tcp)) => tcp_fault(tcp, addresses),
        Some(TransportSlice::Icmpv4(icmp)) => icmp4_fault(icmp),
        Some(TransportSlice::Icmpv6(icmp)) => icmp6_fault(icmp, addresses),
        Some(TransportSlice::Igmp(_)) | None => None,
    }
}

enum Addresses {
    Four([u8; 4], [u8; 4]),
    Six([u8; 16], [u8; 16]),
}

fn addresses(net: &NetSlice<'_>) -> Addresses {
    match net {
        NetSlice::Ipv4(v4) => Addresses::Four(v4.header().source(), v4.header().destination()),
        NetSlice::Ipv6(v6) => Addresses::Six(v6.header().source(), v6.header().destination()),
        NetSlice::Arp(_) => panic!("ARP has no ports"),
    }
}

fn udp_fault(udp: &UdpSlice<'_>, addresses: Addresses, inner: bool) -> Option<String> {
    if usize::from(udp.length()) != udp.slice().len() {
        return Some(format!("UDP says {} bytes, IP carries {}", udp.length(), udp.slice().len()));
    }
    if udp.checksum() != 0 {
        let header = udp.to_header();
        let right = match addresses {
            Addresses::Four(source, destination) => header.calc_checksum_ipv4_raw(source, destination, udp.payload()),
            Addresses::Six(source, destination) => header.calc_checksum_ipv6_raw(source, destination, udp.payload()),
        };
        if right != Ok(udp.checksum()) {
            return Some(format!("UDP checksum {:#06x}, should be {right:x?}", udp.checksum()));
        }
    } else if matches!(addresses, Addresses::Six(..)) && udp.destination_port() != 6080 {
        return Some("no UDP checksum in IPv6".to_owned());
    }
    if udp.destination_port() == 6080 { gue_fault(udp.payload(), inner) } else { None }
}

fn gue_fault(gue: &[u8], inner: bool) -> Option<String> {
    let [first, protocol, 0, 0, rest @ ..] = gue else {
        return Some(format!("GUE header {:02x?}", &gue[..gue.len().min(4)]));
    };
    if first & 0xe0 != 0 {
        return Some(format!("GUE version or control bit: {first:#04x}"));
    }
    let Some(packet) = rest.get(usize::from(first & 0x1f) * 4..) else {
        return Some("GUE header longer than its datagram".to_owned());
    };
    match (IpNumber(*protocol), packet.first().map(|byte| byte >> 4)) {
        (IpNumber::IPV4, Some(4)) | (IpNumber::IPV6, Some(6)) if inner => {
            ip_fault(packet, false).map(|fault| format!("inner: {fault}"))
        }
        (IpNumber::IPV4, Some(4)) | (IpNumber::IPV6, Some(6)) => None,
        (protocol, version) => Some(format!("GUE protocol {} over IP version {version:?}", protocol.0)),
    }
}

fn tcp_fault(tcp: &TcpSlice<'_>, addresses: Addresses) -> Option<String> {
    let right = match addresses {
        Addresses::Four(source, destination) => tcp.calc_checksum_ipv4(source, destination),
        Addresses::Six(source, destination) => tcp.calc_checksum_ipv6(source, destination),
    };
    (right != Ok(tcp.checksum())).then(|| format!("TCP checksum {:#06x}, should be {right:x?}", tcp.checksum()))
}

fn icmp4_fault(icmp: &Icmpv4Slice<'_>) -> Option<String> {
    let right = icmp.icmp_type().calc_checksum(icmp.payload());
    (right != icmp.checksum()).then(|| format!("ICMP checksum {:#06x}, should be {right:#06x}", icmp.checksum()))
}

fn icmp6_fault(icmp: &Icmpv6Slice<'_>, addresses: Addresses) -> Option<String> {
    let Addresses::Six(source, destination) = addresses else {
        return Some("ICMPv6 in IPv4".to_owned());
    };
    (!icmp.is_checksum_valid(source, destination)).then(|| format!("ICMPv6 checksum {:#06x}", icmp.checksum()))
}

/// Where the IP packet in a frame ends by its own length, and where it begins; `None` without one.
pub fn extent(frame: &[u8]) -> Option<(usize, usize)> {
    let mut at = 12;
    while matches!(frame.get(at..at + 2)?, [0x81, 0] | [0x88, 0xa8]) {
        at += 4;
    }
    let ip = frame.get(at + 2..)?;
    let length = match frame[at..at + 2] {
        [0x08, 0x00] => usize::from(u16::from_be_bytes([*ip.get(2)?, *ip.get(3)?])),
        [0x86, 0xdd] => 40 + usize::from(u16::from_be_bytes([*ip.get(4)?, *ip.get(5)?])),
        _ => return None,
    };
    Some((at + 2 + length, at + 2))
}
