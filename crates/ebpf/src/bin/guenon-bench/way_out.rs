//! The same method for the program on the way out (tc): its packets keep their length, so the harness writes the head and
//! the flow, by two helper calls that cost the same whatever the target is.

use aya_ebpf::bindings::{TC_ACT_OK, TC_ACT_SHOT};
use aya_ebpf::helpers::generated::bpf_skb_store_bytes;
use aya_ebpf::macros::{classifier, map};
use aya_ebpf::maps::ProgramArray;
use aya_ebpf::programs::TcContext;

use crate::{HEAD, TEMPLATE};

#[map]
static TC_TARGET: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Restores the packet and tail-calls the target. `AT`: offset of the last two bytes of the destination address, which the
/// source port and the destination port follow.
#[inline(always)]
fn run<const AT: usize>(ctx: &TcContext) -> Option<()> {
    // SAFETY: test runs are one at a time, so nobody else writes the element.
    let template = unsafe { &mut *TEMPLATE.get_ptr_mut(0)? };
    let run = template.runs;
    template.runs = run + 1;
    let flow = (run.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) & template.flow_mask;
    let skb = ctx.skb.skb;
    // SAFETY: the helper reads HEAD bytes, which the template has.
    let failed = unsafe { bpf_skb_store_bytes(skb, 0, template.head.as_ptr().cast(), HEAD as u32, 0) };
    let [address, source, destination] = core::array::from_fn(|i| half(&template.head, AT + 2 * i));
    let changed: [u16; 4] = [
        u16::from_be(address).wrapping_add((flow >> 14) as u16).to_be(),
        source,
        u16::from_be(destination).wrapping_add((flow & 0x3fff) as u16).to_be(),
        0,
    ];
    // SAFETY: the helper reads six of eight bytes.
    let failed = failed | unsafe { bpf_skb_store_bytes(skb, AT as u32, changed.as_ptr().cast(), 6, 0) };
    if failed != 0 {
        return None;
    }
    // SAFETY: TC_TARGET holds programs of the same type.
    let _ = unsafe { TC_TARGET.tail_call(ctx, 0) };
    None
}

#[inline(always)]
fn half(head: &[u64; HEAD / 8], at: usize) -> u16 {
    (head[at / 8] >> (at % 8 * 8)) as u16
}

/// IPv4 behind Ethernet.
#[classifier]
pub fn harness_out_v4(ctx: TcContext) -> i32 {
    run::<32>(&ctx).map_or(TC_ACT_SHOT, |()| TC_ACT_OK)
}

/// IPv6 behind Ethernet.
#[classifier]
pub fn harness_out_v6(ctx: TcContext) -> i32 {
    run::<52>(&ctx).map_or(TC_ACT_SHOT, |()| TC_ACT_OK)
}

/// The floor's target: the bare tc program.
#[classifier]
pub fn guenon_out_null(_: TcContext) -> i32 {
    TC_ACT_OK
}
