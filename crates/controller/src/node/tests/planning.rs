use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{
    EndpointState, Frontend, LocalDelivery, NodeView, Path, Protocol, Role, ServiceName, ServiceState, State,
};
use crate::node::{Duties, NodeSetup, Observed, Owned, Record, Step, Sysctl, Wish, steps};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn view() -> NodeView {
    serde_yaml_ng::from_str(
        "node: t33\nroles: [decap]\ntunnel: [172.17.3.3]\nattached: [eth0]\n\
         interfaces:\n- {name: eth0, index: 2, mac: '02:00:00:00:00:33', mtu: 1500, addresses: [172.17.3.3/24]}\n\
         - {name: veth7, index: 7, mac: '02:00:00:00:00:07', mtu: 1500}\n\
         nextHops:\n- {to: 10.0.0.7/32, interface: veth7, mtu: 1500}\n\
         - {to: 0.0.0.0/0, via: 172.17.3.1, interface: eth0, mtu: 1500}\n",
    )
    .unwrap()
}

fn duties(loopback: &[&str], veths: &[(&str, &str)]) -> Duties {
    Duties {
        loopback: loopback.iter().map(|vip| ip(vip)).collect(),
        veths: veths.iter().map(|(device, vip)| ((*device).to_owned(), ip(vip))).collect(),
        pods: BTreeSet::new(),
    }
}

/// `ipv4/conf/eth0/rp_filter=1 ...`, on devices with the indices of [`view`].
fn observed(values: &str) -> Observed {
    let indices = [("lo", 1), ("eth0", 2), ("veth7", 7)];
    Observed {
        sysctls: parse(values),
        indices: indices.map(|(name, index)| (name.to_owned(), index)).into(),
        ..Observed::default()
    }
}

fn parse(values: &str) -> BTreeMap<Sysctl, i64> {
    let pair = |text: &str| {
        let (key, value) = text.split_once('=').unwrap();
        (sysctl(key), value.parse().unwrap())
    };
    values.split_whitespace().map(pair).collect()
}

fn sysctl(path: &str) -> Sysctl {
    serde_json::from_value(path.into()).unwrap()
}

fn owned(previous: i64, set: i64, index: Option<u32>) -> Owned {
    Owned { previous, set, index, also: BTreeMap::new() }
}

fn record_of(key: &str, owned: Owned) -> Record {
    Record { sysctls: [(sysctl(key), owned)].into(), ..Record::default() }
}

/// What [`steps`] sets anew: `path=value`.
fn settings(setup: &NodeSetup, observed: &Observed) -> Vec<String> {
    let setting = |step| {
        let Step::Set(key, owned) = step else { panic!("only settings were expected, not {step:?}") };
        format!("{}={}", key.path(), owned.set)
    };
    steps(setup, observed, &Record::default()).into_iter().map(setting).collect()
}

const QUIET: &str = "ipv4/conf/all/rp_filter=0 ipv4/conf/eth0/rp_filter=0 ipv4/conf/all/arp_ignore=0 \
    ipv4/conf/eth0/arp_ignore=0 ipv4/conf/all/arp_announce=0 ipv4/conf/eth0/arp_announce=0 \
    ipv4/conf/all/accept_local=0 ipv4/conf/eth0/accept_local=0";

fn with(values: &str) -> Observed {
    let mut all = observed(QUIET);
    all.sysctls.extend(parse(values));
    all
}

#[test]
fn nothing_to_deliver_wants_nothing() {
    let setup = NodeSetup::new(&Duties::default(), &view());
    assert_eq!(setup, NodeSetup::default());
    assert!(steps(&setup, &with("ipv4/conf/all/rp_filter=1"), &Record::default()).is_empty());
}

#[test]
fn a_vip_on_the_loopback_comes_after_what_keeps_it_from_answering_arp() {
    let setup = NodeSetup::new(&duties(&["203.0.113.10", "2001:db8::10"], &[]), &view());
    let steps = steps(&setup, &with(""), &Record::default());
    let vip = steps.iter().position(|step| matches!(step, Step::AddAddress(_))).unwrap();
    let quiet = |name: &str| {
        let key = sysctl(&format!("ipv4/conf/eth0/{name}"));
        steps.iter().position(|step| matches!(step, Step::Set(set, _) if *set == key)).unwrap()
    };
    assert!(quiet("arp_ignore") < vip && quiet("arp_announce") < vip, "{steps:?}");
    assert_eq!(steps[vip..], [Step::AddAddress(ip("203.0.113.10")), Step::AddAddress(ip("2001:db8::10"))]);
}

#[test]
fn an_ipv6_vip_alone_leaves_arp_alone() {
    let setup = NodeSetup::new(&duties(&["2001:db8::10"], &[]), &view());
    assert!(setup.wishes.is_empty());
}

#[test]
fn reverse_path_filtering_is_loosened_only_where_it_is_strict() {
    let setup = NodeSetup { addresses: BTreeSet::new(), wishes: [Wish::LooseReversePath("eth0".into())].into() };
    let loosened = ["ipv4/conf/eth0/rp_filter=2".to_owned()];
    assert_eq!(settings(&setup, &with("ipv4/conf/all/rp_filter=1")), loosened, "in force is the larger");
    assert_eq!(settings(&setup, &with("ipv4/conf/eth0/rp_filter=1")), loosened);
    for fine in ["ipv4/conf/eth0/rp_filter=0", "ipv4/conf/eth0/rp_filter=2", "ipv4/conf/all/rp_filter=2"] {
        assert_eq!(settings(&setup, &with(fine)), [""; 0], "{fine}");
    }
}

#[test]
fn a_directors_own_endpoint_takes_packets_from_the_node_itself() {
    let mut view = view();
    let local = duties(&["203.0.113.10"], &[]);
    let takes = |view: &NodeView| NodeSetup::new(&local, view).wishes.contains(&Wish::AcceptLocal("eth0".into()));
    assert!(!takes(&view));
    view.roles.push(Role::Director);
    assert!(takes(&view));
}

#[test]
fn a_veths_replies_are_let_through_and_forwarded() {
    let setup = NodeSetup::new(&duties(&[], &[("veth7", "203.0.113.10")]), &view());
    let values = with(
        "ipv4/conf/all/rp_filter=1 ipv4/conf/veth7/rp_filter=1 ipv4/conf/veth7/accept_local=0 \
         ipv4/conf/veth7/forwarding=0",
    );
    assert_eq!(
        settings(&setup, &values),
        [
            "ipv4/conf/veth7/forwarding=1",
            "ipv4/conf/eth0/rp_filter=2",
            "ipv4/conf/veth7/rp_filter=2",
            "ipv4/conf/veth7/accept_local=1",
        ]
    );
}

#[test]
fn ipv6_forwarding_is_of_the_device_alone_where_the_kernel_can() {
    let setup = NodeSetup::new(&duties(&[], &[("veth7", "2001:db8::10")]), &view());
    let values = observed(
        "ipv6/conf/all/forwarding=0 ipv6/conf/veth7/force_forwarding=0 ipv6/conf/eth0/force_forwarding=0 \
         ipv6/conf/eth0/accept_ra=1 ipv6/conf/eth0/forwarding=0",
    );
    assert_eq!(settings(&setup, &values), ["ipv6/conf/veth7/force_forwarding=1"]);
}

/// A kernel before 6.17, with a device that forwards already.
const OLD_KERNEL: &str = "ipv6/conf/all/forwarding=0 ipv6/conf/default/forwarding=0 ipv6/conf/eth0/accept_ra=1 \
    ipv6/conf/eth0/forwarding=0 ipv6/conf/veth7/forwarding=1 ipv6/conf/lo/forwarding=0";

#[test]
fn ipv6_forwarding_of_all_devices_keeps_default_routes_by_advertisement() {
    let setup = NodeSetup::new(&duties(&[], &[("veth7", "2001:db8::10")]), &view());
    let steps = steps(&setup, &observed(OLD_KERNEL), &Record::default());
    let also = parse("ipv6/conf/veth7/forwarding=1");
    assert_eq!(
        steps,
        [
            Step::Set(sysctl("ipv6/conf/eth0/accept_ra"), owned(1, 2, Some(2))),
            Step::Set(sysctl("ipv6/conf/all/forwarding"), Owned { previous: 0, set: 1, index: None, also }),
        ]
    );
}

#[test]
fn what_is_set_stays_set_and_is_not_taken_for_the_nodes_own() {
    let setup = NodeSetup::new(&duties(&[], &[("veth7", "2001:db8::10")]), &view());
    let mut there = observed(OLD_KERNEL);
    let mut record = Record::default();
    for step in steps(&setup, &there, &record) {
        let Step::Set(key, owned) = step else { panic!("{step:?}") };
        there.sysctls.insert(key.clone(), owned.set);
        record.sysctls.insert(key, owned);
    }
    // The kernel sweeps every device along.
    for device in ["default", "eth0", "veth7", "lo"] {
        there.sysctls.insert(sysctl(&format!("ipv6/conf/{device}/forwarding")), 1);
    }
    assert_eq!(steps(&setup, &there, &record), []);

    let restored: Vec<_> = steps(&NodeSetup::default(), &there, &record)
        .into_iter()
        .map(|step| {
            let Step::Restore(key, owned) = step else { panic!("{step:?}") };
            (key.path().to_owned(), owned.previous, owned.also.len())
        })
        .collect();
    assert_eq!(
        restored,
        [("ipv6/conf/all/forwarding".to_owned(), 0, 1), ("ipv6/conf/eth0/accept_ra".to_owned(), 1, 0)],
        "forwarding ends before advertisements are given up"
    );
}

#[test]
fn what_was_recorded_but_not_yet_set_is_set_and_the_previous_value_kept() {
    let setup = NodeSetup { addresses: BTreeSet::new(), wishes: [Wish::LooseReversePath("eth0".into())].into() };
    let record = record_of("ipv4/conf/eth0/rp_filter", owned(1, 2, Some(2)));
    let key = sysctl("ipv4/conf/eth0/rp_filter");
    let now = with("ipv4/conf/eth0/rp_filter=1");
    assert_eq!(steps(&setup, &now, &record), [Step::SetAgain(key.clone(), 2)]);
    assert_eq!(steps(&NodeSetup::default(), &now, &record), [Step::Forget(key)], "nothing was changed");
}

#[test]
fn what_somebody_else_has_changed_since_is_not_restored() {
    let record = record_of("ipv4/conf/eth0/arp_ignore", owned(0, 1, Some(2)));
    let now = with("ipv4/conf/eth0/arp_ignore=8");
    assert_eq!(steps(&NodeSetup::default(), &now, &record), [Step::Forget(sysctl("ipv4/conf/eth0/arp_ignore"))]);
}

#[test]
fn a_device_of_the_same_name_is_another_device() {
    let setup = NodeSetup { addresses: BTreeSet::new(), wishes: [Wish::LooseReversePath("eth0".into())].into() };
    let key = sysctl("ipv4/conf/eth0/rp_filter");
    let record = record_of("ipv4/conf/eth0/rp_filter", owned(0, 2, Some(99)));
    assert_eq!(
        steps(&setup, &with("ipv4/conf/eth0/rp_filter=1"), &record),
        [Step::Forget(key.clone()), Step::Set(key, owned(1, 2, Some(2)))]
    );
}

#[test]
fn addresses_of_others_are_neither_added_nor_removed() {
    let setup = NodeSetup::new(&duties(&["203.0.113.10", "203.0.113.11"], &[]), &view());
    let mut now = with("ipv4/conf/eth0/arp_ignore=1 ipv4/conf/eth0/arp_announce=2");
    now.loopback.insert(ip("203.0.113.10"));
    now.elsewhere.insert(ip("203.0.113.11"));
    assert_eq!(steps(&setup, &now, &Record::default()), []);
    assert_eq!(steps(&NodeSetup::default(), &now, &Record::default()), []);
}

#[test]
fn addresses_of_ours_go_when_they_are_wanted_no_more_before_arp_is_loud_again() {
    let mut record = record_of("ipv4/conf/eth0/arp_ignore", owned(0, 1, Some(2)));
    record.addresses = [ip("203.0.113.10"), ip("203.0.113.11")].into();
    let mut now = with("ipv4/conf/eth0/arp_ignore=1");
    now.loopback.insert(ip("203.0.113.10"));
    assert_eq!(
        steps(&NodeSetup::default(), &now, &record),
        [
            Step::RemoveAddress(ip("203.0.113.10")),
            Step::ForgetAddress(ip("203.0.113.11")),
            Step::Restore(sysctl("ipv4/conf/eth0/arp_ignore"), owned(0, 1, Some(2))),
        ]
    );
}

#[test]
fn duties_follow_from_the_state() {
    let service = |vip: &str, endpoint: &str, path: Path| {
        let frontend = Frontend { vip: ip(vip), protocol: Protocol::Tcp, port: 80 };
        Arc::new(ServiceState {
            frontends: [frontend].into(),
            endpoints: vec![EndpointState { address: ip(endpoint), path }],
            ..ServiceState::default()
        })
    };
    let services = [
        ("a", service("203.0.113.1", "172.17.3.3", Path::Local(LocalDelivery::Local))),
        ("b", service("203.0.113.2", "10.0.0.7", Path::Local(LocalDelivery::None))),
        ("d", service("203.0.113.4", "10.0.0.8", Path::Local(LocalDelivery::Nat { ports: Arc::default() }))),
        ("c", service("203.0.113.3", "10.0.0.9", Path::Unreachable { destination: ip("10.0.0.9") })),
    ];
    let services = services.map(|(name, service)| (ServiceName::new("shop", name), service)).into();
    let state = State { services, ..State::default() };
    let wanted = Duties { pods: [ip("10.0.0.8")].into(), ..duties(&["203.0.113.1"], &[("veth7", "203.0.113.2")]) };
    assert_eq!(Duties::of(&state, &view()), wanted);
}

/// What [`steps`] asks for: `path=value`.
fn asked(setup: &NodeSetup, observed: &Observed) -> Vec<String> {
    let asked = |step| if let Step::Ask(key, value) = step { Some(format!("{}={value}", key.path())) } else { None };
    steps(setup, observed, &Record::default()).into_iter().filter_map(asked).collect()
}

#[test]
fn forwarding_to_pods_is_asked_for_and_never_set() {
    let pods = |pods: &[&str]| {
        NodeSetup::new(&Duties { pods: pods.iter().map(|pod| ip(pod)).collect(), ..Duties::default() }, &view())
    };
    let off = "ipv4/conf/all/forwarding=0 ipv4/conf/eth0/forwarding=0 ipv4/conf/veth7/forwarding=0 \
               ipv6/conf/all/forwarding=0";
    let v4 = pods(&["10.0.0.7"]);
    assert_eq!(asked(&v4, &with(off)), ["ipv4/conf/all/forwarding=1"]);
    assert_eq!(settings(&NodeSetup::default(), &with(off)), [""; 0]);
    let on = "ipv4/conf/all/forwarding=1 ipv4/conf/eth0/forwarding=1 ipv4/conf/veth7/forwarding=1";
    assert_eq!(asked(&v4, &with(on)), [""; 0]);
    let on_but_for_the_pod = on.replace("veth7/forwarding=1", "veth7/forwarding=0");
    assert_eq!(asked(&v4, &with(&on_but_for_the_pod)), ["ipv4/conf/veth7/forwarding=1"], "its replies");
    assert_eq!(asked(&pods(&["172.17.3.3"]), &with(off)), [""; 0], "the node itself is no pod");
    let v6 = pods(&["fd00::7"]);
    assert_eq!(asked(&v6, &with(off)), ["ipv6/conf/all/forwarding=1"]);
    assert_eq!(asked(&v6, &with("ipv6/conf/all/forwarding=0 ipv6/conf/eth0/force_forwarding=1")), [""; 0]);
    // What is set for a veth need not be asked for.
    let both = Duties { pods: [ip("fd00::7")].into(), ..duties(&[], &[("veth7", "2001:db8::10")]) };
    assert_eq!(asked(&NodeSetup::new(&both, &view()), &with(off)), [""; 0]);
}

#[test]
fn a_sysctl_is_written_as_sysctl_takes_it() {
    assert_eq!(sysctl("ipv4/conf/eth0/rp_filter").to_string(), "net.ipv4.conf.eth0.rp_filter");
    assert_eq!(sysctl("ipv4/conf/eth0.42/rp_filter").to_string(), "net/ipv4/conf/eth0.42/rp_filter");
}
