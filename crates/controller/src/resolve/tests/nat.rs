//! Delivery `Nat`: who gets it, where it leads, and what it needs of the node.

use std::sync::Arc;

use super::{Fed, fed, fed_at, t22};
use crate::fixtures::{
    ViewBuilder, ip, node, service, service_name, service_with_named_target, slice, virtual_service,
};
use crate::model::{DeliveryChoice, LocalDelivery, Object, Path, Policy, Protocol, TargetPorts};
use crate::resolve::{Delivery, Judgement, Why, judge};

fn web() -> crate::fixtures::VirtualServiceBuilder {
    virtual_service("shop/web").vip("203.0.113.10").tcp(80).backend("web", 1)
}

/// t22 with pods of 10.244.2.0/24 behind a bridge, the program on eth0 alone.
fn with_pods() -> ViewBuilder {
    t22().interface("cni0", 5, &["10.244.2.1/24"]).on_link("10.244.2.0/24", "cni0").on_link("0.0.0.0/0", "eth0")
}

/// The web Service (80 and 443) of t22 and t33, and what else there is.
fn cluster(more: Vec<Object>) -> Fed {
    let mut objects = vec![
        service("shop/web", &[("http", 80), ("https", 443)]),
        node("t22", &["172.17.2.2", "2001:db8:2::2"]),
        node("t33", &["172.17.3.3"]),
    ];
    objects.extend(more);
    fed_at(with_pods().build(), objects)
}

fn nat(ports: &[(u16, u16)]) -> Path {
    let ports = ports.iter().map(|(port, listens)| ((Protocol::Tcp, *port), *listens)).collect();
    Path::Local(LocalDelivery::Nat { ports: Arc::new(ports) })
}

fn judged(fed: &Fed) -> Judgement {
    judge(&fed.index, &service_name("shop/web"), &Policy::default()).expect("it is there")
}

#[test]
fn auto_is_nat_for_pods_and_local_for_host_network_pods_that_listen_on_the_vips_port() {
    let fed = cluster(vec![
        web().into(),
        slice("shop/web-a", "web", ("http", 8080)).ready("10.244.2.7", "t22").ready("10.244.3.7", "t33").into(),
        slice("shop/web-b", "web", ("http", 80)).ready("172.17.2.2", "t22").into(),
    ]);
    assert_eq!(fed.path("shop/web", "10.244.2.7"), nat(&[(80, 8080)]));
    assert_eq!(fed.path("shop/web", "172.17.2.2"), Path::Local(LocalDelivery::Local));
    assert!(matches!(fed.path("shop/web", "10.244.3.7"), Path::Tunnel { .. }), "a pod of another node");
    assert_eq!(fed.needs().pods, [ip("10.244.2.7")].into());
    assert_eq!(fed.problems(), "");
    let deliveries = [((Delivery::Local, Why::OfItsNode), 1), ((Delivery::Nat, Why::OwnAddress), 2)];
    assert_eq!(judged(&fed).deliveries, deliveries.into());
    let here: Vec<_> =
        fed.resolver.deliveries_here().map(|(name, at, how, why)| (name.clone(), at, how, why)).collect();
    let name = service_name("shop/web");
    let told = [
        (name.clone(), ip("10.244.2.7"), Delivery::Nat, Why::OwnAddress),
        (name, ip("172.17.2.2"), Delivery::Local, Why::OfItsNode),
    ];
    assert_eq!(here, told, "of this node's endpoints alone");
}

#[test]
fn a_host_network_pod_with_another_target_port_gets_nat_to_the_nodes_own_address() {
    let fed = cluster(vec![web().into(), slice("shop/web-a", "web", ("http", 8080)).ready("172.17.2.2", "t22").into()]);
    assert_eq!(fed.path("shop/web", "172.17.2.2"), nat(&[(80, 8080)]));
    assert_eq!(fed.needs().loopback, [].into(), "no VIP is put on the loopback for Nat");
    assert_eq!(fed.needs().pods, [ip("172.17.2.2")].into());
    assert_eq!(judged(&fed).deliveries, [((Delivery::Nat, Why::OtherPort), 1)].into());
}

#[test]
fn explicit_nat_is_always_nat() {
    let fed = cluster(vec![
        web().delivery(DeliveryChoice::Nat).into(),
        slice("shop/web-a", "web", ("http", 80)).ready("172.17.2.2", "t22").into(),
    ]);
    assert_eq!(fed.path("shop/web", "172.17.2.2"), nat(&[(80, 80)]));
    assert_eq!(judged(&fed).deliveries, [((Delivery::Nat, Why::Asked), 1)].into());
}

#[test]
fn frontends_with_other_target_ports_are_one_service_of_the_data_path() {
    let both = |name: &str, http: u16, https: u16, address: &str| -> Vec<Object> {
        let slice = |suffix: &str, port| slice(&format!("shop/{name}-{suffix}"), "web", port).ready(address, "t22");
        vec![slice("80", ("http", http)).into(), slice("443", ("https", https)).into()]
    };
    let mut objects: Vec<Object> = vec![web().tcp(443).into()];
    // The name of a port may lead to another number from pod to pod.
    objects.extend(both("a", 8080, 8443, "10.244.2.7"));
    objects.extend(both("b", 8080, 8443, "10.244.2.8"));
    objects.extend(both("c", 9080, 8443, "10.244.2.9"));
    let fed = cluster(objects);
    assert_eq!(fed.state().services.len(), 1, "parts are split where deliveries differ alone");
    assert_eq!(fed.frontends("shop/web"), ["203.0.113.10:80/TCP", "203.0.113.10:443/TCP"]);
    for pod in ["10.244.2.7", "10.244.2.8"] {
        assert_eq!(fed.path("shop/web", pod), nat(&[(80, 8080), (443, 8443)]));
    }
    assert_eq!(fed.path("shop/web", "10.244.2.9"), nat(&[(80, 9080), (443, 8443)]));
    let ports = |pod| match fed.path("shop/web", pod) {
        Path::Local(LocalDelivery::Nat { ports }) => ports,
        other @ (Path::Local(_) | Path::Tunnel { .. } | Path::Unreachable { .. }) => panic!("no Nat but {other:?}"),
    };
    assert!(TargetPorts::ptr_eq(&ports("10.244.2.7"), &ports("10.244.2.8")), "kept once");
}

#[test]
fn parts_are_split_where_deliveries_differ() {
    let fed = cluster(vec![
        web().tcp(443).into(),
        slice("shop/web-a", "web", ("http", 80)).ready("172.17.2.2", "t22").into(),
        slice("shop/web-b", "web", ("https", 8443)).ready("172.17.2.2", "t22").into(),
    ]);
    assert_eq!(fed.path("shop/web", "172.17.2.2"), Path::Local(LocalDelivery::Local));
    assert_eq!(fed.path("shop/web@203.0.113.10:443/TCP", "172.17.2.2"), nat(&[(443, 8443)]));
}

#[test]
fn a_new_target_port_touches_no_table() {
    let at = |port| slice("shop/web-a", "web", ("http", port)).ready("10.244.2.7", "t22");
    let mut fed = cluster(vec![web().into(), at(8080).into()]);
    let rows = Arc::clone(&fed.service("shop/web").rows);
    let changed = fed.apply(at(9090));
    assert_eq!(fed.path("shop/web", "10.244.2.7"), nat(&[(80, 9090)]));
    assert_eq!(changed.services.len(), 1);
    assert!(Arc::ptr_eq(&rows, &fed.service("shop/web").rows));
}

#[test]
fn nat_does_not_translate_families() {
    let fed = cluster(vec![
        web().vip("2001:db8::10").into(),
        slice("shop/web-a", "web", ("http", 8080)).ready("10.244.2.7", "t22").into(),
    ]);
    assert_eq!(fed.path("shop/web", "10.244.2.7"), nat(&[(80, 8080)]));
    assert_eq!(fed.service("shop/web@[2001:db8::10]:80/TCP").rows.len(), 0);
    insta::assert_snapshot!(fed.problems(), @r#"
    VirtualService shop/web, spec.backendRefs: endpoint 10.244.2.7: their addresses are IPv4, and delivery Nat does not translate the packets of IPv6 VIPs to that; give them IPv6 addresses too (a Service: ipFamilyPolicy PreferDualStack), or take the IPv6 VIPs out of spec.addresses (FamilyMismatch)
    VirtualService shop/web, spec.backendRefs: no endpoint takes new flows for [2001:db8::10]:80/TCP: the Services have no endpoint that can be used; until then packets are dropped (no_backend) (NoReadyEndpoints)
    "#);
}

#[test]
fn a_dual_stack_service_answers_each_vip_with_pods_of_its_family() {
    let view = with_pods().on_link("fd00:244:2::/64", "cni0").build();
    let fed = fed_at(
        view,
        vec![
            service("shop/web", &[("http", 80)]),
            node("t22", &["172.17.2.2"]),
            web().vip("2001:db8::10").into(),
            slice("shop/web-4", "web", ("http", 8080)).ready("10.244.2.7", "t22").into(),
            slice("shop/web-6", "web", ("http", 8080)).ready("fd00:244:2::7", "t22").into(),
        ],
    );
    assert_eq!(fed.path("shop/web", "10.244.2.7"), nat(&[(80, 8080)]));
    assert_eq!(fed.path("shop/web@[2001:db8::10]:80/TCP", "fd00:244:2::7"), nat(&[(80, 8080)]));
    assert_eq!(fed.problems(), "");
}

#[test]
fn under_local_and_veth_ports_must_be_equal_and_the_cure_is_nat() {
    let cases = [(DeliveryChoice::Local, "172.17.2.2"), (DeliveryChoice::Veth, "10.244.2.7")];
    let problems = cases.map(|(delivery, address)| {
        let slice = slice("shop/web-a", "web", ("http", 8080)).ready(address, "t22");
        cluster(vec![web().delivery(delivery).into(), slice.into()]).problems()
    });
    let problems: String =
        problems.concat().lines().filter(|line| line.contains("Mismatch")).collect::<Vec<_>>().join("\n");
    insta::assert_snapshot!(problems, @r#"
    VirtualService shop/web, spec.backendRefs: endpoint 172.17.2.2: they listen on port 8080, but packets arrive with the VIP's port 80 under delivery Local; set `delivery: Auto` or `Nat`, which changes ports, or let them listen on 80 (TargetPortMismatch)
    VirtualService shop/web, spec.backendRefs: endpoint 10.244.2.7: they listen on port 8080, but packets arrive with the VIP's port 80 under delivery Veth; set `delivery: Auto` or `Nat`, which changes ports, or let them listen on 80 (TargetPortMismatch)
    "#);
}

#[test]
fn a_target_port_name_that_no_pod_has_is_told() {
    let named = || service_with_named_target("shop/web", 80, "http-alt");
    let pods = || slice("shop/web-a", "web", ("http", 8080)).ready("10.244.2.7", "t22");
    // Kubernetes leaves the port out of the slices of such pods.
    let told =
        |problems: String| problems.lines().filter(|line| line.contains("PortNotFound")).collect::<Vec<_>>().join("\n");
    let none = cluster(vec![named(), web().into(), pods().without_ports().into()]);
    let other = cluster(vec![web().tcp(443).into(), pods().into()]);
    insta::assert_snapshot!(format!("{}\n{}", told(none.problems()), told(other.problems())), @r#"
    VirtualService shop/web, spec.backendRefs: no pod of Service shop/web has a port named `http-alt`, which is the targetPort of its port 80/TCP; name it among the ports of the pods' containers, or give the targetPort as a number (PortNotFound)
    VirtualService shop/web, spec.backendRefs: no EndpointSlice of Service shop/web has its port 443/TCP (by the name `https`); see `kubectl get endpointslices -l kubernetes.io/service-name=web -o yaml` (PortNotFound)
    "#);
    // Where some pods have it, those answer.
    let some = slice("shop/web-b", "web", ("http", 8080)).ready("10.244.2.8", "t22");
    let fed = cluster(vec![named(), web().into(), pods().without_ports().into(), some.into()]);
    assert_eq!(fed.endpoints("shop/web"), ["10.244.2.8"]);
    assert_eq!(fed.problems(), "");
    // No pod at all is no fault of the Service's.
    assert!(!cluster(vec![named(), web().into()]).problems().contains("PortNotFound"));
}

#[test]
fn an_endpoint_of_two_services_listens_where_the_first_says() {
    let fed = cluster(vec![
        web().backend("web-next", 1).into(),
        service("shop/web-next", &[("http", 80)]),
        slice("shop/web-a", "web", ("http", 8080)).ready("10.244.2.7", "t22").into(),
        slice("shop/web-next-a", "web-next", ("http", 9090)).ready("10.244.2.7", "t22").into(),
    ]);
    assert_eq!(fed.path("shop/web", "10.244.2.7"), nat(&[(80, 8080)]));
}

#[test]
fn given_endpoints_of_other_nodes_listen_on_the_frontends_port_or_on_their_own() {
    let web = virtual_service("shop/web").vip("203.0.113.10").tcp(80).tcp(443);
    let fed = fed_at(
        with_pods().build(),
        vec![
            web.endpoint_behind("10.244.2.7", "172.17.2.2", DeliveryChoice::Auto)
                .endpoint_behind("10.244.2.8", "172.17.2.2", DeliveryChoice::Nat)
                .endpoint_on("10.244.2.9", "172.17.2.2", 8080)
                .into(),
        ],
    );
    for address in ["10.244.2.7", "10.244.2.8"] {
        assert_eq!(fed.path("shop/web", address), nat(&[(80, 80), (443, 443)]));
    }
    assert_eq!(fed.path("shop/web", "10.244.2.9"), nat(&[(80, 8080), (443, 8080)]));
    assert_eq!(fed.problems(), "");
}

#[test]
fn auto_is_local_where_a_node_has_both_addresses() {
    let web = virtual_service("shop/web").vip("203.0.113.10").tcp(80);
    let mut fed = fed(vec![web.endpoint_behind("172.18.3.3", "172.17.3.3", DeliveryChoice::Auto).into()]);
    let deliveries = |fed: &Fed| judged(fed).deliveries.into_keys().collect::<Vec<_>>();
    assert_eq!(deliveries(&fed), [(Delivery::Nat, Why::OwnAddress)]);
    fed.apply(node("t33", &["172.17.3.3", "172.18.3.3"]));
    assert_eq!(deliveries(&fed), [(Delivery::Local, Why::OfItsNode)]);
}

#[test]
fn a_pod_that_this_node_does_not_route_is_not_here() {
    let objects = || {
        vec![
            service("shop/web", &[("http", 80)]),
            node("t22", &["172.17.2.2"]),
            web().into(),
            slice("shop/web-a", "web", ("http", 8080)).ready("10.244.2.7", "t22").into(),
        ]
    };
    let at = |view: ViewBuilder| fed_at(view.build(), objects());
    let gone = [
        at(t22()),
        at(t22().on_link("0.0.0.0/0", "eth0")),
        at(t22().interface("eth0.7", 7, &[]).vlan("eth0", 7).on_link("0.0.0.0/0", "eth0.7")),
        at(with_pods().on_link("10.244.2.7/32", "lo")),
    ];
    for fed in &gone {
        assert_eq!(fed.path("shop/web", "10.244.2.7"), Path::Local(LocalDelivery::None));
        assert!(fed.needs().pods.is_empty());
    }
    insta::assert_snapshot!(gone.iter().map(Fed::problems).collect::<String>(), @r#"
    VirtualService shop/web, spec.backendRefs: endpoint 10.244.2.7: delivery Nat needs a route to it on this node, and there is none; is the pod gone, or not set up yet by the CNI plugin? (see `ip route get 10.244.2.7`) (NoRoute)
    VirtualService shop/web, spec.backendRefs: endpoint 10.244.2.7: its route leaves this node by eth0, so it is not here; is the pod gone, or not set up yet by the CNI plugin? (see `ip route get 10.244.2.7`) (NoRoute)
    VirtualService shop/web, spec.backendRefs: endpoint 10.244.2.7: its route leaves this node by eth0.7, so it is not here; is the pod gone, or not set up yet by the CNI plugin? (see `ip route get 10.244.2.7`) (NoRoute)
    VirtualService shop/web, spec.backendRefs: endpoint 10.244.2.7: its route on this node refuses it; is the pod gone, or not set up yet by the CNI plugin? (see `ip route get 10.244.2.7`) (NoRoute)
    "#);

    // The CNI plugin's route comes, and another interface gets the program.
    let mut fed = at(t22().interface("veth7", 7, &[]));
    fed.view = t22().interface("veth7", 7, &[]).on_link("10.244.2.7/32", "veth7").build();
    fed.resolve();
    assert_eq!(fed.path("shop/web", "10.244.2.7"), nat(&[(80, 8080)]));
    fed.view.attached = vec!["eth0".to_owned(), "veth7".to_owned()];
    fed.resolve();
    assert_eq!(fed.path("shop/web", "10.244.2.7"), Path::Local(LocalDelivery::None));
}

#[test]
fn a_vip_that_a_pod_has_is_refused() {
    let fed = cluster(vec![
        web().vip("10.244.2.7").into(),
        slice("shop/web-a", "web", ("http", 8080)).ready("10.244.2.7", "t22").into(),
    ]);
    assert_eq!(fed.frontends("shop/web"), ["203.0.113.10:80/TCP"]);
    assert!(fed.problems().contains("10.244.2.7 is the address of EndpointSlice shop/web-a"), "{}", fed.problems());
}
