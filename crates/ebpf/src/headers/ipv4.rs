//! IPv4 (RFC 791).

use super::{array, be16};
use crate::abi::Address;

/// Bytes of the header without options.
pub const LEN: usize = 20;
/// Flag "do not fragment", in the word at byte 6.
pub const DONT_FRAGMENT: u16 = 0x4000;
/// Flag "more fragments", in the word at byte 6.
pub const MORE_FRAGMENTS: u16 = 0x2000;
/// The fragment offset, in the word at byte 6; units of 8 bytes.
pub const OFFSET_MASK: u16 = 0x1fff;

/// The fixed part of an IPv4 header.
#[derive(Clone, Copy, Debug)]
pub struct Ipv4<'a>(pub &'a [u8; LEN]);

impl Ipv4<'_> {
    /// Version number; 4 if it is what it claims to be.
    #[inline(always)]
    #[must_use]
    pub const fn version(self) -> u8 {
        self.0[0] >> 4
    }
    /// Bytes of the header with its options; less than 20 in a broken one.
    #[inline(always)]
    #[must_use]
    pub const fn header_len(self) -> usize {
        (self.0[0] & 0xf) as usize * 4
    }
    /// DSCP and ECN.
    #[inline(always)]
    #[must_use]
    pub const fn traffic_class(self) -> u8 {
        self.0[1]
    }
    /// Bytes of the packet, header included.
    #[inline(always)]
    #[must_use]
    pub const fn total_len(self) -> usize {
        be16(self.0, 2) as usize
    }
    /// Identification.
    #[inline(always)]
    #[must_use]
    pub const fn id(self) -> u16 {
        be16(self.0, 4)
    }
    /// Flags and fragment offset.
    #[inline(always)]
    #[must_use]
    pub const fn fragment_word(self) -> u16 {
        be16(self.0, 6)
    }
    /// Protocol of the payload.
    #[inline(always)]
    #[must_use]
    pub const fn protocol(self) -> u8 {
        self.0[9]
    }
    /// Source address.
    #[inline(always)]
    #[must_use]
    pub const fn source(self) -> Address {
        Address::from_v4(array(self.0, 12))
    }
    /// Destination address.
    #[inline(always)]
    #[must_use]
    pub const fn destination(self) -> Address {
        Address::from_v4(array(self.0, 16))
    }
}
