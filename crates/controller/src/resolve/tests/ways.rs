use super::{fed, fed_at, t22};
use crate::fixtures::{VirtualServiceBuilder, ip, node, view, virtual_service};
use crate::model::{Egress, Mac, NextHopKey, NextHopState, Path, Role};

fn web() -> VirtualServiceBuilder {
    virtual_service("shop/web").vip("203.0.113.10").tcp(80)
}

fn key(interface: &str, gateway: &str) -> NextHopKey {
    NextHopKey { interface: interface.to_owned(), gateway: ip(gateway) }
}

#[test]
fn the_most_specific_route_wins() {
    let view = t22().interface("eth1", 3, &[]).route("172.17.3.0/24", "192.0.2.1", "eth1", 1400).build();
    let fed = fed_at(view, vec![web().endpoint("172.17.3.3").endpoint("172.17.4.4").into()]);
    assert_eq!(
        fed.state().next_hops.keys().collect::<Vec<_>>(),
        [&key("eth0", "172.17.2.1"), &key("eth1", "192.0.2.1")]
    );
    let by_eth1 = &fed.state().next_hops[&key("eth1", "192.0.2.1")];
    assert_eq!((by_eth1.mtu, by_eth1.egress.ifindex, by_eth1.mac), (1400, 3, None));
    insta::assert_snapshot!(fed.problems(), @r#"
    interface eth1: the next hop 192.0.2.1 does not answer, so its MAC is not known; is it up and on that network? (see `ip neigh show 192.0.2.1`) (NoNeighbour)
    "#);
    let unresolved: Vec<_> = fed.needs().neighbours.into_iter().filter(|neighbour| !neighbour.resolved).collect();
    assert_eq!((unresolved.len(), unresolved[0].address), (1, ip("192.0.2.1")));
}

#[test]
fn an_on_link_endpoint_is_its_own_next_hop_on_the_interface_of_its_route() {
    let view = t22().interface("eth1", 3, &[]).neighbour("172.17.2.7", "eth1", 9).neighbour("172.17.2.7", "eth0", 7);
    let fed = fed_at(view.build(), vec![web().endpoint("172.17.2.7").into()]);
    let next_hop = &fed.state().next_hops[&key("eth0", "172.17.2.7")];
    assert_eq!(next_hop.mac, Some(Mac([2, 0, 0, 0, 1, 7])));
    assert_eq!(fed.state().next_hops.len(), 1);
}

#[test]
fn a_vlan_device_is_no_target_but_the_one_beneath_with_its_tags() {
    let view = view("t22", &["172.17.2.2/24"])
        .interface("eth0.10", 3, &[])
        .vlan("eth0", 10)
        .interface("eth0.10.20", 4, &["192.0.2.2/24"])
        .vlan("eth0.10", 20)
        .on_link("192.0.2.0/24", "eth0.10.20");
    let fed = fed_at(view.build(), vec![web().endpoint("192.0.2.7").into()]);
    assert_eq!(
        fed.state().next_hops[&key("eth0.10.20", "192.0.2.7")],
        NextHopState {
            mac: None,
            mtu: 1500,
            egress: Egress {
                ifindex: 2,
                mac: Mac([2, 0, 0, 0, 0, 4]),
                mtu: 1500,
                tags: vec![(0x8100, 10), (0x8100, 20)]
            }
        }
    );
}

#[test]
fn an_endpoint_without_a_route_keeps_its_rows() {
    let view = view("t22", &["172.17.2.2/24"]).on_link("172.17.2.0/24", "eth0").build();
    let fed = fed_at(view, vec![web().endpoint("172.17.2.7").endpoint("198.51.100.7").endpoint("2001:db8::7").into()]);
    assert_eq!(fed.path("shop/web", "198.51.100.7"), Path::Unreachable { destination: ip("198.51.100.7") });
    assert_eq!(fed.primaries("shop/web").len(), 3);
    insta::assert_snapshot!(fed.problems(), @r#"
    VirtualService shop/web, spec.endpoints: endpoint 198.51.100.7: this node has no route to 198.51.100.7; add one (see `ip route get 198.51.100.7`) (NoRoute)
    VirtualService shop/web, spec.endpoints: endpoint 2001:db8::7: this node has no IPv6 tunnel address to reach 2001:db8::7 from; give it one, or name it with --tunnel-address (NoRoute)
    interface eth0: the next hop 172.17.2.7 does not answer, so its MAC is not known; is it up and on that network? (see `ip neigh show 172.17.2.7`) (NoNeighbour)
    "#);
}

#[test]
fn what_a_router_told_lowers_the_mtu_until_it_is_forgotten() {
    let mut fed = fed(vec![web().endpoint("172.17.3.3").into()]);
    let key = key("eth0", "172.17.2.1");
    fed.mtus.insert(key.clone(), 1400);
    let changed = fed.resolve();
    assert_eq!(fed.state().next_hops[&key].mtu, 1400);
    assert_eq!((changed.services.len(), changed.next_hops.len()), (0, 1));
    fed.mtus.clear();
    fed.resolve();
    assert_eq!(fed.state().next_hops[&key].mtu, 1500);
}

#[test]
fn the_least_mtu_of_the_routes_that_use_a_next_hop_counts() {
    let view = t22().route("172.17.3.0/24", "172.17.2.1", "eth0", 1300).build();
    let mut fed = fed_at(view, vec![web().endpoint("172.17.3.3").endpoint("172.17.4.4").into()]);
    let key = key("eth0", "172.17.2.1");
    assert_eq!(fed.state().next_hops[&key].mtu, 1300);
    fed.apply(web().endpoint("172.17.4.4"));
    assert_eq!(fed.state().next_hops[&key].mtu, 1500);
    fed.apply(web().endpoint("172.17.2.2"));
    assert!(fed.state().next_hops.is_empty(), "nobody uses it any more");
}

#[test]
fn a_gateways_new_mac_touches_no_service() {
    let mut fed = fed(vec![web().endpoint("172.17.3.3").into()]);
    let service = std::sync::Arc::clone(fed.state().services.values().next().unwrap());
    let entry = fed.view.next_hops.iter_mut().find(|entry| entry.to.addr() == ip("172.17.2.1")).unwrap();
    entry.mac = Some(Mac([2, 0, 0, 0, 9, 9]));
    let changed = fed.resolve();
    assert_eq!(fed.state().next_hops[&key("eth0", "172.17.2.1")].mac, Some(Mac([2, 0, 0, 0, 9, 9])));
    assert_eq!((changed.services.len(), changed.next_hops.len()), (0, 1));
    assert!(std::sync::Arc::ptr_eq(&service, fed.state().services.values().next().unwrap()));
}

#[test]
fn gue_is_accepted_from_every_node_by_a_node_that_decapsulates() {
    let nodes = vec![node("t22", &["172.17.2.2"]), node("t33", &["172.17.3.3", "2001:db8:3::3"])];
    let both = fed(nodes.clone());
    assert_eq!(both.state().directors, [ip("172.17.2.2"), ip("172.17.3.3"), ip("2001:db8:3::3")].into());
    assert_eq!(both.state().tunnels, [ip("172.17.2.2"), ip("2001:db8:2::2")].into());
    let director = fed_at(t22().roles(&[Role::Director]).build(), nodes);
    assert!(director.state().directors.is_empty() && director.state().tunnels.is_empty());
}
