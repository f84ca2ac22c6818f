//! Pings of a VIP, answered here.

use guenon_ebpf::abi::Event;
use guenon_ebpf::answer;
use guenon_ebpf::headers::ethernet::Macs;
use guenon_ebpf::packet::Packet;
use guenon_ebpf::parse::Ip;
use guenon_ebpf::reason::DropReason;
use guenon_ebpf::verdict::{Outcome, Verdict};

use crate::frame::{self, Frame};
use crate::ledger::Ledger;

/// Turns an echo request into its reply and sends it back where it came from.
#[inline(always)]
pub(crate) fn answer<const FRAGS: bool>(frame: Frame<FRAGS>, ledger: &mut Ledger, ip: &Ip) -> Outcome {
    let macs = Macs::read(frame.bytes(0).ok_or(DropReason::Aborted)?);
    if !answer::is_answerable(ip.source, macs) {
        return Err(DropReason::BadHeader.into());
    }
    if reverse::<FRAGS>(frame.ctx(), ip.at as u32, ip.upper as u32, ip.v6.into()) == 0 {
        return Err(DropReason::Aborted.into());
    }
    ledger.event(Event::EchoAnswered);
    Ok(Verdict::TRANSMIT)
}

once! {
    fn reverse, guenon_echo, guenon_echo_linear(ctx, at: u32, upper: u32, v6: u32) {
        write(Frame::<FRAGS>::new(ctx), frame::link_len(at), frame::upper(upper), v6 != 0).is_some().into()
    }
}

#[inline(always)]
fn write<const FRAGS: bool>(mut frame: Frame<FRAGS>, at: usize, upper: usize, v6: bool) -> Option<()> {
    let macs = Macs::read(frame.bytes(0)?);
    macs.reversed().write::<12>(frame.bytes_mut(0)?);
    if v6 {
        answer::reverse_v6(frame.bytes_mut(at)?);
        answer::echo_v6(frame.bytes_mut(upper)?);
    } else {
        answer::reverse_v4(frame.bytes_mut(at)?);
        answer::echo_v4(frame.bytes_mut(upper)?);
    }
    Some(())
}
