//! TCP segments whose every field matters.

use std::net::{IpAddr, SocketAddr};

use etherparse::TcpHeader;

use super::packet::Packet;

pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;
pub const SYN_ACK: u8 = SYN | ACK;

/// A segment.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    pub flags: u8,
    pub sequence: u32,
    pub acknowledgement: u32,
    pub payload: &'a [u8],
}

/// A SYN.
pub fn syn(sequence: u32) -> Segment<'static> {
    Segment { flags: SYN, sequence, acknowledgement: 0, payload: b"" }
}

/// The SYN-ACK to it, or to another.
pub fn syn_ack(acknowledgement: u32) -> Segment<'static> {
    Segment { flags: SYN_ACK, sequence: 7, acknowledgement, payload: b"" }
}

/// Data.
pub fn data(payload: &[u8]) -> Segment<'_> {
    Segment { flags: ACK, sequence: 0x0102_0304, acknowledgement: 8, payload }
}

impl Segment<'_> {
    /// The IP packet.
    pub fn ip(&self, source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
        let mut header = TcpHeader::new(source.port(), destination.port(), self.sequence, 4096);
        header.syn = self.flags & SYN != 0;
        header.rst = self.flags & RST != 0;
        header.ack = self.flags & ACK != 0;
        header.acknowledgment_number = self.acknowledgement;
        header.set_options_raw(&[2, 4, 5, 0xb4]).expect("options fit");
        header.checksum = match (source.ip(), destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                header.calc_checksum_ipv4_raw(source.octets(), destination.octets(), self.payload)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                header.calc_checksum_ipv6_raw(source.octets(), destination.octets(), self.payload)
            }
            _ => panic!("source and destination of one family"),
        }
        .expect("fits");
        let upper = [&header.to_bytes()[..], self.payload].concat();
        Packet::tcp(source, destination).part(&upper, None)
    }
}
