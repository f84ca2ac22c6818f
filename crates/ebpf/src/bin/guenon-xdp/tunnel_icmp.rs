//! What routers say of our own tunnel packets. No socket holds their port, so the kernel takes no notice:
//! the agent is told, and lowers that next hop's MTU.

use guenon_ebpf::abi::{Event, TunnelTooBig};
use guenon_ebpf::headers::ipv4::Ipv4;
use guenon_ebpf::headers::ipv6::Ipv6;
use guenon_ebpf::tunnel;

use crate::frame::Frame;
use crate::ledger::Ledger;
use crate::maps::EVENTS;
use crate::settings::gue_port;

/// Looks at an ICMP message to a tunnel address.
#[inline(always)]
pub(crate) fn v4<const FRAGS: bool>(frame: &Frame<FRAGS>, ledger: &mut Ledger, at: usize, header: Ipv4<'_>) {
    tell(ledger, tunnel::too_big_v4(frame, at, header, gue_port()));
}

/// Looks at an ICMPv6 message to a tunnel address.
#[inline(always)]
pub(crate) fn v6<const FRAGS: bool>(frame: &Frame<FRAGS>, ledger: &mut Ledger, at: usize, header: Ipv6<'_>) {
    tell(ledger, tunnel::too_big_v6(frame, at, header, gue_port()));
}

#[inline(always)]
fn tell(ledger: &mut Ledger, told: Option<TunnelTooBig>) {
    if let Some(told) = told {
        ledger.event(Event::TunnelTooBig);
        // A full buffer loses the record, not the count; routers repeat themselves.
        let _ = EVENTS.output::<TunnelTooBig>(told, 0);
    }
}
