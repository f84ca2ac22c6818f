//! To an endpoint on this very node, by its stack or through a veth.

use guenon_ebpf::abi::{Delivery, DeliveryMode};
use guenon_ebpf::headers::ethernet::{self, Macs};
use guenon_ebpf::packet::Packet;
use guenon_ebpf::parse::Ip;
use guenon_ebpf::reason::DropReason;
use guenon_ebpf::verdict::{Outcome, Verdict};

use crate::frame::Frame;
use crate::link::Link;

/// Delivers the packet `ip`; what lies in front of it in the frame is the link header, which ends at
/// `link_len`, and perhaps a tunnel's headers, which go.
#[inline(always)]
pub(crate) fn deliver<const FRAGS: bool>(
    frame: Frame<FRAGS>,
    ip: &Ip,
    link_len: usize,
    delivery: &Delivery,
) -> Outcome {
    if delivery.mode == DeliveryMode::Local as u8 {
        return pass(frame, ip, link_len);
    }
    if delivery.mode != DeliveryMode::Veth as u8 || delivery.ifindex == 0 {
        return Err(DropReason::NoDelivery.into());
    }
    if ethernet::mac(&delivery.mac) == 0 {
        return Err(DropReason::NoNeighbour.into());
    }
    if delivery.mtu != 0 && ip.packet_len() > delivery.mtu as usize {
        return Err(DropReason::TooBigForEndpoint.into());
    }
    redirect(frame, ip, delivery)
}

/// To the node's own stack. The frame came in on this interface, so its MAC and tags are right already.
#[inline(always)]
pub(crate) fn pass<const FRAGS: bool>(frame: Frame<FRAGS>, ip: &Ip, link_len: usize) -> Outcome {
    if ip.at == link_len {
        return Ok(Verdict::PASS);
    }
    strip(frame, ip.at - link_len, link_len, ip.v6).ok_or(DropReason::Aborted)?;
    Ok(Verdict::PASS)
}

/// Takes the `bytes` behind the link header out of the frame.
#[inline(always)]
pub(crate) fn strip<const FRAGS: bool>(
    frame: Frame<FRAGS>,
    bytes: usize,
    link_len: usize,
    v6: bool,
) -> Option<Frame<FRAGS>> {
    if bytes == 0 {
        return Some(frame);
    }
    let link = Link::read(&frame, link_len)?;
    let mut frame = frame.shrink(bytes)?;
    link.write(&mut frame, link_len, ethertype(v6))?;
    Some(frame)
}

/// Through a veth: to the endpoint's MAC, from this interface's, with no tag.
#[inline(always)]
fn redirect<const FRAGS: bool>(mut frame: Frame<FRAGS>, ip: &Ip, delivery: &Delivery) -> Outcome {
    let macs = Macs::read(frame.bytes(0).ok_or(DropReason::Aborted)?);
    if ip.at > ethernet::LEN {
        frame = frame.shrink(ip.at - ethernet::LEN).ok_or(DropReason::Aborted)?;
    }
    let header: &mut [u8; ethernet::LEN] = frame.bytes_mut(0).ok_or(DropReason::Aborted)?;
    Macs { destination: ethernet::mac(&delivery.mac), source: macs.destination }.write(header);
    header[12..].copy_from_slice(&ethertype(ip.v6).to_be_bytes());
    Ok(Verdict::redirect(delivery.ifindex))
}

#[inline(always)]
fn ethertype(v6: bool) -> u16 {
    if v6 { ethernet::IPV6 } else { ethernet::IPV4 }
}
