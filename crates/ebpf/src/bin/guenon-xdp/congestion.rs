//! Congestion marks of the way, carried over to the inner packet (RFC 6040).

use guenon_ebpf::abi::Event;
use guenon_ebpf::ecn;
use guenon_ebpf::parse::Ip;
use guenon_ebpf::reason::DropReason;

use crate::frame::Frame;
use crate::ledger::Ledger;

/// Marks the inner packet `ip` if its tunnel packet was marked.
#[inline(always)]
pub(crate) fn carry_over<const FRAGS: bool>(
    frame: &mut Frame<FRAGS>,
    ledger: &mut Ledger,
    outer: u8,
    ip: &Ip,
) -> Result<(), DropReason> {
    let marked = ecn::decapsulate(outer, ip.traffic_class).ok_or(DropReason::CongestionLost)?;
    if marked == ip.traffic_class {
        return Ok(());
    }
    if ip.v6 {
        ecn::set_v6(frame.bytes_mut(ip.at).ok_or(DropReason::Aborted)?, marked);
    } else {
        ecn::set_v4(frame.bytes_mut(ip.at).ok_or(DropReason::Aborted)?, marked);
    }
    if marked & ecn::MASK == ecn::CE {
        ledger.event(Event::CongestionMarked);
    }
    Ok(())
}
