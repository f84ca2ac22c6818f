//! Frames that are not for a VIP and no tunnel of ours, of many kinds: from a seed, always the same.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::bed::{TUNNEL4, TUNNEL6};
use super::frame::{TPID_AD, TPID_Q, Tag, ether_type, ethernet};
use super::packet::{DESTINATION_OPTIONS, HOP_BY_HOP, Packet, ROUTING, Upper};
use super::rng::Rng;
use super::tunnel::Tunnel;

/// One frame of a random kind, and the kind's name.
pub fn frame(rng: &mut Rng, jumbo: bool) -> (&'static str, Vec<u8>) {
    let (name, make) = *rng.pick(KINDS);
    let mut bytes = make(rng);
    if jumbo && rng.one_in(50) {
        bytes.resize(4000 + rng.below(5000), 0x77);
    }
    if rng.one_in(4) {
        mangle(rng, &mut bytes);
    }
    bytes.resize(bytes.len().max(14), 0);
    (name, bytes)
}

/// How many kinds there are.
pub fn kinds() -> usize {
    KINDS.len()
}

type Kind = (&'static str, fn(&mut Rng) -> Vec<u8>);

const KINDS: &[Kind] = &[
    ("ARP request for a VIP", |rng| arp(rng, 1)),
    ("ARP reply", |rng| arp(rng, 2)),
    ("LLDP", |rng| link(rng, 0x88cc)),
    ("LACP", |rng| link(rng, 0x8809)),
    ("MPLS", |rng| link(rng, 0x8847)),
    ("PPPoE session", |rng| link(rng, 0x8864)),
    ("802.1X", |rng| link(rng, 0x888e)),
    ("MACsec", |rng| link(rng, 0x88e5)),
    ("PTP", |rng| link(rng, 0x88f7)),
    ("wake on LAN", |rng| link(rng, 0x0842)),
    ("802.3 with a length", |rng| link(rng, 38)),
    ("any EtherType", |rng| {
        let ether_type = rng.next() as u16;
        // IP of random bytes would be for a VIP once in 2^32.
        link(rng, ether_type)
    }),
    ("neighbour discovery", |rng| {
        let kind = 133 + rng.below(5) as u8;
        let destination = if rng.one_in(2) { multicast6(rng) } else { TUNNEL6 };
        let mut packet = Packet::icmp(somebody(rng, false), destination, kind, 0, [0; 4]).payload(rng.bytes(24));
        packet.hop_limit = 255;
        wrap(rng, &packet.ip())
    }),
    ("MLD", |rng| {
        let packet = Packet::icmp(somebody(rng, false), multicast6(rng), 143, 0, [0; 4])
            .extension(HOP_BY_HOP, &[5, 2, 0, 0, 1, 0])
            .payload(rng.bytes(20));
        wrap(rng, &packet.ip())
    }),
    ("IGMP", |rng| other(rng, 2)),
    ("DHCP", |rng| {
        let (source, destination) = (socket4([0; 4], 68), socket4([255; 4], 67));
        let packet = Packet::udp(source, destination).payload(rng.bytes(300));
        wrap(rng, &packet.ip())
    }),
    ("DHCPv6", |rng| {
        let all = IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2));
        let packet = Packet::udp((somebody(rng, false), 546).into(), (all, 547).into()).payload(rng.bytes(90));
        wrap(rng, &packet.ip())
    }),
    ("mDNS", |rng| {
        let group = socket4([224, 0, 0, 251], 5353);
        let packet = Packet::udp((somebody(rng, true), 5353).into(), group).payload(rng.bytes(60));
        wrap(rng, &packet.ip())
    }),
    ("VXLAN", |rng| udp_tunnel(rng, 4789)),
    ("Geneve", |rng| udp_tunnel(rng, 6081)),
    ("WireGuard", |rng| udp_tunnel(rng, 51_820)),
    ("GUE to somebody else", |rng| {
        let four = rng.one_in(2);
        let (source, destination) = (somebody(rng, four), somebody(rng, four));
        let inner = flow(rng).ip();
        wrap(rng, &Tunnel::new(source, destination, inner).ip())
    }),
    ("GRE", |rng| other(rng, 47)),
    ("IPIP", |rng| other(rng, 4)),
    ("SIT", |rng| other(rng, 41)),
    ("SCTP", |rng| other(rng, 132)),
    ("OSPF", |rng| other(rng, 89)),
    ("VRRP", |rng| other(rng, 112)),
    ("ESP", |rng| other(rng, 50)),
    ("AH", |rng| other(rng, 51)),
    ("no next header", |rng| other(rng, 59)),
    ("any protocol", |rng| {
        let protocol = rng.next() as u8;
        // UDP of random bytes to this node could have GUE's port.
        other(rng, if protocol == 17 { 18 } else { protocol })
    }),
    ("TCP", |rng| {
        let packet = flow(rng);
        wrap(rng, &packet.ip())
    }),
    ("UDP", |rng| {
        let mut packet = flow(rng);
        packet.upper = Upper::Udp { source: rng.next() as u16, destination: not_gue(rng) };
        wrap(rng, &packet.ip())
    }),
    ("TCP from a VIP", |rng| {
        let four = rng.one_in(2);
        let packet = Packet::tcp((super::bed::vip(four), 8000).into(), (somebody(rng, four), 40_000).into());
        wrap(rng, &packet.ip())
    }),
    ("IPv4 options", |rng| {
        let length = 4 * (1 + rng.below(10));
        let packet = flow_of(rng, true).options(&rng.clone().bytes(length));
        wrap(rng, &packet.ip())
    }),
    ("IPv6 extension headers", |rng| {
        let mut packet = flow_of(rng, false);
        for _ in 0..1 + rng.below(6) {
            let length = 6 + 8 * rng.below(6);
            packet = packet.extension(*rng.pick(&[HOP_BY_HOP, ROUTING, DESTINATION_OPTIONS]), &rng.bytes(length));
        }
        wrap(rng, &packet.ip())
    }),
    ("fragments", |rng| {
        let mut packet = flow(rng).df(false).id(rng.next() as u32);
        if rng.one_in(2) {
            packet.upper = Upper::Udp { source: rng.next() as u16, destination: not_gue(rng) };
        }
        packet.payload = rng.bytes(100);
        let parts = packet.fragments(8 * (1 + rng.below(8)));
        wrap(rng, &parts[rng.clone().below(2)])
    }),
    ("ping", |rng| {
        let four = rng.one_in(2);
        let kind = if four { 8 } else { 128 };
        let packet = Packet::icmp(somebody(rng, four), to_somebody(rng, four), kind, 0, [1, 2, 3, 4]);
        wrap(rng, &packet.ip())
    }),
    ("ICMP error", |rng| {
        let four = rng.one_in(2);
        let kind = if four { 3 } else { 1 };
        let quoted = Packet::tcp((to_somebody(rng, four), 5000).into(), (somebody(rng, four), 443).into()).ip();
        let packet = Packet::icmp(somebody(rng, four), to_somebody(rng, four), kind, 1, [0; 4]).payload(quoted);
        wrap(rng, &packet.ip())
    }),
];

/// Damage of every layer: cut anywhere, bytes changed, versions and lengths that lie. Destination addresses stay.
fn mangle(rng: &mut Rng, frame: &mut Vec<u8>) {
    match rng.below(5) {
        0 => {
            let length = rng.below(frame.len() + 1);
            frame.truncate(length.max(14));
        }
        1 => {
            // Version and header length of the IP header.
            if let Some(byte) = frame.get_mut(14) {
                *byte = rng.next() as u8;
            }
        }
        2 => {
            // The lengths of either family.
            for at in 16..20 {
                if let Some(byte) = frame.get_mut(at) {
                    *byte = rng.next() as u8;
                }
            }
        }
        3 => {
            // The IPv4 checksum or half of an IPv6 source.
            for at in 24..26 {
                if let Some(byte) = frame.get_mut(at) {
                    *byte = rng.next() as u8;
                }
            }
        }
        _ => {
            let more = rng.below(200);
            frame.extend(rng.bytes(more));
        }
    }
}

fn wrap(rng: &mut Rng, ip: &[u8]) -> Vec<u8> {
    link_tagged(rng, ether_type(ip), ip)
}

fn link(rng: &mut Rng, ether_type: u16) -> Vec<u8> {
    let length = rng.below(300);
    let body = rng.bytes(length);
    link_tagged(rng, ether_type, &body)
}

fn link_tagged(rng: &mut Rng, ether_type: u16, body: &[u8]) -> Vec<u8> {
    let count = if rng.one_in(3) { 1 + rng.below(4) } else { 0 };
    let tags: Vec<Tag> = (0..count).map(|_| (*rng.pick(&[TPID_Q, TPID_AD]), rng.next() as u16)).collect();
    let mut frame = ethernet(&tags, ether_type, body);
    match rng.below(4) {
        0 => frame[..6].copy_from_slice(&[0xff; 6]),
        1 => frame[..6].copy_from_slice(&[0x01, 0x00, 0x5e, 0, 0, 0xfb]),
        _ => {}
    }
    frame
}

/// Who has a VIP, or another address? That is between the asker and the node.
fn arp(rng: &mut Rng, operation: u8) -> Vec<u8> {
    let mut body = vec![0, 1, 8, 0, 6, 4, 0, operation];
    body.extend(rng.bytes(16));
    body.extend(match super::bed::VIP4 {
        IpAddr::V4(vip) => vip.octets(),
        IpAddr::V6(_) => panic!("an IPv4 VIP"),
    });
    link_tagged(rng, 0x0806, &body)
}

fn other(rng: &mut Rng, protocol: u8) -> Vec<u8> {
    let four = rng.one_in(2);
    let (source, destination) = (somebody(rng, four), to_somebody(rng, four));
    let length = rng.below(200);
    let packet = Packet::new(source, destination, Upper::Other(protocol)).payload(rng.bytes(length));
    wrap(rng, &packet.ip())
}

fn udp_tunnel(rng: &mut Rng, port: u16) -> Vec<u8> {
    let four = rng.one_in(2);
    let (source, destination) = (somebody(rng, four), to_somebody(rng, four));
    let source_port = rng.next() as u16;
    let packet = Packet::udp((source, source_port).into(), (destination, port).into()).payload(rng.bytes(120));
    wrap(rng, &packet.ip())
}

fn flow(rng: &mut Rng) -> Packet {
    let four = rng.one_in(2);
    flow_of(rng, four)
}

fn flow_of(rng: &mut Rng, four: bool) -> Packet {
    let source = SocketAddr::new(somebody(rng, four), rng.next() as u16);
    let destination = SocketAddr::new(to_somebody(rng, four), rng.next() as u16);
    let length = rng.below(1200);
    Packet::tcp(source, destination).payload(rng.bytes(length)).traffic_class(rng.below(64) as u8, rng.below(4) as u8)
}

fn not_gue(rng: &mut Rng) -> u16 {
    match rng.next() as u16 {
        6080 => 6079,
        port => port,
    }
}

/// This node itself, at times.
fn to_somebody(rng: &mut Rng, four: bool) -> IpAddr {
    match (rng.one_in(3), four) {
        (true, true) => TUNNEL4,
        (true, false) => TUNNEL6,
        (false, four) => somebody(rng, four),
    }
}

/// An address of nobody here.
fn somebody(rng: &mut Rng, four: bool) -> IpAddr {
    if four {
        IpAddr::V4(Ipv4Addr::new(10, rng.next() as u8, rng.next() as u8, rng.next() as u8))
    } else {
        IpAddr::V6(Ipv6Addr::new(0xfd00, 1, 2, 3, rng.next() as u16, 0, 0, rng.next() as u16))
    }
}

fn multicast6(rng: &mut Rng) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, rng.next() as u16))
}

fn socket4(octets: [u8; 4], port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(octets.into()), port)
}
