//! Who is where.
//!
//! ```text
//!   client 198.51.100.9 ---- control 10.99.0.1, a router: VIPs go to n1 and n2 by the hash of each flow;
//!                               |             etcd and kube-apiserver are here too
//!                               |  a bridge
//!          +--------------------+--------------------+
//!       n1 10.99.0.11        n2 10.99.0.12        n3 10.99.0.13
//!       director             director, endpoints  endpoints
//! ```
//! Each of n1 to n3 is a node with a containerd, a kubelet and a kube-proxy of its own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The address of the examples' VirtualService.
pub(super) const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// What VirtualServices may use.
pub(super) const VIPS: &str = "203.0.113.0/24";
/// The port of its HTTP frontend.
pub(super) const HTTP: u16 = 80;
/// The port of its UDP echo frontend.
pub(super) const ECHO: u16 = 7777;
/// Where the API server is, and every node's router.
pub(super) const CONTROL: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// The bridge that nodes hang on.
pub(super) const BRIDGE: &str = "nodes";
/// Where the API server listens.
pub(super) const API_PORT: u16 = 6443;
/// The API server's address for pods.
pub(super) const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
pub(super) const SERVICES: &str = "10.96.0.0/16";
pub(super) const PODS: &str = "10.244.0.0/16";
/// The client's end and the router's end of their link.
pub(super) const CLIENT: (Ipv4Addr, Ipv4Addr) = (Ipv4Addr::new(198, 51, 100, 9), Ipv4Addr::new(198, 51, 100, 1));
/// Bytes of IP between nodes: packets grow by 32 and more on their way (lesson 12).
pub(super) const UNDERLAY_MTU: u32 = 1600;
/// The label of directors: one that a kubelet may not give itself.
pub(super) const DIRECTOR: &str = "node-restriction.kubernetes.io/guenon-director=true";
/// The label of nodes that the examples' pods run on.
pub(super) const RUNS_ECHO: &str = "example.guenon.dev/echo=true";

/// A node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Node {
    N1,
    N2,
    N3,
}

impl Node {
    pub(crate) const ALL: [Self; 3] = [Self::N1, Self::N2, Self::N3];
    /// Those that VIPs are routed to.
    pub(crate) const DIRECTORS: [Self; 2] = [Self::N1, Self::N2];
    /// Those that run pods of the examples.
    pub(crate) const ENDPOINTS: [Self; 2] = [Self::N2, Self::N3];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::N1 => "n1",
            Self::N2 => "n2",
            Self::N3 => "n3",
        }
    }

    const fn number(self) -> u8 {
        match self {
            Self::N1 => 1,
            Self::N2 => 2,
            Self::N3 => 3,
        }
    }

    /// Its InternalIP.
    pub(crate) const fn address(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 99, 0, 10 + self.number())
    }

    /// The MAC of its `eth0`, the same after it was away.
    pub(super) fn mac(self) -> String {
        format!("02:00:00:99:00:{:02x}", 10 + self.number())
    }

    /// Its port at the bridge.
    pub(super) fn port(self) -> String {
        format!("to-{}", self.name())
    }

    /// The network of its pods.
    pub(super) fn pods(self) -> String {
        format!("10.244.{}.0/24", self.number())
    }
}

/// The VIP's HTTP frontend.
pub(super) fn http() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(VIP), HTTP)
}

/// The VIP's UDP frontend.
pub(super) fn echo() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(VIP), ECHO)
}
