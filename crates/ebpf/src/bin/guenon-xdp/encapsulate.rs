//! Into the tunnel: outer Ethernet, IP, UDP and GUE in front of an inner packet that stays as it is.
//!
//! Outer lengths come from the inner IP header. What trails the IP packet in the frame (Ethernet padding)
//! stays behind it in the new frame, and is no part of the tunnel packet.

use guenon_ebpf::abi::{Endpoint, EndpointKind, Event, Interface, MAX_HEADER, NextHop};
use guenon_ebpf::headers::Fragment;
use guenon_ebpf::headers::ethernet::{self, Macs};
use guenon_ebpf::outer::{self, Facts};
use guenon_ebpf::parse::Ip;
use guenon_ebpf::reason::DropReason;
use guenon_ebpf::verdict::{Outcome, Verdict};

use crate::frame::Frame;
use crate::ledger::Ledger;
use crate::{settings, tables, too_big};

/// An IP packet is no longer than this, whatever the MTU.
const MAX_PACKET: usize = 65_535;
/// The MAC in a next hop's word.
const MAC_MASK: u64 = 0x0000_ffff_ffff_ffff;

/// Encapsulates and sends. `answerable`: a packet that is too big may be answered.
#[inline(always)]
pub(crate) fn encapsulate<const FRAGS: bool>(
    frame: Frame<FRAGS>,
    ledger: &mut Ledger,
    ip: &Ip,
    endpoint: &'static Endpoint,
    entropy: u64,
    answerable: bool,
) -> Outcome {
    let v6 = endpoint.kind == EndpointKind::Tunnel6 as u8;
    if !v6 && endpoint.kind != EndpointKind::Tunnel4 as u8 {
        return Err(DropReason::NoRoute.into());
    }
    let hop = tables::next_hop(endpoint.next_hop)?;
    if NextHop::is_unresolved(hop.mac_interface) {
        return Err(DropReason::NoNeighbour.into());
    }
    let header_len = endpoint.header_len as usize;
    let mtu = mtu(hop);
    if header_len + ip.packet_len() > mtu {
        let answerable = answerable && (ip.v6 || ip.fragment != Fragment::Later);
        return too_big::refuse(frame, ledger, ip, mtu.saturating_sub(header_len), answerable);
    }
    let (_, slot) = NextHop::unpack(hop.mac_interface);
    let interface = tables::interface(slot)?;
    if interface.ifindex == 0 {
        return Err(DropReason::NoRoute.into());
    }

    let tags = interface.tag_count as usize & 3;
    let link_len = ethernet::LEN + tags * ethernet::TAG_LEN;
    let facts = Facts {
        header_len,
        inner_len: ip.packet_len(),
        protocol: ip.gue_protocol(),
        traffic_class: ip.traffic_class,
        entropy,
    };
    let Some(mut frame) = frame.grow(link_len + header_len - ip.at) else { return Err(DropReason::NoHeadroom.into()) };
    write_link(&mut frame, hop, interface, tags, v6).ok_or(DropReason::Aborted)?;
    write_outer(&mut frame, link_len, endpoint, &facts, v6).ok_or(DropReason::Aborted)?;
    ledger.event(Event::Encapsulated);
    Ok(send(interface))
}

/// The longest packet that fits on the way, bytes of IP.
#[inline(always)]
pub(crate) fn mtu(hop: NextHop) -> usize {
    (hop.mtu as u32 as usize).min(MAX_PACKET)
}

/// Out of this device.
#[inline(always)]
pub(crate) fn send(interface: &Interface) -> Verdict {
    if interface.ifindex == settings::ifindex() { Verdict::TRANSMIT } else { Verdict::redirect(interface.ifindex) }
}

/// Writes the link header: to the next hop, from the device, with its tags.
#[inline(always)]
pub(crate) fn write_link<const FRAGS: bool>(
    frame: &mut Frame<FRAGS>,
    hop: NextHop,
    interface: &Interface,
    tags: usize,
    v6: bool,
) -> Option<()> {
    let ethertype = if v6 { ethernet::IPV6 } else { ethernet::IPV4 };
    let destination = hop.mac_interface & MAC_MASK;
    let header: &mut [u8; ethernet::LEN] = frame.bytes_mut(0)?;
    Macs { destination, source: ethernet::mac(&interface.mac) }.write(header);
    if tags == 0 {
        header[12..].copy_from_slice(&ethertype.to_be_bytes());
        return Some(());
    }
    let [first, second] = interface.tags;
    *frame.bytes_mut(12)? = first;
    if tags == 1 {
        *frame.bytes_mut(16)? = ethertype.to_be_bytes();
        return Some(());
    }
    *frame.bytes_mut(16)? = second;
    *frame.bytes_mut(20)? = ethertype.to_be_bytes();
    Some(())
}

/// Copies the endpoint's header in the steps by which headers grow (32, 40, 52, 60, 72 bytes), then
/// completes it.
#[inline(always)]
pub(crate) fn write_outer<const FRAGS: bool>(
    frame: &mut Frame<FRAGS>,
    at: usize,
    endpoint: &Endpoint,
    facts: &Facts,
    v6: bool,
) -> Option<()> {
    if v6 {
        let header: &mut [u8; outer::BASE_V6] = frame.bytes_mut(at)?;
        copy::<0, _>(header, endpoint);
        outer::complete_v6(header, facts);
    } else {
        let header: &mut [u8; outer::BASE_V4] = frame.bytes_mut(at)?;
        copy::<0, _>(header, endpoint);
        outer::complete_v4(header, endpoint.checksum, facts);
        if facts.header_len >= 40 {
            copy::<32, 8>(frame.bytes_mut(at + 32)?, endpoint);
        }
        if facts.header_len >= 52 {
            copy::<40, 12>(frame.bytes_mut(at + 40)?, endpoint);
        }
    }
    if facts.header_len >= 60 {
        copy::<52, 8>(frame.bytes_mut(at + 52)?, endpoint);
    }
    if facts.header_len >= 72 {
        copy::<60, 12>(frame.bytes_mut(at + 60)?, endpoint);
    }
    Some(())
}

/// Copies `N` bytes of the header, from byte `FROM` on, word by word.
#[inline(always)]
fn copy<const FROM: usize, const N: usize>(to: &mut [u8; N], endpoint: &Endpoint) {
    const { assert!(N.is_multiple_of(4) && FROM + N <= MAX_HEADER) };
    let mut at = 0;
    while at + 8 <= N {
        word::<8>(to, at, endpoint, FROM);
        at += 8;
    }
    if at < N {
        word::<4>(to, at, endpoint, FROM);
    }
}

#[inline(always)]
fn word<const N: usize>(to: &mut [u8], at: usize, endpoint: &Endpoint, from: usize) {
    to[at..at + N].copy_from_slice(&endpoint.header[from + at..from + at + N]);
}
