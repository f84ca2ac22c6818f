use std::collections::BTreeSet;

use super::{Changes, Index};
use crate::fixtures::{ip, node, service, service_name, slice, virtual_service};
use crate::model::{Object, ObjectKey, SliceOrigin};

fn names(changes: &Changes) -> Vec<String> {
    changes.services.iter().map(ToString::to_string).collect()
}

fn index(objects: Vec<Object>) -> Index {
    let mut index = Index::new();
    index.reset(objects);
    index.take_changes();
    index
}

fn web() -> Object {
    virtual_service("shop/web").vip("203.0.113.10").tcp(80).backend("web", 1).into()
}

fn given() -> Object {
    virtual_service("shop/given").vip("203.0.113.11").tcp(80).endpoint("172.17.3.3").into()
}

#[test]
fn an_object_as_it_was_changes_nothing() {
    let mut index = index(vec![web(), service("shop/web", &[("", 80)]), node("t33", &["172.17.3.3"])]);
    index.apply(web());
    index.apply(service("shop/web", &[("", 80)]));
    index.apply(node("t33", &["172.17.3.3"]));
    assert_eq!(index.take_changes(), Changes::default());
}

#[test]
fn a_change_of_a_service_or_slice_touches_those_who_refer_to_it() {
    let mut index = index(vec![web(), given()]);
    index.apply(service("shop/web", &[("", 80)]));
    assert_eq!(names(&index.take_changes()), ["shop/web"]);
    index.apply(slice("shop/web-a", "web", ("", 80)).ready("172.17.3.3", "t33").into());
    assert_eq!(names(&index.take_changes()), ["shop/web"]);
    index.apply(slice("other/web-a", "web", ("", 80)).ready("172.17.3.3", "t33").into());
    assert_eq!(names(&index.take_changes()), [""; 0], "another namespace");
    index.delete(&ObjectKey::Slice(SliceOrigin::EndpointSlice, service_name("shop/web-a")));
    assert_eq!(names(&index.take_changes()), ["shop/web"]);
}

#[test]
fn a_slice_that_moves_to_another_service_touches_both() {
    let other: Object = virtual_service("shop/other").vip("203.0.113.12").tcp(80).backend("other", 1).into();
    let mut index = index(vec![web(), other, slice("shop/x", "web", ("", 80)).ready("172.17.3.3", "").into()]);
    index.apply(slice("shop/x", "other", ("", 80)).ready("172.17.3.3", "").into());
    assert_eq!(names(&index.take_changes()), ["shop/other", "shop/web"]);
    assert_eq!(index.subsets(&service_name("shop/web")).count(), 0);
}

#[test]
fn a_change_of_a_node_touches_those_who_have_endpoints_there() {
    let mut index = index(vec![web(), given(), slice("shop/x", "web", ("", 80)).ready("10.244.0.7", "t33").into()]);
    index.apply(node("t44", &["172.17.4.4"]));
    let changes = index.take_changes();
    assert_eq!((names(&changes), changes.nodes), (vec![], true));
    index.apply(node("t33", &["172.17.3.3"]));
    assert_eq!(names(&index.take_changes()), ["shop/web"]);
}

#[test]
fn an_address_that_becomes_somebodys_touches_the_vip() {
    let mut index = index(vec![web(), given()]);
    index.apply(slice("shop/x", "db", ("", 80)).ready("203.0.113.11", "").into());
    assert_eq!(names(&index.take_changes()), ["shop/given"]);
    let owners: Vec<_> = index.owners(ip("203.0.113.11")).map(ToString::to_string).collect();
    assert_eq!(owners, ["EndpointSlice shop/x"]);
}

#[test]
fn claims_are_in_order_of_age_then_name() {
    let claim = |name, created| virtual_service(name).created(created).vip("203.0.113.10").tcp(80).endpoint("10.0.0.1");
    let mut index = index(vec![claim("b/b", 5).into(), claim("a/a", 7).into(), claim("a/z", 5).into()]);
    let frontend = super::frontends(&claim("x/x", 0).build()).next().unwrap();
    let claimants = |index: &Index| index.claimants(frontend).map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(claimants(&index), ["a/z", "b/b", "a/a"]);
    index.delete(&ObjectKey::VirtualService(service_name("a/z")));
    assert_eq!(claimants(&index), ["b/b", "a/a"]);
    assert_eq!(index.take_changes().services.len(), 3, "all who claim it");
}

#[test]
fn a_reset_forgets_what_it_does_not_hold() {
    let mut index = Index::new();
    assert!(!index.is_complete());
    index.apply(given());
    index.reset(vec![web()]);
    assert!(index.is_complete());
    let left: BTreeSet<_> = index.virtual_services().map(|service| service.name.to_string()).collect();
    assert_eq!(left, ["shop/web".to_owned()].into());
    assert_eq!(names(&index.take_changes()), ["shop/given", "shop/web"]);
}
