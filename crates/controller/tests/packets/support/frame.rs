//! Ethernet frames around IP packets.

use etherparse::{EtherType, Ethernet2Header};

/// MAC of whoever sends to the node: the router towards the clients, or another node.
pub const SENDER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x01];
/// MAC of the interface under test.
pub const NIC_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x16];

/// VLAN tags of 802.1Q and 802.1ad.
pub const TPID_Q: u16 = 0x8100;
pub const TPID_AD: u16 = 0x88a8;

/// A VLAN tag: TPID and TCI.
pub type Tag = (u16, u16);

/// The frame that carries this IP packet to the interface under test.
pub fn frame(ip: &[u8]) -> Vec<u8> {
    tagged(&[], ip)
}

/// The same with VLAN tags, outer first.
pub fn tagged(tags: &[Tag], ip: &[u8]) -> Vec<u8> {
    ethernet(tags, ether_type(ip), ip)
}

/// A frame of any EtherType.
pub fn ethernet(tags: &[Tag], ether_type: u16, body: &[u8]) -> Vec<u8> {
    let first = tags.first().map_or(ether_type, |(tpid, _)| *tpid);
    let header = Ethernet2Header { source: SENDER_MAC, destination: NIC_MAC, ether_type: EtherType(first) };
    let mut bytes = header.to_bytes().to_vec();
    for (index, (_, tci)) in tags.iter().enumerate() {
        let next = tags.get(index + 1).map_or(ether_type, |(tpid, _)| *tpid);
        bytes.extend_from_slice(&tci.to_be_bytes());
        bytes.extend_from_slice(&next.to_be_bytes());
    }
    bytes.extend_from_slice(body);
    bytes
}

/// EtherType of an IP packet by its version.
pub fn ether_type(ip: &[u8]) -> u16 {
    match ip.first().map(|byte| byte >> 4) {
        Some(6) => EtherType::IPV6.0,
        _ => EtherType::IPV4.0,
    }
}

/// Pads a frame with bytes that are no zeros to Ethernet's least length and further.
pub fn padded(mut frame: Vec<u8>, length: usize) -> Vec<u8> {
    while frame.len() < length {
        frame.push(0xa5);
    }
    frame
}
