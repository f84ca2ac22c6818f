//! Headers as they stand on the wire: views over their bytes, each beside the RFC that defines it.

pub mod ethernet;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod transport;

/// IANA protocol numbers that mean something here.
pub mod protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// IPv4 in something.
    pub const IPV4: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 in something.
    pub const IPV6: u8 = 41;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// Encrypted: what follows cannot be read.
    pub const ESP: u8 = 50;
    /// Authentication header.
    pub const AH: u8 = 51;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// IPv6 destination options.
    pub const DESTINATION_OPTIONS: u8 = 60;
}

/// Whether a packet is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// It is.
    Whole,
    /// The first fragment of its datagram.
    First,
    /// A later one.
    Later,
}

/// `N` bytes of a header from `at` on, as one load: put together byte by byte they would be as many.
#[inline(always)]
pub(crate) const fn array<const N: usize>(header: &[u8], at: usize) -> [u8; N] {
    match header.split_at(at).1.first_chunk() {
        Some(bytes) => *bytes,
        None => [0; N],
    }
}

/// The number in two bytes from `at` on.
#[inline(always)]
pub(crate) const fn be16(header: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(array(header, at))
}

/// The number in four bytes from `at` on.
#[inline(always)]
pub(crate) const fn be32(header: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(array(header, at))
}

/// Two bytes from `at` on, read little-endian.
#[inline(always)]
pub(crate) const fn le16(header: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array(header, at))
}

/// Eight bytes from `at` on, read little-endian.
#[inline(always)]
pub(crate) const fn le64(header: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(header, at))
}
