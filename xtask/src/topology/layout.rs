//! Who is where: the namespaces, their links and addresses.
//!
//! ```text
//!   client 198.51.100.9 ---- switch ---- 172.17.2.2 t22   director, and an endpoint itself
//!                               |               |
//!                               |          10.22.1.10 pod-c  an ordinary pod
//!                               |
//!                               +------- 172.17.3.3 t33   decap node: an endpoint itself, and
//!                                               |
//!                                          10.33.0.10 pod    an endpoint that has the VIP on its loopback (Veth)
//!                                          10.33.1.10 pod-a  ordinary pods: they know nothing of any VIP, and
//!                                          10.33.2.10 pod-b  listen on other ports (Nat)
//! ```
//! `switch` is a router: it sends the VIPs to t22, and what is for pods to their nodes. Replies go from every endpoint
//! straight to the client.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// VIP of the IPv4 service.
pub(crate) const VIP4: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 10));
/// VIP of the IPv6 service.
pub(crate) const VIP6: IpAddr = v6(0xf, 0x10);
/// VIP of the IPv4 service in front of ordinary pods.
pub(crate) const NAT4: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 20));
/// VIP of the IPv6 service in front of ordinary pods.
pub(crate) const NAT6: IpAddr = v6(0xf, 0x20);
/// Port that HTTP servers of ordinary pods listen on.
pub(crate) const POD_HTTP: u16 = 8080;
/// Port that UDP echo servers of ordinary pods listen on.
pub(crate) const POD_ECHO: u16 = 8777;
/// Port that HTTP servers listen on.
pub(crate) const HTTP: u16 = 80;
/// Port that UDP echo servers listen on.
pub(crate) const ECHO: u16 = 7777;
/// Where an agent's metrics are, inside its namespace.
pub(crate) const METRICS: &str = "127.0.0.1:9478";

/// A host of the topology.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Host {
    Client,
    Switch,
    T22,
    T33,
    Pod,
    PodA,
    PodB,
    PodC,
}

impl Host {
    pub(crate) const ALL: [Self; 8] =
        [Self::Client, Self::Switch, Self::T22, Self::T33, Self::Pod, Self::PodA, Self::PodB, Self::PodC];
    /// Those with an agent.
    pub(crate) const NODES: [Self; 2] = [Self::T22, Self::T33];
    /// Endpoints of the services at `VIP4` and `VIP6`.
    pub(crate) const ENDPOINTS: [Self; 3] = [Self::T22, Self::T33, Self::Pod];
    /// Ordinary pods, the endpoints of the services at `NAT4` and `NAT6`.
    pub(crate) const PODS: [Self; 3] = [Self::PodA, Self::PodB, Self::PodC];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Switch => "switch",
            Self::T22 => "t22",
            Self::T33 => "t33",
            Self::Pod => "t33-pod",
            Self::PodA => "pod-a",
            Self::PodB => "pod-b",
            Self::PodC => "pod-c",
        }
    }

    /// Ports of its HTTP and echo server; `None`: it has none.
    pub(crate) const fn ports(self) -> Option<(u16, u16)> {
        match self {
            Self::Client | Self::Switch => None,
            Self::T22 | Self::T33 | Self::Pod => Some((HTTP, ECHO)),
            Self::PodA | Self::PodB | Self::PodC => Some((POD_HTTP, POD_ECHO)),
        }
    }
}

/// A veth between a host and the router it hangs on.
pub(crate) struct Wire {
    pub(crate) host: Host,
    /// Name of the device at the host.
    pub(crate) device: &'static str,
    pub(crate) router: Host,
    /// Name of the device at the router.
    pub(crate) port: &'static str,
    /// (host, router, prefix length), one a family.
    pub(crate) addresses: [(IpAddr, IpAddr, u8); 2],
}

/// Every link there is.
pub(crate) const WIRES: [Wire; 7] = [
    Wire {
        host: Host::Client,
        device: "eth0",
        router: Host::Switch,
        port: "client",
        addresses: [(v4(198, 51, 100, 9), v4(198, 51, 100, 1), 24), (v6(0xc, 9), v6(0xc, 1), 64)],
    },
    Wire {
        host: Host::T22,
        device: "eth0",
        router: Host::Switch,
        port: "t22",
        addresses: [(v4(172, 17, 2, 2), v4(172, 17, 2, 1), 24), (v6(2, 2), v6(2, 1), 64)],
    },
    Wire {
        host: Host::T33,
        device: "eth0",
        router: Host::Switch,
        port: "t33",
        addresses: [(v4(172, 17, 3, 3), v4(172, 17, 3, 1), 24), (v6(3, 3), v6(3, 1), 64)],
    },
    Wire {
        host: Host::Pod,
        device: "eth0",
        router: Host::T33,
        port: "pod0",
        addresses: [(v4(10, 33, 0, 10), v4(10, 33, 0, 1), 24), (v6(0x33, 0x10), v6(0x33, 1), 64)],
    },
    Wire {
        host: Host::PodA,
        device: "eth0",
        router: Host::T33,
        port: "veth-a",
        addresses: [(v4(10, 33, 1, 10), v4(10, 33, 1, 1), 24), (v6(0x331, 0x10), v6(0x331, 1), 64)],
    },
    Wire {
        host: Host::PodB,
        device: "eth0",
        router: Host::T33,
        port: "veth-b",
        addresses: [(v4(10, 33, 2, 10), v4(10, 33, 2, 1), 24), (v6(0x332, 0x10), v6(0x332, 1), 64)],
    },
    Wire {
        host: Host::PodC,
        device: "eth0",
        router: Host::T22,
        port: "veth-c",
        addresses: [(v4(10, 22, 1, 10), v4(10, 22, 1, 1), 24), (v6(0x221, 0x10), v6(0x221, 1), 64)],
    },
];

/// Both addresses of a host.
pub(crate) fn addresses(host: Host) -> impl Iterator<Item = IpAddr> {
    WIRES.iter().filter(move |wire| wire.host == host).flat_map(|wire| wire.addresses.map(|(at, _, _)| at))
}

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

/// 2001:db8:NET::HOST
const fn v6(net: u16, host: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, net, 0, 0, 0, 0, host))
}

/// The wire of a host.
pub(crate) fn wire(host: Host) -> Option<&'static Wire> {
    WIRES.iter().find(|wire| wire.host == host)
}
