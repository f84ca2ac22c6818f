//! The outer header: made once for each endpoint by the agent, completed for each packet by the program.

use core::net::IpAddr;

use crate::abi::{Address, Endpoint, EndpointKind, MAX_HEADER};
use crate::headers::{ipv4, ipv6, protocol, transport};
use crate::{checksum, gue, hash};

/// TTL and hop limit of tunnel packets.
pub const TTL: u8 = 64;
/// Where the UDP header begins in an IPv4 outer header.
const UDP_V4: usize = ipv4::LEN;
/// Where the UDP header begins in an IPv6 outer header.
const UDP_V6: usize = ipv6::LEN;
/// Outer IPv4, UDP and GUE header without private data.
pub const BASE_V4: usize = UDP_V4 + transport::UDP_LEN + gue::LEN;
/// Outer IPv6, UDP and GUE header without private data.
pub const BASE_V6: usize = UDP_V6 + transport::UDP_LEN + gue::LEN;
const GUE_PROTOCOL_V4: usize = UDP_V4 + transport::UDP_LEN + 1;
const GUE_PROTOCOL_V6: usize = UDP_V6 + transport::UDP_LEN + 1;

/// An endpoint reached through GUE: kind, header, its length and partial checksum, and the address are
/// set, all else is zero. The packet names the endpoint in private data unless
/// `destination` is its own address. `None` if source and destination are of different families.
///
/// What the packet decides is zero in the header: lengths, DSCP/ECN, flow label, IP checksum, UDP source
/// port, and GUE's protocol (a VIP of either family may lead to any endpoint).
#[must_use]
pub fn endpoint(source: IpAddr, destination: IpAddr, address: IpAddr, gue_port: u16) -> Option<Endpoint> {
    let mut header = Writer { bytes: [0; MAX_HEADER], len: 0 };
    let kind = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let [high, low] = ipv4::DONT_FRAGMENT.to_be_bytes();
            header.put(&[0x45, 0, 0, 0, 0, 0, high, low, TTL, protocol::UDP, 0, 0]);
            header.put(&source.octets());
            header.put(&destination.octets());
            EndpointKind::Tunnel4
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            header.put(&[0x60, 0, 0, 0, 0, 0, protocol::UDP, TTL]);
            header.put(&source.octets());
            header.put(&destination.octets());
            EndpointKind::Tunnel6
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    };
    let partial = match kind {
        EndpointKind::Tunnel4 => checksum::fold(checksum::add(0, &header.bytes[..ipv4::LEN])),
        EndpointKind::Tunnel6 | EndpointKind::Unreachable | EndpointKind::Local => 0,
    };
    let [high, low] = gue_port.to_be_bytes();
    header.put(&[0, 0, high, low, 0, 0, 0, 0]);
    if destination == address {
        header.put(&gue::header(0, 0));
    } else {
        let private = gue::private_header(address.is_ipv6(), destination.is_ipv6());
        let name: &[u8] = match &address {
            IpAddr::V4(address) => &address.octets(),
            IpAddr::V6(address) => &address.octets(),
        };
        header.put(&gue::header(0, private.len() + name.len()));
        header.put(&private);
        header.put(name);
    }
    Some(Endpoint {
        kind: kind as u8,
        header_len: header.len as u8,
        block_len: 0,
        next_hop: 0,
        checksum: u32::from(partial),
        counter: 0,
        header: header.bytes,
        address: Address::from_ip(address).to_bytes(),
        delivery: crate::abi::Delivery::default(),
        reserved: [0; 8],
    })
}

struct Writer {
    bytes: [u8; MAX_HEADER],
    len: usize,
}

impl Writer {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }
}

/// What the packet decides in an outer header.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// Bytes of the outer header, private data included.
    pub header_len: usize,
    /// Bytes of the inner packet.
    pub inner_len: usize,
    /// The inner packet's protocol number: 4 or 41.
    pub protocol: u8,
    /// DSCP and ECN of the inner packet, copied (RFC 6040).
    pub traffic_class: u8,
    /// The flow's hash: source port and flow label.
    pub entropy: u64,
}

/// Completes an IPv4 outer header. `partial` is [`Endpoint::checksum`].
#[inline(always)]
pub fn complete_v4(header: &mut [u8; BASE_V4], partial: u32, facts: &Facts) {
    let total = (facts.header_len + facts.inner_len) as u16;
    let sum = partial + ((facts.traffic_class as u32) << 8) + total.swap_bytes() as u32;
    header[1] = facts.traffic_class;
    put16(header, 2, total);
    header[10..12].copy_from_slice(&checksum::finish_small(sum).to_le_bytes());
    put16(header, UDP_V4, hash::source_port(facts.entropy));
    put16(header, UDP_V4 + 4, total - UDP_V4 as u16);
    header[GUE_PROTOCOL_V4] = facts.protocol;
}

/// Completes an IPv6 outer header.
#[inline(always)]
pub fn complete_v6(header: &mut [u8; BASE_V6], facts: &Facts) {
    let payload = (facts.header_len + facts.inner_len - UDP_V6) as u16;
    let first = 6 << 28 | (facts.traffic_class as u32) << 20 | hash::flow_label(facts.entropy);
    header[..4].copy_from_slice(&first.to_be_bytes());
    put16(header, 4, payload);
    put16(header, UDP_V6, hash::source_port(facts.entropy));
    put16(header, UDP_V6 + 4, payload);
    header[GUE_PROTOCOL_V6] = facts.protocol;
}

#[inline(always)]
fn put16<const N: usize>(header: &mut [u8; N], at: usize, value: u16) {
    header[at..at + 2].copy_from_slice(&value.to_be_bytes());
}
