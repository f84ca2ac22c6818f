//! The tables that every test starts from: one service for each way a packet can go, told apart by port. All of them
//! have both VIPs, TCP and UDP.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use guenon_controller::model::{
    Egress, EndpointState, Frontend, LocalDelivery, Mac, NextHopKey, NextHopState, Path, Protocol, ServiceName,
    ServiceState, State,
};
use guenon_ebpf::abi::Row;

use super::frame::{NIC_MAC, TPID_AD, TPID_Q, Tag};

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn v6(net: u16, host: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, net, 0, 0, 0, 0, host))
}

pub const VIP4: IpAddr = v4(203, 0, 113, 10);
pub const VIP6: IpAddr = v6(0, 0x10);
/// VIPs that are configured on this node too.
pub const ON_NODE4: IpAddr = v4(203, 0, 113, 11);
pub const ON_NODE6: IpAddr = v6(0, 0x11);
pub const CLIENT4: IpAddr = v4(198, 51, 100, 7);
pub const CLIENT6: IpAddr = v6(0xc, 7);
/// This node's tunnel addresses.
pub const TUNNEL4: IpAddr = v4(172, 17, 2, 2);
pub const TUNNEL6: IpAddr = v6(0x172, 2);
/// The tunnel addresses of the other node.
pub const REMOTE4: IpAddr = v4(172, 17, 3, 3);
pub const REMOTE6: IpAddr = v6(0x172, 3);
/// A director that may send here, and one that may not.
pub const DIRECTOR4: IpAddr = v4(172, 17, 4, 4);
pub const DIRECTOR6: IpAddr = v6(0x172, 4);
pub const STRANGER4: IpAddr = v4(172, 17, 66, 6);
pub const STRANGER6: IpAddr = v6(0x172, 0x66);
/// Endpoints that are not their tunnel's own address.
pub const POD4: IpAddr = v4(10, 0, 0, 7);
pub const POD6: IpAddr = v6(0xf00d, 7);
/// A router on the way.
pub const ROUTER4: IpAddr = v4(192, 0, 2, 1);
pub const ROUTER6: IpAddr = v6(0x99, 1);

/// The interface under test; test runs report another, but the program goes by its settings.
pub const NIC: u32 = 7;
pub const OTHER_NIC: u32 = 8;
pub const VETH: u32 = 21;

pub const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x99];
pub const OTHER_NIC_MAC: [u8; 6] = [2, 0, 0, 0, 1, 0x16];
pub const OTHER_ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 1, 0x99];
pub const POD_MAC: [u8; 6] = [2, 0, 0, 0, 7, 7];

pub const ONE_TAG: [Tag; 1] = [(TPID_Q, 0x0064)];
pub const TWO_TAGS: [Tag; 2] = [(TPID_AD, 0x0c80), (TPID_Q, 0x2005)];

/// Path MTU of every next hop but the ones for small and jumbo packets.
pub const PATH_MTU: u32 = 1500;
pub const SMALL_PATH_MTU: u32 = 1400;
pub const JUMBO_PATH_MTU: u32 = 9000;
pub const VETH_MTU: u32 = 1500;

/// The ways a packet can go; each has a port of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// GUE in IPv4 to an endpoint that is its node's own address.
    Own4,
    /// GUE in IPv6, likewise.
    Own6,
    /// GUE to an endpoint that the private data must name: its family, then the tunnel's.
    Pod4In4,
    Pod6In4,
    Pod4In6,
    Pod6In6,
    /// The director's own endpoint, on the node itself.
    HereLocal,
    /// The director's own endpoint, behind a veth.
    HereVeth,
    /// Behind a veth whose MAC is not known.
    HereVethUnresolved,
    /// On this node, with no way to hand packets over.
    HereNone,
    /// No route to the tunnel address.
    Unreachable,
    /// No endpoint at all.
    NoBackend,
    /// The next hop's MAC is not known.
    NoNeighbour,
    /// The next hop is behind another interface.
    OtherInterface,
    /// Frames leave with one VLAN tag, or two.
    OneTag,
    TwoTags,
    /// A path MTU of 1400, in IPv4 and IPv6.
    Small4,
    Small6,
    /// A path MTU of 9000.
    Jumbo,
    /// Three endpoints, picked by the 5-tuple.
    Many,
    /// Three endpoints, picked by the client's address.
    ManyByClient,
}

impl Way {
    pub const ALL: [Self; 21] = [
        Self::Own4,
        Self::Own6,
        Self::Pod4In4,
        Self::Pod6In4,
        Self::Pod4In6,
        Self::Pod6In6,
        Self::HereLocal,
        Self::HereVeth,
        Self::HereVethUnresolved,
        Self::HereNone,
        Self::Unreachable,
        Self::NoBackend,
        Self::NoNeighbour,
        Self::OtherInterface,
        Self::OneTag,
        Self::TwoTags,
        Self::Small4,
        Self::Small6,
        Self::Jumbo,
        Self::Many,
        Self::ManyByClient,
    ];

    pub fn port(self) -> u16 {
        8000 + self as u16
    }

    pub fn at(self, vip: IpAddr) -> SocketAddr {
        SocketAddr::new(vip, self.port())
    }

    pub fn service(self) -> ServiceName {
        ServiceName::new("test", format!("{self:?}").to_lowercase())
    }

    /// The endpoints, with the way to each.
    pub fn endpoints(self) -> Vec<EndpointState> {
        let own = |address, next_hop| endpoint(address, tunnel(address, next_hop));
        let pod = |address, remote| endpoint(address, tunnel(remote, "eth0"));
        let here = |delivery: LocalDelivery| {
            vec![endpoint(POD4, Path::Local(delivery.clone())), endpoint(POD6, Path::Local(delivery))]
        };
        match self {
            Self::Own4 => vec![own(REMOTE4, "eth0")],
            Self::Own6 => vec![own(REMOTE6, "eth0")],
            Self::Pod4In4 => vec![pod(POD4, REMOTE4)],
            Self::Pod6In4 => vec![pod(POD6, REMOTE4)],
            Self::Pod4In6 => vec![pod(POD4, REMOTE6)],
            Self::Pod6In6 => vec![pod(POD6, REMOTE6)],
            Self::HereLocal => {
                vec![
                    endpoint(TUNNEL4, Path::Local(LocalDelivery::Local)),
                    endpoint(TUNNEL6, Path::Local(LocalDelivery::Local)),
                ]
            }
            Self::HereVeth => here(LocalDelivery::Veth { ifindex: VETH, mac: Some(Mac(POD_MAC)), mtu: VETH_MTU }),
            Self::HereVethUnresolved => here(LocalDelivery::Veth { ifindex: VETH, mac: None, mtu: VETH_MTU }),
            Self::HereNone => here(LocalDelivery::None),
            Self::Unreachable => vec![endpoint(REMOTE4, Path::Unreachable { destination: REMOTE4 })],
            Self::NoBackend => vec![],
            Self::NoNeighbour => vec![own(REMOTE4, "silent")],
            Self::OtherInterface => vec![own(REMOTE4, "eth1")],
            Self::OneTag => vec![own(REMOTE4, "one-tag")],
            Self::TwoTags => vec![own(REMOTE4, "two-tags")],
            Self::Small4 => vec![own(REMOTE4, "small")],
            Self::Small6 => vec![own(REMOTE6, "small")],
            Self::Jumbo => vec![own(REMOTE4, "jumbo")],
            Self::Many | Self::ManyByClient => (1..=3).map(|n| own(v4(172, 17, 5, n), "eth0")).collect(),
        }
    }

    /// The service.
    pub fn state(self) -> ServiceState {
        let mut frontends = BTreeSet::new();
        for vip in [VIP4, VIP6] {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                frontends.insert(Frontend { vip, protocol, port: self.port() });
            }
        }
        let endpoints = self.endpoints();
        let rows = match endpoints.len() {
            0 => Arc::from([]),
            // Not in order and not even, so that a row taken wrongly shows.
            n => (0..4096_usize).map(|row| Row::new((row * row / 7 % n) as u16, 0)).collect(),
        };
        // Where both families have an endpoint here, the director's rows all name the first.
        let rows = if matches!(self, Self::Many | Self::ManyByClient) || endpoints.is_empty() {
            rows
        } else {
            vec![Row::new(0, 0); 1024].into()
        };
        ServiceState { frontends, client_ip: self == Self::ManyByClient, endpoints, rows }
    }
}

fn endpoint(address: IpAddr, path: Path) -> EndpointState {
    EndpointState { address, path }
}

fn tunnel(destination: IpAddr, next_hop: &str) -> Path {
    let source = if destination.is_ipv4() { TUNNEL4 } else { TUNNEL6 };
    Path::Tunnel { source, destination, next_hop: hop(next_hop) }
}

fn hop(name: &str) -> NextHopKey {
    NextHopKey { interface: name.to_owned(), gateway: v4(172, 17, 2, 1) }
}

/// The whole configuration of the node.
pub fn state() -> State {
    let nic = Egress { ifindex: NIC, mac: Mac(NIC_MAC), mtu: JUMBO_PATH_MTU, tags: vec![] };
    let way_out =
        |mac: Option<[u8; 6]>, mtu, egress: &Egress| NextHopState { mac: mac.map(Mac), mtu, egress: egress.clone() };
    let tags = |tags: &[Tag]| Egress { tags: tags.to_vec(), ..nic.clone() };
    let other = Egress { ifindex: OTHER_NIC, mac: Mac(OTHER_NIC_MAC), ..nic.clone() };
    let next_hops = BTreeMap::from([
        (hop("eth0"), way_out(Some(ROUTER_MAC), PATH_MTU, &nic)),
        (hop("eth1"), way_out(Some(OTHER_ROUTER_MAC), PATH_MTU, &other)),
        (hop("silent"), way_out(None, PATH_MTU, &nic)),
        (hop("one-tag"), way_out(Some(ROUTER_MAC), PATH_MTU, &tags(&ONE_TAG))),
        (hop("two-tags"), way_out(Some(ROUTER_MAC), PATH_MTU, &tags(&TWO_TAGS))),
        (hop("small"), way_out(Some(ROUTER_MAC), SMALL_PATH_MTU, &nic)),
        (hop("jumbo"), way_out(Some(ROUTER_MAC), JUMBO_PATH_MTU, &nic)),
    ]);
    let mut services: BTreeMap<_, _> = Way::ALL.into_iter().map(|way| (way.service(), Arc::new(way.state()))).collect();
    // A service on addresses that this node has itself, as the agent puts them on lo for a `Local` endpoint.
    let on_node = [ON_NODE4, ON_NODE6];
    let mut own = Way::HereLocal.state();
    own.frontends = on_node.into_iter().map(|vip| Frontend { vip, protocol: Protocol::Tcp, port: 80 }).collect();
    services.insert(ServiceName::new("test", "on-node"), Arc::new(own));
    State {
        tunnels: BTreeSet::from([TUNNEL4, TUNNEL6]),
        directors: BTreeSet::from([DIRECTOR4, DIRECTOR6]),
        on_node: BTreeSet::from(on_node),
        next_hops,
        services,
    }
}

/// The VIP, a client, a router, by family.
pub fn vip(four: bool) -> IpAddr {
    if four { VIP4 } else { VIP6 }
}

pub fn client(four: bool) -> IpAddr {
    if four { CLIENT4 } else { CLIENT6 }
}

pub fn router(four: bool) -> IpAddr {
    if four { ROUTER4 } else { ROUTER6 }
}

/// The client's socket address: the family's client, port 40123.
pub fn caller(four: bool) -> SocketAddr {
    SocketAddr::new(client(four), 40123)
}
