//! The program on the way out of an uplink (tc): replies of endpoints of delivery `Nat` get VIP and port back.
//!
//! It changes nothing else, and lets every packet go on to whatever stands behind it on the hook. Packets are read where they
//! lie and written by helpers: with a direct write in the program, the kernel would unshare every packet first.

mod accounts;
mod fragments;
mod message;
mod reply;
mod skb;

use aya_ebpf::bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC};
use guenon_ebpf::abi::{AddressKind, Transport};
use guenon_ebpf::headers::icmp::Message;
use guenon_ebpf::headers::ipv4::Ipv4;
use guenon_ebpf::headers::ipv6::Ipv6;
use guenon_ebpf::headers::transport::Ports;
use guenon_ebpf::headers::{Fragment, ethernet, protocol};
use guenon_ebpf::packet::Packet;
use guenon_ebpf::parse::{self, Ip};
use guenon_ebpf::place::Place;

use crate::direct::is_target;
use crate::tables;
use accounts::{Accounts, End};
use skb::Skb;

/// Takes a packet all its way.
#[inline(always)]
pub(crate) fn enter(ctx: *mut __sk_buff) -> i32 {
    let skb = Skb::new(ctx);
    let Some(mut accounts) = Accounts::open(skb.len()) else { return TC_ACT_UNSPEC };
    let end = End(plain(skb).unwrap_or_else(|| guenon_egress_rare(ctx)));
    accounts.close(end);
    if end.is_refused() { TC_ACT_SHOT } else { TC_ACT_UNSPEC }
}

/// The way of TCP and UDP without tags, options and fragments; `None` for all else.
#[inline(always)]
fn plain(skb: Skb) -> Option<u64> {
    const AT: usize = ethernet::LEN;
    let skb = skb.linear(skb::PLAIN);
    let ip = match skb.ethertype() {
        ethernet::IPV4 => parse::plain_v4(AT, Ipv4(skb.bytes(AT)?))?,
        ethernet::IPV6 => parse::plain_v6(AT, Ipv6(skb.bytes(AT)?))?,
        ethernet::VLAN | ethernet::SERVICE_VLAN => return None,
        _ => return Some(End::UNTOUCHED.0),
    };
    let ends = Targets::of(&skb, &ip)?;
    if !ends.any() {
        return Some(End::UNTOUCHED.0);
    }
    let udp = ip.protocol != protocol::TCP;
    Some(reply::plain(skb.ctx(), ip.v6, udp, ends))
}

/// Which ports of a packet are ones that endpoints listen on: the source's of a reply, the destination's of a packet that
/// should not leave here.
#[derive(Clone, Copy)]
struct Targets {
    source: bool,
    destination: bool,
}

impl Targets {
    #[inline(always)]
    fn of(skb: &Skb, ip: &Ip) -> Option<Self> {
        let (ports, transport) = (Ports::read(skb.bytes::<4>(ip.upper)?), transport(ip.protocol));
        Some(Self {
            source: is_target(transport, ports.reversed().destination_number()),
            destination: is_target(transport, ports.destination_number()),
        })
    }
    #[inline(always)]
    fn any(self) -> bool {
        self.source || self.destination
    }
    /// For a function of its own.
    #[inline(always)]
    fn bits(self) -> u32 {
        u32::from(self.source) | u32::from(self.destination) << 1
    }
    #[inline(always)]
    fn from_bits(bits: u32) -> Self {
        Self { source: bits & 1 != 0, destination: bits & 2 != 0 }
    }
}

#[inline(always)]
fn transport(number: u8) -> Transport {
    if number == protocol::TCP { Transport::Tcp } else { Transport::Udp }
}

#[inline(always)]
fn place(ip: &Ip, link_len: usize) -> Place {
    Place::rough(ip, link_len, 0, false).fill(ip)
}

/// The way of all other packets.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn guenon_egress_rare(ctx: *mut __sk_buff) -> u64 {
    rare(Skb::new(ctx).linear(skb::HEADS)).unwrap_or(End::UNTOUCHED).0
}

#[inline(always)]
fn rare(skb: Skb) -> Option<End> {
    let (ethertype, at) = ethernet::payload(&skb)?;
    let ip = match ethertype {
        ethernet::IPV4 => parse::ip(&skb, at, false)?,
        ethernet::IPV6 => parse::ip(&skb, at, true)?,
        _ => return None,
    };
    if ip.fragment == Fragment::Later {
        return Some(fragments::later(skb, &ip));
    }
    let end = if parse::has_ports(&ip) {
        match Targets::of(&skb, &ip) {
            Some(ends) if ends.any() => End(reply::guenon_egress_reply(skb.ctx(), place(&ip, at).0, ends.bits())),
            _ => End::UNTOUCHED,
        }
    } else if parse::icmp(&skb, &ip) == Ok(Message::Error) {
        End(message::guenon_egress_message(skb.ctx(), place(&ip, at).0))
    } else {
        End::UNTOUCHED
    };
    // Of whatever protocol: the later ones are told by nothing else.
    if ip.fragment == Fragment::First {
        fragments::first(&ip, end);
    }
    Some(end)
}

/// Whether the address is an endpoint of this node, with delivery `Nat`.
#[inline(always)]
fn is_endpoint(address: guenon_ebpf::abi::Address) -> bool {
    tables::address(address).kind() == AddressKind::Endpoint as u8
}
