//! The XDP programs: thin entry points over the library.
//!
//! The files are the packet's way: [`way`] (whose is it?), then [`director`] with [`fragments`], [`echo`],
//! [`encapsulate`] and [`too_big`], or [`decap`]; [`deliver`] for endpoints of this node; [`ledger`] for the one
//! exit, where the packet is counted.
//!
//! What is rare stands in global functions (`once!`): the verifier judges each of them once, for all arguments,
//! and not again for every way that leads there; and it leaves the registers of the common way alone.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

/// Defines `$name::<FRAGS>(ctx, scalars...)`, backed by one global function for either value of `FRAGS`.
macro_rules! once {
    ($(#[$doc:meta])* fn $name:ident, $frags:ident, $linear:ident ($ctx:ident $(, $arg:ident: $type:ty)*) $body:block) => {
        $(#[$doc])*
        #[inline(always)]
        pub(crate) fn $name<const FRAGS: bool>(ctx: *mut aya_ebpf::bindings::xdp_md $(, $arg: $type)*) -> u64 {
            if FRAGS { $frags(ctx $(, $arg)*) } else { $linear(ctx $(, $arg)*) }
        }

        #[inline(never)]
        #[unsafe(no_mangle)]
        extern "C" fn $frags($ctx: *mut aya_ebpf::bindings::xdp_md $(, $arg: $type)*) -> u64 {
            const FRAGS: bool = true;
            $body
        }

        #[inline(never)]
        #[unsafe(no_mangle)]
        extern "C" fn $linear($ctx: *mut aya_ebpf::bindings::xdp_md $(, $arg: $type)*) -> u64 {
            const FRAGS: bool = false;
            $body
        }
    };
}

mod congestion;
mod decap;
mod deliver;
mod director;
mod echo;
mod encapsulate;
mod extensions;
mod fragments;
mod frame;
mod icmp;
mod ledger;
mod link;
mod maps;
mod settings;
mod tables;
mod too_big;
mod tunnel_icmp;
mod way;

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_PASS};
use aya_ebpf::bindings::xdp_md;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use guenon_ebpf::headers::ethernet;

use crate::frame::Frame;
use crate::ledger::Ledger;

/// The program of a node's interface, multi-buffer aware.
#[xdp(frags)]
fn guenon(ctx: XdpContext) -> u32 {
    enter::<true>(&ctx)
}

/// The same for kernels that know no multi-buffer frames (before 5.18).
#[xdp]
fn guenon_linear(ctx: XdpContext) -> u32 {
    enter::<false>(&ctx)
}

/// For the far end of a veth: lets frames that XDP sent to its peer arrive.
#[xdp(frags)]
fn guenon_pass(_: XdpContext) -> u32 {
    XDP_PASS
}

/// The same for kernels that know no multi-buffer frames.
#[xdp]
fn guenon_pass_linear(_: XdpContext) -> u32 {
    XDP_PASS
}

#[inline(always)]
fn enter<const FRAGS: bool>(ctx: &XdpContext) -> u32 {
    let frame = Frame::<FRAGS>::new(ctx.ctx);
    match ethernet::payload(&frame) {
        Some((ethertype, at)) if at != ethernet::LEN => {
            tagged::<FRAGS>(ctx.ctx, u32::from(ethertype), at as u32) as u32
        }
        Some((ethertype, _)) => untagged::<FRAGS>(ctx.ctx, ethertype),
        // Shorter than its own header: there is nothing to look at.
        None => untagged::<FRAGS>(ctx.ctx, 0),
    }
}

/// The common way. Beside `tagged`, not around it: the stack has room for one of them.
#[inline(never)]
fn untagged<const FRAGS: bool>(ctx: *mut xdp_md, ethertype: u16) -> u32 {
    run(Frame::<FRAGS>::new(ctx), ethertype, ethernet::LEN)
}

once! {
    /// The way of a frame with VLAN tags; its payload begins at `at`.
    fn tagged, guenon_tagged, guenon_tagged_linear(ctx, ethertype: u32, at: u32) {
        let at = (at as usize).min(ethernet::LEN + ethernet::MAX_TAGS * ethernet::TAG_LEN).max(ethernet::LEN);
        u64::from(run(Frame::<FRAGS>::new(ctx), ethertype as u16, at))
    }
}

#[inline(always)]
fn run<const FRAGS: bool>(frame: Frame<FRAGS>, ethertype: u16, at: usize) -> u32 {
    let Some(mut ledger) = Ledger::open(frame.linear_len()) else { return XDP_ABORTED };
    let outcome = way::take(frame, &mut ledger, ethertype, at);
    ledger.close(outcome)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: no panic is left in the program: the verifier would refuse the call.
    unsafe { core::hint::unreachable_unchecked() }
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 11] = *b"Apache-2.0\0";
