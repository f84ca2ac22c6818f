//! ICMP answers: echo replies, "fragmentation needed" (RFC 1191) and "packet too big" (RFC 4443).

use crate::abi::Address;
use crate::checksum;
use crate::headers::ethernet::Macs;
use crate::headers::ipv4::{self, Ipv4};
use crate::headers::ipv6::{self, Ipv6};
use crate::headers::{array, icmp, le16, protocol};
use crate::outer::TTL;

/// IPv4 and ICMP header of "fragmentation needed".
pub const TOO_BIG_V4: usize = ipv4::LEN + icmp::LEN;
/// IPv6 and ICMPv6 header of "packet too big".
pub const TOO_BIG_V6: usize = ipv6::LEN + icmp::LEN;
/// The longest answer in IPv4 (RFC 1812 section 4.3.2.3).
pub const MAX_V4: usize = 576;
/// The longest answer in IPv6 (RFC 4443 section 3.2).
pub const MAX_V6: usize = 1280;
/// The longest quotation.
pub const MAX_QUOTE: usize = MAX_V6 - TOO_BIG_V6;

/// Whether a packet of this source, in a frame with these MACs, may be answered: no
/// group, no unspecified or loopback address (RFC 1122 section 3.2.2, RFC 4443 section 2.4).
#[inline(always)]
#[must_use]
pub const fn is_answerable(source: Address, macs: Macs) -> bool {
    let good = if source.is_v4() {
        let first = (source.lo >> 32) as u8;
        first != 0 && first != 127 && first < 224
    } else {
        source.hi as u8 != 0xff && (source.hi != 0 || source.lo > 1 << 56) && source.lo != 0
    };
    good && !macs.has_group()
}

/// Makes an IPv4 header that of the answer: addresses swapped, a fresh TTL, no congestion mark.
#[inline(always)]
pub fn reverse_v4(header: &mut [u8; ipv4::LEN]) {
    let old = [le16(header, 0), le16(header, 8)];
    header[1] &= !crate::ecn::MASK;
    header[8] = TTL;
    let mut sum = le16(header, 10);
    sum = checksum::update(sum, old[0], le16(header, 0));
    sum = checksum::update(sum, old[1], le16(header, 8));
    header[10..12].copy_from_slice(&sum.to_le_bytes());
    let swapped = addresses(header).rotate_right(32);
    header[12..20].copy_from_slice(&swapped.to_le_bytes());
}

/// Makes an IPv6 header that of the answer: addresses swapped, a fresh hop limit, no congestion mark.
#[inline(always)]
pub fn reverse_v6(header: &mut [u8; ipv6::LEN]) {
    header[1] &= !(crate::ecn::MASK << 4);
    header[7] = TTL;
    let (source, destination) = (Ipv6(header).source(), Ipv6(header).destination());
    header[8..24].copy_from_slice(&destination.to_bytes());
    header[24..40].copy_from_slice(&source.to_bytes());
}

/// Makes an echo request its reply.
#[inline(always)]
pub fn echo_v4(header: &mut [u8; icmp::LEN]) {
    retype(header, icmp::ECHO_REPLY);
}

/// Makes an ICMPv6 echo request its reply. The pseudo-header's sum is the same in either direction.
#[inline(always)]
pub fn echo_v6(header: &mut [u8; icmp::LEN]) {
    retype(header, icmp::V6_ECHO_REPLY);
}

#[inline(always)]
fn retype(header: &mut [u8; icmp::LEN], kind: u8) {
    let old = le16(header, 0);
    header[0] = kind;
    let sum = checksum::update(le16(header, 2), old, le16(header, 0));
    header[2..4].copy_from_slice(&sum.to_le_bytes());
}

/// The source address of an IPv4 (20 bytes) or IPv6 (40 bytes) header.
#[inline(always)]
#[must_use]
pub fn source<const N: usize>(header: &[u8; N]) -> Address {
    if N == ipv6::LEN {
        header.first_chunk().map_or(Address::default(), |header| Ipv6(header).source())
    } else {
        header.first_chunk().map_or(Address::default(), |header| Ipv4(header).source())
    }
}

/// How much of a packet of `len` bytes is quoted behind `OUTER` bytes of headers: what fits the longest answer, in
/// whole 4-byte words.
#[inline(always)]
#[must_use]
pub const fn quote_len<const OUTER: usize>(len: usize) -> usize {
    let most = if OUTER == TOO_BIG_V6 { MAX_V6 } else { MAX_V4 } - OUTER;
    (if len < most { len } else { most }) & !3
}

/// IPv4 and ICMP header of "fragmentation needed", to the source of the header that is quoted, with the sum of
/// what the ICMP checksum covers but for the quotation.
#[inline(always)]
#[must_use]
pub fn too_big_v4(quoted: &[u8; ipv4::LEN], quote: usize, mtu: u32) -> ([u8; TOO_BIG_V4], u64) {
    let mut answer = [0; TOO_BIG_V4];
    let [t, u] = ((TOO_BIG_V4 + quote) as u16).to_be_bytes();
    let [m, n] = (mtu as u16).to_be_bytes();
    answer[..12].copy_from_slice(&[0x45, 0, t, u, 0, 0, 0x40, 0, TTL, protocol::ICMP, 0, 0]);
    answer[12..20].copy_from_slice(&addresses(quoted).rotate_right(32).to_le_bytes());
    answer[20..].copy_from_slice(&[icmp::UNREACHABLE, icmp::FRAGMENTATION_NEEDED, 0, 0, 0, 0, m, n]);
    let sum = checksum::finish(sum_words(&answer, 0, ipv4::LEN));
    answer[10..12].copy_from_slice(&sum.to_le_bytes());
    (answer, sum_words(&answer, ipv4::LEN, TOO_BIG_V4))
}

/// IPv6 and ICMPv6 header of "packet too big", likewise; the sum holds the pseudo-header.
#[inline(always)]
#[must_use]
pub fn too_big_v6(quoted: &[u8; ipv6::LEN], quote: usize, mtu: u32) -> ([u8; TOO_BIG_V6], u64) {
    let mut answer = [0; TOO_BIG_V6];
    let payload = (icmp::LEN + quote) as u16;
    let [t, u] = payload.to_be_bytes();
    answer[..8].copy_from_slice(&[0x60, 0, 0, 0, t, u, protocol::ICMPV6, TTL]);
    answer[8..24].copy_from_slice(&Ipv6(quoted).destination().to_bytes());
    answer[24..40].copy_from_slice(&Ipv6(quoted).source().to_bytes());
    answer[40] = icmp::V6_TOO_BIG;
    answer[44..].copy_from_slice(&mtu.to_be_bytes());
    let pseudo = payload.to_be() as u64 + (protocol::ICMPV6 as u16).to_be() as u64;
    (answer, sum_words(&answer, 8, TOO_BIG_V6) + pseudo)
}

#[inline(always)]
fn sum_words(bytes: &[u8], from: usize, to: usize) -> u64 {
    let mut sum = 0;
    let mut at = from;
    while at < to {
        // Four bytes at once: 2^16 is 1 in ones' complement.
        sum += u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as u64;
        at += 4;
    }
    sum
}

/// Source and destination of an IPv4 header, in one word.
#[inline(always)]
const fn addresses(header: &[u8; ipv4::LEN]) -> u64 {
    u64::from_le_bytes(array(header, 12))
}
