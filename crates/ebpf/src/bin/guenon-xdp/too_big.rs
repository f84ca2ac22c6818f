//! "Fragmentation needed" and "packet too big", from the VIP to the client (RFC 1191, RFC 8201).

use aya_ebpf::helpers::bpf_ktime_get_ns;
use guenon_ebpf::abi::Event;
use guenon_ebpf::answer::{self, TOO_BIG_V4, TOO_BIG_V6};
use guenon_ebpf::checksum;
use guenon_ebpf::headers::{ethernet, ipv4, ipv6};
use guenon_ebpf::limiter;
use guenon_ebpf::packet::Packet;
use guenon_ebpf::parse::Ip;
use guenon_ebpf::reason::DropReason;
use guenon_ebpf::verdict::{Outcome, Verdict};

use crate::frame::{self, Frame};
use crate::ledger::Ledger;
use crate::link::Link;
use crate::{maps, settings};

/// Refuses a packet that is longer than `mtu`, which is what is left for it inside the tunnel.
#[inline(always)]
pub(crate) fn refuse<const FRAGS: bool>(
    frame: Frame<FRAGS>,
    ledger: &mut Ledger,
    ip: &Ip,
    mtu: usize,
    answerable: bool,
) -> Outcome {
    if !ip.dont_fragment {
        return Err(DropReason::TooBigNoDf.into());
    }
    if !answerable || !within_rate() {
        return Err(DropReason::TooBig.into());
    }
    if answer::<FRAGS>(frame.ctx(), ip.at as u32, ip.packet_len() as u32, mtu as u32, u32::from(ip.v6)) == 0 {
        return Err(DropReason::TooBig.into());
    }
    ledger.event(Event::TooBigAnswered);
    Ok(Verdict::TRANSMIT)
}

#[inline(always)]
fn within_rate() -> bool {
    let Some(limiter) = maps::LIMITER.get_ptr_mut(0) else { return false };
    // SAFETY: this CPU's element, which no other program uses while this one runs; the helper reads the clock.
    let (limiter, now) = unsafe { (&mut *limiter, bpf_ktime_get_ns()) };
    limiter::take(limiter, now, settings::too_big_rate())
}

once! {
    /// Makes the frame into the answer; 1 if it is one.
    fn answer, guenon_too_big, guenon_too_big_linear(ctx, at: u32, len: u32, mtu: u32, v6: u32) {
        let frame = Frame::<FRAGS>::new(ctx);
        let at = frame::link_len(at);
        let len = len as usize;
        let answered = if v6 != 0 {
            write::<FRAGS, { ipv6::LEN }, TOO_BIG_V6>(frame, at, len, |header, quote| {
                answer::too_big_v6(header, quote, mtu)
            })
        } else {
            write::<FRAGS, { ipv4::LEN }, TOO_BIG_V4>(frame, at, len, |header, quote| {
                answer::too_big_v4(header, quote, mtu)
            })
        };
        u64::from(answered.is_some())
    }
}

/// Cuts the frame to what is quoted, puts `OUTER` bytes (IP and ICMP header, made from the `INNER` bytes of the
/// IP header that is quoted) in front, and sums it up.
#[inline(always)]
fn write<const FRAGS: bool, const INNER: usize, const OUTER: usize>(
    frame: Frame<FRAGS>,
    at: usize,
    len: usize,
    make: impl FnOnce(&[u8; INNER], usize) -> ([u8; OUTER], u64),
) -> Option<()> {
    let link = Link::read(&frame, at)?;
    if !answer::is_answerable(answer::source::<INNER>(frame.bytes(at)?), link.macs()) {
        return None;
    }
    let linear = frame.linear_len();
    let quote = answer::quote_len::<OUTER>(len.min(linear - at.min(linear)));
    let whole = frame.whole_len();
    let frame = frame.cut(whole, at + quote)?;
    let mut frame = frame.grow(OUTER)?;
    // Read anew, where the quotation begins now: a copy would take room on the stack.
    let (header, mut sum) = make(frame.bytes(at + OUTER)?, quote);

    let ethertype = if INNER == ipv6::LEN { ethernet::IPV6 } else { ethernet::IPV4 };
    link.reversed().write(&mut frame, at, ethertype)?;
    *frame.bytes_mut(at)? = header;
    let mut word = at + OUTER;
    for _ in 0..answer::MAX_QUOTE / 4 {
        let Some(bytes) = frame.bytes(word) else { break };
        sum += u64::from(u32::from_le_bytes(*bytes));
        word += 4;
    }
    *frame.bytes_mut(at + INNER + 2)? = checksum::finish(sum).to_le_bytes();
    Some(())
}
