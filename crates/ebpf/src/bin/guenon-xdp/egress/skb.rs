//! The one place that touches a packet on its way out.

use core::ptr::NonNull;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{bpf_skb_pull_data, bpf_skb_store_bytes};
use guenon_ebpf::abi::Address;
use guenon_ebpf::headers::ipv4;
use guenon_ebpf::headers::ipv6::{self, Hidden, Upper};
use guenon_ebpf::nat::{self, Side};
use guenon_ebpf::packet::Packet;

use crate::extensions::{pack, unpack};
use crate::frame::{self, opaque};

/// Where the headers of a plain packet end: Ethernet, IPv6, TCP.
pub(super) const PLAIN: usize = 74;
/// Where all headers that are looked at end, those that ICMP errors quote included.
pub(super) const HEADS: usize = 256;

/// A packet as it lies in memory now; what a helper wrote or pulled makes an older one void.
#[derive(Clone, Copy)]
pub(super) struct Skb {
    ctx: *mut __sk_buff,
    start: usize,
    end: usize,
}

impl Skb {
    #[inline(always)]
    pub(super) fn new(ctx: *mut __sk_buff) -> Self {
        // SAFETY: the kernel gives a valid context for as long as the program runs.
        let (start, end) = unsafe { ((*ctx).data as usize, (*ctx).data_end as usize) };
        Self { ctx, start: opaque(start), end }
    }

    #[inline(always)]
    pub(super) fn ctx(&self) -> *mut __sk_buff {
        self.ctx
    }

    /// Bytes of the whole packet.
    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        // SAFETY: as in `new`.
        unsafe { (*self.ctx).len as usize }
    }

    /// Whether it is more than one packet, which hardware or the kernel cuts later.
    #[inline(always)]
    pub(super) fn is_segmented_later(&self) -> bool {
        // SAFETY: as in `new`.
        unsafe { (*self.ctx).gso_size != 0 }
    }

    /// What the packet is, by the kernel's word: the tag of a VLAN device is beside the packet.
    #[inline(always)]
    pub(super) fn ethertype(&self) -> u16 {
        // SAFETY: as in `new`.
        u16::from_be(unsafe { (*self.ctx).protocol } as u16)
    }

    /// The packet with its first `bytes` bytes, or all it has, in one piece.
    #[inline(always)]
    pub(super) fn linear(self, bytes: usize) -> Self {
        let linear = opaque(self.end - self.start);
        if linear >= bytes || linear >= self.len() {
            return self;
        }
        let bytes = bytes.min(self.len());
        // SAFETY: the helper takes the context; whatever pointed into the packet is gone with `self`.
        unsafe { bpf_skb_pull_data(self.ctx, bytes as u32) };
        Self::new(self.ctx)
    }

    #[inline(always)]
    fn locate(&self, at: usize, len: usize) -> Option<NonNull<u8>> {
        const MASK: usize = 0x1fff;
        // Bounded anew each time, for kernels before 5.13 (see `Frame::bounded`).
        let first = self.start + (opaque(at) & MASK);
        if first + len > self.end {
            return None;
        }
        // SAFETY: no packet lies at address 0.
        Some(unsafe { NonNull::new_unchecked(first as *mut u8) })
    }
}

/// Writes `len` bytes at `at`.
#[inline(always)]
pub(super) fn store(ctx: *mut __sk_buff, at: usize, bytes: *const u8, len: usize) -> Option<()> {
    // SAFETY: the helper reads `len` bytes, no more than callers have there: the verifier sees to it.
    let failed = unsafe { bpf_skb_store_bytes(ctx, at as u32, bytes.cast(), len as u32, 0) } != 0;
    if failed { None } else { Some(()) }
}

/// Sets an address of the IP header at `at`, and in IPv4 the header's checksum.
#[inline(always)]
pub(super) fn set_address(ctx: *mut __sk_buff, at: usize, v6: bool, side: Side, new: Address) -> Option<()> {
    let skb = Skb::new(ctx);
    if v6 {
        let behind = if side == Side::Source { 8 } else { 24 };
        return store(ctx, at + behind, (&raw const new).cast(), size_of::<Address>());
    }
    let mut header = Aligned(*skb.bytes(at)?);
    nat::set_v4(&mut header.0, side, new);
    store(ctx, at, header.0.as_ptr(), ipv4::LEN)
}

/// A header on the stack, where the verifier wants words to be aligned.
#[repr(align(8))]
struct Aligned([u8; ipv4::LEN]);

impl Packet for Skb {
    #[inline(always)]
    fn bytes<const N: usize>(&self, at: usize) -> Option<&[u8; N]> {
        // SAFETY: the bytes lie between the packet's start and end, and are only read.
        self.locate(at, N).map(|first| unsafe { &*first.cast().as_ptr() })
    }

    #[inline(always)]
    fn walk(&self, next: u8, at: usize, end: usize) -> Result<Upper, Hidden> {
        unpack(guenon_egress_extensions(self.ctx, next.into(), at as u32, end as u32))
    }

    #[inline(always)]
    fn reaches(&self, end: usize) -> bool {
        end <= self.len()
    }
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn guenon_egress_extensions(ctx: *mut __sk_buff, next: u32, at: u32, end: u32) -> u64 {
    pack(ipv6::walk(&Skb::new(ctx), next as u8, frame::upper(at), end as usize))
}
