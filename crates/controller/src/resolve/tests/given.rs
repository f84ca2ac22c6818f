use super::{fed, fed_at, t22};
use crate::fixtures::{ip, virtual_service};
use crate::model::{DeliveryChoice, FarEnd, LocalDelivery, Mac, NextHopKey, Path};

fn web() -> crate::fixtures::VirtualServiceBuilder {
    virtual_service("shop/web").vip("203.0.113.10").vip("2001:db8::10").tcp(80)
}

#[test]
fn an_endpoint_elsewhere_is_reached_through_a_tunnel_to_its_address() {
    let fed = fed(vec![web().endpoint("172.17.3.3").into()]);
    let key = NextHopKey { interface: "eth0".to_owned(), gateway: ip("172.17.2.1") };
    assert_eq!(
        fed.path("shop/web", "172.17.3.3"),
        Path::Tunnel { source: ip("172.17.2.2"), destination: ip("172.17.3.3"), next_hop: key.clone() }
    );
    assert_eq!(fed.state().next_hops[&key].mac, Some(Mac([2, 0, 0, 0, 1, 1])));
    assert_eq!(fed.frontends("shop/web"), ["203.0.113.10:80/TCP", "[2001:db8::10]:80/TCP"], "one service for both");
    assert_eq!(fed.problems(), "");
}

#[test]
fn the_nodes_own_endpoint_is_delivered_here_and_its_vips_belong_on_the_loopback() {
    let fed = fed(vec![web().endpoint("172.17.2.2").endpoint("172.17.3.3").into()]);
    assert_eq!(fed.path("shop/web", "172.17.2.2"), Path::Local(LocalDelivery::Local));
    assert_eq!(fed.needs().loopback, [ip("203.0.113.10"), ip("2001:db8::10")].into());
    assert_eq!(fed.primaries("shop/web"), ["172.17.2.2", "172.17.3.3"]);
}

#[test]
fn an_endpoint_of_weight_0_keeps_its_place_and_takes_no_row() {
    let fed = fed(vec![web().endpoint_of_weight("172.17.2.2", 0).endpoint("172.17.3.3").into()]);
    assert_eq!(fed.endpoints("shop/web"), ["172.17.2.2", "172.17.3.3"]);
    assert_eq!(fed.primaries("shop/web"), ["172.17.3.3"]);
    assert_eq!(fed.needs().loopback.len(), 2, "its flows go on");
}

#[test]
fn with_all_weights_0_the_frontend_stays_without_rows() {
    let fed = fed(vec![web().endpoint_of_weight("172.17.3.3", 0).into()]);
    assert_eq!(fed.frontends("shop/web").len(), 2);
    assert_eq!(fed.service("shop/web").rows.len(), 0);
    insta::assert_snapshot!(fed.problems(), @r#"
    VirtualService shop/web, spec.endpoints: no endpoint takes new flows for 203.0.113.10:80/TCP, [2001:db8::10]:80/TCP: all of 1 endpoints have weight 0; until then packets are dropped (no_backend) (NoReadyEndpoints)
    "#);
}

#[test]
fn an_endpoint_behind_a_veth_is_redirected_there_once_its_far_end_is_ready() {
    let web = || web().endpoint_behind("10.1.0.7", "172.17.2.2", DeliveryChoice::Veth);
    let view = |far_end: Option<FarEnd>| {
        let view = t22().interface("veth7", 7, &[]);
        let view = match far_end {
            Some(far_end) => view.far_end(far_end),
            None => view,
        };
        view.on_link("10.1.0.7/32", "veth7")
    };
    let before = fed_at(view(None).build(), vec![web().into()]);
    assert_eq!(before.path("shop/web", "10.1.0.7"), Path::Local(LocalDelivery::None));
    assert_eq!(before.needs().far_ends, ["veth7".to_owned()].into(), "the agent is told to prepare it");
    assert_eq!(before.primaries("shop/web"), ["10.1.0.7"], "the table is that of every other director");

    let mut fed = fed_at(view(Some(FarEnd::Ready)).build(), vec![web().into()]);
    let veth = |mac| Path::Local(LocalDelivery::Veth { ifindex: 7, mac, mtu: 1500 });
    assert_eq!(fed.path("shop/web", "10.1.0.7"), veth(None));
    fed.view = view(Some(FarEnd::Ready)).neighbour("10.1.0.7", "veth7", 7).build();
    fed.resolve();
    assert_eq!(fed.path("shop/web", "10.1.0.7"), veth(Some(Mac([2, 0, 0, 0, 1, 7]))));
    assert_eq!(fed.problems(), "");
    assert!(fed.needs().loopback.is_empty(), "the VIP is on the endpoint's own loopback");

    fed.view = view(Some(FarEnd::Refused("CAP_SYS_ADMIN is missing".to_owned()))).build();
    fed.resolve();
    assert_eq!(fed.path("shop/web", "10.1.0.7"), Path::Local(LocalDelivery::None));
    insta::assert_snapshot!(format!("{}{}", before.problems(), fed.problems()), @r#"
    VirtualService shop/web, spec.endpoints: endpoint 10.1.0.7: delivery Veth hands packets to a veth, but its route leads to veth7, which is none, or whose far end has no program yet; route it to the endpoint's veth: `ip route replace 10.1.0.7 dev VETH` (DeliveryMismatch)
    VirtualService shop/web, spec.endpoints: endpoint 10.1.0.7: no program can be put on the far end of veth7, without which frames are lost: CAP_SYS_ADMIN is missing (DeliveryMismatch)
    "#);
}

#[test]
fn gue_is_accepted_on_an_address_that_others_send_an_endpoints_packets_to() {
    let view = t22().interface("eth1", 3, &["192.0.2.22/24"]).build();
    let fed = fed_at(view, vec![web().endpoint("192.0.2.22").into()]);
    assert_eq!(fed.state().tunnels, [ip("172.17.2.2"), ip("192.0.2.22"), ip("2001:db8:2::2")].into());
}
