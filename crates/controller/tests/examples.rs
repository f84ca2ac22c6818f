//! The manifests in `examples/` are good, and come to what their comments say.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use guenon_controller::files::Manifests;
use guenon_controller::index::Index;
use guenon_controller::model::{LocalDelivery, NodeView, Path as Way, Policy, ServiceName, ServiceState};
use guenon_controller::resolve::{ResolveOptions, Resolver};
use guenon_controller::source::SourceEvent;
use guenon_ebpf::hash::{DEFAULT_KEY, Schedule};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples")
}

/// An index of a directory's manifests, which must be without any problem.
fn index(directory: &Path) -> Index {
    let mut index = Index::new();
    for event in Manifests::read(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display())) {
        let SourceEvent::Reset(objects) = event else { panic!("{}: {event:?}", directory.display()) };
        index.reset(objects);
    }
    index
}

fn resolved(mut index: Index, view: &str) -> (Resolver, Index) {
    let view: NodeView = serde_yaml_ng::from_str(view).expect("a view");
    let options =
        ResolveOptions { schedule: Schedule::new(DEFAULT_KEY), directors: BTreeSet::new(), policy: Policy::default() };
    let mut resolver = Resolver::new(options);
    resolver.resolve(&mut index, &view, &BTreeMap::new());
    (resolver, index)
}

fn service<'a>(resolver: &'a Resolver, name: &str) -> &'a ServiceState {
    let name = ServiceName::parse(name).expect("namespace/name");
    &resolver.state().services[&name]
}

/// Rows that name each endpoint first.
fn shares(service: &ServiceState) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for row in service.rows.iter() {
        let address = service.endpoints[usize::from(row.primary())].address;
        *shares.entry(address.to_string()).or_default() += 1;
    }
    shares
}

const T22: &str = "
node: t22
roles: [director, decap]
tunnel: [172.17.2.2, '2001:db8:2::2']
interfaces:
- {name: eth0, index: 2, mac: '02:00:00:00:00:16', mtu: 1500, addresses: [172.17.2.2/24, '2001:db8:2::2/64']}
- {name: veth-c, index: 6, mac: '02:00:00:00:00:60', mtu: 1500}
nextHops:
- {to: 10.22.1.0/24, interface: veth-c, mtu: 1500}
- {to: '2001:db8:221::/64', interface: veth-c, mtu: 1500}
- {to: 0.0.0.0/0, via: 172.17.2.1, mac: '02:00:00:00:00:01', interface: eth0, mtu: 1500}
- {to: '::/0', via: '2001:db8:2::1', mac: '02:00:00:00:00:01', interface: eth0, mtu: 1500}
";

const T33: &str = "
node: t33
roles: [decap]
tunnel: [172.17.3.3, '2001:db8:3::3']
interfaces:
- {name: eth0, index: 2, mac: '02:00:00:00:00:21', mtu: 1500, addresses: [172.17.3.3/24, '2001:db8:3::3/64']}
- {name: pod, index: 5, mac: '02:00:00:00:00:50', mtu: 1500, farEnd: ready}
- {name: veth-a, index: 6, mac: '02:00:00:00:00:60', mtu: 1500}
- {name: veth-b, index: 7, mac: '02:00:00:00:00:70', mtu: 1500}
nextHops:
- {to: 10.33.1.0/24, interface: veth-a, mtu: 1500}
- {to: '2001:db8:331::/64', interface: veth-a, mtu: 1500}
- {to: 10.33.2.0/24, interface: veth-b, mtu: 1500}
- {to: '2001:db8:332::/64', interface: veth-b, mtu: 1500}
- {to: 10.33.0.10/32, mac: '02:00:00:00:00:10', interface: pod, mtu: 1500}
- {to: '2001:db8:33::10/128', mac: '02:00:00:00:00:10', interface: pod, mtu: 1500}
";

#[test]
fn the_demos_director_has_one_endpoint_of_three_itself() {
    let (resolver, index) = resolved(index(&examples().join("demo")), T22);
    assert_eq!(resolver.problems(&index), []);
    for (name, own) in [("demo/web", "172.17.2.2"), ("demo/web-v6", "2001:db8:2::2")] {
        let service = service(&resolver, name);
        let shares = shares(service);
        assert_eq!(shares.len(), 3, "{name}: {shares:?}");
        assert!(shares.values().all(|rows| rows.abs_diff(service.rows.len() / 3) <= 1), "{name}: {shares:?}");
        let local: Vec<_> =
            service.endpoints.iter().filter(|endpoint| endpoint.path == Way::Local(LocalDelivery::Local)).collect();
        assert!(matches!(local[..], [endpoint] if endpoint.address.to_string() == own), "{name}: {local:?}");
    }
}

#[test]
fn the_demos_decap_node_builds_the_same_table_and_delivers_to_itself_and_behind_a_veth() {
    let (director, _) = resolved(index(&examples().join("demo")), T22);
    let (decap, index) = resolved(index(&examples().join("demo")), T33);
    assert_eq!(decap.problems(&index), []);
    for name in ["demo/web", "demo/web-v6"] {
        assert_eq!(service(&director, name).rows, service(&decap, name).rows, "{name}");
        let paths: Vec<_> = service(&decap, name).endpoints.iter().map(|endpoint| &endpoint.path).collect();
        let is_veth = |path: &&Way| matches!(path, Way::Local(LocalDelivery::Veth { ifindex: 5, mac: Some(_), .. }));
        assert_eq!(paths.iter().filter(|path| is_veth(path)).count(), 1, "{name}: {paths:?}");
        assert!(paths.contains(&&Way::Local(LocalDelivery::Local)), "{name}: {paths:?}");
    }
    assert_eq!(decap.state().directors.len(), 4, "both nodes, both families");
    assert_eq!(decap.needs().loopback.len(), 2, "one VIP a family, for the endpoint that is the node itself");
}

#[test]
fn the_demos_pods_are_translated_on_their_own_nodes() {
    for (view, translated) in [
        (T22, ["10.22.1.10", "2001:db8:221::10"].as_slice()),
        (T33, &["10.33.1.10", "10.33.2.10", "2001:db8:331::10", "2001:db8:332::10"]),
    ] {
        let (resolver, _) = resolved(index(&examples().join("demo")), view);
        let services = resolver.state().services.iter().filter(|(name, _)| name.to_string().starts_with("demo/pods"));
        let mut found = BTreeSet::new();
        for endpoint in services.flat_map(|(_, service)| &service.endpoints) {
            if let Way::Local(LocalDelivery::Nat { ports }) = &endpoint.path {
                let ports: Vec<u16> = ports.values().copied().collect();
                assert_eq!(ports, [8080, 8777], "{}", endpoint.address);
                found.insert(endpoint.address.to_string());
            }
        }
        assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), translated);
        assert!(!resolver.needs().pods.is_empty());
    }
}

#[test]
fn the_services_example_splits_nine_to_one_and_drains() {
    let (resolver, index) = resolved(index(&examples().join("services")), T22);
    assert_eq!(resolver.problems(&index), []);
    let service = service(&resolver, "shop/cache");
    let shares = shares(service);
    assert_eq!(service.endpoints.len(), 3);
    assert_eq!(shares.keys().collect::<Vec<_>>(), ["10.0.0.7", "10.0.0.9"], "10.0.0.8 drains");
    assert!(shares["10.0.0.9"].abs_diff(service.rows.len() / 10) <= 1, "{shares:?}");
}

#[test]
fn the_examples_of_every_field_and_of_the_readme_are_accepted() {
    let index = index(&examples());
    for name in ["shop/web", "web/web"] {
        let name = ServiceName::parse(name).expect("namespace/name");
        assert!(index.virtual_service(&name).is_some(), "{name}");
    }
}
