use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use crate::model::{Mac, NextHopView, NodeView, Role};
use crate::netlink::compose::{covers, put_macs};
use crate::netlink::{
    Address, Interest, InterfaceError, Link, Neighbour, NeighbourState, Route, RouteKind, Rule, Tables, ViewOptions,
    VlanTag, choose_interfaces, compose, default_interface, default_tunnels,
};

/// lo, eth0 (172.17.2.2/24, 2001:db8:2::2/64) with default routes by 172.17.2.1 and fe80::1, and the kernel's rules.
fn node() -> Tables {
    let mut tables = Tables { rules: vec![rule(false, 32766, 254), rule(true, 32766, 254)], ..Tables::default() };
    tables.put_link(Link { index: 1, name: "lo".into(), mtu: 65536, loopback: true, ..Link::default() });
    tables.put_link(ethernet(2, "eth0"));
    tables.put_address(2, "172.17.2.2/24");
    tables.put_address(2, "2001:db8:2::2/64");
    tables.routes = vec![
        route("172.17.2.0/24", None, 2),
        route("0.0.0.0/0", Some("172.17.2.1"), 2),
        route("2001:db8:2::/64", None, 2),
        route("::/0", Some("fe80::1"), 2),
    ];
    tables.put_neighbour(2, "172.17.2.1", 1, NeighbourState::Fresh);
    tables.put_neighbour(2, "fe80::1", 1, NeighbourState::Stale);
    tables
}

impl Tables {
    fn put_link(&mut self, link: Link) {
        self.links.insert(link.index, link);
    }

    fn put_address(&mut self, link: u32, net: &str) {
        self.addresses.push(Address { link, net: net.parse().unwrap(), global: true, preferred: true });
    }

    fn put_neighbour(&mut self, link: u32, to: &str, mac: u8, state: NeighbourState) {
        let neighbour = Neighbour { mac: Some(Mac([2, 0, 0, 0, 0, mac])), state };
        self.neighbours.insert((link, ip(to)), neighbour);
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn ethernet(index: u32, name: &str) -> Link {
    let last = u8::try_from(0x10 + index).unwrap();
    let mac = Some(Mac([2, 0, 0, 0, 0, last]));
    Link { index, name: name.into(), mac, mtu: 1500, up: true, running: true, ..Link::default() }
}

fn rule(v6: bool, priority: u32, table: u32) -> Rule {
    Rule { v6, priority, table, suppress_prefix_length: None }
}

fn route(to: &str, via: Option<&str>, link: u32) -> Route {
    let kind = RouteKind::Unicast;
    Route { to: to.parse().unwrap(), table: 254, metric: 0, kind, link, via: via.map(ip), mtu: None }
}

fn options(interest: Interest) -> ViewOptions {
    ViewOptions {
        node: "t22".into(),
        roles: vec![Role::Director, Role::Decap],
        interfaces: vec!["eth0".into()],
        tunnels: Vec::new(),
        answering: BTreeSet::from(["eth0".into()]),
        interest,
        far_ends: BTreeMap::new(),
    }
}

fn view_of(tables: &Tables, interest: &[&str]) -> NodeView {
    compose(tables, &options(Interest::Only(interest.iter().map(|text| ip(text)).collect()))).view
}

/// `to via mac interface mtu`, one next hop a line.
fn lines(next_hops: &[NextHopView]) -> Vec<String> {
    let line = |hop: &NextHopView| {
        let via = hop.via.map_or("-".to_owned(), |via| via.to_string());
        let mac = hop.mac.map_or("-".to_owned(), |mac| mac.to_string());
        format!("{} {via} {mac} {} {}", hop.to, hop.interface, hop.mtu)
    };
    next_hops.iter().map(line).collect()
}

#[test]
fn the_whole_view_reads_as_documented() {
    let mut tables = node();
    tables.put_neighbour(2, "172.17.2.9", 9, NeighbourState::Stale);
    let view = compose(&tables, &options(Interest::All)).view;
    insta::assert_snapshot!(serde_yaml_ng::to_string(&view).unwrap());
}

#[test]
fn a_view_survives_being_written_and_read() {
    let view = compose(&node(), &options(Interest::All)).view;
    let text = serde_yaml_ng::to_string(&view).unwrap();
    assert_eq!(serde_yaml_ng::from_str::<NodeView>(&text).unwrap(), view);
}

#[test]
fn of_interest_are_the_routes_there_and_the_neighbours_on_link() {
    let mut tables = node();
    tables.put_neighbour(2, "172.17.2.9", 9, NeighbourState::Stale);
    tables.put_neighbour(2, "172.17.2.10", 10, NeighbourState::Fresh);
    let view = view_of(&tables, &["172.17.2.9", "172.17.3.3"]);
    assert_eq!(
        lines(&view.next_hops),
        [
            "172.17.2.9/32 - 02:00:00:00:00:09 eth0 1500",
            "172.17.2.0/24 - - eth0 1500",
            "0.0.0.0/0 172.17.2.1 02:00:00:00:00:01 eth0 1500",
        ]
    );
}

#[test]
fn what_is_not_resolved_is_shown_without_mac_and_needed() {
    let mut tables = node();
    tables.put_neighbour(2, "172.17.2.1", 1, NeighbourState::Unresolved);
    let interest = Interest::Only([ip("172.17.2.9"), ip("172.17.3.3"), ip("172.17.2.2")].into());
    let composition = compose(&tables, &options(interest));
    assert_eq!(
        lines(&composition.view.next_hops),
        ["172.17.2.9/32 - - eth0 1500", "172.17.2.0/24 - - eth0 1500", "0.0.0.0/0 172.17.2.1 - eth0 1500"]
    );
    assert_eq!(composition.needed, BTreeSet::from([(2, ip("172.17.2.1")), (2, ip("172.17.2.9"))]));
}

#[test]
fn a_view_covers_what_it_would_not_change_for() {
    let tables = node();
    let view = view_of(&tables, &["172.17.3.3", "172.17.2.9"]);
    let covered = |addresses: &[&str]| {
        let addresses: Vec<_> = addresses.iter().map(|text| ip(text)).collect();
        let all = [ip("172.17.3.3"), ip("172.17.2.9")].into_iter().chain(addresses.iter().copied());
        let both = Interest::Only(all.collect());
        let covered = covers(&view, &tables, &addresses);
        assert_eq!(covered, compose(&tables, &options(both)).view == view, "{addresses:?}");
        covered
    };
    assert!(covered(&[]));
    assert!(covered(&["172.17.3.4", "198.51.100.7"]), "the default route is told");
    assert!(covered(&["172.17.2.9"]));
    assert!(!covered(&["172.17.3.4", "172.17.2.10"]), "an on-link address is told by itself");
}

#[test]
fn a_pods_own_route_and_its_neighbour_are_one_entry() {
    let mut tables = node();
    tables.put_link(Link { kind: "veth".into(), lower: Some(2), peer_namespace: Some(0), ..ethernet(7, "veth7") });
    tables.routes.push(route("10.0.0.7/32", None, 7));
    tables.put_neighbour(7, "10.0.0.7", 7, NeighbourState::Stale);
    let view = view_of(&tables, &["10.0.0.7"]);
    assert_eq!(lines(&view.next_hops), ["10.0.0.7/32 - 02:00:00:00:00:07 veth7 1500"]);
    assert!(view.interfaces.iter().any(|interface| interface.name == "veth7"), "its interface is shown");
}

#[test]
fn the_mtu_is_the_least_of_route_and_interface() {
    let mut tables = node();
    tables.routes.push(Route { mtu: Some(1400), ..route("172.17.4.0/24", Some("172.17.2.1"), 2) });
    tables.routes.push(Route { mtu: Some(9000), ..route("172.17.5.0/24", Some("172.17.2.1"), 2) });
    let view = view_of(&tables, &["172.17.4.1", "172.17.5.1"]);
    let mtus: Vec<u32> = view.next_hops.iter().map(|hop| hop.mtu).collect();
    assert_eq!(mtus, [1400, 1500]);
}

#[test]
fn of_equal_prefixes_the_lowest_metric_counts() {
    let mut tables = node();
    tables.routes.insert(0, Route { metric: 50, ..route("172.17.4.0/24", Some("172.17.2.8"), 2) });
    tables.routes.push(Route { metric: 10, ..route("172.17.4.0/24", Some("172.17.2.1"), 2) });
    assert_eq!(view_of(&tables, &["172.17.4.1"]).next_hops[0].via, Some(ip("172.17.2.1")));
}

#[test]
fn a_refused_prefix_hides_the_wider_route_and_leads_nowhere() {
    let mut tables = node();
    tables.routes.push(Route { kind: RouteKind::Refuse, ..route("172.17.3.0/24", None, 0) });
    let view = view_of(&tables, &["172.17.3.3"]);
    assert_eq!(lines(&view.next_hops), ["172.17.3.0/24 - - lo 65536"]);
}

#[test]
fn tables_of_earlier_rules_come_first_and_throw_goes_on() {
    let mut tables = node();
    tables.rules.insert(0, rule(false, 100, 10));
    let in_ten = |route: Route| Route { table: 10, ..route };
    tables.routes.push(in_ten(route("172.16.0.0/12", Some("172.17.2.8"), 2)));
    tables.routes.push(in_ten(Route { kind: RouteKind::Throw, ..route("172.17.3.0/24", None, 0) }));
    tables.routes.push(route("172.17.4.0/24", Some("172.17.2.1"), 2));
    let via = |to: &str| view_of(&tables, &[to]).next_hops[0].via;
    assert_eq!(via("172.17.4.4"), Some(ip("172.17.2.8")), "table 10 hides main's more specific route");
    assert_eq!(via("172.17.3.3"), Some(ip("172.17.2.1")), "thrown on to main");
    let all = compose(&tables, &options(Interest::All)).view;
    assert!(!lines(&all.next_hops).iter().any(|line| line.starts_with("172.17.4.0/24")), "what is hidden is not shown");
}

#[test]
fn a_suppressed_default_route_does_not_count() {
    let mut tables = node();
    tables.rules.insert(0, Rule { suppress_prefix_length: Some(0), ..rule(false, 100, 254) });
    tables.rules.insert(1, rule(false, 200, 51820));
    tables.routes.push(Route { table: 51820, ..route("0.0.0.0/0", Some("172.17.2.8"), 2) });
    assert_eq!(view_of(&tables, &["8.8.8.8"]).next_hops[0].via, Some(ip("172.17.2.8")));
    assert_eq!(view_of(&tables, &["172.17.2.9"]).next_hops[0].to.to_string(), "172.17.2.9/32");
}

#[test]
fn an_ipv4_route_may_lead_over_an_ipv6_gateway() {
    let mut tables = node();
    tables.routes.push(route("172.17.3.0/24", Some("fe80::1"), 2));
    let view = view_of(&tables, &["172.17.3.3"]);
    assert_eq!(lines(&view.next_hops), ["172.17.3.0/24 fe80::1 02:00:00:00:00:01 eth0 1500"]);
}

#[test]
fn a_vlan_device_tells_its_tag_and_the_device_beneath() {
    let mut tables = node();
    let vlan = Some(VlanTag { protocol: 0x8100, id: 42 });
    tables.put_link(Link { kind: "vlan".into(), lower: Some(8), vlan, ..ethernet(9, "eth1.42") });
    tables.put_link(ethernet(8, "eth1"));
    tables.routes.push(route("172.17.3.0/24", Some("172.17.42.1"), 9));
    let view = view_of(&tables, &["172.17.3.3"]);
    let shown: Vec<_> = view
        .interfaces
        .iter()
        .map(|interface| (interface.name.as_str(), interface.parent.as_deref(), interface.vlan))
        .collect();
    assert_eq!(shown, [("eth0", None, None), ("eth1", None, None), ("eth1.42", Some("eth1"), Some((0x8100, 42)))]);
}

#[test]
fn a_bridge_is_shown_without_mac() {
    let mut tables = node();
    tables.put_link(Link { kind: "bridge".into(), ..ethernet(5, "br0") });
    tables.put_address(5, "10.9.0.1/24");
    let view = view_of(&tables, &[]);
    assert_eq!(view.interfaces[1].name, "br0");
    assert_eq!(view.interfaces[1].mac, None);
}

#[test]
fn attached_interfaces_come_first_and_missing_ones_are_left_out() {
    let mut tables = node();
    tables.put_link(ethernet(3, "eth1"));
    let mut options = options(Interest::All);
    options.interfaces = ["eth1", "eth7", "eth0"].map(String::from).to_vec();
    let view = compose(&tables, &options).view;
    assert_eq!(view.attached, ["eth1", "eth0"]);
    assert_eq!(view.interfaces.iter().map(|interface| interface.index).collect::<Vec<_>>(), [3, 2]);
}

#[test]
fn new_macs_alone_give_the_same_view_as_composing_anew() {
    let mut tables = node();
    tables.put_neighbour(2, "172.17.2.9", 9, NeighbourState::Stale);
    tables.put_link(ethernet(3, "eth1"));
    tables.put_neighbour(3, "172.17.2.9", 8, NeighbourState::Stale);
    let interest = Interest::Only(["172.17.2.9", "172.17.3.3", "2001:db8:9::9"].map(ip).into());
    let mut view = compose(&tables, &options(interest.clone())).view;
    tables.put_neighbour(2, "172.17.2.9", 1, NeighbourState::Fresh);
    tables.put_neighbour(2, "172.17.2.1", 2, NeighbourState::Stale);
    tables.neighbours.remove(&(2, ip("fe80::1")));
    let changed = [(2, ip("172.17.2.9")), (2, ip("172.17.2.1")), (2, ip("fe80::1"))].into();
    put_macs(&mut view, &tables, &changed);
    assert_eq!(view, compose(&tables, &options(interest)).view);
    assert_eq!(view.next_hops.iter().filter(|hop| hop.mac.is_some()).count(), 2);
}

#[test]
fn the_order_of_the_kernels_answers_makes_no_difference() {
    let tables = node();
    let mut other = node();
    other.routes.reverse();
    other.neighbours = tables.neighbours.clone().into_iter().collect::<HashMap<_, _>>();
    assert_eq!(compose(&tables, &options(Interest::All)), compose(&other, &options(Interest::All)));
}

#[test]
fn the_default_interface_is_ipv4s_with_the_lowest_metric_else_ipv6s() {
    let mut tables = node();
    tables.put_link(ethernet(3, "wlan0"));
    tables.routes.retain(|route| route.to.prefix_len() != 0);
    assert_eq!(default_interface(&tables), None);
    tables.routes.push(route("::/0", Some("fe80::1"), 2));
    assert_eq!(default_interface(&tables), Some("eth0"));
    tables.routes.push(Route { metric: 600, ..route("0.0.0.0/0", Some("192.168.1.1"), 3) });
    assert_eq!(default_interface(&tables), Some("wlan0"));
    tables.routes.push(Route { metric: 100, ..route("0.0.0.0/0", Some("172.17.2.1"), 2) });
    assert_eq!(default_interface(&tables), Some("eth0"));
}

#[test]
fn an_interface_that_does_not_exist_is_refused_with_those_that_do() {
    let mut tables = node();
    tables.put_link(ethernet(3, "eth1"));
    let refusal = choose_interfaces(&tables, &["eth9".to_owned()]).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "there is no interface `eth9`; this node has eth0, eth1; name one of them with --interface"
    );
    tables.routes.clear();
    assert!(matches!(choose_interfaces(&tables, &[]), Err(InterfaceError::NoDefaultRoute { .. })));
    let twice = ["eth1".to_owned(), "eth0".to_owned(), "eth1".to_owned()];
    assert_eq!(choose_interfaces(&tables, &twice).unwrap(), ["eth1", "eth0"]);
}

#[test]
fn interfaces_are_named_by_patterns_too() {
    let mut tables = node();
    tables.put_link(ethernet(3, "eth1"));
    tables.put_link(ethernet(4, "ens1f0np0"));
    let chosen = |pattern: &str| choose_interfaces(&tables, &[pattern.to_owned()]);
    assert_eq!(chosen("eth*").unwrap(), ["eth0", "eth1"]);
    assert_eq!(chosen("e*f?np*").unwrap(), ["ens1f0np0"]);
    assert_eq!(chosen("*").unwrap(), ["eth0", "eth1", "ens1f0np0"], "all but the loopback");
    assert_eq!(
        chosen("eth?*0").unwrap_err(),
        InterfaceError::NotThere {
            name: "eth?*0".to_owned(),
            existing: vec!["eth0".to_owned(), "eth1".to_owned(), "ens1f0np0".to_owned()],
        }
    );
}

#[test]
fn the_default_tunnels_are_the_addresses_that_were_there_first() {
    let mut tables = node();
    tables.addresses.insert(0, Address { global: false, ..address("169.254.0.7/16") });
    tables.addresses.insert(1, Address { preferred: false, ..address("172.17.2.77/24") });
    // Added later: the kernel tells IPv4 last, IPv6 first.
    tables.addresses.push(address("172.17.2.1/32"));
    tables.addresses.insert(2, address("2001:db8:2::1/128"));
    assert_eq!(default_tunnels(&tables, "eth0"), [ip("172.17.2.2"), ip("2001:db8:2::2")]);
}

fn address(net: &str) -> Address {
    Address { link: 2, net: net.parse().unwrap(), global: true, preferred: true }
}
