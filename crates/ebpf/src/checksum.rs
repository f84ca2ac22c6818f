//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! Sums are of 16-bit words read little-endian: ones'-complement addition is the same in either byte
//! order, as long as the result is written back in the order in which the words were read.

/// Adds the bytes to a running sum; an odd last byte counts as if a zero followed.
#[must_use]
pub fn add(mut sum: u64, bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(2);
    for word in &mut words {
        sum += u64::from(u16::from_le_bytes([word[0], word[1]]));
    }
    if let [last] = words.remainder() {
        sum += u64::from(*last);
    }
    sum
}

/// Folds a running sum to 16 bits.
#[inline(always)]
#[must_use]
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + (sum & 0xffff)) as u16
}

/// What goes into the checksum field, to be written with `to_le_bytes`.
#[inline(always)]
#[must_use]
pub const fn finish(sum: u64) -> u16 {
    !fold(sum)
}

/// [`finish`] for a sum of a few words.
#[inline(always)]
#[must_use]
pub const fn finish_small(sum: u32) -> u16 {
    let sum = (sum >> 16) + (sum & 0xffff);
    !((sum >> 16) + (sum & 0xffff)) as u16
}

/// The checksum after one word changed (RFC 1624, equation 3). All words as read little-endian.
#[inline(always)]
#[must_use]
pub const fn update(checksum: u16, old: u16, new: u16) -> u16 {
    finish_small(!checksum as u32 + !old as u32 + new as u32)
}
