//! What the data path holds: the resolver's output, and what is read back from the maps. The same type,
//! so that a plan is a difference.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use guenon_ebpf::abi::Row;

use super::{Frontend, Mac, Protocol, ServiceName};

/// The whole configuration of one node's data path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Addresses of this node on which GUE is accepted.
    pub tunnels: BTreeSet<IpAddr>,
    /// Outer sources that may send here.
    pub directors: BTreeSet<IpAddr>,
    /// VIPs that are configured on this node too: what matches no frontend there is passed.
    pub on_node: BTreeSet<IpAddr>,
    /// Where tunnels leave.
    pub next_hops: BTreeMap<NextHopKey, NextHopState>,
    /// Services by name.
    pub services: BTreeMap<ServiceName, Arc<ServiceState>>,
}

/// One service in the data path. A VIP is whatever address some frontend of some service names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceState {
    /// Frontends in force: a frontend is in at most one service.
    pub frontends: BTreeSet<Frontend>,
    /// Rows are picked by the client's address alone.
    pub client_ip: bool,
    /// Endpoints in order of address, each once. Rows index them.
    pub endpoints: Vec<EndpointState>,
    /// The forwarding table: empty (`no_backend`), or a power of two from 1,024 to 65,536 rows.
    pub rows: Arc<[Row]>,
}

/// One endpoint, as this node reaches it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointState {
    /// Its identity.
    pub address: IpAddr,
    /// The way to it.
    pub path: Path,
}

/// The way from this node to an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Path {
    /// Through GUE. The packet names the endpoint in private data unless `destination` is its address.
    Tunnel {
        /// Outer source: this node's tunnel address of the destination's family.
        source: IpAddr,
        /// Outer destination: the tunnel address of the endpoint's node.
        destination: IpAddr,
        /// Where it leaves; a key of [`State::next_hops`].
        next_hop: NextHopKey,
    },
    /// It is on this node.
    Local(LocalDelivery),
    /// There is no route, or no tunnel address of ours in the destination's family; `no_route`. The destination, for people.
    Unreachable {
        /// The tunnel address that cannot be reached.
        destination: IpAddr,
    },
}

/// How an endpoint on this node gets its packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalDelivery {
    /// Passed to the node's own stack.
    Local,
    /// Redirected to the veth of the endpoint's namespace.
    Veth {
        /// The host side.
        ifindex: u32,
        /// The endpoint's MAC; `None` = not resolved: `no_neighbour`.
        mac: Option<Mac>,
        /// MTU of the device, bytes of IP.
        mtu: u32,
    },
    /// Rewritten to the endpoint's own address and port, then passed to the node's own stack.
    Nat {
        /// Where it listens for each protocol and port of the service's frontends. What is not there has `no_delivery`.
        ports: TargetPorts,
    },
    /// No way to hand it over (a problem says why): `no_delivery`.
    None,
}

/// Where an endpoint listens, by protocol and port of frontends: endpoints of a service share one map as a rule.
pub type TargetPorts = Arc<BTreeMap<(Protocol, u16), u16>>;

impl ServiceState {
    /// Takes frontends away, and the target ports that were for them alone.
    pub fn drop_frontends(&mut self, gone: impl Fn(&Frontend) -> bool) {
        self.frontends.retain(|frontend| !gone(frontend));
        let asked: BTreeSet<_> = self.frontends.iter().map(|frontend| (frontend.protocol, frontend.port)).collect();
        for endpoint in &mut self.endpoints {
            if let Path::Local(LocalDelivery::Nat { ports }) = &mut endpoint.path
                && ports.keys().any(|port| !asked.contains(port))
            {
                Arc::make_mut(ports).retain(|port, _| asked.contains(port));
            }
        }
    }
}

/// Identity of a next hop: a gateway (or on-link destination) behind an interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextHopKey {
    /// Name of the route's interface.
    pub interface: String,
    /// Gateway, or the destination itself.
    pub gateway: IpAddr,
}

/// What is known of a next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextHopState {
    /// Its MAC; `None` = not resolved: `no_neighbour`.
    pub mac: Option<Mac>,
    /// Least MTU of route, interface and what routers told, bytes of IP.
    pub mtu: u32,
    /// The device to send from.
    pub egress: Egress,
}

/// A device that frames can be sent from: never a VLAN device, but the one beneath with its tags.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Egress {
    /// The kernel's index.
    pub ifindex: u32,
    /// Source MAC.
    pub mac: Mac,
    /// MTU, bytes of IP.
    pub mtu: u32,
    /// VLAN tags (TPID, TCI), outer first; at most two.
    pub tags: Vec<(u16, u16)>,
}
