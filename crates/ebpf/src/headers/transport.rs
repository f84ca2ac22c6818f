//! TCP (RFC 9293) and UDP (RFC 768): what is looked at.

use super::le16;

/// Bytes of a TCP header without options.
pub const TCP_LEN: usize = 20;
/// Bytes of a UDP header.
pub const UDP_LEN: usize = 8;

/// Source and destination port. Each is the two bytes on the wire read little-endian, as
/// [`crate::hash::flow`] takes them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Ports {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
}

impl Ports {
    /// The ports at the head of a TCP or UDP header.
    #[inline(always)]
    #[must_use]
    pub const fn read<const N: usize>(header: &[u8; N]) -> Self {
        Self { source: le16(header, 0), destination: le16(header, 2) }
    }

    /// The ports of the other direction.
    #[inline(always)]
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self { source: self.destination, destination: self.source }
    }

    /// Destination port as a number.
    #[inline(always)]
    #[must_use]
    pub const fn destination_number(self) -> u16 {
        self.destination.swap_bytes()
    }
}
