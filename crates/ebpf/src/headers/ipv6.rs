//! IPv6 (RFC 8200) and its extension headers.

use super::{Fragment, array, be16, be32, protocol};
use crate::abi::Address;
use crate::packet::Packet;

/// Bytes of the fixed header.
pub const LEN: usize = 40;
/// Extension headers that are looked behind.
pub const MAX_EXTENSIONS: usize = 4;

/// The fixed header.
#[derive(Clone, Copy, Debug)]
pub struct Ipv6<'a>(pub &'a [u8; LEN]);

impl Ipv6<'_> {
    /// Version number; 6 if it is what it claims to be.
    #[inline(always)]
    #[must_use]
    pub const fn version(self) -> u8 {
        self.0[0] >> 4
    }
    /// DSCP and ECN.
    #[inline(always)]
    #[must_use]
    pub const fn traffic_class(self) -> u8 {
        (be16(self.0, 0) >> 4) as u8
    }
    /// Bytes after the fixed header.
    #[inline(always)]
    #[must_use]
    pub const fn payload_len(self) -> usize {
        be16(self.0, 4) as usize
    }
    /// What follows the fixed header.
    #[inline(always)]
    #[must_use]
    pub const fn next_header(self) -> u8 {
        self.0[6]
    }
    /// Source address.
    #[inline(always)]
    #[must_use]
    pub const fn source(self) -> Address {
        address(self.0, 8)
    }
    /// Destination address.
    #[inline(always)]
    #[must_use]
    pub const fn destination(self) -> Address {
        address(self.0, 24)
    }
}

#[inline(always)]
const fn address(header: &[u8; LEN], at: usize) -> Address {
    Address { hi: u64::from_le_bytes(array(header, at)), lo: u64::from_le_bytes(array(header, at + 8)) }
}

/// What follows the extension headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upper {
    /// Its protocol; of a fragment after the first, what the fragment header says.
    pub protocol: u8,
    /// Where it begins.
    pub at: usize,
    /// What the fragment header says, if there is one (RFC 6946 packets are whole).
    pub fragment: Fragment,
    /// Identification in the fragment header, else 0.
    pub id: u32,
}

/// Why the upper-layer header was not found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hidden {
    /// An extension header reaches over the end.
    Cut,
    /// More than [`MAX_EXTENSIONS`], or one that cannot be read (ESP).
    Unreadable,
}

/// What follows the fixed header and its extension headers, the first of which is `next` and stands at `at`; the packet
/// ends at `end`.
///
/// # Errors
///
/// [`Hidden`]: the upper-layer header cannot be found.
#[inline(always)]
pub fn upper(packet: &impl Packet, next: u8, at: usize, end: usize) -> Result<Upper, Hidden> {
    if is_extension(next) || next == protocol::ESP {
        packet.walk(next, at, end)
    } else {
        Ok(Upper { protocol: next, at, fragment: Fragment::Whole, id: 0 })
    }
}

/// Walks the extension headers from `at` on, the first of which is `next`; the packet ends at `end`.
///
/// # Errors
///
/// [`Hidden`]: the upper-layer header cannot be found.
#[inline(always)]
pub fn walk(packet: &impl Packet, next: u8, at: usize, end: usize) -> Result<Upper, Hidden> {
    let mut upper = Upper { protocol: next, at, fragment: Fragment::Whole, id: 0 };
    for _ in 0..=MAX_EXTENSIONS {
        let extension = upper.protocol;
        if !is_extension(extension) {
            return if extension == protocol::ESP { Err(Hidden::Unreadable) } else { Ok(upper) };
        }
        let header: &[u8; 8] = packet.bytes(upper.at).ok_or(Hidden::Cut)?;
        if extension == protocol::FRAGMENT {
            let found = fragment(header);
            (upper.fragment, upper.id) = found;
        }
        upper.protocol = header[0];
        upper.at += extension_len(extension, header[1]);
        if upper.at > end {
            return Err(Hidden::Cut);
        }
        if upper.fragment == Fragment::Later {
            return Ok(upper);
        }
    }
    Err(Hidden::Unreadable)
}

/// Whether this is the number of an extension header that can be read.
#[inline(always)]
const fn is_extension(protocol: u8) -> bool {
    const SET: u64 = 1 << protocol::HOP_BY_HOP
        | 1 << protocol::ROUTING
        | 1 << protocol::FRAGMENT
        | 1 << protocol::AH
        | 1 << protocol::DESTINATION_OPTIONS;
    protocol < 64 && SET >> protocol & 1 != 0
}

/// Bytes of an extension header whose length field says `units`: 8-byte units after the first, in AH 4-byte
/// units after the second; a fragment header's field is reserved. With no branch, so that the verifier sees one case.
#[inline(always)]
const fn extension_len(extension: u8, units: u8) -> usize {
    let fragment = (extension == protocol::FRAGMENT) as usize;
    let ah = (extension == protocol::AH) as usize;
    ((units as usize * (1 - fragment) + 1 + ah) << 3) >> ah
}

/// What a fragment header says: whether the packet is whole after all (RFC 6946), and its id.
#[inline(always)]
#[must_use]
pub const fn fragment(header: &[u8; 8]) -> (Fragment, u32) {
    let word = be16(header, 2);
    let id = be32(header, 4);
    if word & 0xfff8 != 0 {
        (Fragment::Later, id)
    } else if word & 1 != 0 {
        (Fragment::First, id)
    } else {
        (Fragment::Whole, id)
    }
}
