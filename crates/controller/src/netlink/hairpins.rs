//! Which clients' replies leave where they cannot be translated. Pure.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::routes::RouteIndex;
use super::tables::{Link, RouteKind, Tables};

/// Prefixes, and whether packets to them leave by another device than an uplink with the program on the way out (or not at
/// all): the longest decides, and what is in none leaves by such an uplink.
pub type Hairpins = BTreeMap<IpNet, bool>;

/// The hairpins of a node whose program on the way out is attached to these uplinks. Replies are translated where they leave
/// by one of them, a VLAN device on one, or a device that one is a port of (bond, bridge). No more prefixes than are needed
/// to say so.
#[must_use]
pub fn hairpins(tables: &Tables, uplinks: &BTreeSet<String>) -> Hairpins {
    let answering = answering(tables, uplinks);
    let routes = RouteIndex::new(tables);
    let mut told: Hairpins = routes
        .all()
        .into_iter()
        .map(|route| (route.to.trunc(), route.kind != RouteKind::Unicast || !answering.contains(&route.link)))
        .collect();
    // To the node itself nothing leaves.
    told.extend(tables.addresses.iter().map(|address| (IpNet::from(address.net.addr()), true)));

    let mut all: Vec<(IpNet, bool)> = told.into_iter().collect();
    all.sort_by_key(|(net, _)| net.prefix_len());
    let mut needed = Hairpins::new();
    for (net, hairpin) in all {
        if hairpin != around(&needed, net) {
            needed.insert(net, hairpin);
        }
    }
    needed
}

/// What the prefixes around this one say.
fn around(needed: &Hairpins, net: IpNet) -> bool {
    let mut wider = net.supernet();
    while let Some(net) = wider {
        if let Some(hairpin) = needed.get(&net) {
            return *hairpin;
        }
        wider = net.supernet();
    }
    false
}

/// Indices of the devices that packets leave by through an uplink.
fn answering(tables: &Tables, uplinks: &BTreeSet<String>) -> BTreeSet<u32> {
    let own: Vec<&Link> = tables.links.values().filter(|link| uplinks.contains(&link.name)).collect();
    let mut answering: BTreeSet<u32> = own.iter().map(|link| link.index).collect();
    answering.extend(own.iter().filter_map(|link| link.controller));
    loop {
        // A VLAN device may stand on another.
        let above = |link: &&Link| link.vlan.is_some() && link.lower.is_some_and(|lower| answering.contains(&lower));
        let more: Vec<u32> = tables.links.values().filter(above).map(|link| link.index).collect();
        let before = answering.len();
        answering.extend(more);
        if answering.len() == before {
            return answering;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{Address, Route, Rule, VlanTag};

    fn link(index: u32, name: &str) -> Link {
        Link { index, name: name.into(), ..Link::default() }
    }

    fn route(to: &str, link: u32) -> Route {
        let to = to.parse().expect("a prefix");
        Route { to, table: 254, metric: 0, kind: RouteKind::Unicast, link, via: None, mtu: None }
    }

    /// eth0 with the default routes, a pod network on cni0, and another node's pods by eth0.
    fn node() -> Tables {
        let rule = |v6| Rule { v6, priority: 32766, table: 254, suppress_prefix_length: None };
        let address =
            |link, net: &str| Address { link, net: net.parse().expect("a net"), global: true, preferred: true };
        Tables {
            links: [link(1, "lo"), link(2, "eth0"), link(5, "cni0")].map(|link| (link.index, link)).into(),
            addresses: vec![address(2, "172.17.2.2/24"), address(5, "10.22.1.1/24"), address(2, "2001:db8:2::2/64")],
            routes: vec![
                route("0.0.0.0/0", 2),
                route("172.17.2.0/24", 2),
                route("10.22.1.0/24", 5),
                route("10.22.2.0/24", 2),
                route("::/0", 2),
                route("2001:db8:2::/64", 2),
            ],
            rules: vec![rule(false), rule(true)],
            ..Tables::default()
        }
    }

    fn told(tables: &Tables) -> Vec<String> {
        told_with(tables, &["eth0"])
    }

    fn told_with(tables: &Tables, uplinks: &[&str]) -> Vec<String> {
        let shown =
            |(net, hairpin): (&IpNet, &bool)| format!("{net} {}", if *hairpin { "elsewhere" } else { "uplink" });
        hairpins(tables, &uplinks.iter().map(ToString::to_string).collect()).iter().map(shown).collect()
    }

    #[test]
    fn pods_of_this_node_and_the_node_itself_are_told_and_what_uplinks_answer_is_not() {
        assert_eq!(
            told(&node()),
            ["10.22.1.0/24 elsewhere", "172.17.2.2/32 elsewhere", "2001:db8:2::2/128 elsewhere"],
            "the address of cni0 is within its net"
        );
    }

    #[test]
    fn what_is_routed_by_an_uplink_without_the_program_is_not_answered() {
        let mut tables = node();
        tables.links.insert(3, link(3, "eth1"));
        tables.routes.push(route("192.0.2.0/24", 3));
        let by_eth1 = |told: Vec<String>| told.into_iter().filter(|line| line.starts_with("192.")).collect::<Vec<_>>();
        assert_eq!(by_eth1(told_with(&tables, &["eth0", "eth1"])), [""; 0]);
        assert_eq!(by_eth1(told_with(&tables, &["eth0"])), ["192.0.2.0/24 elsewhere"]);
        assert_eq!(told_with(&tables, &["eth1"]), ["0.0.0.0/0 elsewhere", "192.0.2.0/24 uplink", "::/0 elsewhere"]);
        assert_eq!(told_with(&tables, &[]), ["0.0.0.0/0 elsewhere", "::/0 elsewhere"]);
    }

    #[test]
    fn a_prefix_within_one_that_goes_elsewhere_is_told_where_it_does_not() {
        let mut tables = node();
        tables.links.insert(7, link(7, "flannel.1"));
        tables.routes.push(route("10.22.0.0/16", 7));
        assert_eq!(
            told(&tables)[..2],
            ["10.22.0.0/16 elsewhere".to_owned(), "10.22.2.0/24 uplink".to_owned()],
            "10.22.1.0/24 is within the first"
        );
        tables.routes.push(Route { kind: RouteKind::Refuse, ..route("198.51.100.0/24", 0) });
        assert!(told(&tables).contains(&"198.51.100.0/24 elsewhere".to_owned()), "what is refused is not answered");
    }

    #[test]
    fn devices_on_an_uplink_and_over_it_answer_and_tunnels_through_it_do_not() {
        let mut tables = node();
        let vlan = Some(VlanTag { protocol: 0x8100, id: 5 });
        for other in [
            Link { vlan, lower: Some(2), ..link(11, "eth0.5") },
            Link { vlan, lower: Some(11), ..link(12, "eth0.5.6") },
            link(13, "bond0"),
            Link { lower: Some(2), kind: "vxlan".into(), ..link(14, "vxlan0") },
        ] {
            tables.links.insert(other.index, other);
        }
        tables.links.insert(2, Link { controller: Some(13), ..link(2, "eth0") });
        for (number, device) in (1..).zip([11, 12, 13, 14]) {
            tables.routes.push(route(&format!("192.0.2.{number}/32"), device));
        }
        let of_others: Vec<String> = told(&tables).into_iter().filter(|line| line.starts_with("192.0.2.")).collect();
        assert_eq!(of_others, ["192.0.2.4/32 elsewhere"]);
    }
}
