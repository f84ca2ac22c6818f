//! Every CEL rule, judged without a server: what is refused, and with which words.

use guenon_crd::definitions;
use kube_cel::Validator;
use serde_json::{Value, json};

fn schema(kind: &str) -> Value {
    let (_, definition) = definitions().into_iter().find(|(name, _)| name.starts_with(kind)).expect("a kind");
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// A VirtualService that is accepted.
fn good() -> Value {
    json!({
        "apiVersion": "guenon.dev/v1alpha1",
        "kind": "VirtualService",
        "metadata": {"namespace": "shop", "name": "web"},
        "spec": {
            "addresses": ["203.0.113.10", "2001:db8::10"],
            "ports": [{"name": "http", "protocol": "TCP", "port": 80}],
            "backendRefs": [{"kind": "Service", "name": "web", "weight": 1}],
        },
    })
}

/// What the rules say of a VirtualService after this change.
fn said(change: impl FnOnce(&mut Value)) -> Vec<String> {
    let mut object = good();
    change(&mut object["spec"]);
    match Validator::new().validate(&schema("virtualservices"), &object, None) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.into_vec().into_iter().map(|error| error.message).collect(),
    }
}

#[test]
fn a_good_one_is_accepted() {
    assert_eq!(said(|_| ()), Vec::<String>::new());
    let given = said(|spec| {
        spec.as_object_mut().expect("a spec").remove("backendRefs");
        spec["endpoints"] = json!([{"address": "10.0.0.7"}, {"address": "2001:db8:1::7", "tunnel": "2001:db8:1::1"}]);
    });
    assert_eq!(given, Vec::<String>::new());
}

#[test]
fn addresses_must_be_canonical_unicast_addresses() {
    const NOT: &str = "must be an IPv4 or IPv6 address";
    const CANONICAL: &str = "must be in canonical form (RFC 5952; for example 2001:db8::1, not 2001:DB8:0::1)";
    const UNICAST: &str = "must be a unicast address, not unspecified, loopback, link-local, multicast or broadcast";
    for (address, message) in [
        ("nowhere", NOT),
        ("203.0.113.300", NOT),
        ("fe80::1%eth0", NOT),
        ("::ffff:203.0.113.10", NOT),
        ("2001:DB8::10", CANONICAL),
        ("2001:db8:0:0::10", CANONICAL),
        ("127.0.0.1", UNICAST),
        ("0.0.0.0", UNICAST),
        ("224.0.0.5", UNICAST),
        ("255.255.255.255", UNICAST),
        ("169.254.1.1", UNICAST),
        ("fe80::1", UNICAST),
        ("::1", UNICAST),
        ("ff02::1", UNICAST),
    ] {
        assert_eq!(said(|spec| spec["addresses"] = json!([address])), [message], "a VIP {address}");
        let endpoint = said(|spec| {
            spec.as_object_mut().expect("a spec").remove("backendRefs");
            spec["endpoints"] = json!([{"address": address}]);
        });
        assert_eq!(endpoint, [message], "an endpoint {address}");
        let tunnel = said(|spec| {
            spec.as_object_mut().expect("a spec").remove("backendRefs");
            spec["endpoints"] = json!([{"address": "10.0.0.7", "tunnel": address}]);
        });
        assert_eq!(tunnel, [message], "a tunnel address {address}");
    }
}

#[test]
fn endpoints_come_from_one_place() {
    const ONE: &str = "set exactly one of backendRefs and endpoints";
    assert_eq!(said(|spec| spec["endpoints"] = json!([{"address": "10.0.0.7"}])), [ONE]);
    let none = said(|spec| {
        spec.as_object_mut().expect("a spec").remove("backendRefs");
    });
    assert_eq!(none, [ONE]);
}

#[test]
fn names_of_ports_are_unique() {
    let twice = json!([{"name": "web", "port": 80}, {"name": "web", "port": 443}, {"port": 1}]);
    assert_eq!(said(|spec| spec["ports"] = twice), ["port names must be unique"]);
    let apart = json!([{"name": "web", "port": 80}, {"port": 443}, {"port": 1}]);
    assert_eq!(said(|spec| spec["ports"] = apart), Vec::<String>::new());
}

/// A server reads no schema that is not structural.
#[test]
fn definitions_are_structural() {
    for (name, definition) in definitions() {
        let text = definition["spec"]["versions"][0]["schema"].to_string();
        for refused in ["$ref", "oneOf", "anyOf", "\"const\"", "uint", "nullable"] {
            assert!(!text.contains(refused), "{name}: {refused} in {text}");
        }
    }
}

/// A new object has conditions that say that nobody has looked at it: `kubectl wait` and `helm --wait` wait for them.
#[test]
fn a_new_object_is_not_ready() {
    let conditions = &schema("virtualservices")["properties"]["status"]["default"]["conditions"];
    let ready = conditions.as_array().expect("a list").iter().find(|condition| condition["type"] == "Ready");
    assert_eq!(ready.map(|ready| (&ready["status"], &ready["reason"])), Some((&json!("False"), &json!("Pending"))));
}
