//! Whether an endpoint's reply to a client will leave this node where it can be translated.

use aya_ebpf::bindings::{bpf_fib_lookup as Lookup, xdp_md};
use aya_ebpf::helpers::generated::bpf_fib_lookup;
use guenon_ebpf::abi::{Address, AddressKind, MAX_INTERFACES};

use crate::{maps, tables};

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
// Answers of bpf_fib_lookup (include/uapi/linux/bpf.h).
const SUCCESS: i64 = 0;
const FORWARDING_DISABLED: i64 = 5;
const NO_NEIGHBOUR: i64 = 7;

/// Whether a reply from `endpoint` to `client` leaves by an interface that has the program on the way out.
#[inline(always)]
pub(crate) fn is_answerable<const FRAGS: bool>(ctx: *mut xdp_md, endpoint: Address, client: Address) -> bool {
    let kind = tables::address(client).kind();
    if kind == AddressKind::Tunnel as u8 || kind == AddressKind::Endpoint as u8 {
        return false;
    }
    route::<FRAGS>(ctx, endpoint.hi, endpoint.lo, client.hi, client.lo) != 0
}

once! {
    fn route, guenon_route, guenon_route_linear(ctx, from_hi: u64, from_lo: u64, to_hi: u64, to_lo: u64) {
        let _ = FRAGS;
        let (from, to) = (Address { hi: from_hi, lo: from_lo }, Address { hi: to_hi, lo: to_lo });
        match device(ctx, from, to) {
            Some(device) => has_egress(device).into(),
            None => 0,
        }
    }
}

/// The device by which the reply leaves; 0 if the kernel cannot say, since it does not forward.
#[inline(always)]
fn device(ctx: *mut xdp_md, from: Address, to: Address) -> Option<u32> {
    // SAFETY: plain numbers, for all of which 0 is a value.
    let mut lookup: Lookup = unsafe { core::mem::zeroed() };
    // SAFETY: the kernel's context is valid while the program runs.
    lookup.ifindex = unsafe { (*ctx).ingress_ifindex };
    if to.is_v4() {
        lookup.family = AF_INET;
        lookup.__bindgen_anon_3.ipv4_src = (from.lo >> 32) as u32;
        lookup.__bindgen_anon_4.ipv4_dst = (to.lo >> 32) as u32;
    } else {
        lookup.family = AF_INET6;
        lookup.__bindgen_anon_3.ipv6_src = words(from);
        lookup.__bindgen_anon_4.ipv6_dst = words(to);
    }
    // SAFETY: the helper reads and writes `lookup` alone, of the size that it is told.
    let answer = unsafe { bpf_fib_lookup(ctx.cast(), &raw mut lookup, size_of::<Lookup>() as i32, 0) };
    match answer {
        SUCCESS | NO_NEIGHBOUR => Some(lookup.ifindex),
        // A node that forwards nothing has its endpoints on itself; and what the kernel cannot look up it may still route.
        FORWARDING_DISABLED => Some(0),
        answer if answer < 0 => Some(0),
        // Its own address, or no route.
        _ => None,
    }
}

#[inline(always)]
fn words(address: Address) -> [u32; 4] {
    [address.hi as u32, (address.hi >> 32) as u32, address.lo as u32, (address.lo >> 32) as u32]
}

#[inline(always)]
fn has_egress(device: u32) -> bool {
    if device == 0 {
        return true;
    }
    for slot in 0..MAX_INTERFACES {
        let Some(attachment) = maps::ATTACHMENTS.get_ptr(slot) else { break };
        // SAFETY: an element of the map, whose words the agent changes by one store each.
        let (ifindex, egress) = unsafe {
            ((&raw const (*attachment).ifindex).read_volatile(), (&raw const (*attachment).egress).read_volatile())
        };
        if ifindex == device && egress != 0 {
            return true;
        }
    }
    false
}
