//! The XDP programs: thin entry points over the library.
#![no_std]
#![no_main]

mod maps;

use aya_ebpf::bindings::xdp_action::XDP_PASS;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;

/// The program of a node's interface, multi-buffer aware.
#[xdp(frags)]
pub fn guenon(ctx: XdpContext) -> u32 {
    count(&ctx)
}

/// The same for kernels that know no multi-buffer frames (before 5.18).
#[xdp]
pub fn guenon_linear(ctx: XdpContext) -> u32 {
    count(&ctx)
}

/// For the far end of a veth: lets frames that XDP sent to its peer arrive.
#[xdp(frags)]
pub fn guenon_pass(_: XdpContext) -> u32 {
    XDP_PASS
}

/// The same for kernels that know no multi-buffer frames.
#[xdp]
pub fn guenon_pass_linear(_: XdpContext) -> u32 {
    XDP_PASS
}

#[inline(always)]
fn count(ctx: &XdpContext) -> u32 {
    let bytes = (ctx.data_end() - ctx.data()) as u64;
    // SAFETY: the loader puts the settings there before the program is loaded, and nobody changes them after.
    let settings = unsafe { core::ptr::read_volatile(&raw const SETTINGS) };
    if let Some(counters) = maps::COUNTERS.get_ptr_mut(settings.slot) {
        // SAFETY: this CPU's element; nothing else writes it while the program runs.
        let counters = unsafe { &mut *counters };
        counters.0[guenon_ebpf::abi::RECEIVED].packets += 1;
        counters.0[guenon_ebpf::abi::RECEIVED].bytes += bytes;
        counters.0[guenon_ebpf::abi::PASSED].packets += 1;
        counters.0[guenon_ebpf::abi::PASSED].bytes += bytes;
    }
    XDP_PASS
}

/// Where and how the program runs: set by the loader, constant from then on.
#[unsafe(no_mangle)]
pub static SETTINGS: guenon_ebpf::abi::Settings = guenon_ebpf::abi::Settings {
    hash: [0; 4],
    ifindex: 0,
    slot: 0,
    address_mask: 0,
    frontend_mask: 0,
    local_mask: 0,
    director_mask: 0,
    gue_port: guenon_ebpf::abi::GUE_PORT,
    roles: 0,
    reserved: [0; 5],
    too_big_rate: 0,
    reserved1: 0,
};

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: nothing in the program panics; the verifier would refuse the endless loop.
    unsafe { core::hint::unreachable_unchecked() }
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 11] = *b"Apache-2.0\0";
