//! Programs that time the XDP program, by the method of docs/benchmarks.md.
//!
//! `BPF_PROG_TEST_RUN` with repeat does not restore the packet between runs, so a bare repeat would time a program that
//! sees its own output. A harness restores it: one `adjust_head` that undoes the target's, the head rewritten from a template with
//! changing source (and destination), one run counted, then a tail call of the unmodified target. The floor is the same
//! harness with [`guenon_null`] as target; [`guenon_bare`] and [`guenon_bare_decap`] do the least that any
//! program must to encapsulate or decapsulate.
//!
//! For the rate over veth: [`flood_v4`] sends frames of that template into a device (run by live test runs), [`relay`] stands on its far end and calls the target, [`mac_swap`] is the
//! floor of what sends them back, and [`sink`] counts what comes back.
#![no_std]
#![no_main]
#![expect(unreachable_pub, missing_docs, reason = "entry points: the macro exports them; their comments stand here")]

mod way_out;

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::helpers::{bpf_redirect, bpf_xdp_adjust_head};
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::{Array, PerCpuArray, ProgramArray};
use aya_ebpf::programs::XdpContext;

/// Bytes of the head that the harness rewrites before each run: a multiple of eight, and no more than
/// the shortest packet that is timed.
const HEAD: usize = 96;
/// Outer bytes that the bare programs write or strip: IPv4, UDP, GUE, and four of private data.
const BARE: usize = 36;

/// What the harness writes: set before a run, read by every run of it.
#[repr(C)]
pub struct Template {
    /// Length of the whole packet.
    pub len: u64,
    /// Flows - 1 (flows are a power of two).
    pub flow_mask: u64,
    /// Services; each has the destination address of the template plus its number.
    pub services: u64,
    /// Runs so far.
    pub runs: u64,
    /// Device that [`flood_v4`] sends to.
    pub ifindex: u64,
    /// The first bytes.
    pub head: [u64; HEAD / 8],
}

#[map]
static TEMPLATE: Array<Template> = Array::with_max_entries(1, 0);
/// Frames that [`sink`] saw.
#[map]
static ARRIVED: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);
#[map]
static TARGET: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Restores the packet and tail-calls the target.
#[inline(always)]
fn run<const SRC: usize, const DST: usize, const SPORT: usize>(ctx: &XdpContext) -> Option<()> {
    rewrite::<SRC, DST, SPORT>(ctx)?;
    // SAFETY: TARGET holds programs of the same type and multi-buffer flag.
    let _ = unsafe { TARGET.tail_call(ctx, 0) };
    None
}

/// Restores the packet. `SRC`, `DST`: offsets of the last four bytes of source and destination
/// address; `SPORT`: of the source port. Returns the device to flood.
#[inline(always)]
fn rewrite<const SRC: usize, const DST: usize, const SPORT: usize>(ctx: &XdpContext) -> Option<u64> {
    // SAFETY: test runs are one at a time, so nobody else writes the element.
    let template = unsafe { &mut *TEMPLATE.get_ptr_mut(0)? };
    let run = template.runs;
    template.runs = run + 1;
    // Verifiers allow no 32-bit arithmetic on pointers, into which the compiler would narrow the difference.
    let len = core::hint::black_box((ctx.data_end() - ctx.data()) as u64);
    let delta = len as i64 - template.len as i64;
    // SAFETY: `ctx.ctx` is the context that the kernel gave to this program.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, delta as i32) } != 0 {
        return None;
    }
    let data = ctx.data();
    if data + HEAD > ctx.data_end() {
        return None;
    }
    for (i, word) in template.head.iter().enumerate() {
        // SAFETY: HEAD bytes from `data` on lie in the packet, checked above; BPF loads and stores need no alignment here.
        unsafe { ((data + i * 8) as *mut u64).write_unaligned(*word) };
    }
    // A Weyl sequence visits flows and services in no order that a cache or prefetcher could learn.
    let x = (run.wrapping_mul(0x9e37_79b9_7f4a_7c15)) >> 32;
    let flow = x & template.flow_mask;
    let service = (x.wrapping_mul(0x85eb_ca6b) as u32 as u64 * template.services) >> 32;
    // SAFETY: the offsets lie within HEAD.
    unsafe {
        add(data + SRC + 2, (flow >> 14) as u16);
        add(data + SPORT, (flow & 0x3fff) as u16);
        let dst = (data + DST) as *mut u32;
        let number = u32::from_be(dst.read_unaligned()).wrapping_add(service as u32);
        dst.write_unaligned(number.to_be());
    }
    Some(template.ifindex)
}

/// Adds to the number in two bytes of the packet.
///
/// # Safety
///
/// They lie in the packet.
#[inline(always)]
unsafe fn add(at: usize, more: u16) {
    let number = at as *mut u16;
    // SAFETY: the caller's promise.
    unsafe { number.write_unaligned(u16::from_be(number.read_unaligned()).wrapping_add(more).to_be()) };
}

macro_rules! harness {
    ($name:ident, $src:literal, $dst:literal, $sport:literal, $doc:literal) => {
        #[doc = $doc]
        #[xdp(frags)]
        pub fn $name(ctx: XdpContext) -> u32 {
            match run::<$src, $dst, $sport>(&ctx) {
                Some(()) => XDP_PASS,
                None => XDP_ABORTED,
            }
        }
    };
}

harness!(harness_v4, 26, 30, 34, "IPv4 behind Ethernet.");
harness!(harness_v6, 34, 50, 54, "IPv6 behind Ethernet.");
harness!(harness_v4_in_v4, 58, 62, 66, "IPv4 in GUE (no private data) in IPv4.");
harness!(harness_v6_in_v4, 66, 82, 86, "IPv6 in GUE (no private data) in IPv4.");

/// The floor's target.
#[xdp(frags)]
pub fn guenon_null(_: XdpContext) -> u32 {
    XDP_PASS
}

/// The least of an encapsulation: room made, Ethernet and BARE bytes written, sent.
#[xdp(frags)]
pub fn guenon_bare(ctx: XdpContext) -> u32 {
    // SAFETY: `ctx.ctx` is the context that the kernel gave to this program.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, -(BARE as i32)) } != 0 {
        return XDP_ABORTED;
    }
    let data = ctx.data();
    if data + 14 + BARE > ctx.data_end() {
        return XDP_ABORTED;
    }
    for i in 0..(14 + BARE) / 2 {
        // SAFETY: 14 + BARE bytes from `data` on lie in the packet, checked above.
        unsafe { ((data + i * 2) as *mut u16).write_unaligned(0x4242) };
    }
    XDP_TX
}

/// The least of a decapsulation: outer bytes cut off, Ethernet written, passed.
#[xdp(frags)]
pub fn guenon_bare_decap(ctx: XdpContext) -> u32 {
    // SAFETY: `ctx.ctx` is the context that the kernel gave to this program.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, 32) } != 0 {
        return XDP_ABORTED;
    }
    let data = ctx.data();
    if data + 14 > ctx.data_end() {
        return XDP_ABORTED;
    }
    for i in 0..7 {
        // SAFETY: 14 bytes from `data` on lie in the packet, checked above.
        unsafe { ((data + i * 2) as *mut u16).write_unaligned(0x4242) };
    }
    XDP_PASS
}

/// Sends IPv4 frames of the template to the template's device.
#[xdp(frags)]
pub fn flood_v4(ctx: XdpContext) -> u32 {
    match rewrite::<26, 30, 34>(&ctx) {
        // SAFETY: the helper takes any number, and refuses what is no device.
        Some(ifindex) => (unsafe { bpf_redirect(ifindex as u32, 0) }) as u32,
        None => XDP_ABORTED,
    }
}

/// Stands on the device and calls the target, so that any loaded program can be put there.
#[xdp(frags)]
pub fn relay(ctx: XdpContext) -> u32 {
    // SAFETY: TARGET holds programs of the same type and multi-buffer flag.
    let _ = unsafe { TARGET.tail_call(&ctx, 0) };
    XDP_ABORTED
}

/// The least that sends a frame back: MAC addresses swapped.
#[xdp(frags)]
pub fn mac_swap(ctx: XdpContext) -> u32 {
    let data = ctx.data();
    if data + 12 > ctx.data_end() {
        return XDP_ABORTED;
    }
    for i in 0..3 {
        // SAFETY: 12 bytes from `data` on lie in the packet, checked above.
        unsafe {
            let a = (data + i * 2) as *mut u16;
            let b = (data + 6 + i * 2) as *mut u16;
            let (x, y) = (a.read_unaligned(), b.read_unaligned());
            a.write_unaligned(y);
            b.write_unaligned(x);
        }
    }
    XDP_TX
}

/// Counts what arrives, and drops it.
#[xdp(frags)]
pub fn sink(_: XdpContext) -> u32 {
    if let Some(arrived) = ARRIVED.get_ptr_mut(0) {
        // SAFETY: this CPU's element.
        unsafe { *arrived += 1 };
    }
    XDP_DROP
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Helpers such as tail calls and `adjust_head` are for GPL-compatible programs or free for all; the kernel asks for a licence all the same.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 11] = *b"Apache-2.0\0";
