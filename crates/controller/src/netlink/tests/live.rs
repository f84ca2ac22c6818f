//! Against the kernel, in namespaces.

use std::collections::{BTreeMap, BTreeSet};
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;

use super::net::{Net, wait_for};
use crate::model::{Mac, NodeView, Role};
use crate::netlink::{
    Connection, Interest, Monitor, Namespaces, NeighbourState, ViewOptions, compose, read, read_links,
};

const NODE_MAC: &str = "02:00:00:00:00:16";
const GATEWAY_MAC: &str = "02:00:00:00:00:01";

/// A node with eth0 (172.17.2.2, 2001:db8:2::2) and a gateway that is there and answers.
struct Bed {
    node: Net,
    gateway: Net,
}

impl Bed {
    fn new() -> Self {
        let bed = Self { node: Net::new(), gateway: Net::new() };
        bed.node.veth(("eth0", NODE_MAC), &bed.gateway, ("gw", GATEWAY_MAC));
        bed.gateway.address("172.17.2.1/24", "gw");
        bed.gateway.address("2001:db8:2::1/64", "gw");
        bed.configure_node();
        bed
    }

    fn configure_node(&self) {
        self.node.address("172.17.2.2/24", "eth0");
        self.node.address("2001:db8:2::2/64", "eth0");
        self.node.ip("route add default via 172.17.2.1");
        self.node.ip("route add default via 2001:db8:2::1");
    }

    fn monitor(&self, interest: &[&str]) -> (Monitor, watch::Receiver<Arc<NodeView>>) {
        let interest = Interest::Only(interest.iter().map(|text| text.parse().unwrap()).collect());
        self.node.inside(|| Monitor::start(options(interest)).unwrap())
    }
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

fn mac_of(view: &watch::Receiver<Arc<NodeView>>, to: &str) -> Option<Mac> {
    view.borrow().next_hops.iter().find(|hop| hop.to.to_string() == to).and_then(|hop| hop.mac)
}

fn mac(text: &str) -> Option<Mac> {
    Some(text.parse().unwrap())
}

#[test]
fn the_view_of_a_built_topology_is_as_built() {
    let bed = Bed::new();
    bed.node.ip("route add 172.17.3.0/24 via 172.17.2.1 mtu 1450");
    bed.node.ip("route add blackhole 172.17.66.0/24");
    bed.node.ip("route add 172.17.7.0/24 nexthop via 172.17.2.1 dev eth0 nexthop via 172.17.2.9 dev eth0");
    bed.node.ip("route add 172.17.8.0/24 via inet6 2001:db8:2::1 dev eth0");
    bed.node.ip("neighbour replace 172.17.2.1 lladdr 02:00:00:00:00:01 dev eth0 nud permanent");
    bed.node.ip("neighbour replace 2001:db8:2::1 lladdr 02:00:00:00:00:01 dev eth0 nud permanent");
    bed.node.ip("neighbour replace 172.17.2.9 lladdr 02:00:00:00:00:09 dev eth0 nud permanent");
    bed.node.ip("address add 203.0.113.10/32 dev lo");
    // Link-local addresses, routes and neighbours come when they come.
    bed.node.ip("link set eth0 addrgenmode none");
    bed.node.ip("address flush dev eth0 scope link");

    let mut view = bed.node.inside(|| {
        let tables = read(&mut Connection::open().unwrap()).unwrap();
        compose(&tables, &options(Interest::All)).view
    });
    view.next_hops.retain(|hop| !hop.to.to_string().starts_with("fe80"));
    for interface in &mut view.interfaces {
        interface.index = if interface.name == "lo" { 1 } else { 2 };
    }
    insta::assert_snapshot!(serde_yaml_ng::to_string(&view).unwrap());
}

#[test]
fn unresolved_gateways_and_neighbours_are_asked_for_and_resolved() {
    let bed = Bed::new();
    let (monitor, view) = bed.monitor(&["172.17.3.3", "2001:db8:3::3", "172.17.2.1"]);
    for to in ["0.0.0.0/0", "::/0", "172.17.2.1/32"] {
        wait_for(to, || mac_of(&view, to) == mac(GATEWAY_MAC));
    }
    assert!(monitor.counters().asked.load(Ordering::Relaxed) >= 2);
    assert_eq!(monitor.counters().errors.load(Ordering::Relaxed), 0);
}

#[test]
fn a_neighbour_that_does_not_answer_is_shown_without_mac_and_asked_for_again() {
    let bed = Bed::new();
    let (monitor, view) = bed.monitor(&["172.17.2.77"]);
    assert_eq!(mac_of(&view, "172.17.2.77/32"), None);
    assert_eq!(view.borrow().next_hops[0].to.to_string(), "172.17.2.77/32");
    wait_for("a second ask", || monitor.counters().asked.load(Ordering::Relaxed) >= 2);
    // Now it comes up, and the next ask finds it.
    bed.gateway.address("172.17.2.77/24", "gw");
    wait_for("its MAC", || mac_of(&view, "172.17.2.77/32") == mac(GATEWAY_MAC));
}

#[test]
fn a_gateways_new_mac_is_told_within_milliseconds() {
    let bed = Bed::new();
    let (_monitor, view) = bed.monitor(&["172.17.3.3"]);
    wait_for("the gateway", || mac_of(&view, "0.0.0.0/0") == mac(GATEWAY_MAC));
    let mut fastest = Duration::MAX;
    for last in 0x20..0x30 {
        let new = format!("02:00:00:00:00:{last:x}");
        bed.node.ip(&format!("neighbour replace 172.17.2.1 lladdr {new} dev eth0 nud reachable"));
        fastest = fastest.min(wait_for("the new MAC", || mac_of(&view, "0.0.0.0/0") == mac(&new)));
    }
    // The best of sixteen: the machine may be busy, the way may not be slow.
    assert!(fastest < Duration::from_millis(50), "took {fastest:?} at best");
}

#[test]
fn a_gateway_whose_card_is_replaced_is_followed_by_its_own_arp() {
    let bed = Bed::new();
    let (_monitor, view) = bed.monitor(&["172.17.3.3", "2001:db8:3::3"]);
    for to in ["0.0.0.0/0", "::/0"] {
        wait_for("the gateway", || mac_of(&view, to) == mac(GATEWAY_MAC));
    }
    // For a second after an update the kernel believes no other (net.ipv4.neigh.*.locktime).
    std::thread::sleep(Duration::from_millis(1200));
    let new = "02:00:00:00:00:99";
    bed.gateway.ip(&format!("link set gw address {new}"));
    bed.gateway.ip("neighbour flush dev gw");
    for (from, to) in [("172.17.2.1:0", "172.17.2.2:9"), ("[2001:db8:2::1]:0", "[2001:db8:2::2]:9")] {
        let socket = bed.gateway.inside(|| UdpSocket::bind(from).unwrap());
        socket.send_to(b"here I am", to).unwrap();
    }
    for to in ["0.0.0.0/0", "::/0"] {
        wait_for("the new card", || mac_of(&view, to) == mac(new));
    }
}

#[test]
fn tables_that_every_packet_looks_up_count_and_others_do_not() {
    let bed = Bed::new();
    bed.node.ip("rule add priority 100 lookup 10");
    bed.node.ip("rule add priority 50 fwmark 1 lookup 11");
    bed.node.ip("rule add priority 60 from 192.0.2.0/24 lookup 11");
    bed.node.ip("rule add priority 70 iif lo lookup 11");
    bed.node.ip("route add 172.17.3.0/24 via 172.17.2.8 table 10");
    bed.node.ip("route add 172.17.3.0/24 via 172.17.2.9 table 11");
    let (_monitor, view) = bed.monitor(&["172.17.3.3"]);
    let via = || view.borrow().next_hops.first().and_then(|hop| hop.via).map(|via| via.to_string());
    assert_eq!(via().as_deref(), Some("172.17.2.8"));
    bed.node.ip("rule delete priority 100");
    wait_for("the main table's route", || via().as_deref() == Some("172.17.2.1"));
}

#[test]
fn a_gateway_that_falls_silent_loses_its_mac_and_gets_it_back() {
    let bed = Bed::new();
    let (_monitor, view) = bed.monitor(&["172.17.3.3"]);
    wait_for("the gateway", || mac_of(&view, "0.0.0.0/0") == mac(GATEWAY_MAC));
    bed.node.ip("neighbour delete 172.17.2.1 dev eth0");
    wait_for("it is asked for again", || mac_of(&view, "0.0.0.0/0") == mac(GATEWAY_MAC));
}

#[test]
fn a_stale_gateway_keeps_its_mac_and_is_confirmed() {
    let bed = Bed::new();
    let (_monitor, view) = bed.monitor(&["172.17.3.3"]);
    wait_for("the gateway", || mac_of(&view, "0.0.0.0/0") == mac(GATEWAY_MAC));
    bed.node.ip(&format!("neighbour replace 172.17.2.1 lladdr {GATEWAY_MAC} dev eth0 nud stale"));
    let state = || {
        bed.node.inside(|| {
            let tables = read(&mut Connection::open().unwrap()).unwrap();
            let found = tables.neighbours.iter().find(|((_, to), _)| to.to_string() == "172.17.2.1");
            found.map(|(_, neighbour)| neighbour.state)
        })
    };
    wait_for("it is being confirmed", || {
        assert_eq!(mac_of(&view, "0.0.0.0/0"), mac(GATEWAY_MAC), "stale is good enough");
        state() == Some(NeighbourState::Fresh)
    });
}

#[test]
fn a_link_that_goes_and_comes_back_is_followed() {
    let bed = Bed::new();
    let (_monitor, view) = bed.monitor(&["172.17.3.3"]);
    wait_for("the gateway", || mac_of(&view, "0.0.0.0/0") == mac(GATEWAY_MAC));
    let index = bed.node.index("eth0");

    bed.node.ip("link delete eth0");
    wait_for("it is gone", || view.borrow().attached.is_empty() && view.borrow().next_hops.is_empty());
    assert!(view.borrow().tunnel.is_empty());

    bed.node.veth(("eth0", "02:00:00:00:00:17"), &bed.gateway, ("gw", "02:00:00:00:00:05"));
    bed.gateway.address("172.17.2.1/24", "gw");
    bed.configure_node();
    wait_for("it is back", || mac_of(&view, "0.0.0.0/0") == mac("02:00:00:00:00:05"));
    let back = view.borrow().interfaces[0].clone();
    assert_eq!(back.mac, mac("02:00:00:00:00:17"));
    assert_ne!(back.index, index);
    assert_eq!(view.borrow().tunnel.len(), 2);
}

#[test]
fn routes_that_vanish_with_a_link_going_down_are_noticed() {
    let bed = Bed::new();
    let (_monitor, view) = bed.monitor(&["172.17.3.3"]);
    assert_eq!(view.borrow().next_hops.len(), 1);
    bed.node.ip("link set eth0 down");
    wait_for("no route", || view.borrow().next_hops.is_empty());
    assert_eq!(view.borrow().attached, ["eth0"], "down is not gone");
    bed.node.ip("link set eth0 up");
    bed.node.ip("route add default via 172.17.2.1");
    wait_for("the gateway", || mac_of(&view, "0.0.0.0/0") == mac(GATEWAY_MAC));
}

#[test]
fn a_changed_interest_changes_the_view() {
    let bed = Bed::new();
    let (monitor, view) = bed.monitor(&[]);
    assert!(view.borrow().next_hops.is_empty());
    monitor.update(|options| options.interest = Interest::Only(["172.17.3.3".parse().unwrap()].into()));
    wait_for("the gateway", || mac_of(&view, "0.0.0.0/0") == mac(GATEWAY_MAC));
}

#[test]
fn addresses_come_to_be_of_interest_and_cease_to_be() {
    let bed = Bed::new();
    let (monitor, view) = bed.monitor(&[]);
    let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    let nothing = BTreeSet::new();
    let shown = || view.borrow().next_hops.iter().map(|hop| hop.to.to_string()).collect::<Vec<_>>();

    assert!(monitor.follow(&addresses(&["172.17.3.3"]), &nothing));
    assert!(monitor.settle(Duration::from_secs(5)), "a view is made soon");
    assert_eq!(shown(), ["0.0.0.0/0"]);
    wait_for("the gateway", || mac_of(&view, "0.0.0.0/0") == mac(GATEWAY_MAC));
    let views = monitor.counters().views.load(Ordering::Relaxed);

    assert!(monitor.follow(&addresses(&["172.17.3.4"]), &addresses(&["172.17.3.3"])));
    assert!(monitor.settle(Duration::from_secs(5)), "the view tells that way already");
    assert_eq!(monitor.counters().views.load(Ordering::Relaxed), views, "so it is no other");
    assert!(!monitor.follow(&addresses(&["172.17.3.4"]), &nothing), "it is followed already");

    assert!(monitor.follow(&addresses(&["172.17.2.9"]), &nothing));
    assert!(monitor.settle(Duration::from_secs(5)), "a view is made soon");
    assert_eq!(shown(), ["172.17.2.9/32", "172.17.2.0/24", "0.0.0.0/0"]);

    assert!(!monitor.follow(&nothing, &addresses(&["172.17.2.9", "172.17.3.4"])));
    wait_for("a view without the ways that nobody wants", || view.borrow().next_hops.is_empty());
}

#[test]
fn the_far_end_of_a_veth_is_found_by_its_namespace() {
    let bed = Bed::new();
    bed.node.ip("link add near type veth peer name far");
    let bystander = Net::new();
    let peer = bed.node.inside(|| {
        let mut connection = Connection::open().unwrap();
        let links = read_links(&mut connection).unwrap();
        let named = |name: &str| links.values().find(|link| link.name == name).unwrap();
        let directory = std::path::Path::new("/run/netns");
        let namespaces = Namespaces::scan(&mut connection, directory).unwrap();
        let near = namespaces.find_peer(named("near")).unwrap();
        assert_eq!(near.index, named("far").index, "the same namespace");
        let refusal = namespaces.find_peer(named("lo")).unwrap_err();
        assert_eq!(refusal.to_string(), "`lo` is no veth: it has no far end");
        let empty = tempfile::tempdir().unwrap();
        let none = Namespaces::scan(&mut connection, empty.path()).unwrap();
        let refusal = none.find_peer(named("eth0")).unwrap_err();
        assert!(refusal.to_string().contains("--netns-dir"), "{refusal}");
        let refusal = Namespaces::scan(&mut connection, &empty.path().join("nowhere")).unwrap_err();
        assert!(refusal.to_string().contains("--netns-dir"), "{refusal}");
        namespaces.find_peer(named("eth0")).unwrap()
    });
    assert_eq!(peer.path, bed.gateway.path());
    assert_eq!(peer.index, bed.gateway.index("gw"));
    drop(bystander);
}

#[test]
fn a_view_that_has_settled_tells_what_was_just_asked_for() {
    let bed = Bed::new();
    let (monitor, views) = bed.monitor(&[]);
    assert!(views.borrow().next_hops.is_empty());
    for last in 3..20 {
        let to = std::net::IpAddr::from([172, 17, 3, last]);
        monitor.update(|options| options.interest = Interest::Only([to].into()));
        assert!(monitor.settle(Duration::from_secs(5)), "a view is made soon");
        let shown = |view: &NodeView| view.next_hops.iter().any(|hop| hop.to.contains(&to));
        assert!(shown(&views.borrow()), "the way to {to} is in {:?}", views.borrow().next_hops);
    }
    assert!(monitor.settle(Duration::ZERO), "nothing was asked for since");
}
