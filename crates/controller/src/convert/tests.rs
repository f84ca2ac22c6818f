use serde_json::{Value, json};

use super::*;
use crate::model::{Backends, GivenEndpoint, Object, SliceOrigin};

/// The problems of a VirtualService with this spec, a line each.
fn refused(spec: Value) -> String {
    let object = json!({"metadata": {"namespace": "shop", "name": "web"}, "spec": spec});
    let object = serde_json::from_value(object).expect("fits the API type");
    lines(virtual_service(&object, &Place { object: "VirtualService shop/web".to_owned(), ..Place::default() }))
}

fn lines(converted: Converted) -> String {
    let problems = converted.expect_err("the object should be refused");
    problems.iter().map(|problem| format!("{}: {}\n", problem.place.field, problem.message)).collect()
}

fn converted(result: Converted) -> Object {
    result.expect("the object should be accepted").expect("the object should be of interest")
}

#[test]
fn a_virtual_service_comes_out_sorted_whatever_its_order() {
    let object = json!({
        "metadata": {"namespace": "shop", "name": "web", "creationTimestamp": "1970-01-01T00:01:00Z"},
        "spec": {
            "addresses": ["2001:db8::10", "203.0.113.10"],
            "ports": [{"port": 443}, {"port": 53, "protocol": "UDP"}, {"port": 80}],
            "endpoints": [{"address": "172.17.3.3"}, {"address": "10.1.0.7", "tunnel": "172.17.3.3", "weight": 0}],
            "sessionAffinity": "ClientIP",
        },
    });
    let object = serde_json::from_value(object).expect("fits the API type");
    let Object::VirtualService(service) = converted(virtual_service(&object, &Place::default())) else {
        panic!("another kind")
    };
    let ports: Vec<_> = service.ports.iter().map(|port| format!("{}/{}", port.port, port.protocol)).collect();
    let addresses: Vec<_> = service.addresses.iter().map(ToString::to_string).collect();
    assert_eq!((service.name.to_string().as_str(), service.created, service.client_ip), ("shop/web", 60, true));
    assert_eq!(addresses, ["203.0.113.10", "2001:db8::10"]);
    assert_eq!(ports, ["80/TCP", "443/TCP", "53/UDP"]);
    let Backends::Given(endpoints) = service.backends else { panic!("no endpoints") };
    let [first, second] = &endpoints[..] else { panic!("{endpoints:?}") };
    let tunnel = "172.17.3.3".parse().ok();
    assert!(matches!(first, GivenEndpoint { weight: 0, tunnel: t, .. } if *t == tunnel));
    assert!(matches!(second, GivenEndpoint { weight: 1, tunnel: None, .. }));
}

#[test]
fn every_bad_address_is_told_with_what_to_write() {
    let addresses =
        ["203.0.113.300", "2001:DB8::10", "::ffff:203.0.113.10", "127.0.0.1", "224.0.0.1", "169.254.1.1", "0.0.0.0"];
    let more =
        ["fe80::1%eth0", "010.0.0.1", "203.0.113.0/24", "[2001:db8::1]", "web.example", "255.255.255.255", "ff02::1"];
    let ports = json!([{"port": 80}]);
    let endpoints = json!([{"address": "10.0.0.7"}]);
    let spec = |addresses: &[&str]| json!({"addresses": addresses, "ports": ports, "endpoints": endpoints});
    insta::assert_snapshot!(refused(spec(&addresses)) + &refused(spec(&more)), @r#"
    spec.addresses[0]: `203.0.113.300` is no IP address; write one such as 203.0.113.10 or 2001:db8::10
    spec.addresses[1]: `2001:DB8::10` is not in canonical form (RFC 5952); write 2001:db8::10
    spec.addresses[2]: `::ffff:203.0.113.10` is an IPv4-mapped IPv6 address; write 203.0.113.10
    spec.addresses[3]: 127.0.0.1 is a loopback address; write a unicast address that other machines can reach, such as 203.0.113.10
    spec.addresses[4]: 224.0.0.1 is a multicast address; write a unicast address that other machines can reach, such as 203.0.113.10
    spec.addresses[5]: 169.254.1.1 is a link-local address; write a unicast address that other machines can reach, such as 203.0.113.10
    spec.addresses[6]: 0.0.0.0 is the unspecified address; write a unicast address that other machines can reach, such as 203.0.113.10
    spec.addresses[0]: `fe80::1%eth0` is no IP address; leave out the zone `%eth0`
    spec.addresses[1]: `010.0.0.1` is no IP address; write 10.0.0.1, without leading zeros
    spec.addresses[2]: `203.0.113.0/24` is no IP address; write 203.0.113.0, without `/24`
    spec.addresses[3]: `[2001:db8::1]` is no IP address; write 2001:db8::1, without brackets
    spec.addresses[4]: `web.example` is no IP address; write one such as 203.0.113.10 or 2001:db8::10
    spec.addresses[5]: 255.255.255.255 is the broadcast address; write a unicast address that other machines can reach, such as 203.0.113.10
    spec.addresses[6]: ff02::1 is a multicast address; write a unicast address that other machines can reach, such as 203.0.113.10
    "#);
}

#[test]
fn every_bad_port_weight_and_name_is_told() {
    let spec = json!({
        "addresses": ["203.0.113.10", "203.0.113.10"],
        "ports": [{"port": 0}, {"port": 65536}, {"port": -1}, {"port": 80}, {"port": 80, "name": "Web"},
                  {"port": 81, "name": "a"}, {"port": 82, "name": "a"}],
        "backendRefs": [{"name": "web", "weight": 1001}, {"name": "web", "weight": -1}, {"name": "a/b"}],
    });
    insta::assert_snapshot!(refused(spec), @r#"
    spec.addresses[1]: 203.0.113.10 is there already at spec.addresses[0]; remove one of the two
    spec.ports[0].port: 0 is no port; write a number from 1 to 65535
    spec.ports[1].port: 65536 is no port; write a number from 1 to 65535
    spec.ports[2].port: -1 is no port; write a number from 1 to 65535
    spec.ports[4].port: 80/TCP is there already at spec.ports[3].port; remove one of the two
    spec.ports[4].name: `Web` is no port name; use a-z, 0-9 and `-`, 63 characters at most
    spec.ports[6].name: a is there already at spec.ports[5].name; remove one of the two
    spec.backendRefs[0].weight: 1001 is no weight; write a number from 0 to 1000
    spec.backendRefs[1].name: web is there already at spec.backendRefs[0].name; remove one of the two
    spec.backendRefs[1].weight: -1 is no weight; write a number from 0 to 1000
    spec.backendRefs[2].name: `a/b` is no Service name; use a-z, 0-9 and `-`, 63 characters at most
    "#);
}

#[test]
fn bounds_hold() {
    let addresses: Vec<_> = (1..=9).map(|i| format!("203.0.113.{i}")).collect();
    let ports: Vec<_> = (1..=33).map(|port| json!({"port": port})).collect();
    let endpoints: Vec<_> =
        (0..1025).map(|i| json!({"address": format!("10.0.{}.{}", i / 250, i % 250 + 1)})).collect();
    let empty = json!({"addresses": [], "ports": [], "backendRefs": []});
    let full = json!({"addresses": addresses, "ports": ports, "endpoints": endpoints});
    insta::assert_snapshot!(refused(empty) + &refused(full), @r#"
    spec.addresses: the list is empty; give 1 to 8
    spec.ports: the list is empty; give 1 to 32
    spec.backendRefs: the list is empty; give 1 to 8
    spec.addresses: the list has 9 entries; 8 at most: use several VirtualServices
    spec.ports: the list has 33 entries; 32 at most: use several VirtualServices
    spec.endpoints: the list has 1025 entries; 1024 at most: use several VirtualServices
    "#);
}

#[test]
fn exactly_one_of_backend_refs_and_endpoints_is_needed() {
    let neither = json!({"addresses": ["203.0.113.10"], "ports": [{"port": 80}]});
    let mut both = neither.clone();
    both["backendRefs"] = json!([{"name": "web"}]);
    both["endpoints"] = json!([{"address": "10.0.0.7"}, {"address": "10.0.0.7", "tunnel": "::1"}]);
    insta::assert_snapshot!(refused(neither) + &refused(both), @r#"
    spec: nobody answers: set backendRefs to name Services, or endpoints to give addresses, not both
    spec.endpoints: there are both backendRefs and endpoints; remove one of the two
    "#);
}

#[test]
fn conditions_of_a_slice_have_the_apis_defaults() {
    let object = json!({
        "metadata": {"namespace": "shop", "name": "web-a", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 80}, {"name": "sctp", "port": 9, "protocol": "SCTP"}],
        "endpoints": [
            {"addresses": ["10.0.0.7"]},
            {"addresses": ["10.0.0.8"], "conditions": {"ready": false, "serving": true, "terminating": true}, "nodeName": "t33"},
        ],
    });
    let object = serde_json::from_value(object).expect("fits the API type");
    let Object::Slice(slice) = converted(endpoint_slice(&object, &Place::default())) else { panic!("another kind") };
    assert_eq!(slice.service, "web");
    assert_eq!(slice.subsets[0].ports.len(), 1, "SCTP is left out");
    let states: Vec<_> = slice.subsets[0].endpoints.iter().map(|e| (e.ready, e.serving, e.terminating)).collect();
    assert_eq!(states, [(true, true, false), (false, true, true)]);
}

#[test]
fn a_slice_of_sctp_alone_is_not_one_of_every_port() {
    let object = json!({
        "metadata": {"name": "web-a", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"port": 9, "protocol": "SCTP"}],
        "endpoints": [{"addresses": ["10.0.0.7"]}],
    });
    let object = serde_json::from_value(object).expect("fits the API type");
    let Object::Slice(slice) = converted(endpoint_slice(&object, &Place::default())) else { panic!("another kind") };
    assert_eq!(slice.subsets, []);
}

#[test]
fn a_bad_slice_is_told() {
    let object = json!({
        "metadata": {"name": "web-a"},
        "addressType": "IPv4",
        "ports": [{"port": 0}],
        "endpoints": [{"addresses": []}, {"addresses": ["2001:db8::1"]}, {"addresses": ["127.0.0.1"]}],
    });
    let object = serde_json::from_value(object).expect("fits the API type");
    insta::assert_snapshot!(lines(endpoint_slice(&object, &Place::default())), @r#"
    metadata.labels: the slice belongs to no Service; add the label `kubernetes.io/service-name: NAME`
    ports[0].port: 0 is no port; write a number from 1 to 65535
    endpoints[0].addresses: the endpoint has no address; give it one, or remove the endpoint
    endpoints[1].addresses[0]: 2001:db8::1 does not fit `addressType: IPv4`; put it into a slice of its own
    endpoints[2].addresses[0]: 127.0.0.1 is a loopback address; write a unicast address that other machines can reach, such as 203.0.113.10
    "#);
}

#[test]
fn a_slice_without_an_address_type_is_told_and_one_of_host_names_left_alone() {
    let slice = |address_type: &str| {
        let object = json!({"metadata": {"name": "web-a"}, "addressType": address_type, "endpoints": []});
        endpoint_slice(&serde_json::from_value(object).expect("fits the API type"), &Place::default())
    };
    assert_eq!(lines(slice("")), "addressType: `` is no address type; write IPv4 or IPv6\n");
    assert_eq!(slice("FQDN"), Ok(None));
}

#[test]
fn copies_of_slices_are_left_alone() {
    for label in ["endpoints.kubernetes.io/managed-by", "endpointslice.kubernetes.io/skip-mirror"] {
        let object = json!({"metadata": {"name": "web", "labels": {label: "x"}}});
        let object = serde_json::from_value(object).expect("fits the API type");
        assert_eq!(endpoints(&object, &Place::default()), Ok(None), "{label}");
    }
}

#[test]
fn an_endpoints_object_keeps_its_subsets_apart() {
    let object = json!({
        "metadata": {"namespace": "shop", "name": "web"},
        "subsets": [
            {"addresses": [{"ip": "10.0.0.7", "nodeName": "t33"}], "notReadyAddresses": [{"ip": "10.0.0.8"}],
             "ports": [{"name": "http", "port": 80}]},
            {"addresses": [{"ip": "10.0.0.9"}], "ports": [{"name": "http", "port": 8080}]},
        ],
    });
    let object = serde_json::from_value(object).expect("fits the API type");
    let Object::Slice(slice) = converted(endpoints(&object, &Place::default())) else { panic!("another kind") };
    assert_eq!((slice.origin, slice.service.as_str(), slice.subsets.len()), (SliceOrigin::Endpoints, "web", 2));
    let ready: Vec<_> = slice.subsets[0].endpoints.iter().map(|endpoint| endpoint.ready).collect();
    assert_eq!(ready, [true, false]);
}

#[test]
fn of_a_node_the_internal_ips_count_and_of_a_service_the_cluster_ips() {
    let object = json!({"metadata": {"name": "t33"}, "status": {"addresses": [
        {"type": "Hostname", "address": "t33"},
        {"type": "InternalIP", "address": "172.17.3.3"},
        {"type": "ExternalIP", "address": "198.51.100.3"},
    ]}});
    let object = serde_json::from_value(object).expect("fits the API type");
    let Object::Node(node) = converted(node(&object, &Place::default())) else { panic!("another kind") };
    assert_eq!(node.internal_ips, ["172.17.3.3".parse::<std::net::IpAddr>().expect("an address")]);

    let object = json!({"metadata": {"name": "web"}, "spec": {
        "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10", "2001:db8:96::a"], "ports": [{"port": 80}],
    }});
    let object = serde_json::from_value(object).expect("fits the API type");
    let Object::Service(service) = converted(service(&object, &Place::default())) else { panic!("another kind") };
    assert_eq!((service.name.to_string().as_str(), service.cluster_ips.len()), ("default/web", 2));
}

#[test]
fn of_a_service_the_addresses_that_others_balance_are_noted_unless_they_announce_for_us() {
    let claimed = |annotations: &str| {
        let text = format!(
            "metadata: {{name: web, annotations: {{{annotations}}}}}\nspec: {{externalIPs: [203.0.113.10]}}\n\
             status: {{loadBalancer: {{ingress: [{{ip: 203.0.113.11}}, {{hostname: lb.example}}]}}}}\n"
        );
        let object = serde_yaml_ng::from_str(&text).expect("a Service");
        let Ok(Some(Object::Service(service))) = service(&object, &Place::default()) else { panic!("a Service") };
        service.claimed.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(claimed(""), ["203.0.113.10", "203.0.113.11"]);
    assert!(claimed("guenon.dev/announces: \"true\"").is_empty());
}

#[test]
fn of_a_target_port_the_name_is_kept_and_the_number_left_to_slices() {
    let text = "metadata: {name: web}\nspec: {ports: [{port: 80, targetPort: http-alt}, {port: 81, targetPort: 8081}, {port: 82}]}\n";
    let object = serde_yaml_ng::from_str(text).expect("a Service");
    let Ok(Some(Object::Service(service))) = service(&object, &Place::default()) else { panic!("a Service") };
    let names: Vec<_> = service.ports.iter().map(|port| port.target_name.as_deref()).collect();
    assert_eq!(names, [Some("http-alt"), None, None]);
}

#[test]
fn an_endpoint_may_say_where_it_listens() {
    let spec = |port: i32| json!({"addresses": ["203.0.113.10"], "ports": [{"port": 80}], "endpoints": [{"address": "10.0.0.7", "port": port}]});
    assert_eq!(refused(spec(0)), "spec.endpoints[0].port: 0 is no port; write a number from 1 to 65535\n");
    let object = json!({"metadata": {"namespace": "shop", "name": "web"}, "spec": spec(8080)});
    let object = serde_json::from_value(object).expect("fits the API type");
    let Object::VirtualService(service) = converted(virtual_service(&object, &Place::default())) else {
        panic!("another kind")
    };
    let Backends::Given(endpoints) = service.backends else { panic!("no endpoints") };
    assert_eq!(endpoints[0].port, Some(8080));
}
