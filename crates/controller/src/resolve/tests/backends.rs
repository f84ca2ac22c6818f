use super::{Fed, fed};
use crate::fixtures::{ip, node, service, service_name, slice, virtual_service};
use crate::model::{BackendService, DeliveryChoice, Frontend, Object, Path, Protocol};

fn web() -> crate::fixtures::VirtualServiceBuilder {
    virtual_service("shop/web").vip("203.0.113.10").tcp(80).backend("web", 1)
}

/// The web Service (port http, 80) on nodes t33 and t44, whose host-network pods have the nodes' addresses.
fn cluster(more: Vec<Object>) -> Fed {
    let mut objects = vec![
        service("shop/web", &[("http", 80)]),
        node("t33", &["172.17.3.3", "2001:db8:3::3"]),
        node("t44", &["172.17.4.4", "2001:db8:4::4"]),
    ];
    objects.extend(more);
    fed(objects)
}

fn http(name: &str) -> crate::fixtures::SliceBuilder {
    slice(name, "web", ("http", 80))
}

#[test]
fn ready_endpoints_of_all_slices_take_rows() {
    let fed = cluster(vec![
        web().into(),
        http("shop/web-a").ready("172.17.3.3", "t33").into(),
        http("shop/web-b").ready("172.17.4.4", "t44").into(),
        slice("shop/db-a", "db", ("http", 80)).ready("172.17.9.9", "t44").into(),
    ]);
    assert_eq!(fed.primaries("shop/web"), ["172.17.3.3", "172.17.4.4"]);
    assert_eq!(fed.problems(), "");
}

#[test]
fn a_draining_endpoint_takes_no_new_flows_while_another_is_ready() {
    let fed =
        cluster(vec![web().into(), http("shop/web-a").draining("172.17.3.3", "t33").ready("172.17.4.4", "t44").into()]);
    assert_eq!(fed.primaries("shop/web"), ["172.17.4.4"]);
    assert_eq!(fed.endpoints("shop/web"), ["172.17.3.3", "172.17.4.4"]);
}

#[test]
fn with_none_ready_draining_endpoints_take_new_flows() {
    let fed = cluster(vec![
        web().into(),
        http("shop/web-a").draining("172.17.3.3", "t33").not_ready("172.17.4.4", "t44").into(),
    ]);
    assert_eq!(fed.primaries("shop/web"), ["172.17.3.3"]);
}

#[test]
fn with_none_ready_or_draining_the_frontend_stays_and_drops() {
    let fed = cluster(vec![web().into(), http("shop/web-a").not_ready("172.17.3.3", "t33").into()]);
    assert_eq!(fed.frontends("shop/web"), ["203.0.113.10:80/TCP"]);
    assert_eq!(fed.service("shop/web").rows.len(), 0);
    insta::assert_snapshot!(fed.problems(), @r#"
    VirtualService shop/web, spec.backendRefs: no endpoint takes new flows for 203.0.113.10:80/TCP: of 1 endpoints none is ready, or all backendRefs have weight 0; until then packets are dropped (no_backend) (NoReadyEndpoints)
    "#);
}

#[test]
fn an_address_seen_twice_is_one_endpoint_ready_if_either_is() {
    let fed = cluster(vec![
        web().into(),
        http("shop/web-a").draining("172.17.3.3", "t33").ready("172.17.4.4", "t44").into(),
        http("shop/web-b").ready("172.17.3.3", "t33").into(),
    ]);
    assert_eq!(fed.primaries("shop/web"), ["172.17.3.3", "172.17.4.4"]);
    assert_eq!(fed.endpoints("shop/web").len(), 2);
}

#[test]
fn each_family_of_vips_uses_the_slices_and_tunnels_of_its_family() {
    let fed = cluster(vec![
        web().vip("2001:db8::10").into(),
        http("shop/web-4").ready("172.17.3.3", "t33").into(),
        http("shop/web-6").ready("2001:db8:3::3", "t33").into(),
    ]);
    assert_eq!(fed.endpoints("shop/web"), ["172.17.3.3"]);
    let least = Frontend { vip: ip("2001:db8::10"), protocol: Protocol::Tcp, port: 80 };
    let part = service_name("shop/web").part(least);
    assert_eq!(part.owner(), service_name("shop/web"));
    assert_eq!(fed.endpoints(&part.to_string()), ["2001:db8:3::3"]);
}

#[test]
fn a_vip_without_slices_of_its_family_uses_the_others_through_tunnels_of_its_own() {
    let fed = cluster(vec![web().vip("2001:db8::10").into(), http("shop/web-4").ready("172.17.3.3", "t33").into()]);
    let destination = |part: &str| {
        let path = fed.path(part, "172.17.3.3");
        let Path::Tunnel { destination, .. } = path else { panic!("no tunnel but {path:?}") };
        destination
    };
    assert_eq!(destination("shop/web"), ip("172.17.3.3"));
    assert_eq!(destination("shop/web@[2001:db8::10]:80/TCP"), ip("2001:db8:3::3"));
}

#[test]
fn a_port_finds_its_slice_port_by_name_and_a_slice_without_ports_matches_all() {
    let fed = cluster(vec![
        web().tcp(443).into(),
        service("shop/web", &[("http", 80), ("https", 443)]),
        http("shop/web-a").ready("172.17.3.3", "t33").into(),
        http("shop/web-b").without_ports().ready("172.17.4.4", "t44").into(),
    ]);
    assert_eq!(fed.frontends("shop/web"), ["203.0.113.10:80/TCP"]);
    assert_eq!(fed.endpoints("shop/web"), ["172.17.3.3", "172.17.4.4"]);
    assert_eq!(fed.endpoints("shop/web@203.0.113.10:443/TCP"), ["172.17.4.4"]);
}

#[test]
fn endpoints_objects_count_only_where_there_is_no_slice() {
    let endpoints = || http("shop/web").of_endpoints().ready("172.17.4.4", "t44");
    let mut fed = cluster(vec![web().into(), endpoints().into()]);
    assert_eq!(fed.endpoints("shop/web"), ["172.17.4.4"]);
    fed.apply(http("shop/web-a").ready("172.17.3.3", "t33"));
    assert_eq!(fed.endpoints("shop/web"), ["172.17.3.3"]);
}

#[test]
fn a_backend_refs_weight_is_that_services_share() {
    let fed = cluster(vec![
        web().backend("canary", 3).into(),
        service("shop/canary", &[("http", 80)]),
        http("shop/web-a").ready("172.17.3.3", "t33").ready("172.17.4.4", "t44").into(),
        slice("shop/canary-a", "canary", ("http", 80)).ready("172.17.5.5", "").into(),
    ]);
    let service = fed.service("shop/web");
    let canary =
        service.rows.iter().filter(|row| fed.endpoints("shop/web")[usize::from(row.primary())] == "172.17.5.5");
    assert_eq!(canary.count(), service.rows.len() * 3 / 4);
}

#[test]
fn what_does_not_resolve_is_told_and_the_rest_goes_on() {
    let external = Object::Service(BackendService {
        name: service_name("shop/elsewhere"),
        ports: Vec::new(),
        cluster_ips: Vec::new(),
        claimed: Vec::new(),
        external_name: true,
    });
    let fed = cluster(vec![
        web().backend("wbe", 1).backend("elsewhere", 1).tcp(8443).into(),
        external,
        node("bare", &[]),
        http("shop/web-a")
            .ready("172.17.3.3", "t33")
            .ready("172.17.5.5", "unknown")
            .ready("172.17.6.6", "bare")
            .ready("10.244.0.7", "t33")
            .into(),
        slice("shop/web-b", "web", ("http", 8080)).ready("172.17.4.4", "t44").into(),
    ]);
    assert_eq!(fed.primaries("shop/web"), ["10.244.0.7", "172.17.3.3", "172.17.4.4"]);
    insta::assert_snapshot!(fed.problems(), @r#"
    VirtualService shop/web, spec.backendRefs: Service shop/elsewhere is of type ExternalName, a mere alias in DNS; name a Service that has endpoints (BackendNotFound)
    VirtualService shop/web, spec.backendRefs: there is no Service shop/wbe; create it, or correct the name (BackendNotFound)
    VirtualService shop/web, spec.backendRefs: Service shop/web has no port 8443/TCP; add it there, or remove it here (PortNotFound)
    VirtualService shop/web, spec.backendRefs: endpoint 172.17.5.5: there is no Node unknown, so its address is not known; create the Node object (NoTunnelAddress)
    VirtualService shop/web, spec.backendRefs: endpoint 172.17.6.6: their node bare has no InternalIP; packets cannot be sent there (NoTunnelAddress)
    VirtualService shop/web, spec.backendRefs: no endpoint takes new flows for 203.0.113.10:8443/TCP: the Services have no endpoint that can be used; until then packets are dropped (no_backend) (NoReadyEndpoints)
    "#);
}

#[test]
fn explicit_local_for_a_pod_with_an_address_of_its_own_is_refused_with_the_cure() {
    let fed = cluster(vec![
        web().delivery(DeliveryChoice::Local).into(),
        http("shop/web-a").ready("10.244.0.7", "t33").into(),
    ]);
    insta::assert_snapshot!(fed.problems(), @r#"
    VirtualService shop/web, spec.backendRefs: endpoint 10.244.0.7: they have addresses of their own, and delivery Local hands packets to the node's stack, which would answer with a reset; set `delivery: Auto` (or Nat), which reaches ordinary pods (DeliveryMismatch)
    VirtualService shop/web, spec.backendRefs: no endpoint takes new flows for 203.0.113.10:80/TCP: the Services have no endpoint that can be used; until then packets are dropped (no_backend) (NoReadyEndpoints)
    "#);
}

#[test]
fn an_endpoint_on_this_node_is_known_by_the_nodes_name() {
    let fed = cluster(vec![
        web().delivery(DeliveryChoice::Veth).into(),
        node("t22", &["172.17.2.2"]),
        http("shop/web-a").ready("10.244.0.7", "t22").ready("10.244.1.7", "t33").into(),
    ]);
    assert!(matches!(fed.path("shop/web", "10.244.0.7"), Path::Local(_)));
    assert!(matches!(fed.path("shop/web", "10.244.1.7"), Path::Tunnel { .. }));
}

#[test]
fn vips_are_on_the_loopback_before_an_endpoint_is_ready() {
    let t22 = node("t22", &["172.17.2.2"]);
    let fed = cluster(vec![web().into(), t22, http("shop/web-a").not_ready("172.17.2.2", "t22").into()]);
    assert_eq!(fed.needs().loopback, [ip("203.0.113.10")].into());
    let fed = cluster(vec![web().into(), http("shop/web-a").ready("172.17.3.3", "t33").into()]);
    assert_eq!(fed.needs().loopback, [].into(), "no endpoint is here");
}
