use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::Mac;

/// The kernel's tables, holding only what matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// Links by index.
    pub links: BTreeMap<u32, Link>,
    /// Addresses, in the kernel's order.
    pub addresses: Vec<Address>,
    /// Routes of the tables that [`Tables::rules`] name, in the kernel's order within a table.
    pub routes: Vec<Route>,
    /// Rules that apply to every packet, by family and priority: which tables are looked up, in order.
    pub rules: Vec<Rule>,
    /// Neighbours, by the index of their link and their address.
    pub neighbours: HashMap<(u32, IpAddr), Neighbour>,
}

impl Tables {
    /// The link of that name.
    #[must_use]
    pub fn link_named(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|link| link.name == name)
    }
}

/// A network device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// The kernel's index.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Its Ethernet address; `None` on devices without one.
    pub mac: Option<Mac>,
    /// MTU, bytes of IP.
    pub mtu: u32,
    /// `veth`, `vlan`, `bridge`...; empty for hardware and loopback.
    pub kind: String,
    /// Whether it is the loopback device.
    pub loopback: bool,
    /// Whether it is switched on (IFF_UP).
    pub up: bool,
    /// Whether it is up and has a carrier (IFF_LOWER_UP).
    pub running: bool,
    /// Index of the device beneath, or of a veth's peer (in the namespace [`Link::peer_namespace`]).
    pub lower: Option<u32>,
    /// Id of the namespace that [`Link::lower`] is in; `None` = this one.
    pub peer_namespace: Option<i32>,
    /// Whether an XDP program is attached.
    pub has_xdp: bool,
    /// Tag of a VLAN device.
    pub vlan: Option<VlanTag>,
    /// Index of the bond, bridge or the like that it is a port of.
    pub controller: Option<u32>,
}

impl Link {
    /// Whether it is one end of a veth pair.
    #[must_use]
    pub fn is_veth(&self) -> bool {
        self.kind == "veth"
    }
}

/// The tag that frames of a VLAN device carry on the device beneath.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VlanTag {
    /// 0x8100 or 0x88a8.
    pub protocol: u16,
    /// 1..=4094.
    pub id: u16,
}

/// An address of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Index of the link.
    pub link: u32,
    /// Address and prefix length.
    pub net: IpNet,
    /// Whether its scope is global.
    pub global: bool,
    /// Whether it is usable as a source: not tentative, failed, deprecated or temporary.
    pub preferred: bool,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The destinations.
    pub to: IpNet,
    /// Table.
    pub table: u32,
    /// Metric; of equal prefixes the lowest is used.
    pub metric: u32,
    /// What it does.
    pub kind: RouteKind,
    /// Index of the outgoing link; 0 for kinds other than unicast.
    pub link: u32,
    /// Gateway, which may be of the other family (RFC 5549); `None` = on-link.
    pub via: Option<IpAddr>,
    /// MTU of the route, if it has one of its own.
    pub mtu: Option<u32>,
}

/// What a route does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteKind {
    /// Sends.
    Unicast,
    /// Refuses: blackhole, unreachable, prohibit.
    Refuse,
    /// Ends the search in this table and goes on with the next.
    Throw,
}

/// A rule that applies to every packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Whether it is for IPv6.
    pub v6: bool,
    /// Priority; lower is earlier.
    pub priority: u32,
    /// The table to look in.
    pub table: u32,
    /// Routes with a prefix of this length or shorter don't count.
    pub suppress_prefix_length: Option<u32>,
}

/// A neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its Ethernet address, where it is known.
    pub mac: Option<Mac>,
    /// How well it is known.
    pub state: NeighbourState,
}

impl Neighbour {
    /// The MAC, if frames may be sent there.
    #[must_use]
    pub fn usable(&self) -> Option<Mac> {
        match self.state {
            NeighbourState::Fresh | NeighbourState::Stale | NeighbourState::Fixed => self.mac,
            NeighbourState::Unresolved => None,
        }
    }
}

/// How well a neighbour is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeighbourState {
    /// Not at all: being asked for, or it gave no answer (NUD_NONE, NUD_INCOMPLETE, NUD_FAILED).
    Unresolved,
    /// Confirmed lately, or being confirmed (NUD_REACHABLE, NUD_DELAY, NUD_PROBE).
    Fresh,
    /// Not confirmed lately (NUD_STALE): good until proved wrong.
    Stale,
    /// Set by hand (NUD_PERMANENT, NUD_NOARP): never asked for.
    Fixed,
}
