use std::time::Duration;

use guenon_ebpf::abi::GUE_PORT;
use guenon_ebpf::hash::{DEFAULT_KEY, Schedule};

use super::*;
use crate::datapath::memory::{self, Memory};
use crate::datapath::tables::{Capacities, Tables};
use crate::model::{
    Backends, DeliveryChoice, GivenEndpoint, InterfaceView, Mac, NextHopView, Object, ObjectKey, Place, Policy,
    ProblemReason, Protocol, Role, VipPort, VirtualService,
};

type Reconciled = Reconciler<Tables<Memory>>;

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn options() -> ResolveOptions {
    ResolveOptions { schedule: Schedule::new(DEFAULT_KEY), directors: BTreeSet::new(), policy: Policy::default() }
}

fn capacities() -> Capacities {
    Capacities { services: 8, frontends: 8, endpoints: 64, row_pages: 4, locals: 8, flows: 8 }
}

fn reconciler(capacities: &Capacities) -> Reconciled {
    Reconciler::adopt(memory::data_path(capacities, GUE_PORT), 0, options())
}

/// 172.17.2.2 with a gateway to all others.
fn view() -> NodeView {
    let gateway = NextHopView {
        to: "172.17.0.0/16".parse().expect("a prefix"),
        via: Some(address("172.17.2.1")),
        mac: Some(Mac([2, 0, 0, 0, 0, 1])),
        interface: "eth0".into(),
        mtu: 1500,
    };
    let eth0 = InterfaceView {
        name: "eth0".into(),
        index: 2,
        mac: Some(Mac([2, 0, 0, 0, 0, 22])),
        mtu: 1500,
        addresses: vec!["172.17.2.2/32".parse().expect("a prefix")],
        parent: None,
        vlan: None,
        far_end: None,
    };
    NodeView {
        node: "t22".into(),
        roles: vec![Role::Director, Role::Decap],
        tunnel: vec![address("172.17.2.2")],
        interfaces: vec![eth0],
        next_hops: vec![gateway],
        attached: vec!["eth0".into()],
    }
}

/// A service on 203.0.113.`vip` with endpoints 172.17.3.1 to .`endpoints`.
fn service(name: &str, vip: u8, endpoints: u8) -> VirtualService {
    let endpoint = |last| GivenEndpoint {
        address: IpAddr::from([172, 17, 3, last]),
        weight: 1,
        tunnel: None,
        delivery: None,
        port: None,
    };
    VirtualService {
        name: ServiceName::new("shop", name),
        created: 0,
        generation: 0,
        addresses: vec![IpAddr::from([203, 0, 113, vip])],
        ports: vec![VipPort { protocol: Protocol::Tcp, port: 80 }],
        backends: Backends::Given((1..=endpoints).map(endpoint).collect()),
        client_ip: false,
        delivery: DeliveryChoice::Auto,
        place: Place { file: format!("{name}.yaml"), ..Place::default() },
    }
}

fn reset(services: &[VirtualService]) -> Vec<SourceEvent> {
    vec![SourceEvent::Reset(services.iter().cloned().map(Object::VirtualService).collect())]
}

fn put(service: VirtualService) -> Vec<SourceEvent> {
    vec![SourceEvent::Apply(Object::VirtualService(service))]
}

fn delete(name: &str) -> Vec<SourceEvent> {
    vec![SourceEvent::Delete(ObjectKey::VirtualService(ServiceName::new("shop", name)))]
}

/// One round: what the source told, with this view, at this time. What the data path holds then is what is recorded.
#[track_caller]
fn round(reconciler: &mut Reconciled, events: Vec<SourceEvent>, now: Instant) -> Applied {
    round_with(reconciler, events, &view(), now)
}

#[track_caller]
fn round_with(reconciler: &mut Reconciled, events: Vec<SourceEvent>, view: &NodeView, now: Instant) -> Applied {
    reconciler.tell(events);
    reconciler.resolve(view, now);
    let applied = reconciler.apply(now);
    assert_eq!(reconciler.data_path.observe(), reconciler.in_force, "the record is what is in force");
    applied
}

fn names(reconciler: &Reconciled) -> Vec<String> {
    reconciler.in_force.services.keys().map(ToString::to_string).collect()
}

#[test]
fn what_the_source_tells_comes_into_force_and_nothing_is_done_twice() {
    let mut reconciler = reconciler(&capacities());
    let applied = round(&mut reconciler, reset(&[service("web", 1, 2)]), Instant::now());
    assert_eq!(applied.revision, Some(1));
    assert_eq!(names(&reconciler), ["shop/web"]);
    assert_eq!(round(&mut reconciler, Vec::new(), Instant::now()), Applied::default());
    assert_eq!(round(&mut reconciler, reset(&[service("web", 1, 2)]), Instant::now()), Applied::default());
    assert_eq!(reconciler.revision(), Some(1));
}

#[test]
fn before_the_source_has_told_of_everything_what_was_adopted_stays() {
    let memory = Memory::new(&capacities());
    let open =
        || memory::data_path_with(memory.clone(), Box::<crate::datapath::tables::NoReaders>::default(), GUE_PORT);
    let mut first = Reconciler::adopt(open(), 0, options());
    round(&mut first, reset(&[service("web", 1, 2)]), Instant::now());
    drop(first);

    let mut second = Reconciler::adopt(open(), 1, options());
    let place = "/manifests".to_owned();
    let gone = Problem { reason: ProblemReason::Source, place: Place::default(), message: "is not there".into() };
    let told = vec![SourceEvent::Problems { place, problems: vec![gone.clone()] }];
    assert_eq!(round(&mut second, told, Instant::now()), Applied::default());
    assert_eq!((names(&second), second.is_complete()), (vec!["shop/web".to_owned()], false));
    assert!(second.problems().contains(&gone));

    // The same objects: a restart changes nothing.
    assert_eq!(round(&mut second, reset(&[service("web", 1, 2)]), Instant::now()), Applied::default());
    assert_eq!(second.revision(), Some(1));
    // And an empty source means: nothing.
    round(&mut second, reset(&[]), Instant::now());
    assert!(names(&second).is_empty());
}

#[test]
fn a_service_that_does_not_fit_is_refused_whole_until_room_is_freed() {
    let mut reconciler = reconciler(&Capacities { services: 1, ..capacities() });
    let start = Instant::now();
    round(&mut reconciler, reset(&[service("web", 1, 2)]), start);
    let applied = round(&mut reconciler, put(service("zoo", 2, 2)), start);
    assert_eq!((applied.operations, applied.refused.len()), (0, 1));
    assert_eq!(names(&reconciler), ["shop/web"]);
    let problems = reconciler.problems();
    let problem = problems.first().expect("a problem");
    assert_eq!((problem.reason, problem.place.file.as_str()), (ProblemReason::NoResources, "zoo.yaml"));
    assert!(problem.message.contains("--max-services"), "{}", problem.message);

    // Before the time has come it is left alone.
    let due = reconciler.due().expect("a retry");
    assert_eq!(round(&mut reconciler, Vec::new(), start).refused, []);
    let applied = round(&mut reconciler, delete("web"), due);
    assert_eq!(applied.refused.len(), 1, "services are removed last");
    let due = reconciler.due().expect("a retry");
    assert!(due <= start + Duration::from_secs(3), "freed room shortens the wait");
    round(&mut reconciler, Vec::new(), due);
    assert_eq!(names(&reconciler), ["shop/zoo"]);
    assert_eq!((reconciler.problems(), reconciler.due()), (BTreeSet::new(), None));
}

#[test]
fn a_refused_change_leaves_the_old_configuration_and_its_next_hop_in_force() {
    // Room for 2 of 3 endpoints, since old and new stand side by side.
    let mut reconciler = reconciler(&Capacities { endpoints: 4, ..capacities() });
    let start = Instant::now();
    round(&mut reconciler, reset(&[service("web", 1, 1)]), start);
    let before = reconciler.in_force.clone();
    let mut grown = service("web", 1, 200);
    if let Backends::Given(endpoints) = &mut grown.backends {
        for endpoint in endpoints {
            endpoint.tunnel = Some(address("192.0.2.1"));
            endpoint.delivery = Some(DeliveryChoice::Local);
        }
    }
    let applied = round(&mut reconciler, put(grown), start);
    assert_eq!(applied.refused.len(), 1, "{applied:?} {:?}", reconciler.problems());
    assert_eq!(reconciler.in_force, before, "the next hop is still needed");

    round(&mut reconciler, delete("web"), start);
    assert_eq!(reconciler.in_force, State { tunnels: before.tunnels, ..State::default() });
}

#[test]
fn a_frontend_that_changes_hands_is_recorded_with_its_new_holder() {
    let mut reconciler = reconciler(&capacities());
    round(&mut reconciler, reset(&[service("web", 1, 1)]), Instant::now());
    // The same frontend under another name, in one batch.
    round(&mut reconciler, reset(&[service("abc", 1, 2)]), Instant::now());
    assert_eq!(names(&reconciler), ["shop/abc"]);
    let mut both = service("web", 2, 1);
    both.addresses.push(address("203.0.113.1"));
    round(&mut reconciler, reset(&[service("abc", 3, 2), both]), Instant::now());
    let frontends: usize = reconciler.in_force.services.values().map(|service| service.frontends.len()).sum();
    assert_eq!(frontends, 3);
}

#[test]
fn a_routers_too_big_lowers_the_next_hop_for_ten_minutes() {
    let mut reconciler = reconciler(&capacities());
    let start = Instant::now();
    round(&mut reconciler, reset(&[service("web", 1, 1)]), start);
    assert!(reconciler.tell_too_big(address("172.17.3.1"), 1400, start));
    assert_eq!(round(&mut reconciler, Vec::new(), start).operations, 1);
    assert_eq!(reconciler.in_force.next_hops.values().map(|hop| hop.mtu).collect::<Vec<_>>(), [1400]);

    let due = reconciler.due().expect("it is forgotten");
    assert_eq!(due, start + Duration::from_secs(600));
    round(&mut reconciler, Vec::new(), due);
    assert_eq!(reconciler.in_force.next_hops.values().map(|hop| hop.mtu).collect::<Vec<_>>(), [1500]);
    assert_eq!(reconciler.due(), None);
}

#[test]
fn a_lost_mac_is_kept_until_the_kernel_has_asked_in_vain() {
    let mut reconciler = reconciler(&capacities());
    let start = Instant::now();
    let (mut silent, mut narrow) = (view(), view());
    silent.next_hops[0].mac = None;
    round_with(&mut reconciler, reset(&[service("web", 1, 1)]), &silent, start);
    assert!(!reconciler.awaits_neighbours() && reconciler.due().is_none(), "a new one has nothing to keep");
    round(&mut reconciler, Vec::new(), start);
    let of = |reconciler: &Reconciled| {
        let state = reconciler.in_force.next_hops.values().next().expect("a next hop");
        (state.mac, state.mtu)
    };
    let (mac, _) = of(&reconciler);
    assert!(mac.is_some());

    assert_eq!(round_with(&mut reconciler, Vec::new(), &silent, start).operations, 0);
    narrow.next_hops[0].mac = None;
    narrow.next_hops[0].mtu = 1400;
    assert_eq!(round_with(&mut reconciler, Vec::new(), &narrow, start).operations, 1, "the rest is not kept");
    assert_eq!(of(&reconciler), (mac, 1400));
    let due = reconciler.due().expect("it is given up");
    assert_eq!(due, start + KEEP_MAC);
    assert_eq!(round_with(&mut reconciler, Vec::new(), &narrow, due).operations, 1);
    assert_eq!((of(&reconciler), reconciler.due()), ((None, 1400), None));

    // Back at once, and a second loss is a new one.
    assert_eq!(round(&mut reconciler, Vec::new(), due).operations, 1);
    assert_eq!(of(&reconciler), (mac, 1500));
    round_with(&mut reconciler, Vec::new(), &silent, due);
    assert_eq!((of(&reconciler), reconciler.due()), ((mac, 1500), Some(due + KEEP_MAC)));
}

#[test]
fn the_view_is_asked_for_ways_to_what_services_use_and_no_more() {
    let mut reconciler = reconciler(&capacities());
    round(&mut reconciler, reset(&[service("web", 1, 2), service("zoo", 2, 3)]), Instant::now());
    let addresses = |last: &[u8]| last.iter().map(|last| IpAddr::from([172, 17, 3, *last])).collect::<BTreeSet<_>>();
    let change =
        |added: &[u8], removed: &[u8]| NewDestinations { added: addresses(added), removed: addresses(removed) };
    assert_eq!(reconciler.new_destinations(), change(&[1, 2, 3], &[]));
    assert_eq!(reconciler.new_destinations(), change(&[], &[]));
    round(&mut reconciler, put(service("web", 1, 1)), Instant::now());
    assert_eq!(reconciler.new_destinations(), change(&[], &[]), "the other service has them all");
    round(&mut reconciler, delete("zoo"), Instant::now());
    assert_eq!(reconciler.new_destinations(), change(&[], &[2, 3]));
    round(&mut reconciler, delete("web"), Instant::now());
    round(&mut reconciler, put(service("web", 1, 2)), Instant::now());
    assert_eq!(reconciler.new_destinations(), change(&[2], &[]), "what went and came back has not changed");
    round(&mut reconciler, delete("web"), Instant::now());
    assert_eq!(reconciler.new_destinations(), change(&[], &[1, 2]));
}
