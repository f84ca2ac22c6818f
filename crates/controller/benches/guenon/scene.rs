//! The configuration that is timed: services of ten endpoints on other nodes, each with a VIP of either family, and one more
//! endpoint on this node that takes no new flows, so that the same tables serve director and decap.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use aya::programs::ProgramFd;
use guenon_controller::model::{
    Egress, EndpointState, Frontend, LocalDelivery, Mac, NextHopKey, NextHopState, Path, Protocol, ServiceName,
    ServiceState, State,
};
use guenon_controller::simulate::sandbox::{Sandbox, Setup};
use guenon_controller::table::{Builder, Candidate, Group};
use guenon_ebpf::abi::{ROLE_DECAP, ROLE_DIRECTOR};
use guenon_ebpf::hash::{DEFAULT_KEY, Schedule};

/// The first service's VIPs; the others follow one by one.
pub(crate) const VIP4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 0, 0));
pub(crate) const VIP6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 0));
/// Addresses that are no VIPs.
pub(crate) const OTHER4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
pub(crate) const OTHER6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xe, 0, 0, 0, 0, 1));
pub(crate) const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 9);
/// This node, and a director that may send to it.
pub(crate) const SELF: Ipv4Addr = Ipv4Addr::new(172, 17, 2, 2);
pub(crate) const DIRECTOR: Ipv4Addr = Ipv4Addr::new(172, 17, 9, 9);
pub(crate) const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(crate) const DEVICE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x16];

/// The unmodified program on private maps that the real writer filled.
pub(crate) struct Scene {
    /// Number of services.
    pub(crate) services: u32,
    sandbox: Sandbox,
}

impl Scene {
    /// `services` services behind the device with this index and these MAC addresses.
    pub(crate) fn new(services: u32) -> anyhow::Result<Self> {
        Self::on(services, 1, DEVICE_MAC, GATEWAY_MAC)
    }

    /// The same on another device.
    pub(crate) fn on(services: u32, ifindex: u32, device: [u8; 6], gateway: [u8; 6]) -> anyhow::Result<Self> {
        let setup = Setup { ifindex, roles: ROLE_DIRECTOR | ROLE_DECAP, ..Setup::default() };
        let sandbox = Sandbox::new(&state(services, ifindex, device, gateway), &setup)?;
        Ok(Self { services, sandbox })
    }

    pub(crate) fn program(&self) -> anyhow::Result<&ProgramFd> {
        Ok(self.sandbox.program().fd()?)
    }
}

fn state(services: u32, ifindex: u32, device: [u8; 6], gateway: [u8; 6]) -> State {
    let key = NextHopKey { interface: "eth0".to_owned(), gateway: Ipv4Addr::new(172, 17, 2, 1).into() };
    let egress = Egress { ifindex, mac: Mac(device), mtu: 9000, tags: Vec::new() };
    let hop = NextHopState { mac: Some(Mac(gateway)), mtu: 9000, egress };
    let mut builder = Builder::new(&Schedule::new(DEFAULT_KEY));
    State {
        tunnels: BTreeSet::from([SELF.into()]),
        directors: BTreeSet::from([DIRECTOR.into()]),
        on_node: BTreeSet::new(),
        next_hops: BTreeMap::from([(key.clone(), hop)]),
        services: (0..services).map(|number| service(&mut builder, number, &key)).collect(),
    }
}

fn service(builder: &mut Builder, number: u32, next_hop: &NextHopKey) -> (ServiceName, Arc<ServiceState>) {
    let others = (0..10).map(|i| Candidate { address: other(number, i), weight: 1 });
    let here = Candidate { address: SELF.into(), weight: 0 };
    let members = others.chain([here]).collect();
    let table = builder.build(&[Group { name: String::new(), weight: 1, members }]);
    let endpoint = |&address: &IpAddr| EndpointState {
        address,
        path: if address == SELF {
            Path::Local(LocalDelivery::Local)
        } else {
            Path::Tunnel { source: SELF.into(), destination: address, next_hop: next_hop.clone() }
        },
    };
    let frontends =
        [nth(VIP4, number), nth(VIP6, number)].map(|vip| Frontend { vip, protocol: Protocol::Tcp, port: 80 });
    let state = ServiceState {
        frontends: frontends.into(),
        client_ip: false,
        endpoints: table.endpoints.iter().map(endpoint).collect(),
        rows: table.rows,
    };
    (ServiceName::new("bench", format!("s{number}")), Arc::new(state))
}

fn other(service: u32, endpoint: u32) -> IpAddr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(172, 18, 0, 0)) + service * 10 + endpoint).into()
}

fn nth(first: IpAddr, number: u32) -> IpAddr {
    match first {
        IpAddr::V4(v4) => Ipv4Addr::from(u32::from(v4) + number).into(),
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) + u128::from(number)).into(),
    }
}
