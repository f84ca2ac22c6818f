//! The head of a packet's way: whose is it? Everything that is not for a VIP or a tunnel address of ours
//! goes on bit for bit.

use guenon_ebpf::abi::{AddressKind, AddressTag, ROLE_DECAP, ROLE_DIRECTOR};
use guenon_ebpf::headers::ethernet;
use guenon_ebpf::headers::ipv4::Ipv4;
use guenon_ebpf::headers::ipv6::Ipv6;
use guenon_ebpf::packet::Packet;
use guenon_ebpf::parse;
use guenon_ebpf::verdict::{Outcome, Verdict};

use crate::frame::Frame;
use crate::ledger::Ledger;
use crate::settings::has_role;
use crate::{decap, direct, director, tables};

/// Takes a packet all its way.
#[inline(always)]
pub(crate) fn take<const FRAGS: bool>(frame: Frame<FRAGS>, ledger: &mut Ledger) -> Outcome {
    let Some((ethertype, at)) = ethernet::payload(&frame) else { return Ok(Verdict::PASS) };
    match ethertype {
        ethernet::IPV4 => {
            let Some(header) = frame.bytes(at) else { return Ok(Verdict::PASS) };
            let header = Ipv4(header);
            match owner(tables::address(header.destination())) {
                Owner::Vip(vip) => director::direct(frame, ledger, parse::ipv4(&frame, at, header)?, vip),
                Owner::Tunnel => decap::receive_v4(frame, ledger, at, header),
                Owner::Endpoint => {
                    direct::look::<FRAGS>(frame.ctx(), at, false);
                    Ok(Verdict::PASS)
                }
                Owner::Other => Ok(Verdict::PASS),
            }
        }
        ethernet::IPV6 => {
            let Some(header) = frame.bytes(at) else { return Ok(Verdict::PASS) };
            let header = Ipv6(header);
            let destination = header.destination();
            if destination.is_v4() {
                // IPv4-mapped: no address of a packet (RFC 4291), and not the IPv4 VIP.
                return Ok(Verdict::PASS);
            }
            match owner(tables::address(destination)) {
                Owner::Vip(vip) => director::direct(frame, ledger, parse::ipv6(&frame, at, header)?, vip),
                Owner::Tunnel => decap::receive_v6(frame, ledger, at, header),
                Owner::Endpoint => {
                    direct::look::<FRAGS>(frame.ctx(), at, true);
                    Ok(Verdict::PASS)
                }
                Owner::Other => Ok(Verdict::PASS),
            }
        }
        _ => Ok(Verdict::PASS),
    }
}

enum Owner {
    Vip(AddressTag),
    Tunnel,
    Endpoint,
    Other,
}

#[inline(always)]
fn owner(tag: AddressTag) -> Owner {
    if tag.kind() == AddressKind::Vip as u8 && has_role(ROLE_DIRECTOR) {
        Owner::Vip(tag)
    } else if tag.kind() == AddressKind::Tunnel as u8 && has_role(ROLE_DIRECTOR | ROLE_DECAP) {
        Owner::Tunnel
    } else if tag.kind() == AddressKind::Endpoint as u8 {
        Owner::Endpoint
    } else {
        Owner::Other
    }
}
