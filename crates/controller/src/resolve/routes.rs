//! The ways out of this node, by longest prefix match over its [`NodeView`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::{Egress, InterfaceView, Mac, NextHopKey, NextHopState, NextHopView, NodeView};

/// A NodeView, arranged for lookups.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    entries: Vec<NextHopView>,
    /// Entries by family, then prefix length (longest first), then network.
    by_prefix: BTreeMap<(bool, std::cmp::Reverse<u8>), HashMap<IpAddr, Vec<usize>>>,
    neighbours: HashMap<(IpAddr, String), Mac>,
    interfaces: BTreeMap<String, InterfaceView>,
    own: BTreeSet<IpAddr>,
    tunnel: Vec<IpAddr>,
    attached: BTreeSet<String>,
}

/// A way to a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// The next hop.
    pub key: NextHopKey,
    /// What is known of it.
    pub state: NextHopState,
}

/// Why there is no way to a destination.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum NoWay {
    /// No entry covers it.
    #[error("this node has no route to {0}; add one (see `ip route get {0}`)")]
    NoRoute(IpAddr),
    /// The route's interface cannot be sent from.
    #[error("the route to {destination} leads to {interface}, {why}")]
    Interface {
        /// The destination.
        destination: IpAddr,
        /// Name of the interface.
        interface: String,
        /// What is wrong with it and what to do.
        why: &'static str,
    },
}

impl Routes {
    /// Arranges a view.
    #[must_use]
    pub fn new(view: &NodeView) -> Self {
        let mut routes = Self {
            entries: view.next_hops.clone(),
            interfaces: view.interfaces.iter().map(|interface| (interface.name.clone(), interface.clone())).collect(),
            own: view.interfaces.iter().flat_map(|interface| &interface.addresses).map(IpNet::addr).collect(),
            tunnel: view.tunnel.clone(),
            attached: view.uplinks().map(str::to_owned).collect(),
            ..Self::default()
        };
        routes.own.extend(&view.tunnel);
        for (i, entry) in view.next_hops.iter().enumerate() {
            let key = (entry.to.addr().is_ipv4(), std::cmp::Reverse(entry.to.prefix_len()));
            routes.by_prefix.entry(key).or_default().entry(entry.to.network()).or_default().push(i);
        }
        // What is known of a neighbour itself goes before what a route through it says.
        let (direct, via): (Vec<_>, Vec<_>) = view.next_hops.iter().partition(|entry| is_single(entry));
        for entry in direct.into_iter().chain(via) {
            let address = entry.via.or_else(|| is_single(entry).then(|| entry.to.addr()));
            if let (Some(address), Some(mac)) = (address, entry.mac) {
                routes.neighbours.entry((address, entry.interface.clone())).or_insert(mac);
            }
        }
        routes
    }

    /// Whether the address is one of this node's.
    #[must_use]
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.own.contains(&address)
    }

    /// Whether the address is one that this node's tunnels start and end at.
    #[must_use]
    pub fn is_tunnel(&self, address: IpAddr) -> bool {
        self.tunnel.contains(&address)
    }

    /// The outer source of tunnels of this family: the first tunnel address of it.
    #[must_use]
    pub fn source(&self, destination: IpAddr) -> Option<IpAddr> {
        self.tunnel.iter().copied().find(|source| source.is_ipv4() == destination.is_ipv4())
    }

    /// The interface of this name.
    #[must_use]
    pub fn interface(&self, name: &str) -> Option<&InterfaceView> {
        self.interfaces.get(name)
    }

    /// Whether what leaves by this interface leaves by one that the program is attached to.
    #[must_use]
    pub fn is_uplink(&self, name: &str) -> bool {
        let mut beneath = Some(name);
        // A VLAN device's frames leave by the device beneath; as many steps as there can be tags, and more.
        for _ in 0..4 {
            let Some(name) = beneath else { return false };
            if self.attached.contains(name) {
                return true;
            }
            beneath = self.interfaces.get(name).and_then(|interface| interface.parent.as_deref());
        }
        false
    }

    /// Whether a route refuses (blackhole, unreachable, prohibit): the view shows those on the loopback.
    pub(super) fn refuses(&self, entry: &NextHopView) -> bool {
        entry.interface == "lo"
    }

    /// The way that tunnels to this destination take.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub fn way(&self, destination: IpAddr) -> Result<Way, NoWay> {
        let entry = self.entry(destination).ok_or(NoWay::NoRoute(destination))?;
        let key = NextHopKey { interface: entry.interface.clone(), gateway: entry.via.unwrap_or(destination) };
        let unusable = |why| NoWay::Interface { destination, interface: entry.interface.clone(), why };
        let state = self.next_hop(&key, self.mtu(entry, destination)).map_err(unusable)?;
        Ok(Way { key, state })
    }

    /// What is known of a next hop that routes of this MTU (bytes of IP) use.
    ///
    /// # Errors
    ///
    /// Why its interface cannot be sent from.
    pub fn next_hop(&self, key: &NextHopKey, mtu: u32) -> Result<NextHopState, &'static str> {
        let egress = self.egress(&key.interface)?;
        let interface_mtu = self.interfaces.get(&key.interface).map_or(mtu, |interface| interface.mtu);
        let mac = self.neighbour(&key.interface, key.gateway);
        Ok(NextHopState { mac, mtu: mtu.min(interface_mtu).min(egress.mtu), egress })
    }

    /// The MAC of a neighbour, if it is known.
    #[must_use]
    pub fn neighbour(&self, interface: &str, address: IpAddr) -> Option<Mac> {
        self.neighbours.get(&(address, interface.to_owned())).copied()
    }

    /// The entry that a packet to this destination follows.
    pub(super) fn entry(&self, destination: IpAddr) -> Option<&NextHopView> {
        let mut matching = self.matching(destination);
        let best = matching.next()?;
        let first = *best.first()?;
        if best.len() == 1 {
            return Some(first);
        }
        // A neighbour may be known on several interfaces: the one that the subnet's route names counts.
        let covering = matching.next().and_then(|entries| entries.first().map(|entry| &entry.interface));
        let on_route = best.iter().find(|entry| Some(&entry.interface) == covering);
        let resolved =
            |entry: &&&NextHopView| self.neighbour(&entry.interface, entry.via.unwrap_or(destination)).is_some();
        on_route.or_else(|| best.iter().find(resolved)).copied().or(Some(first))
    }

    /// The MTU of the route: a neighbour's entry knows nothing of that of the subnet's route.
    fn mtu(&self, entry: &NextHopView, destination: IpAddr) -> u32 {
        let covering = self.matching(destination).nth(1).into_iter().flatten();
        let on_route =
            covering.filter(|route| is_single(entry) && route.interface == entry.interface && route.via.is_none());
        on_route.map(|route| route.mtu).fold(entry.mtu, u32::min)
    }

    /// The entries that cover a destination, those of one prefix together, most specific first.
    fn matching(&self, destination: IpAddr) -> impl Iterator<Item = Vec<&NextHopView>> {
        let prefixes = self.by_prefix.iter().filter(move |((is_ipv4, _), _)| *is_ipv4 == destination.is_ipv4());
        prefixes.filter_map(move |((_, length), networks)| {
            let network = IpNet::new(destination, length.0).ok()?.network();
            Some(networks.get(&network)?.iter().filter_map(|i| self.entries.get(*i)).collect())
        })
    }

    /// The device that frames of an interface leave from: for a VLAN device the one beneath, with its tags.
    fn egress(&self, name: &str) -> Result<Egress, &'static str> {
        const MOST_TAGS: usize = 2;
        let mut interface = self.interfaces.get(name).ok_or("which is not there; see `ip link`")?;
        let mac = interface.mac.ok_or("which has no Ethernet address; tunnels leave from Ethernet devices alone")?;
        let mut tags = Vec::new();
        while let Some(tag) = interface.vlan {
            if tags.len() == MOST_TAGS {
                return Err("which carries more than two VLAN tags; two is the most");
            }
            tags.insert(0, tag);
            let parent = interface.parent.as_deref().ok_or("a VLAN device whose lower device is not known")?;
            interface = self.interfaces.get(parent).ok_or("a VLAN device whose lower device is not there")?;
        }
        Ok(Egress { ifindex: interface.index, mac, mtu: interface.mtu, tags })
    }
}

/// Whether an entry is of one on-link address: a neighbour, or a host route.
pub(super) fn is_single(entry: &NextHopView) -> bool {
    entry.via.is_none() && entry.to.prefix_len() == entry.to.max_prefix_len()
}
