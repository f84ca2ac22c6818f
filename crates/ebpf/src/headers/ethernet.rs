//! Ethernet II with up to two VLAN tags (IEEE 802.3, 802.1Q, 802.1ad).

use super::{array, be16};
use crate::packet::Packet;

/// Bytes of the header without tags.
pub const LEN: usize = 14;
/// Bytes of a VLAN tag.
pub const TAG_LEN: usize = 4;
/// The most tags that are looked behind.
pub const MAX_TAGS: usize = 2;

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;
/// TPID of a customer tag.
pub const VLAN: u16 = 0x8100;
/// TPID of a service tag.
pub const SERVICE_VLAN: u16 = 0x88a8;

const MASK: u64 = 0x0000_ffff_ffff_ffff;

/// Destination and source MAC, as two numbers of 48 bits (bytes read little-endian): in registers, not in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Macs {
    /// Destination.
    pub destination: u64,
    /// Source.
    pub source: u64,
}

impl Macs {
    /// The MACs at the head of a frame.
    #[inline(always)]
    #[must_use]
    pub const fn read(frame: &[u8; 12]) -> Self {
        let head = u64::from_le_bytes(array(frame, 0));
        let tail = u32::from_le_bytes(array(frame, 8)) as u64;
        Self { destination: head & MASK, source: head >> 48 | tail << 16 }
    }

    /// Writes them to the head of a frame.
    #[inline(always)]
    pub fn write<const N: usize>(self, frame: &mut [u8; N]) {
        let head = self.destination | self.source << 48;
        frame[..8].copy_from_slice(&head.to_le_bytes());
        frame[8..12].copy_from_slice(&((self.source >> 16) as u32).to_le_bytes());
    }

    /// Those of the way back.
    #[inline(always)]
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self { destination: self.source, source: self.destination }
    }

    /// Whether one of them is a group's.
    #[inline(always)]
    #[must_use]
    pub const fn has_group(self) -> bool {
        (self.destination | self.source) & 1 != 0
    }
}

/// A MAC as a number of 48 bits.
#[inline(always)]
#[must_use]
pub const fn mac(bytes: &[u8; 6]) -> u64 {
    u32::from_le_bytes(array(bytes, 0)) as u64 | (u16::from_le_bytes(array(bytes, 4)) as u64) << 32
}

/// The EtherType of a header without tags, or the first tag's TPID.
#[inline(always)]
#[must_use]
pub const fn ethertype(header: &[u8; LEN]) -> u16 {
    be16(header, 12)
}

/// The EtherType behind the tags, and where what it names begins. `None`: the frame ends before.
/// A third tag is not looked behind: its TPID is returned.
#[inline(always)]
#[must_use]
pub fn payload(packet: &impl Packet) -> Option<(u16, usize)> {
    let header: &[u8; LEN] = packet.bytes(0)?;
    let mut kind = ethertype(header);
    let mut at = LEN;
    for _ in 0..MAX_TAGS {
        if kind != VLAN && kind != SERVICE_VLAN {
            break;
        }
        let tag: &[u8; TAG_LEN] = packet.bytes(at)?;
        kind = be16(tag, 2);
        at += TAG_LEN;
    }
    Some((kind, at))
}
