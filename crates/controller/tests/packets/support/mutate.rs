//! Packets to a VIP and to the tunnel port, and damage done to them: from a seed, always the same.

use std::net::SocketAddr;

use super::bed::{
    CLIENT4, CLIENT6, DIRECTOR4, DIRECTOR6, ON_NODE4, POD4, POD6, STRANGER4, TUNNEL4, TUNNEL6, Way, client, vip,
};
use super::frame::{TPID_AD, TPID_Q, Tag, tagged};
use super::packet::{DESTINATION_OPTIONS, HOP_BY_HOP, Packet, ROUTING, Upper};
use super::rng::Rng;
use super::tunnel::Tunnel;

/// A well-formed frame for a VIP: any way, family, protocol, with options, in parts, pinging or complaining.
pub fn to_vip(rng: &mut Rng) -> Vec<u8> {
    let four = rng.one_in(2);
    let way = *rng.pick(&Way::ALL);
    let ip = ip_to_vip(rng, way, four);
    link(rng, &ip)
}

/// A well-formed frame for the tunnel port; mostly for an endpoint that is here.
pub fn to_tunnel(rng: &mut Rng) -> Vec<u8> {
    let (four, outer_four) = (rng.one_in(2), rng.one_in(2));
    let (source, destination) = if outer_four { (DIRECTOR4, TUNNEL4) } else { (DIRECTOR6, TUNNEL6) };
    let way = if rng.one_in(8) { *rng.pick(&Way::ALL) } else { *rng.pick(&[Way::HereLocal, Way::HereVeth]) };
    let inner = ip_to_vip(rng, way, four);
    let mut tunnel = Tunnel::new(source, destination, inner);
    match rng.below(8) {
        0 => tunnel.private = rng.clone().bytes(4 * rng.below(8)),
        1 => tunnel = tunnel.naming(*rng.pick(&[POD4, POD6])),
        _ if way == Way::HereLocal => {}
        _ => tunnel = tunnel.naming(*rng.pick(&[POD4, POD6])),
    }
    tunnel.ecn = rng.below(4) as u8;
    tunnel.checksum = rng.one_in(4);
    if outer_four && rng.one_in(20) {
        tunnel.source = STRANGER4;
    }
    if outer_four && rng.one_in(10) {
        tunnel.options = vec![1; 4 * (1 + rng.below(10))];
    }
    link(rng, &tunnel.ip())
}

fn ip_to_vip(rng: &mut Rng, way: Way, four: bool) -> Vec<u8> {
    let source = SocketAddr::new(client(four), rng.next() as u16);
    let destination = way.at(if four && rng.one_in(10) { ON_NODE4 } else { vip(four) });
    let mut packet = if rng.one_in(2) { Packet::tcp(source, destination) } else { Packet::udp(source, destination) };
    let length = if rng.one_in(5) { 1200 + rng.below(400) } else { rng.below(200) };
    packet.payload = rng.bytes(length);
    // Few ids, so that fragments meet the first of their kind.
    packet = packet.traffic_class(rng.below(64) as u8, rng.below(4) as u8).df(rng.one_in(2)).id(rng.below(4) as u32);
    match rng.below(10) {
        0 if four => {
            let options = 4 * (1 + rng.below(10));
            packet.options(&rng.bytes(options)).ip()
        }
        0 => {
            for _ in 0..1 + rng.below(9) {
                let length = 6 + 8 * rng.below(3);
                packet = packet.extension(*rng.pick(&[HOP_BY_HOP, ROUTING, DESTINATION_OPTIONS]), &rng.bytes(length));
            }
            packet.ip()
        }
        1 | 2 => {
            packet.payload.resize(64, 1);
            let parts = packet.fragments(8 * (1 + rng.below(8)));
            parts[rng.below(2)].clone()
        }
        3 => {
            packet.upper = Upper::Icmp { kind: if four { 8 } else { 128 }, code: 0, rest: [1, 2, 3, 4] };
            packet.ip()
        }
        4 => complaint(rng, &packet, source, destination),
        5 => {
            packet.upper = Upper::Other(rng.next() as u8);
            packet.ip()
        }
        _ => packet.ip(),
    }
}

/// An ICMP error about what the VIP sent to this client.
fn complaint(rng: &mut Rng, packet: &Packet, source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let four = packet.source.is_ipv4();
    let upper = Upper::Tcp { source: destination.port(), destination: source.port(), syn: false };
    let reply = Packet { source: packet.destination, destination: packet.source, upper, ..packet.clone() };
    let quote = reply.ip();
    let quoted = rng.below(quote.len().min(500) + 1);
    let kind = *rng.pick(if four { &[3, 11, 12] } else { &[1, 2, 3] });
    let from = if four { CLIENT4 } else { CLIENT6 };
    let error = Packet::icmp(from, reply.source, kind, rng.below(8) as u8, [0, 0, 5, 0]);
    error.payload(&quote[..quoted]).ip()
}

fn link(rng: &mut Rng, ip: &[u8]) -> Vec<u8> {
    let count = if rng.one_in(4) { 1 + rng.below(2) } else { 0 };
    let tags: Vec<Tag> = (0..count).map(|_| (*rng.pick(&[TPID_Q, TPID_AD]), rng.next() as u16)).collect();
    let mut frame = tagged(&tags, ip);
    if rng.one_in(8) {
        let padding = rng.below(60);
        frame.extend(rng.bytes(padding));
    }
    frame
}

/// Does it some damage, most of the time where the headers are. Where it is from and for stays mostly, else it would be
/// nobody's packet and pass.
pub fn damage(rng: &mut Rng, frame: &mut Vec<u8>) {
    for _ in 0..1 + rng.below(3) {
        let end = if rng.one_in(4) { frame.len() } else { frame.len().min(130) };
        let start = if rng.one_in(8) { 12 } else { 14 };
        let at = start + rng.below(end - start);
        // A shift in front of the outer destination address hides it, and a change in it makes it another.
        if (26..34).contains(&at) && frame[12..14] == [8, 0] || (22..54).contains(&at) && frame[12..14] == [0x86, 0xdd]
        {
            continue;
        }
        match rng.below(8) {
            0 => frame[at] ^= 1 << rng.below(8),
            1 => frame[at] = *rng.pick(&[0, 1, 0x7f, 0x80, 0xff, 0x45, 0x60, 4, 6, 17, 41, 44, 47, 58]),
            2 => frame[at] = rng.next() as u8,
            3 => frame.truncate(at.max(14)),
            4 if at > 54 => {
                let bytes = rng.below(16);
                frame.splice(at..at, rng.clone().bytes(bytes));
            }
            5 if at > 54 => {
                let to = (at + rng.below(16)).min(frame.len());
                frame.drain(at..to);
            }
            6 => {
                let bytes = rng.below(300);
                frame.extend(rng.bytes(bytes));
            }
            7 => {
                let from = 14 + rng.below(frame.len() - 13);
                let copy: Vec<u8> = frame[from.min(frame.len())..].iter().take(8).copied().collect();
                let room = frame.len() - at;
                frame[at..at + copy.len().min(room)].copy_from_slice(&copy[..copy.len().min(room)]);
            }
            _ => frame[at] = frame[at].wrapping_add(1),
        }
        let length = frame.len().clamp(15, 3400);
        frame.resize(length, 0);
    }
}

/// Random bytes behind a true Ethernet and IP header, so that they are looked at.
pub fn garbage(rng: &mut Rng, tunnel: bool) -> Vec<u8> {
    let mut frame = if tunnel { to_tunnel(rng) } else { to_vip(rng) };
    let from = (14 + rng.below(80)).min(frame.len());
    for byte in &mut frame[from..] {
        *byte = rng.next() as u8;
    }
    frame
}
