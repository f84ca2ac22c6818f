//! The one place that touches a frame's memory.

use core::ptr::NonNull;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len};
use guenon_ebpf::headers::ipv6::{Hidden, Upper};
use guenon_ebpf::packet::Packet;

use crate::extensions;

/// The frame as it lies in memory now. `FRAGS`: it may go on in further buffers. Changing its size
/// ([`Frame::grow`], [`Frame::shrink`], [`Frame::cut`]) consumes it, since nothing read before is valid after.
#[derive(Clone, Copy)]
pub(crate) struct Frame<const FRAGS: bool> {
    ctx: *mut xdp_md,
    start: usize,
    end: usize,
}

impl<const FRAGS: bool> Frame<FRAGS> {
    /// The frame that the kernel hands over.
    #[inline(always)]
    pub(crate) fn new(ctx: *mut xdp_md) -> Self {
        // SAFETY: the kernel gives a valid context for as long as the program runs.
        let (start, end) = unsafe { ((*ctx).data as usize, (*ctx).data_end as usize) };
        Self { ctx, start: opaque(start), end }
    }

    /// What the kernel handed over, for a stage that runs in a function of its own.
    #[inline(always)]
    pub(crate) fn ctx(&self) -> *mut xdp_md {
        self.ctx
    }

    /// Bytes of the linear part: all of it, but for multi-buffer frames.
    #[inline(always)]
    pub(crate) fn linear_len(&self) -> usize {
        self.end - self.start
    }

    /// Bytes of the whole frame.
    #[inline(always)]
    pub(crate) fn whole_len(&self) -> usize {
        if FRAGS {
            // SAFETY: the helper takes the context and changes nothing.
            unsafe { bpf_xdp_get_buff_len(self.ctx) as usize }
        } else {
            self.linear_len()
        }
    }

    /// `N` bytes from `at` on, to be changed; `None` where the linear part ends before.
    #[inline(always)]
    pub(crate) fn bytes_mut<const N: usize>(&mut self, at: usize) -> Option<&mut [u8; N]> {
        // SAFETY: the bytes lie between the frame's start and end, and `&mut self` makes this the only view of them.
        self.locate(at, N).map(|first| unsafe { &mut *first.cast().as_ptr() })
    }

    /// Makes room for `bytes` in front; `None` if there is no headroom for them.
    #[inline(always)]
    pub(crate) fn grow(self, bytes: usize) -> Option<Self> {
        self.move_head(-(bytes as i32))
    }

    /// Takes `bytes` off the front.
    #[inline(always)]
    pub(crate) fn shrink(self, bytes: usize) -> Option<Self> {
        self.move_head(bytes as i32)
    }

    /// Cuts the frame to its first `len` bytes, of `whole`.
    #[inline(always)]
    pub(crate) fn cut(self, whole: usize, len: usize) -> Option<Self> {
        // SAFETY: the helper takes the context; whatever pointed into the frame is gone with `self`.
        let failed = unsafe { bpf_xdp_adjust_tail(self.ctx, len as i32 - whole as i32) } != 0;
        if failed { None } else { Some(Self::new(self.ctx)) }
    }

    #[inline(always)]
    fn move_head(self, delta: i32) -> Option<Self> {
        // SAFETY: the helper takes the context; whatever pointed into the frame is gone with `self`.
        let failed = unsafe { bpf_xdp_adjust_head(self.ctx, delta) } != 0;
        if failed { None } else { Some(Self::new(self.ctx)) }
    }
}

impl<const FRAGS: bool> Frame<FRAGS> {
    /// Where the `len` bytes from `at` on lie; `None` where the linear part ends before.
    #[inline(always)]
    fn locate(&self, at: usize, len: usize) -> Option<NonNull<u8>> {
        let first = self.start + Self::bounded(at);
        if first + len > self.end {
            return None;
        }
        // SAFETY: no frame lies at address 0; without a word on it, every use would be preceded by a check.
        Some(unsafe { NonNull::new_unchecked(first as *mut u8) })
    }

    /// An offset in the frame, as the verifier wants it. Before kernel 5.13 it forgets the bounds of a number that
    /// was on the stack meanwhile, so the linear program bounds each one anew, far above the size of a page.
    #[inline(always)]
    fn bounded(at: usize) -> usize {
        const MASK: usize = 0x1fff;
        if FRAGS { at } else { opaque(at) & MASK }
    }
}

impl<const FRAGS: bool> Packet for Frame<FRAGS> {
    #[inline(always)]
    fn bytes<const N: usize>(&self, at: usize) -> Option<&[u8; N]> {
        // SAFETY: the bytes lie between the frame's start and end.
        self.locate(at, N).map(|first| unsafe { &*first.cast().as_ptr() })
    }

    #[inline(always)]
    fn walk(&self, next: u8, at: usize, end: usize) -> Result<Upper, Hidden> {
        extensions::walk::<FRAGS>(self, next, at, end)
    }

    #[inline(always)]
    fn reaches(&self, end: usize) -> bool {
        // Lengths are compared, not addresses: verifiers before 6.4 know no bounds of a number whose bytes were
        // swapped, and refuse to add it to an address.
        end <= opaque(self.linear_len()) || (FRAGS && self.whole_len() >= end)
    }
}

/// No upper-layer header that is looked at begins behind this.
pub(crate) const MAX_UPPER: usize = 0x7fff;

/// The end of a link header, as an argument of a global function: the verifier knows nothing of it but what is
/// masked here.
#[inline(always)]
pub(crate) fn link_len(at: u32) -> usize {
    at as usize & 0x1f
}

/// The offset of an upper-layer header, likewise.
#[inline(always)]
pub(crate) fn upper(at: u32) -> usize {
    at as usize & MAX_UPPER
}

/// The same number, of which the compiler knows nothing, and which it computes no sooner than it is written: from the width of `xdp_md.data` it would infer that a
/// check further on in the frame makes a later one nearer its start needless, which the verifier wants to see.
#[inline(always)]
pub(crate) fn opaque(mut number: usize) -> usize {
    // SAFETY: moves a register to itself.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) number, options(nomem, nostack, preserves_flags)) };
    number
}
