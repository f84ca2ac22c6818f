//! What must come out, worked out from the packet, the tables and the library's hash.

use guenon_controller::model::{EndpointState, Path};
use guenon_ebpf::abi::Address;
use guenon_ebpf::hash::{self, DEFAULT_KEY, Schedule};

use super::bed::{ONE_TAG, OTHER_NIC_MAC, OTHER_ROUTER_MAC, ROUTER_MAC, TWO_TAGS, Way};
use super::frame::{NIC_MAC, Tag, ether_type, tagged};
use super::packet::{Packet, Upper};
use super::tunnel::Tunnel;

/// IANA's number of TCP, UDP.
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

/// The flow's hash, by the library.
pub fn flow_hash(packet: &Packet) -> u64 {
    let (source, destination, protocol) = match packet.upper {
        Upper::Tcp { source, destination, .. } => (source, destination, TCP),
        Upper::Udp { source, destination } => (source, destination, UDP),
        Upper::Icmp { .. } | Upper::Other(_) => panic!("no flow"),
    };
    let wire = |port: u16| u16::from_le_bytes(port.to_be_bytes());
    hash::flow(
        &Schedule::new(DEFAULT_KEY),
        Address::from_ip(packet.source),
        Address::from_ip(packet.destination),
        wire(source),
        wire(destination),
        protocol,
    )
}

/// The hash that picks the row when that is the client's address alone.
pub fn client_hash(packet: &Packet) -> u64 {
    hash::client(&Schedule::new(DEFAULT_KEY), Address::from_ip(packet.source))
}

/// The hash that spreads the fragments of this datagram: what all of them tell.
pub fn datagram_hash(packet: &Packet) -> u64 {
    // Only the first fragment of an IPv6 datagram says what is in it.
    let protocol = match packet.upper {
        _ if packet.source.is_ipv6() => 0,
        Upper::Tcp { .. } => TCP,
        Upper::Udp { .. } => UDP,
        Upper::Icmp { .. } | Upper::Other(_) => panic!("no flow"),
    };
    let (source, destination) = (Address::from_ip(packet.source), Address::from_ip(packet.destination));
    hash::datagram(&Schedule::new(DEFAULT_KEY), source, destination, packet.id, protocol)
}

/// The frame that carries this fragment of a datagram to the way's first endpoint.
pub fn encapsulated_fragment(way: Way, datagram: &Packet, ip: &[u8]) -> Vec<u8> {
    encapsulated_to(&way.endpoints()[0], way, datagram_hash(datagram), ip)
}

/// The frame that carries this IP packet, whose flow is `flow`'s, to the way's first endpoint.
pub fn encapsulated(way: Way, flow: &Packet, ip: &[u8]) -> Vec<u8> {
    encapsulated_to(&way.endpoints()[0], way, flow_hash(flow), ip)
}

/// The same to a given endpoint, under a given hash.
pub fn encapsulated_to(endpoint: &EndpointState, way: Way, hash: u64, ip: &[u8]) -> Vec<u8> {
    let Path::Tunnel { source, destination, .. } = &endpoint.path else { panic!("{way:?} has no tunnel") };
    let (dscp, ecn) = traffic_class(ip);
    let mut tunnel = Tunnel::new(*source, *destination, ip.to_vec()).with(|tunnel| {
        tunnel.source_port = hash::source_port(hash);
        tunnel.flow_label = hash::flow_label(hash);
        (tunnel.dscp, tunnel.ecn) = (dscp, ecn);
    });
    if endpoint.address != *destination {
        tunnel = tunnel.naming(endpoint.address);
    }
    let tags: &[Tag] = if way == Way::OneTag {
        &ONE_TAG
    } else if way == Way::TwoTags {
        &TWO_TAGS
    } else {
        &[]
    };
    let (from, to) = if way == Way::OtherInterface { (OTHER_NIC_MAC, OTHER_ROUTER_MAC) } else { (NIC_MAC, ROUTER_MAC) };
    addressed(tagged(tags, &tunnel.ip()), from, to)
}

/// The same frame from and to other MACs.
pub fn addressed(mut frame: Vec<u8>, from: [u8; 6], to: [u8; 6]) -> Vec<u8> {
    frame[..6].copy_from_slice(&to);
    frame[6..12].copy_from_slice(&from);
    frame
}

/// DSCP and ECN of an IP packet.
pub fn traffic_class(ip: &[u8]) -> (u8, u8) {
    let byte = if ether_type(ip) == 0x86dd { ip[0] << 4 | ip[1] >> 4 } else { ip[1] };
    (byte >> 2, byte & 3)
}

/// A loud difference between two frames.
#[track_caller]
pub fn assert_frame(what: &str, got: &[u8], want: &[u8]) {
    if got != want {
        let at = got.iter().zip(want).position(|(a, b)| a != b).unwrap_or(got.len().min(want.len()));
        panic!(
            "{what}: differs from byte {at} on\n got ({}) {}\nwant ({}) {}",
            got.len(),
            hex(got),
            want.len(),
            hex(want)
        );
    }
}

/// Bytes in hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
