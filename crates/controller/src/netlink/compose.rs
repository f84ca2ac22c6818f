//! From the kernel's tables to what the node knows of itself. Pure.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::routes::RouteIndex;
use super::tables::{Address, Link, Neighbour, Route, RouteKind, Tables};
use crate::model::{FarEnd, InterfaceView, NextHopView, NodeView, Role};

/// A neighbour's identity: index of the link, address.
pub type NeighbourKey = (u32, IpAddr);

/// What [`compose`] is to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewOptions {
    /// The node's name.
    pub node: String,
    /// What the node does.
    pub roles: Vec<Role>,
    /// Interfaces that the program is for, in order. Those that are not there now are left out of the view.
    pub interfaces: Vec<String>,
    /// Tunnel addresses; empty = the first global one per family of the first interface.
    pub tunnels: Vec<IpAddr>,
    /// Those whose replies are translated: the program on the way out is attached, or nobody needs it. No part of the view;
    /// the monitor's hairpins go by it.
    pub answering: BTreeSet<String>,
    /// Which ways to tell.
    pub interest: Interest,
    /// What is known of the far ends of veths, by index of the near end.
    pub far_ends: BTreeMap<u32, FarEnd>,
}

/// Which destinations a view tells the ways to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Every route and every resolved neighbour.
    All,
    /// The ways to these addresses, resolved or not, and the routes that lead there.
    Only(BTreeSet<IpAddr>),
}

/// What [`compose`] makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Composition {
    /// The view.
    pub view: NodeView,
    /// Neighbours whose MAC the view tells, or would if it were known.
    pub needed: BTreeSet<NeighbourKey>,
}

/// Makes the view. Equal input gives equal output, in whatever order the kernel told it.
///
/// A route that refuses (blackhole, unreachable, prohibit) is shown on `lo` with no MAC: it hides wider
/// routes, and nothing can be sent there. A bridge's MAC is not shown: frames cannot be sent from it by XDP.
#[must_use]
pub fn compose(tables: &Tables, options: &ViewOptions) -> Composition {
    let ViewOptions { node, roles, interfaces, tunnels, answering: _, interest, far_ends } = options;
    let attached: Vec<&Link> = interfaces.iter().filter_map(|name| tables.link_named(name)).collect();
    let tunnel = if tunnels.is_empty() {
        interfaces.first().map(|first| default_tunnels(tables, first)).unwrap_or_default()
    } else {
        tunnels.clone()
    };

    let routes = RouteIndex::new(tables);
    let mut ways = Ways::new(tables);
    match interest {
        Interest::All => {
            for route in routes.all() {
                ways.put_route(route);
            }
            for ((link, to), neighbour) in &tables.neighbours {
                if neighbour.usable().is_some() {
                    ways.put_neighbour(*link, *to);
                }
            }
        }
        Interest::Only(addresses) => addresses.iter().for_each(|to| ways.put_way(&routes, *to)),
    }
    let Ways { next_hops, needed, mut links, .. } = ways;

    links.extend(attached.iter().map(|link| link.index));
    links.extend(tables.addresses.iter().map(|address| address.link));
    links.extend(far_ends.keys().copied());
    with_lower_devices(tables, &mut links);
    let mut shown: Vec<&Link> = attached.clone();
    shown.extend(
        links
            .iter()
            .filter(|index| attached.iter().all(|link| link.index != **index))
            .filter_map(|index| tables.links.get(index)),
    );

    let view = NodeView {
        node: node.clone(),
        roles: roles.clone(),
        tunnel,
        interfaces: shown.into_iter().map(|link| interface(tables, link, far_ends)).collect(),
        next_hops: sorted(next_hops),
        attached: attached.iter().map(|link| link.name.clone()).collect(),
    };
    Composition { view, needed }
}

/// Whether a view that was made of these tables tells the ways to these addresses too, so that [`compose`] would make
/// no other.
pub(super) fn covers(view: &NodeView, tables: &Tables, addresses: &[IpAddr]) -> bool {
    if addresses.is_empty() {
        return true;
    }
    let routes = RouteIndex::new(tables);
    let mut ways = Ways::new(tables);
    addresses.iter().for_each(|to| ways.put_way(&routes, *to));
    ways.next_hops.iter().all(|hop| {
        let told = view.next_hops.binary_search_by(|told| order(told).cmp(&order(hop)));
        told.is_ok_and(|at| view.next_hops[at].mtu == hop.mtu)
    })
}

/// Brings the MACs of these neighbours up to date in a view, as [`compose`] would, in a fraction of its time.
pub(super) fn put_macs(view: &mut NodeView, tables: &Tables, neighbours: &BTreeSet<NeighbourKey>) {
    let links: HashMap<&str, u32> =
        neighbours.iter().filter_map(|(link, _)| Some((tables.links.get(link)?.name.as_str(), *link))).collect();
    for hop in &mut view.next_hops {
        let single = hop.to.prefix_len() == hop.to.max_prefix_len();
        let Some(neighbour) = hop.via.or_else(|| single.then(|| hop.to.addr())) else { continue };
        let Some(link) = links.get(hop.interface.as_str()) else { continue };
        let key = (*link, neighbour);
        if neighbours.contains(&key) {
            hop.mac = tables.neighbours.get(&key).and_then(Neighbour::usable);
        }
    }
}

/// Collects next hops, and what they refer to.
struct Ways<'a> {
    tables: &'a Tables,
    own: HashSet<IpAddr>,
    next_hops: BTreeSet<NextHopView>,
    needed: BTreeSet<NeighbourKey>,
    links: BTreeSet<u32>,
}

impl<'a> Ways<'a> {
    fn new(tables: &'a Tables) -> Self {
        let own = tables.addresses.iter().map(|address| address.net.addr()).collect();
        Self { tables, own, next_hops: BTreeSet::new(), needed: BTreeSet::new(), links: BTreeSet::new() }
    }

    /// The route to an address, and the address itself where it is on-link.
    fn put_way(&mut self, routes: &RouteIndex<'_>, to: IpAddr) {
        let Some(route) = routes.lookup(to) else { return };
        self.put_route(route);
        if route.kind == RouteKind::Unicast && route.via.is_none() {
            self.need_on_link(route, to);
        }
    }

    fn put_route(&mut self, route: &Route) {
        let link = match route.kind {
            RouteKind::Unicast => self.tables.links.get(&route.link),
            RouteKind::Refuse => self.tables.links.values().find(|link| link.loopback),
            RouteKind::Throw => None,
        };
        let Some(link) = link else { return };
        let mac = route.via.and_then(|gateway| {
            self.needed.insert((link.index, gateway));
            self.tables.neighbours.get(&(link.index, gateway))?.usable()
        });
        self.links.insert(link.index);
        self.next_hops.insert(NextHopView {
            to: route.to.trunc(),
            via: route.via,
            mac,
            interface: link.name.clone(),
            mtu: mtu(route, link),
        });
    }

    /// An address of interest that is on-link.
    fn need_on_link(&mut self, route: &Route, to: IpAddr) {
        let Some(link) = self.tables.links.get(&route.link) else { return };
        if link.loopback || self.own.contains(&to) {
            return;
        }
        self.needed.insert((link.index, to));
        let mac = self.tables.neighbours.get(&(link.index, to)).and_then(|neighbour| neighbour.usable());
        let hop = |mac| NextHopView {
            to: IpNet::from(to),
            via: None,
            mac,
            interface: link.name.clone(),
            mtu: mtu(route, link),
        };
        // The route itself may be that narrow (a pod's address on its veth): the neighbour tells more.
        self.next_hops.remove(&hop(None));
        self.next_hops.insert(hop(mac));
    }

    /// A resolved neighbour, where every one is told.
    fn put_neighbour(&mut self, link: u32, to: IpAddr) {
        let Some(near) = self.tables.links.get(&link) else { return };
        let route =
            Route { to: IpNet::from(to), table: 0, metric: 0, kind: RouteKind::Unicast, link, via: None, mtu: None };
        if !to.is_multicast() && near.mac.is_some() {
            self.need_on_link(&route, to);
        }
    }
}

fn mtu(route: &Route, link: &Link) -> u32 {
    route.mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu))
}

/// IPv4 first; within a family the most specific first, then by address.
fn sorted(next_hops: BTreeSet<NextHopView>) -> Vec<NextHopView> {
    let mut next_hops: Vec<_> = next_hops.into_iter().collect();
    next_hops.sort_by(|a, b| order(a).cmp(&order(b)));
    next_hops
}

/// Where a next hop stands in a view. Not by MAC: a new one changes nothing else.
fn order(hop: &NextHopView) -> (bool, Reverse<u8>, IpNet, Option<IpAddr>, &str) {
    (hop.to.addr().is_ipv6(), Reverse(hop.to.prefix_len()), hop.to, hop.via, &hop.interface)
}

/// Adds the devices beneath VLAN devices.
fn with_lower_devices(tables: &Tables, links: &mut BTreeSet<u32>) {
    let mut open: Vec<u32> = links.iter().copied().collect();
    while let Some(index) = open.pop() {
        let beneath = tables.links.get(&index).filter(|link| link.vlan.is_some()).and_then(|link| link.lower);
        if let Some(beneath) = beneath
            && links.insert(beneath)
        {
            open.push(beneath);
        }
    }
}

fn interface(tables: &Tables, link: &Link, far_ends: &BTreeMap<u32, FarEnd>) -> InterfaceView {
    let addresses = addresses_of(tables, link.index).map(|address| address.net).collect();
    let parent = link.vlan.and(link.lower).and_then(|index| tables.links.get(&index));
    InterfaceView {
        name: link.name.clone(),
        index: link.index,
        mac: link.mac.filter(|_| !link.loopback && link.kind != "bridge"),
        mtu: link.mtu,
        addresses,
        parent: parent.map(|parent| parent.name.clone()),
        vlan: link.vlan.map(|tag| (tag.protocol, tag.id)),
        far_end: far_ends.get(&link.index).cloned(),
    }
}

fn addresses_of(tables: &Tables, link: u32) -> impl Iterator<Item = &Address> {
    tables.addresses.iter().filter(move |address| address.link == link)
}

/// The first usable global address per family of an interface, IPv4 first. First is the one that was there
/// first, so that adding another changes nothing.
#[must_use]
pub fn default_tunnels(tables: &Tables, interface: &str) -> Vec<IpAddr> {
    let Some(link) = tables.link_named(interface) else { return Vec::new() };
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = addresses_of(tables, link.index)
        .filter(|address| address.global && address.preferred)
        .map(|address| address.net.addr())
        .partition(IpAddr::is_ipv4);
    // The kernel tells IPv4 in order of arrival, IPv6 in the opposite order.
    v4.into_iter().take(1).chain(v6.into_iter().last()).collect()
}

/// Why no interface could be chosen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InterfaceError {
    /// A name that no link has.
    #[error("there is no interface `{name}`; this node has {}; name one of them with --interface", list(.existing))]
    NotThere {
        /// The name asked for.
        name: String,
        /// Those that exist.
        existing: Vec<String>,
    },
    /// Nothing to choose by.
    #[error(
        "no interface was named and there is no default route to choose one by; \
         this node has {}; name one with --interface", list(.existing)
    )]
    NoDefaultRoute {
        /// Those that exist.
        existing: Vec<String>,
    },
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none but loopback".to_owned() } else { names.join(", ") }
}

/// The interfaces to use: those named, else the one with the default route.
///
/// # Errors
///
/// [`InterfaceError`], with the names of those that exist.
pub fn choose_interfaces(tables: &Tables, named: &[String]) -> Result<Vec<String>, InterfaceError> {
    let existing =
        || tables.links.values().filter(|link| !link.loopback).map(|link| link.name.clone()).collect::<Vec<_>>();
    if named.is_empty() {
        let chosen =
            default_interface(tables).ok_or_else(|| InterfaceError::NoDefaultRoute { existing: existing() })?;
        return Ok(vec![chosen.to_owned()]);
    }
    let mut chosen: Vec<String> = Vec::new();
    for name in named {
        let meant: Vec<&String> = if name.contains(['*', '?']) {
            let links = tables.links.values().filter(|link| !link.loopback && is_like(&link.name, name));
            links.map(|link| &link.name).collect()
        } else {
            tables.link_named(name).map(|link| &link.name).into_iter().collect()
        };
        if meant.is_empty() {
            return Err(InterfaceError::NotThere { name: name.clone(), existing: existing() });
        }
        for name in meant {
            if !chosen.contains(name) {
                chosen.push(name.clone());
            }
        }
    }
    Ok(chosen)
}

/// Whether a name is like a pattern: `*` is any characters, `?` one.
fn is_like(name: &str, pattern: &str) -> bool {
    match pattern.chars().next() {
        None => name.is_empty(),
        Some('*') => {
            let rest = &pattern[1..];
            name.char_indices().map(|(at, _)| at).chain([name.len()]).any(|at| is_like(&name[at..], rest))
        }
        Some(wanted) => {
            let mut characters = name.chars();
            let first = characters.next();
            first.is_some_and(|first| wanted == '?' || first == wanted)
                && is_like(characters.as_str(), &pattern[wanted.len_utf8()..])
        }
    }
}

/// The interface with the default route: IPv4's of the lowest metric, else IPv6's.
#[must_use]
pub fn default_interface(tables: &Tables) -> Option<&str> {
    let routes = RouteIndex::new(tables);
    let mut defaults = routes.all();
    defaults.retain(|route| route.to.prefix_len() == 0 && route.kind == RouteKind::Unicast);
    let best = defaults.into_iter().min_by_key(|route| (route.to.addr().is_ipv6(), route.metric))?;
    tables.links.get(&best.link).map(|link| link.name.as_str())
}
