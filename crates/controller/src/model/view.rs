use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Mac;

/// What a node knows of itself: the pure core's second input, beside the objects.
/// As YAML it is what `guenon view` prints and `guenon simulate --view` reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeView {
    /// The node's name.
    pub node: String,
    /// What the node does.
    pub roles: Vec<Role>,
    /// Tunnel addresses: the source of what it encapsulates, and where it accepts GUE. At most one a family is used as source: the first.
    pub tunnel: Vec<IpAddr>,
    /// Every interface that routes, endpoints or the program are on: first those of `attached`, in that order, then by index.
    pub interfaces: Vec<InterfaceView>,
    /// Routes and neighbours, most specific first.
    #[serde(default)]
    pub next_hops: Vec<NextHopView>,
    /// Names of the interfaces that the program is attached to; absent = the first of `interfaces`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attached: Vec<String>,
}

impl NodeView {
    /// Names of the interfaces that the program is attached to.
    pub fn uplinks(&self) -> impl Iterator<Item = &str> {
        let first = self.interfaces.first().filter(|_| self.attached.is_empty());
        self.attached.iter().chain(first.map(|interface| &interface.name)).map(String::as_str)
    }
}

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Receives VIP traffic and sends it into tunnels.
    Director,
    /// Strips tunnels and delivers.
    Decap,
}

/// A network interface of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InterfaceView {
    /// Name.
    pub name: String,
    /// The kernel's index.
    pub index: u32,
    /// Its Ethernet address; absent on loopback, bridges and other devices that XDP cannot send frames from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// MTU, bytes of IP.
    pub mtu: u32,
    /// Its addresses with prefix length.
    #[serde(default)]
    pub addresses: Vec<IpNet>,
    /// The device beneath, for a VLAN device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// VLAN tag that frames of this device carry on its parent: (TPID, id).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<(u16, u16)>,
    /// For a veth: whether frames redirected to it reach its far end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub far_end: Option<FarEnd>,
}

/// What the agent could do at the far end of a veth (lesson 1: frames arrive only where a program is there).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FarEnd {
    /// A program is attached there.
    Ready,
    /// None is, and this is why.
    Refused(String),
}

/// A way to a destination: a route, or a neighbour (then `to` is one address).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NextHopView {
    /// The destinations.
    pub to: IpNet,
    /// The gateway; absent = on-link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<IpAddr>,
    /// The MAC of the gateway, or of the destination itself where `to` is one on-link address; absent = not
    /// resolved (or, for an on-link subnet, told by more specific entries).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// Name of the outgoing interface; `lo` for a route that refuses (blackhole, unreachable, prohibit).
    pub interface: String,
    /// MTU of the route (else of the interface), bytes of IP.
    pub mtu: u32,
}
