//! The program on the way out: what it sees is counted and goes on untouched.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use guenon_ebpf::abi::{PASSED, RECEIVED};

use crate::maps::EGRESS_COUNTERS;
use crate::settings;

/// `TC_ACT_UNSPEC`, `TCX_NEXT`: whoever stands behind this program decides.
const NEXT: i32 = -1;

/// The program at the egress of a node's interface.
#[classifier]
fn guenon_egress(ctx: TcContext) -> i32 {
    if let Some(counters) = EGRESS_COUNTERS.get_ptr_mut(settings::slot()) {
        for index in [RECEIVED, PASSED] {
            // SAFETY: an element of this CPU, on which no other classifier counts while this one runs.
            let counter = unsafe { &mut (*counters).0[index] };
            counter.packets += 1;
            counter.bytes += u64::from(ctx.len());
        }
    }
    NEXT
}
