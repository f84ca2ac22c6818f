use std::collections::BTreeSet;
use std::net::IpAddr;

use super::Resolver;

/// What the agent must do on this node so that the state works.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Neighbours whose MACs packets are sent to; those not resolved should be asked for.
    pub neighbours: BTreeSet<Neighbour>,
    /// VIPs that belong on this node's loopback: an endpoint that serves (is ready, or keeps its flows while it
    /// drains) is delivered `Local` here.
    pub loopback: BTreeSet<IpAddr>,
    /// Interfaces that packets for endpoints of delivery `Veth` are redirected to: their far ends need a program.
    pub far_ends: BTreeSet<String>,
    /// Those interfaces, with the VIPs that the endpoints behind them reply from: such replies must be let in and
    /// forwarded. A VIP need not be of the endpoint's family.
    pub replies: BTreeSet<(String, IpAddr)>,
    /// Endpoints of this node that get their packets by `Nat`: its stack routes them there, and the program on the way out
    /// gives replies their VIP back.
    pub pods: BTreeSet<IpAddr>,
}

/// A neighbour that packets are sent to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Neighbour {
    /// Name of the interface (for a VLAN, that of the VLAN device).
    pub interface: String,
    /// Its address.
    pub address: IpAddr,
    /// Whether its MAC is known.
    pub resolved: bool,
}

impl Resolver {
    /// What the agent must do on this node so that the state works.
    #[must_use]
    pub fn needs(&self) -> Needs {
        let next_hops = self.state.next_hops.iter().map(|(key, state)| Neighbour {
            interface: key.interface.clone(),
            address: key.gateway,
            resolved: state.mac.is_some(),
        });
        let veths = self.uses.veths.keys().map(|(interface, address)| Neighbour {
            interface: interface.clone(),
            address: *address,
            resolved: self.here.routes.neighbour(interface, *address).is_some(),
        });
        Needs {
            neighbours: next_hops.chain(veths).collect(),
            loopback: self.uses.loopback.keys().copied().collect(),
            far_ends: self.uses.veths.keys().map(|(interface, _)| interface.clone()).collect(),
            replies: self.uses.replies.keys().cloned().collect(),
            pods: self.uses.nat.keys().copied().collect(),
        }
    }
}
