//! Endpoints as the data path writes them, and back.

use std::net::IpAddr;

use guenon_ebpf::abi::{self, Address, Delivery, DeliveryMode, EndpointKind, MAX_HEADER};
use guenon_ebpf::outer;

use crate::model::{EndpointState, LocalDelivery, Mac, NextHopKey, Path, Protocol, TargetPorts};

/// Words of an element of `ENDPOINTS`.
pub(super) const ENDPOINT_WORDS: usize = size_of::<abi::Endpoint>() / 8;
/// An element of `ENDPOINTS`.
pub(super) type EndpointWords = [u64; ENDPOINT_WORDS];

/// Writes an endpoint. `None`: the tunnel's ends are of different families.
pub(super) fn encode(
    endpoint: &EndpointState,
    gue_port: u16,
    next_hop: u32,
    counter: u32,
    block_len: u16,
) -> Option<abi::Endpoint> {
    let blank = abi::Endpoint {
        kind: EndpointKind::Unreachable as u8,
        header_len: 0,
        block_len: 0,
        next_hop: 0,
        checksum: 0,
        counter: 0,
        header: [0; MAX_HEADER],
        address: Address::from_ip(endpoint.address).to_bytes(),
        delivery: Delivery::default(),
        reserved: [0; 8],
    };
    let mut written = match &endpoint.path {
        Path::Tunnel { source, destination, .. } => outer::endpoint(*source, *destination, endpoint.address, gue_port)?,
        Path::Local(delivery) => {
            abi::Endpoint { kind: EndpointKind::Local as u8, delivery: encode_delivery(delivery, None), ..blank }
        }
        Path::Unreachable { destination } => {
            // The program looks no further than the kind; the address is kept for people.
            let mut header = [0; MAX_HEADER];
            header[..16].copy_from_slice(&Address::from_ip(*destination).to_bytes());
            abi::Endpoint { header, ..blank }
        }
    };
    (written.next_hop, written.counter, written.block_len) = (next_hop, counter, block_len);
    Some(written)
}

/// Writes a delivery, for frontends of this protocol and port; `None`: for all of a service's.
pub(super) fn encode_delivery(delivery: &LocalDelivery, frontend: Option<(Protocol, u16)>) -> Delivery {
    match delivery {
        LocalDelivery::Nat { ports } => {
            let nat = |port| Delivery { mode: DeliveryMode::Nat as u8, port, ..Delivery::default() };
            match frontend {
                None => nat(0),
                // Where nobody knows the port, nothing can be delivered.
                Some(frontend) => ports.get(&frontend).map_or(Delivery::default(), |port| nat(*port)),
            }
        }
        LocalDelivery::Local => Delivery { mode: DeliveryMode::Local as u8, ..Delivery::default() },
        LocalDelivery::Veth { ifindex, mac, mtu } => Delivery {
            mac: mac.map_or([0; 6], |mac| mac.0),
            mode: DeliveryMode::Veth as u8,
            reserved: 0,
            ifindex: *ifindex,
            mtu: u16::try_from(*mtu).unwrap_or(u16::MAX),
            port: 0,
        },
        LocalDelivery::None => Delivery::default(),
    }
}

/// Reads an endpoint. `key` tells what a next hop stands for. `None`: not a valid endpoint.
pub(super) fn decode(written: &abi::Endpoint, key: impl Fn(u32) -> Option<NextHopKey>) -> Option<EndpointState> {
    let bytes = |from: usize| -> [u8; 16] { std::array::from_fn(|i| written.header[from + i]) };
    let v4 = |from: usize| IpAddr::from(std::array::from_fn::<u8, 4, _>(|i| written.header[from + i]));
    let path = match written.kind {
        kind if kind == EndpointKind::Unreachable as u8 => {
            Path::Unreachable { destination: Address::from_bytes(bytes(0)).to_ip() }
        }
        kind if kind == EndpointKind::Tunnel4 as u8 => {
            Path::Tunnel { source: v4(12), destination: v4(16), next_hop: key(written.next_hop)? }
        }
        kind if kind == EndpointKind::Tunnel6 as u8 => Path::Tunnel {
            source: IpAddr::from(bytes(8)),
            destination: IpAddr::from(bytes(24)),
            next_hop: key(written.next_hop)?,
        },
        kind if kind == EndpointKind::Local as u8 => Path::Local(decode_delivery(&written.delivery)?),
        _ => return None,
    };
    Some(EndpointState { address: Address::from_bytes(written.address).to_ip(), path })
}

fn decode_delivery(delivery: &Delivery) -> Option<LocalDelivery> {
    match delivery.mode {
        mode if mode == DeliveryMode::None as u8 => Some(LocalDelivery::None),
        mode if mode == DeliveryMode::Local as u8 => Some(LocalDelivery::Local),
        mode if mode == DeliveryMode::Veth as u8 => Some(LocalDelivery::Veth {
            ifindex: delivery.ifindex,
            mac: (delivery.mac != [0; 6]).then_some(Mac(delivery.mac)),
            mtu: delivery.mtu.into(),
        }),
        // The ports are in `LOCALS`.
        mode if mode == DeliveryMode::Nat as u8 => Some(LocalDelivery::Nat { ports: TargetPorts::default() }),
        _ => None,
    }
}

/// The GUE port that a tunnel's header names.
pub(super) fn port_of(written: &abi::Endpoint) -> Option<u16> {
    let ip_len = match written.kind {
        kind if kind == EndpointKind::Tunnel4 as u8 => 20,
        kind if kind == EndpointKind::Tunnel6 as u8 => 40,
        _ => return None,
    };
    Some(u16::from_be_bytes([written.header[ip_len + 2], written.header[ip_len + 3]]))
}
