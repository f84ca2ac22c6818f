//! ICMP messages to a VIP: what they are, and whose flow they tell of.

use guenon_ebpf::headers::transport::Ports;
use guenon_ebpf::parse::{self, Ip, Quoted};
use guenon_ebpf::reason::DropReason;

use crate::frame::{self, Frame};

const NOTHING: u64 = u64::MAX;

/// [`parse::quoted`], by way of a global function.
#[inline(always)]
pub(crate) fn quoted<const FRAGS: bool>(frame: &Frame<FRAGS>, ip: &Ip) -> Result<Quoted, DropReason> {
    let client = parse::quoted_client(frame, ip)?;
    let word = read_quote::<FRAGS>(frame.ctx(), ip.upper as u32, ip.end as u32, ip.v6.into());
    if word == NOTHING {
        return Err(DropReason::IcmpQuote);
    }
    let ports = Ports { source: word as u16, destination: (word >> 16) as u16 };
    Ok(Quoted { client, protocol: (word >> 32) as u8, ports })
}

once! {
    fn read_quote, guenon_quote, guenon_quote_linear(ctx, upper: u32, end: u32, v6: u32) {
        match parse::quoted_ports(&Frame::<FRAGS>::new(ctx), frame::upper(upper), end as usize, v6 != 0) {
            Ok((protocol, Ports { source, destination })) => {
                u64::from(source) | u64::from(destination) << 16 | u64::from(protocol) << 32
            }
            Err(_) => NOTHING,
        }
    }
}
