use super::{fed, fed_at, t22};
use crate::fixtures::{ip, node, service, service_name, slice, virtual_service};
use crate::model::{BackendService, Object};

#[test]
fn of_two_services_that_claim_a_frontend_the_older_keeps_it_and_both_are_told() {
    let old = virtual_service("shop/web").created(1).vip("203.0.113.10").tcp(80).endpoint("172.17.3.3");
    let new = virtual_service("alpha/web").created(2).vip("203.0.113.10").tcp(80).tcp(443).endpoint("172.17.3.4");
    let fed = fed(vec![new.into(), old.into()]);
    assert_eq!(fed.frontends("shop/web"), ["203.0.113.10:80/TCP"]);
    assert_eq!(fed.frontends("alpha/web"), ["203.0.113.10:443/TCP"], "only what clashes is withheld");
    insta::assert_snapshot!(fed.problems(), @r#"
    VirtualService alpha/web, spec.addresses: 203.0.113.10:80/TCP stays with VirtualService shop/web, which is older or comes first by name; remove it there or here (Conflicted)
    VirtualService shop/web, spec.addresses: 203.0.113.10:80/TCP is claimed by VirtualService alpha/web too, which does not get it (Contested)
    "#);
}

#[test]
fn of_equally_old_services_the_first_by_name_keeps_a_frontend() {
    let first = virtual_service("shop/a").vip("203.0.113.10").tcp(80).endpoint("172.17.3.3");
    let second = virtual_service("shop/b").vip("203.0.113.10").tcp(80).endpoint("172.17.3.4");
    let mut fed = fed(vec![second.into(), first.into()]);
    assert_eq!(fed.frontends("shop/a"), ["203.0.113.10:80/TCP"]);
    assert!(!fed.state().services.contains_key(&service_name("shop/b")));

    fed.index.delete(&crate::model::ObjectKey::VirtualService(service_name("shop/a")));
    fed.resolve();
    assert_eq!(fed.frontends("shop/b"), ["203.0.113.10:80/TCP"], "it gets the frontend when the other is gone");
    assert_eq!(fed.problems(), "");
}

#[test]
fn a_vip_that_is_an_address_of_a_node_a_service_or_an_endpoint_is_refused() {
    let cluster_ip = Object::Service(BackendService {
        name: service_name("shop/db"),
        ports: Vec::new(),
        cluster_ips: vec![ip("10.96.0.10")],
        claimed: Vec::new(),
        external_name: false,
    });
    let web = virtual_service("shop/web")
        .vip("172.17.3.3")
        .vip("10.96.0.10")
        .vip("10.244.0.7")
        .vip("172.17.3.4")
        .vip("203.0.113.10")
        .tcp(80)
        .endpoint("172.17.3.4");
    let fed = fed(vec![
        web.into(),
        node("t33", &["172.17.3.3"]),
        cluster_ip,
        slice("shop/db-x", "db", ("", 5432)).ready("10.244.0.7", "t33").into(),
    ]);
    assert_eq!(fed.frontends("shop/web"), ["203.0.113.10:80/TCP"], "the others go on");
    insta::assert_snapshot!(fed.problems(), @r#"
    VirtualService shop/web, spec.addresses: 10.244.0.7 is the address of EndpointSlice shop/db-x; choose one that no node, Service or endpoint has (AddressNotAllowed)
    VirtualService shop/web, spec.addresses: 10.96.0.10 is the address of Service shop/db; choose one that no node, Service or endpoint has (AddressNotAllowed)
    VirtualService shop/web, spec.addresses: 172.17.3.3 is the address of Node t33; choose one that no node, Service or endpoint has (AddressNotAllowed)
    VirtualService shop/web, spec.addresses: 172.17.3.4 is the address of an endpoint of this very object; choose one that no node, Service or endpoint has (AddressNotAllowed)
    "#);
}

#[test]
fn a_vip_is_granted_once_the_node_that_had_it_is_gone() {
    let web = virtual_service("shop/web").vip("172.17.3.3").tcp(80).endpoint("172.17.3.4");
    let mut fed = fed(vec![web.into(), node("t33", &["172.17.3.3"])]);
    assert!(fed.state().services.is_empty());
    fed.index.delete(&crate::model::ObjectKey::Node("t33".to_owned()));
    fed.resolve();
    assert_eq!(fed.frontends("shop/web"), ["172.17.3.3:80/TCP"]);
}

#[test]
fn vips_on_the_node_are_marked_only_while_a_frontend_has_them() {
    let web = virtual_service("shop/web").vip("203.0.113.10").tcp(80).endpoint("172.17.3.3");
    let view = t22().interface("lo", 1, &["127.0.0.1/8", "203.0.113.10/32", "203.0.113.99/32"]).build();
    let fed = fed_at(view, vec![web.into(), service("shop/other", &[])]);
    assert_eq!(fed.state().on_node, [ip("203.0.113.10")].into());
}

#[test]
fn a_vip_that_is_this_nodes_tunnel_address_is_refused_here_even_without_node_objects() {
    let web = virtual_service("shop/web").vip("172.17.2.2").vip("203.0.113.10").tcp(80).endpoint("172.17.3.3");
    let fed = fed(vec![web.into()]);
    assert_eq!(fed.frontends("shop/web"), ["203.0.113.10:80/TCP"]);
    insta::assert_snapshot!(fed.problems(), @r#"
    VirtualService shop/web, spec.addresses: 172.17.2.2 is this node's own tunnel address; choose one that no node has (AddressNotAllowed)
    "#);
}

#[test]
fn another_load_balancer_on_the_same_address_is_named() {
    let Object::Service(mut rival) = service("infra/ingress", &[("http", 80)]) else { unreachable!("a Service") };
    rival.claimed = vec![ip("203.0.113.10")];
    let web: Object = virtual_service("shop/web").vip("203.0.113.10").tcp(80).endpoint("172.17.3.3").into();
    let mut fed = fed(vec![web, Object::Service(rival.clone())]);
    assert!(
        fed.problems().contains("another load balancer answers on 203.0.113.10 too, for Service infra/ingress"),
        "{}",
        fed.problems()
    );
    assert_eq!(fed.frontends("shop/web"), ["203.0.113.10:80/TCP"], "it stays in force");
    rival.claimed.clear();
    fed.apply(Object::Service(rival));
    assert_eq!(fed.problems(), "");
}
