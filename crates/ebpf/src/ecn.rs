//! Congestion marks of tunnels (RFC 6040): the two low bits of the traffic class.

use crate::checksum;
use crate::headers::{ipv4, ipv6, le16};

/// Not ECN-capable.
pub const NOT_ECT: u8 = 0;
/// ECN-capable, ECT(1).
pub const ECT_1: u8 = 1;
/// ECN-capable, ECT(0).
pub const ECT_0: u8 = 2;
/// Congestion experienced.
pub const CE: u8 = 3;
/// The bits in a traffic class.
pub const MASK: u8 = 3;

/// The inner packet's ECN field after decapsulation (RFC 6040, figure 4); `None`: the packet is to be dropped.
/// Takes whole traffic classes, and gives the inner one back.
#[inline(always)]
#[must_use]
pub const fn decapsulate(outer: u8, inner: u8) -> Option<u8> {
    match (outer & MASK, inner & MASK) {
        (CE, NOT_ECT) => None,
        (CE, _) => Some(inner | CE),
        (ECT_1, ECT_0) => Some(inner & !MASK | ECT_1),
        _ => Some(inner),
    }
}

/// Sets the traffic class of an IPv4 header, and its checksum right.
#[inline(always)]
pub const fn set_v4(header: &mut [u8; ipv4::LEN], traffic_class: u8) {
    let old = le16(header, 0);
    let new = u16::from_le_bytes([header[0], traffic_class]);
    let sum = checksum::update(le16(header, 10), old, new);
    header[1] = traffic_class;
    [header[10], header[11]] = sum.to_le_bytes();
}

/// Sets the traffic class of an IPv6 header.
#[inline(always)]
pub const fn set_v6(header: &mut [u8; ipv6::LEN], traffic_class: u8) {
    header[0] = header[0] & 0xf0 | traffic_class >> 4;
    header[1] = header[1] & 0x0f | traffic_class << 4;
}
