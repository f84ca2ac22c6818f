//! Rewriting of addresses and ports, with checksums updated by what changes (RFC 1624), never summed anew.

use crate::abi::Address;
use crate::checksum::fold;
use crate::flow::{self, Arrival, Syn};
use crate::headers::transport::{Ports, TCP_LEN};
use crate::headers::{be32, ipv4, ipv6, le16, le64, protocol};
use crate::packet::Packet;

/// Bytes of a TCP header up to the end of its checksum.
pub const TCP_HEAD: usize = 18;
/// Bytes of a UDP header up to the end of its checksum.
pub const UDP_HEAD: usize = 8;

/// Which address of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The source.
    Source,
    /// The destination.
    Destination,
}

/// A change, as ones'-complement sums see it: what is new minus what was there. Of no more than a few dozen words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change(u64);

impl Change {
    /// Nothing.
    pub const NONE: Self = Self(0);

    /// A 16-bit word, read little-endian.
    #[inline(always)]
    #[must_use]
    pub const fn word(old: u16, new: u16) -> Self {
        Self(!old as u64 + new as u64)
    }
    /// An address of this family.
    #[inline(always)]
    #[must_use]
    pub const fn address(old: Address, new: Address, v6: bool) -> Self {
        if v6 {
            Self(halves(!old.hi) + halves(!old.lo) + halves(new.hi) + halves(new.lo))
        } else {
            Self((!old.lo >> 32) + (new.lo >> 32))
        }
    }
    /// Both ports.
    #[inline(always)]
    #[must_use]
    pub const fn ports(old: Ports, new: Ports) -> Self {
        Self::word(old.source, new.source).and(Self::word(old.destination, new.destination))
    }
    /// Both changes.
    #[inline(always)]
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
    /// A checksum after the change.
    #[inline(always)]
    #[must_use]
    pub const fn apply(self, checksum: u16) -> u16 {
        !fold(!checksum as u64 + self.0)
    }
    /// An unfinished checksum, which is a sum, after the change.
    #[inline(always)]
    #[must_use]
    pub const fn apply_unfinished(self, sum: u16) -> u16 {
        fold(sum as u64 + self.0)
    }
}

#[inline(always)]
const fn halves(word: u64) -> u64 {
    (word & 0xffff_ffff) + (word >> 32)
}

/// Sets an address of an IPv4 header, and its checksum right.
#[inline(always)]
pub fn set_v4(header: &mut [u8; ipv4::LEN], side: Side, new: Address) -> Change {
    let view = ipv4::Ipv4(header);
    let (at, old) = match side {
        Side::Source => (12, view.source()),
        Side::Destination => (16, view.destination()),
    };
    let change = Change::address(old, new, false);
    let sum = change.apply(le16(header, 10));
    header[10..12].copy_from_slice(&sum.to_le_bytes());
    header[at..at + 4].copy_from_slice(&((new.lo >> 32) as u32).to_le_bytes());
    change
}

/// Sets an address of an IPv6 header.
#[inline(always)]
pub fn set_v6(header: &mut [u8; ipv6::LEN], side: Side, new: Address) -> Change {
    let view = ipv6::Ipv6(header);
    let (at, old) = match side {
        Side::Source => (8, view.source()),
        Side::Destination => (24, view.destination()),
    };
    header[at..at + 8].copy_from_slice(&new.hi.to_le_bytes());
    header[at + 8..at + 16].copy_from_slice(&new.lo.to_le_bytes());
    Change::address(old, new, true)
}

/// The beginning of a TCP or UDP header, up to the end of its checksum, as the words that it lies in memory as (read
/// little-endian): copied and changed in registers, where bytes would be as many loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Head(pub [u64; 3]);

impl Head {
    /// Of a TCP header.
    #[inline(always)]
    #[must_use]
    pub const fn tcp(header: &[u8; TCP_HEAD]) -> Self {
        Self([le64(header, 0), le64(header, 8), le16(header, 16) as u64])
    }
    /// Of a UDP header.
    #[inline(always)]
    #[must_use]
    pub const fn udp(header: &[u8; UDP_HEAD]) -> Self {
        Self([le64(header, 0), 0, 0])
    }
    /// Of a header that is cut behind its ports.
    #[inline(always)]
    #[must_use]
    pub const fn of_ports(ports: Ports) -> Self {
        Self([ports.source as u64 | (ports.destination as u64) << 16, 0, 0])
    }
    /// Both ports.
    #[inline(always)]
    #[must_use]
    pub const fn ports(&self) -> Ports {
        Ports { source: self.0[0] as u16, destination: (self.0[0] >> 16) as u16 }
    }
    /// The checksum, read little-endian.
    #[inline(always)]
    #[must_use]
    pub const fn checksum(&self, udp: bool) -> u16 {
        if udp { (self.0[0] >> 48) as u16 } else { self.0[2] as u16 }
    }
    /// Flags and acknowledgement of a TCP header.
    #[inline(always)]
    #[must_use]
    pub const fn acknowledgement(&self) -> (u8, u32) {
        ((self.0[1] >> 40) as u8, (self.0[1] as u32).swap_bytes())
    }
    /// The same header with these ports and this checksum.
    #[inline(always)]
    #[must_use]
    pub const fn with(self, new: Ports, checksum: u16, udp: bool) -> Self {
        let Self([first, second, third]) = self;
        let ports = new.source as u64 | (new.destination as u64) << 16;
        if udp {
            Self([ports | first & 0xffff_0000_0000 | (checksum as u64) << 48, second, third])
        } else {
            Self([ports | first & !0xffff_ffff, second, checksum as u64])
        }
    }
}

/// Sets both ports.
#[inline(always)]
pub fn set_ports<const N: usize>(header: &mut [u8; N], new: Ports) -> Change {
    let old = Ports::read(header);
    header[..2].copy_from_slice(&new.source.to_le_bytes());
    header[2..4].copy_from_slice(&new.destination.to_le_bytes());
    Change::ports(old, new)
}

/// The checksum field of a TCP or UDP header after a change of its ports and of the addresses. UDP's 0 (none) stays, and
/// never comes about. `seed`: what an unfinished checksum would hold; one that is equal is taken for unfinished, and
/// then ports are no part of it yet (a finished one is equal once in 65,536 packets, and is spoilt; a repetition differs
/// by its time stamp, where it has one).
#[inline(always)]
#[must_use]
pub fn checksum(field: u16, addresses: Change, ports: Change, udp: bool, seed: Option<u16>) -> u16 {
    if udp && field == 0 {
        return 0;
    }
    if seed == Some(field) {
        return addresses.apply_unfinished(field);
    }
    finished(field, addresses.and(ports), udp)
}

/// A finished checksum after a change.
#[inline(always)]
#[must_use]
pub const fn finished(field: u16, change: Change, udp: bool) -> u16 {
    let sum = change.apply(field);
    if udp && sum == 0 { 0xffff } else { sum }
}

/// What a checksum that offload hardware is to finish holds: the sum of the pseudo-header.
#[inline(always)]
#[must_use]
pub const fn seed(source: Address, destination: Address, length: usize, protocol: u8, v6: bool) -> u16 {
    let rest = (length as u16).to_be() as u64 + (protocol as u16).to_be() as u64;
    let addresses = if v6 {
        halves(source.hi) + halves(source.lo) + halves(destination.hi) + halves(destination.lo)
    } else {
        (source.lo >> 32) + (destination.lo >> 32)
    };
    fold(addresses + rest)
}

/// Whether two ones'-complement sums are equal; zero has two forms.
#[inline(always)]
#[must_use]
pub const fn is_same_sum(a: u16, b: u16) -> bool {
    a == b || a ^ b == 0xffff && (a == 0 || b == 0)
}

/// What was done to a checksum field by adding `1` to what is summed: whether the kernel holds it for finished.
#[inline(always)]
#[must_use]
pub const fn was_finished(before: u16, after: u16) -> bool {
    after == Change(1).apply(before) && after != Change(1).apply_unfinished(before)
}

/// What a TCP header says, as far as flows go; `end` is where the packet ends.
#[inline(always)]
#[must_use]
pub const fn segment(header: &[u8; TCP_HEAD], upper: usize, end: usize) -> Arrival {
    if header[13] & (flow::SYN | flow::ACK | flow::RST) != flow::SYN {
        return Arrival::Other;
    }
    let header_len = (header[12] >> 4) as usize * 4;
    let header_len = if header_len < TCP_LEN { TCP_LEN } else { header_len };
    Arrival::Syn(Syn { sequence: be32(header, 4), length: end.saturating_sub(upper + header_len) as u32 })
}

/// Source, destination and end of the packet whose IP header begins at `at`.
#[inline(always)]
#[must_use]
pub fn ends(packet: &impl Packet, at: usize, v6: bool) -> Option<(Address, Address, usize)> {
    if v6 {
        let header = ipv6::Ipv6(packet.bytes(at)?);
        Some((header.source(), header.destination(), at + ipv6::LEN + header.payload_len()))
    } else {
        let header = ipv4::Ipv4(packet.bytes(at)?);
        Some((header.source(), header.destination(), at + header.total_len()))
    }
}

/// Where the checksum of a quoted TCP or UDP header stands behind the header's beginning.
#[inline(always)]
#[must_use]
pub const fn checksum_at(protocol: u8) -> usize {
    if protocol == protocol::TCP { 16 } else { 6 }
}

/// The 16-bit word at an offset, read little-endian: a port or a checksum.
#[inline(always)]
#[must_use]
pub fn word(packet: &impl Packet, at: usize) -> Option<u16> {
    packet.bytes::<2>(at).map(|bytes| u16::from_le_bytes(*bytes))
}
