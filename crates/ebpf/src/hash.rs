//! The keyed flow hash, `guenon-flow-1`: which row a flow takes. ABI: the same on every director.
//!
//! Words are folded one by one with a multiply and a shift under a secret schedule (the pattern of
//! Murmur-style finalisers; 64-bit products only, as BPF has no wider), and finished by a
//! full avalanche under two more secret words. The schedule is four words made from the 16-byte key by SplitMix64
//! (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014).
//!
//! Bits of the result: rows take the low 16, the outer UDP source port bits 48..62, the IPv6 flow label
//! bits 28..48.

use crate::abi::Address;

/// The key schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule(pub [u64; 4]);

impl Schedule {
    /// The schedule of a key.
    #[must_use]
    pub const fn new(key: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = key;
        let lo = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        let hi = u64::from_le_bytes([i, j, k, l, m, n, o, p]);
        let s0 = splitmix(lo);
        let s1 = splitmix(hi ^ s0);
        let s2 = splitmix(s1 ^ lo);
        let s3 = splitmix(s2 ^ hi);
        Self([s0, s1 | 1, s2, s3 | 1])
    }

    /// A number that tells keys apart and says nothing of them.
    #[must_use]
    pub const fn fingerprint(&self) -> u64 {
        finish(self, fold(self, self.0[0], 0x6775_656e_6f6e))
    }
}

/// The key used when none is given: published, so anyone may craft colliding flows; agents warn of it.
pub const DEFAULT_KEY: [u8; 16] = *b"guenon/default/1";

const fn splitmix(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[inline(always)]
const fn fold(s: &Schedule, h: u64, word: u64) -> u64 {
    let x = (h ^ word).wrapping_mul(s.0[1]);
    x ^ (x >> 32)
}

#[inline(always)]
const fn finish(s: &Schedule, h: u64) -> u64 {
    let x = (h ^ s.0[2]).wrapping_mul(s.0[3]);
    let x = (x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^ (x >> 32)
}

/// Hash of a 5-tuple. Ports are the packet's two bytes each read little-endian, `protocol` IANA's number.
#[inline(always)]
#[must_use]
pub const fn flow(s: &Schedule, src: Address, dst: Address, sport: u16, dport: u16, protocol: u8) -> u64 {
    let ports = sport as u64 | (dport as u64) << 16 | (protocol as u64) << 32;
    finish(s, fold(s, pair(s, src, dst), ports))
}

/// Hash of a client address alone, for client-IP affinity.
#[inline(always)]
#[must_use]
pub const fn client(s: &Schedule, src: Address) -> u64 {
    finish(s, fold(s, fold(s, s.0[0], src.hi), src.lo))
}

/// Hash of what the fragments of one datagram share. IPv4 widens its 16-bit id.
#[inline(always)]
#[must_use]
pub const fn datagram(s: &Schedule, src: Address, dst: Address, id: u32, protocol: u8) -> u64 {
    finish(s, fold(s, pair(s, src, dst), id as u64 | (protocol as u64) << 32 | 1 << 40))
}

#[inline(always)]
const fn pair(s: &Schedule, src: Address, dst: Address) -> u64 {
    if src.hi == 0 && dst.hi == 0 {
        // Both fit their low word (IPv4-mapped): one fold for the four bytes of each.
        fold(s, s.0[0], (src.lo >> 32) | (dst.lo & 0xffff_ffff_0000_0000))
    } else {
        // Side by side: a chain of four products would take longer than all lookups. The weights keep words from
        // cancelling each other (the top bit of a word changes its fold in a way that no key decides).
        let [s0, s2] = [s.0[0], s.0[2]];
        let words = [fold(s, s0, src.hi), fold(s, s2, src.lo), fold(s, !s0, dst.hi), fold(s, !s2, dst.lo)];
        let [a, b, c, d] = words;
        a.wrapping_add(b.wrapping_mul(3)).wrapping_add(c.wrapping_mul(5)).wrapping_add(d.wrapping_mul(7))
    }
}

/// Outer UDP source port of a flow: 49152 + 14 bits.
#[inline(always)]
#[must_use]
pub const fn source_port(hash: u64) -> u16 {
    0xc000 | ((hash >> 48) as u16 & 0x3fff)
}

/// Outer IPv6 flow label of a flow: 20 bits (RFC 6438).
#[inline(always)]
#[must_use]
pub const fn flow_label(hash: u64) -> u32 {
    (hash >> 28) as u32 & 0xf_ffff
}
