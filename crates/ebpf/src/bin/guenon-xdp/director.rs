//! The director: from a packet for a VIP to its endpoint.

use guenon_ebpf::abi::{Address, AddressTag, DeliveryMode, EndpointKind, Event, FrontendSlot, Transport};
use guenon_ebpf::hash;
use guenon_ebpf::headers::icmp::Message;
use guenon_ebpf::headers::transport::Ports;
use guenon_ebpf::headers::{Fragment, protocol};
use guenon_ebpf::parse::{self, Ip};
use guenon_ebpf::reason::DropReason;
use guenon_ebpf::verdict::{Outcome, Verdict};

use crate::frame::Frame;
use crate::ledger::Ledger;
use crate::{deliver, echo, encapsulate, fragments, icmp, settings, tables, translate};

/// A flow, seen from the client.
struct Flow {
    client: Address,
    protocol: u8,
    ports: Ports,
    /// Whether the packet is an ICMP error about the flow.
    error: bool,
}

/// What the packet's flow decides.
struct Choice {
    frontend: u32,
    slot: FrontendSlot,
    /// Picks the row, unless the service goes by the client's address.
    row: u64,
    /// Whether `row` is final: what the datagram's first fragment took.
    taken: bool,
    /// Spreads flows over paths: outer source port and flow label.
    entropy: u64,
    client: Address,
    error: bool,
}

/// Directs a packet whose destination is a VIP.
#[inline(always)]
pub(crate) fn direct<const FRAGS: bool>(frame: Frame<FRAGS>, ledger: &mut Ledger, ip: Ip, vip: AddressTag) -> Outcome {
    if ip.fragment == Fragment::Later {
        return follow(frame, ledger, &ip, vip);
    }
    let flow = if parse::has_ports(&ip) {
        Flow { client: ip.source, protocol: ip.protocol, ports: parse::ports(&frame, &ip)?, error: false }
    } else {
        match parse::icmp(&frame, &ip)? {
            Message::Echo => return echo::answer(frame, ledger, &ip),
            Message::Discovery => return Ok(Verdict::PASS),
            Message::Error => match icmp::quoted(&frame, &ip) {
                Ok(parse::Quoted { client, protocol, ports }) => Flow { client, protocol, ports, error: true },
                // About something that this node sent itself.
                Err(_) if vip.on_node() => return no_frontend(ledger, &ip, vip),
                Err(reason) => return Err(reason.into()),
            },
            Message::Other => return no_frontend(ledger, &ip, vip),
        }
    };
    let transport = if flow.protocol == protocol::TCP { Transport::Tcp } else { Transport::Udp };
    let Some((frontend, slot)) = tables::frontend(vip.id(), transport as u8, flow.ports.destination_number()) else {
        return no_frontend(ledger, &ip, vip);
    };
    let Ports { source, destination } = flow.ports;
    let hash = hash::flow(&settings::schedule(), flow.client, ip.destination, source, destination, flow.protocol);
    let choice =
        Choice { frontend, slot, row: hash, taken: false, entropy: hash, client: flow.client, error: flow.error };
    forward(frame, ledger, &ip, choice)
}

/// A fragment after the first goes where the first went.
#[inline(always)]
fn follow<const FRAGS: bool>(frame: Frame<FRAGS>, ledger: &mut Ledger, ip: &Ip, vip: AddressTag) -> Outcome {
    let Some((datagram, slot, entropy)) = fragments::recall(ip, vip) else {
        if vip.on_node() {
            ledger.event(Event::PassedOnNode);
            return Ok(Verdict::PASS);
        }
        return Err(DropReason::FragmentLost.into());
    };
    ledger.event(Event::FragmentFollowed);
    let choice = Choice {
        frontend: datagram.frontend,
        slot,
        row: u64::from(datagram.row),
        taken: true,
        entropy,
        client: ip.source,
        error: false,
    };
    forward(frame, ledger, ip, choice)
}

#[inline(always)]
fn forward<const FRAGS: bool>(frame: Frame<FRAGS>, ledger: &mut Ledger, ip: &Ip, choice: Choice) -> Outcome {
    let Choice { frontend, slot, row, taken, mut entropy, client, error } = choice;
    ledger.frontend(frontend);
    ledger.directed();
    let descriptor = tables::descriptor(slot.service())?;
    if !descriptor.has_rows() {
        return Err(DropReason::NoBackend.into());
    }
    let row = if descriptor.client_ip() && !taken { hash::client(&settings::schedule(), client) } else { row };
    if ip.fragment == Fragment::First {
        entropy = fragments::remember(ip, row as u16, frontend);
    }
    if error {
        ledger.event(Event::IcmpErrorForwarded);
    }
    let primary = tables::row(descriptor, row)?.primary();
    let endpoint = tables::endpoint(descriptor.block().wrapping_add(u32::from(primary)))?;
    ledger.endpoint(endpoint.counter);
    if endpoint.kind == EndpointKind::Local as u8 {
        if endpoint.delivery.mode == DeliveryMode::Nat as u8 {
            // Where it listens is the frontend's affair, not the service's.
            let key = slot.0 & FrontendSlot::KEY;
            let local = tables::local_index(key, &endpoint.address).ok_or(DropReason::NoDelivery)?;
            return Ok(translate::begin(ip, ip.at, local, false));
        }
        let outcome = deliver::deliver(frame, ip, ip.at, &endpoint.delivery)?;
        ledger.event(Event::DeliveredHere);
        return Ok(outcome);
    }
    let outcome = encapsulate::encapsulate(frame, ledger, ip, endpoint, entropy, !error)?;
    Ok(outcome)
}

/// No frontend: dropped, unless the address is this node's too.
#[inline(always)]
fn no_frontend(ledger: &mut Ledger, ip: &Ip, vip: AddressTag) -> Outcome {
    if !vip.on_node() {
        return Err(DropReason::NoFrontend.into());
    }
    if ip.fragment == Fragment::First {
        fragments::forget(ip);
    }
    ledger.event(Event::PassedOnNode);
    Ok(Verdict::PASS)
}
