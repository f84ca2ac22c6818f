//! The XDP programs: thin entry points over the library.
//!
//! The files are the packet's way: [`plain`] for what is common; for all else [`way`] (whose is it?), then [`director`] with [`fragments`], [`echo`],
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
mod direct;
mod director;
mod echo;
mod egress;
mod encapsulate;
mod extensions;
mod flows;
mod fragments;
mod frame;
mod icmp;
mod ledger;
mod link;
mod maps;
mod plain;
mod quote;
mod route;
mod settings;
mod tables;
mod too_big;
mod translate;
mod tunnel_icmp;
mod way;

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_PASS};
use aya_ebpf::bindings::xdp_md;
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use guenon_ebpf::verdict::Verdict;

use crate::frame::Frame;
use crate::ledger::Ledger;

/// The program of a node's interface, multi-buffer aware.
#[xdp(frags)]
#[inline(always)]
fn guenon(ctx: XdpContext) -> u32 {
    enter::<true>(&ctx)
}

/// The same for kernels that know no multi-buffer frames (before 5.18).
#[xdp]
#[inline(always)]
fn guenon_linear(ctx: XdpContext) -> u32 {
    enter::<false>(&ctx)
}

/// The program of an uplink's way out.
#[classifier]
#[inline(always)]
fn guenon_egress(ctx: TcContext) -> i32 {
    egress::enter(ctx.skb.skb)
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
    // The linear program needs more stack (see `Frame::bounded`): with the common way in the entry, there would be too
    // little for what the general way calls. It takes the general way at once.
    let mut end = if FRAGS { common::<FRAGS>(ctx.ctx) } else { NOT_PLAIN };
    if end == NOT_PLAIN {
        end = general::<FRAGS>(ctx.ctx);
    }
    if end & Verdict::TRANSLATE != 0 {
        end = translate::take::<FRAGS>(ctx.ctx, end);
    }
    end as u32
}

/// No action of the kernel's, and no packet that goes on.
const NOT_PLAIN: u64 = Verdict::TRANSLATE - 1;

/// The way of plain packets.
#[inline(always)]
fn common<const FRAGS: bool>(ctx: *mut xdp_md) -> u64 {
    plain::take(Frame::<FRAGS>::new(ctx)).unwrap_or(NOT_PLAIN)
}

once! {
    /// The way of every packet, plain or not.
    fn general, guenon_general, guenon_general_linear(ctx) {
        let frame = Frame::<FRAGS>::new(ctx);
        let Some(mut ledger) = Ledger::open(frame.linear_len()) else { return u64::from(XDP_ABORTED) };
        let outcome = way::take(frame, &mut ledger);
        match outcome.ok().and_then(Verdict::goes_on) {
            Some(place) => place,
            None => ledger.close(outcome).into(),
        }
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: no panic is left in the program: the verifier would refuse the call.
    unsafe { core::hint::unreachable_unchecked() }
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 11] = *b"Apache-2.0\0";
