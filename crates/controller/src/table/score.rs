//! The score of a base row and a candidate: keyed, deterministic, integers only.
//!
//! Weighted rendezvous gives a candidate of weight w the score -ln(u) / w, u uniform in (0, 1]; the least wins, and wins
//! with probability w over the sum of weights (the minimum of exponential variables). Where all weights
//! are equal that is the order of u itself, and no logarithm is taken. Else it is fixed point, piecewise linear over 256
//! segments: an error of some 0.2 % that costs nothing, since shares are made exact by quotas.

use std::net::IpAddr;

use guenon_ebpf::abi::{Address, PAGE_ROWS};
use guenon_ebpf::hash::Schedule;

/// Bits of a score. With the row (10 bits) and an amount (8 bits), or with a candidate's rank (18 bits), it fills
/// a word.
pub(super) const SCORE_BITS: u32 = 46;

/// Who may take rows: a group, or an endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// Keyed hash of its name or address.
    pub identity: u64,
    /// Not 0.
    pub weight: u64,
    /// What it stands for; among candidates of equal score the lower one wins. Below 2^18.
    pub index: u32,
}

/// The keyed part of all scores of a cluster.
#[derive(Debug)]
pub(super) struct Scores {
    schedule: Schedule,
    rows: Vec<u64>,
}

impl Scores {
    pub(super) fn new(schedule: &Schedule) -> Self {
        let mut scores = Self { schedule: *schedule, rows: Vec::new() };
        scores.rows = (0..u64::from(PAGE_ROWS)).map(|row| scores.absorb(DOMAIN_ROW, row)).collect();
        scores
    }

    pub(super) fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    pub(super) fn identity_of_address(&self, address: IpAddr) -> u64 {
        let Address { hi, lo } = Address::from_ip(address);
        self.absorb(self.absorb(DOMAIN_ADDRESS, hi), lo)
    }

    pub(super) fn identity_of_name(&self, name: &str) -> u64 {
        name.as_bytes().chunks(8).fold(self.absorb(DOMAIN_NAME, name.len() as u64), |hash, chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.absorb(hash, u64::from_le_bytes(word))
        })
    }

    /// The rank of a candidate for a base row where weights differ: score above, lower index wins. No two
    /// candidates have the same.
    pub(super) fn key(&self, base: u16, candidate: &Candidate) -> u64 {
        key_of(weighted(uniform(self.row(base), candidate.identity), reciprocal(candidate.weight)), candidate.index)
    }

    /// The keyed hash of a base row.
    #[inline]
    pub(super) fn row(&self, base: u16) -> u64 {
        self.rows[usize::from(base)]
    }

    fn absorb(&self, hash: u64, word: u64) -> u64 {
        let [s0, s1, s2, s3] = self.schedule.0;
        let mut z = (hash ^ word ^ s0).wrapping_mul(s1);
        z = (z ^ (z >> 32) ^ s2).wrapping_mul(s3);
        z = (z ^ (z >> 29)).wrapping_mul(MIX_A);
        z ^ (z >> 32)
    }
}

// Tell the three kinds of hashed things apart ("row", "address", "name" in ASCII).
const DOMAIN_ROW: u64 = 0x72_6f77;
const DOMAIN_ADDRESS: u64 = 0x61_6464_7265_7373;
const DOMAIN_NAME: u64 = 0x6e61_6d65;

// The multipliers of SplitMix64 (Steele, Lea, Flood 2014).
const MIX_A: u64 = 0xbf58_476d_1ce4_e5b9;
const MIX_B: u64 = 0x94d0_49bb_1331_11eb;

/// 64 bits, uniform for each pair.
#[inline]
pub(super) const fn uniform(row: u64, identity: u64) -> u64 {
    let x = (row ^ identity).wrapping_mul(MIX_A);
    let x = (x ^ (x >> 32)).wrapping_mul(MIX_B);
    x ^ (x >> 30)
}

/// Score where all weights are equal; the greatest wins.
#[inline]
pub(super) const fn unweighted(uniform: u64) -> u64 {
    uniform >> (64 - SCORE_BITS)
}

/// Score where weights differ; the greatest wins.
#[inline]
pub(super) fn weighted(uniform: u64, reciprocal: u64) -> u64 {
    let cost = (u128::from(minus_log2(uniform)) * u128::from(reciprocal)) >> 64;
    (MAX_COST - cost as u64) >> (62 - SCORE_BITS)
}

/// 1 / weight in units of 2^-64.
pub(super) const fn reciprocal(weight: u64) -> u64 {
    u64::MAX / weight
}

/// Score and, for ties, rank, in one word.
#[inline]
pub(super) const fn key_of(score: u64, index: u32) -> u64 {
    score << 18 | (0x3_ffff - index as u64)
}

const MAX_COST: u64 = (1 << 62) - 1;

/// -log2(u) in units of 2^-56, where u = (the top 48 bits + 1) / 2^48; at most 48 x 2^56.
#[inline]
fn minus_log2(uniform: u64) -> u64 {
    let v = (uniform >> 16) + 1;
    let exponent = v.ilog2();
    let fraction = v << (63 - exponent) << 1; // what follows the leading one
    let segment = (fraction >> 56) as usize;
    let (low, high) = (LOG2[segment], LOG2[segment + 1]);
    let within = (u128::from(high - low) * u128::from(fraction << 8)) >> 64;
    (48 << 56) - ((u64::from(exponent) << 56) + low + within as u64)
}

/// log2(1 + i / 256) in units of 2^-56, rounded down.
static LOG2: [u64; 257] = log2_table();

const fn log2_table() -> [u64; 257] {
    let mut table = [0; 257];
    let mut i = 0;
    while i < 256 {
        // Bit by bit: squaring doubles the logarithm (Knuth, TAOCP 1, 1.2.2, exercise 25).
        let mut x: u128 = (256 + i as u128) << 54; // 1.0 = 2^62
        let mut bit = 56;
        while bit > 0 {
            bit -= 1;
            x = (x * x) >> 62;
            if x >= 1 << 63 {
                x >>= 1;
                table[i] |= 1 << bit;
            }
        }
        i += 1;
    }
    table[256] = 1 << 56;
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_logarithm_is_right_to_a_third_of_a_percent() {
        for v in [1u64, 2, 3, 1000, 0xffff, 0x1234_5678_9abc, (1 << 48) - 2, (1 << 48) - 1] {
            let exact = -(((v + 1) as f64) / 2f64.powi(48)).log2();
            let fixed = minus_log2(v << 16) as f64 / 2f64.powi(56);
            assert!((fixed - exact).abs() <= exact * 3e-3 + 1e-13, "v = {v:#x}: {fixed} instead of {exact}");
        }
        assert_eq!(minus_log2(0), 48 << 56);
        assert_eq!(minus_log2(u64::MAX), 0);
    }

    #[test]
    fn equal_identities_of_another_kind_differ() {
        let scores = Scores::new(&Schedule::new(guenon_ebpf::hash::DEFAULT_KEY));
        assert_ne!(scores.identity_of_name(""), scores.identity_of_name("\0"));
        assert_ne!(scores.identity_of_name("a"), scores.identity_of_name("a\0"));
        assert_ne!(scores.absorb(DOMAIN_ROW, 5), scores.absorb(DOMAIN_NAME, 5));
    }

    proptest! {
        #[test]
        fn a_greater_u_never_scores_less(a: u64, b: u64, weight in 1u64..100_000) {
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(minus_log2(low) >= minus_log2(high));
            prop_assert!(weighted(low, reciprocal(weight)) <= weighted(high, reciprocal(weight)));
            prop_assert!(unweighted(low) <= unweighted(high));
        }

        #[test]
        fn a_score_fits_its_bits(u: u64, weight in 1u64..) {
            prop_assert!(weighted(u, reciprocal(weight)) < 1 << SCORE_BITS);
            prop_assert!(unweighted(u) < 1 << SCORE_BITS);
        }
    }
}
