//! IPv6 extension headers: walked once for the verifier, with the result packed into a word.

use guenon_ebpf::headers::Fragment;
use guenon_ebpf::headers::ipv6::{self, Hidden, Upper};

use crate::frame::{self, Frame, MAX_UPPER};

/// [`ipv6::walk`], by way of a global function.
#[inline(always)]
pub(crate) fn walk<const FRAGS: bool>(frame: &Frame<FRAGS>, next: u8, at: usize, end: usize) -> Result<Upper, Hidden> {
    let word = walked::<FRAGS>(frame.ctx(), u32::from(next), at as u32, end as u32);
    unpack(word)
}

once! {
    fn walked, guenon_extensions, guenon_extensions_linear(ctx, next: u32, at: u32, end: u32) {
        pack(ipv6::walk(&Frame::<FRAGS>::new(ctx), next as u8, frame::upper(at), end as usize))
    }
}

/// Bits 0..16 offset, 16..24 protocol, 24..26 fragment, 26..28 failure, 32..64 id.
#[inline(always)]
pub(crate) fn pack(walked: Result<Upper, Hidden>) -> u64 {
    match walked {
        Err(Hidden::Cut) => 1 << 26,
        Err(Hidden::Unreadable) => 2 << 26,
        Ok(Upper { protocol, at, fragment, id }) => {
            let fragment = match fragment {
                Fragment::Whole => 0,
                Fragment::First => 1,
                Fragment::Later => 2,
            };
            if at > MAX_UPPER {
                return 1 << 26;
            }
            at as u64 | u64::from(protocol) << 16 | fragment << 24 | u64::from(id) << 32
        }
    }
}

#[inline(always)]
pub(crate) fn unpack(word: u64) -> Result<Upper, Hidden> {
    match word >> 26 & 3 {
        0 => {}
        1 => return Err(Hidden::Cut),
        _ => return Err(Hidden::Unreadable),
    }
    let fragment = match word >> 24 & 3 {
        0 => Fragment::Whole,
        1 => Fragment::First,
        _ => Fragment::Later,
    };
    Ok(Upper { protocol: (word >> 16) as u8, at: frame::upper(word as u32), fragment, id: (word >> 32) as u32 })
}
