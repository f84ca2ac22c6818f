//! Replies in parts: all fragments of a datagram leave with the VIP's address, or none.

use aya_ebpf::bindings::__sk_buff;
use guenon_ebpf::flow::Frontend;
use guenon_ebpf::fragment::{self, Datagram};
use guenon_ebpf::nat::Side;
use guenon_ebpf::parse::Ip;
use guenon_ebpf::reason::DropReason;

use super::accounts::End;
use super::is_endpoint;
use super::skb::{Skb, set_address};
use crate::{flows, fragments, maps};

/// In place of a VIP's id: the datagram leaves as it is.
const UNTOUCHED: u32 = u32::MAX;

/// Remembers what became of a first fragment. Of one that is dropped nothing is: those that follow are dropped too.
#[inline(always)]
pub(super) fn first(ip: &Ip, end: End) {
    let key = fragments::key(ip);
    match end.frontend() {
        Some(frontend) => guenon_egress_remember(key, frontend.vip(), frontend.generation().into()),
        None if !end.is_refused() && is_endpoint(ip.source) => guenon_egress_remember(key, UNTOUCHED, 0),
        // Nor is what another datagram with this id was.
        None => guenon_egress_forget(key),
    };
}

/// A later fragment goes as the first went.
#[inline(always)]
pub(super) fn later(skb: Skb, ip: &Ip) -> End {
    if is_endpoint(ip.destination) {
        return End::refused(DropReason::NoRoute);
    }
    let word = guenon_egress_recall(fragments::key(ip));
    if word == fragments::NOTHING {
        return if is_endpoint(ip.source) { End::refused(DropReason::FragReply) } else { End::UNTOUCHED };
    }
    let (vip, generation) = ((word >> 16) as u32, word as u8);
    if vip == UNTOUCHED {
        return End::UNTOUCHED;
    }
    let frontend = Frontend::new(vip, generation.into(), 0);
    if !flows::is_live(frontend) || guenon_egress_rename(skb.ctx(), ip.at as u32, ip.v6.into(), vip) == 0 {
        return End::refused(DropReason::FragReply);
    }
    End::translated(frontend)
}

/// Gives the packet whose IP header begins at `at` this VIP's address as its source; 1 if that was done.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn guenon_egress_rename(ctx: *mut __sk_buff, at: u32, v6: u32, vip: u32) -> u64 {
    let Some(vip) = flows::vip(vip) else { return 0 };
    set_address(ctx, at as usize & 0x1f, v6 != 0, Side::Source, vip.address).is_some().into()
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn guenon_egress_remember(key: u64, vip: u32, generation: u32) -> u64 {
    if let Some(set) = fragments::set(&maps::NAT_FRAGMENTS, key) {
        fragment::remember(set, key, Datagram { row: generation as u16, frontend: vip });
    }
    0
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn guenon_egress_forget(key: u64) -> u64 {
    if let Some(set) = fragments::set(&maps::NAT_FRAGMENTS, key) {
        fragment::forget(set, key);
    }
    0
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn guenon_egress_recall(key: u64) -> u64 {
    fragments::word(&maps::NAT_FRAGMENTS, key)
}
