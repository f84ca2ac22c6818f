use std::time::{Duration, Instant};

use guenon_crd::{
    ConditionStatus, GuenonNodeSpec, GuenonNodeStatus, NodeCounts, NodeException, NodeState, VirtualServiceStatus,
};

use super::book::{Book, Change, Settled};
use crate::fixtures::{ip, node, service, service_name, slice, virtual_service};
use crate::kube::{Record, condition as kube_condition};
use crate::model::{Object, Place, Policy, Problem, ProblemReason};
use crate::source::SourceEvent;

/// A controller's book, and what it writes.
struct Cluster {
    book: Book,
    now: Instant,
    version: u64,
}

/// n1 and n2 are directors whose agents live.
fn cluster(objects: Vec<Object>) -> Cluster {
    with_policy(objects, Policy::default())
}

fn with_policy(mut objects: Vec<Object>, policy: Policy) -> Cluster {
    let now = Instant::now();
    objects.extend([node("n1", &["10.0.0.1"]), node("n2", &["10.0.0.2"])]);
    let mut cluster = Cluster { book: Book::new(policy, now), now, version: 100 };
    cluster.book.tell(vec![SourceEvent::Reset(objects)]);
    for name in ["n1", "n2"] {
        cluster.report(name, 0, |_| ());
        cluster.beats(name);
    }
    cluster
}

impl Cluster {
    /// The server holds a VirtualService of this generation that nobody has written a status of.
    fn holds(&mut self, name: &str, generation: i64) -> &mut Self {
        self.version += 1;
        let status = VirtualServiceStatus::default();
        let record = Record { uid: "u".into(), generation, version: self.version, status };
        self.book.saw_service(service_name(name), record);
        self
    }

    fn report(&mut self, node: &str, reached: u64, with: impl FnOnce(&mut GuenonNodeStatus)) -> &mut Self {
        let ready = kube_condition("Ready", ConditionStatus::True, None, "Ready", "");
        let mut status = GuenonNodeStatus {
            resource_version: Some(reached.to_string()),
            conditions: vec![ready],
            ..GuenonNodeStatus::default()
        };
        with(&mut status);
        self.book.saw_node(node, &GuenonNodeSpec::default(), &status);
        self
    }

    fn beats(&mut self, node: &str) -> &mut Self {
        self.book.beat(node, format!("{:?}", self.now), self.now);
        self
    }

    fn later(&mut self, seconds: u64) -> &mut Self {
        self.now += Duration::from_secs(seconds);
        self
    }

    /// What is written now, of this VirtualService.
    fn writes(&mut self, name: &str) -> Option<Change> {
        let mut found = None;
        for (written, change) in self.book.settle(self.now, "now").changes {
            if let Some(change) = change {
                self.book.wrote(&written, change.status.clone());
                if written == service_name(name) {
                    found = Some(change);
                }
            }
        }
        found
    }
}

fn condition<'a>(change: &'a Change, type_: &str) -> (ConditionStatus, &'a str, &'a str) {
    let found = change.status.conditions.iter().find(|condition| condition.type_ == type_);
    let found = found.unwrap_or_else(|| panic!("{type_} is told"));
    (found.status, &found.reason, &found.message)
}

fn web() -> Object {
    virtual_service("shop/web").vip("203.0.113.10").tcp(80).endpoint("10.0.0.1").endpoint("10.0.0.2").into()
}

#[test]
fn a_service_is_programmed_once_every_director_is_past_it() {
    let mut cluster = cluster(vec![web()]);
    cluster.holds("shop/web", 0).report("n1", 101, |_| ()).report("n2", 100, |_| ());
    let first = cluster.writes("shop/web").expect("a status");
    let (status, reason, message) = condition(&first, "Programmed");
    assert_eq!((status, reason), (ConditionStatus::False, "Pending"));
    assert_eq!(message, "in force on 1 of 2 directors: n2 has not got it yet");
    assert_eq!(first.status.directors.as_ref().and_then(|counts| counts.summary.as_deref()), Some("1/2"));
    assert_eq!(first.status.observed_version.as_deref(), Some("101"));
    assert_eq!(first.tellings, [], "that it waits is no event");

    cluster.report("n2", 105, |_| ());
    let second = cluster.writes("shop/web").expect("another status");
    assert_eq!(condition(&second, "Programmed").1, "Programmed");
    let (status, reason, message) = condition(&second, "Ready");
    assert_eq!((status, reason), (ConditionStatus::True, "Ready"));
    assert_eq!(message, "2 of 2 endpoints are ready; directors that have it in force: 2");
    assert_eq!(second.tellings.iter().map(|telling| telling.reason.as_str()).collect::<Vec<_>>(), ["Ready"]);
    assert_eq!(cluster.writes("shop/web"), None, "nothing has changed");
    cluster.report("n2", 150, |status| status.revision = Some(9));
    assert_eq!(cluster.writes("shop/web"), None, "nor does this change anything");
}

#[test]
fn the_version_of_a_generation_outlives_the_controller() {
    let mut cluster = cluster(vec![web()]);
    cluster.report("n1", 90, |_| ()).report("n2", 90, |_| ());
    // Written by an earlier leader: the object's version is that of its own write, which no agent need know of.
    let status = VirtualServiceStatus {
        observed_generation: Some(0),
        observed_version: Some("90".to_owned()),
        ..VirtualServiceStatus::default()
    };
    cluster.book.saw_service(service_name("shop/web"), Record { uid: "u".into(), generation: 0, version: 500, status });
    let change = cluster.writes("shop/web").expect("a status");
    assert_eq!(condition(&change, "Programmed").1, "Programmed");
}

#[test]
fn a_director_that_is_not_heard_is_not_believed() {
    let mut cluster = cluster(vec![web()]);
    cluster.holds("shop/web", 0).report("n1", 200, |_| ()).report("n2", 200, |_| ());
    assert_eq!(condition(&cluster.writes("shop/web").expect("a status"), "Ready").1, "Ready");
    cluster.later(30).beats("n1").later(15).beats("n1");
    let change = cluster.writes("shop/web").expect("n2 is lost");
    assert_eq!(
        condition(&change, "Programmed"),
        (ConditionStatus::False, "Pending", "in force on 1 of 2 directors: n2 has an agent that is not heard any more")
    );
    assert_eq!(cluster.book.agents().silent(cluster.now).collect::<Vec<_>>(), ["n2"]);
    cluster.beats("n2");
    assert_eq!(condition(&cluster.writes("shop/web").expect("it is back"), "Ready").1, "Ready");
}

#[test]
fn while_leases_cannot_be_read_nobody_is_lost() {
    let mut cluster = cluster(vec![web()]);
    cluster.holds("shop/web", 0).report("n1", 200, |_| ()).report("n2", 200, |_| ());
    assert_eq!(condition(&cluster.writes("shop/web").expect("a status"), "Ready").1, "Ready");
    cluster.book.leases_are_read(false, cluster.now);
    cluster.later(300);
    assert_eq!(cluster.writes("shop/web"), None);
    // The server is back; one agent renews its Lease, the other has died.
    cluster.beats("n1");
    cluster.later(35).beats("n1");
    assert_eq!(cluster.writes("shop/web"), None, "it gets as long as ever");
    cluster.later(10).beats("n1");
    let change = cluster.writes("shop/web").expect("n2 is lost");
    assert!(condition(&change, "Programmed").2.contains("n2 has an agent that is not heard any more"), "{change:?}");
}

#[test]
fn a_director_whose_node_is_dead_or_detached_is_not_waited_for() {
    let mut cluster = cluster(vec![web()]);
    cluster.holds("shop/web", 0).report("n1", 200, |_| ()).report("n2", 10, |_| ());
    assert_eq!(condition(&cluster.writes("shop/web").expect("a status"), "Programmed").1, "Pending");
    // The kubelet is away, and so is the agent.
    let Object::Node(mut dead) = node("n2", &["10.0.0.2"]) else { unreachable!("a Node") };
    dead.ready = false;
    cluster.book.tell(vec![SourceEvent::Apply(Object::Node(dead))]);
    cluster.later(45).beats("n1");
    let change = cluster.writes("shop/web").expect("a status");
    assert_eq!(condition(&change, "Programmed"), (ConditionStatus::True, "Programmed", "in force on the one director"));
    let spec = GuenonNodeSpec { state: NodeState::Detached };
    cluster.book.saw_node("n1", &spec, &GuenonNodeStatus::default());
    let change = cluster.writes("shop/web").expect("a status");
    assert_eq!(condition(&change, "Programmed").1, "NoDirectors");
}

#[test]
fn directors_are_those_of_the_selector() {
    let policy = Policy { directors: "director=true".parse().expect("a selector"), ..Policy::default() };
    let mut cluster = with_policy(vec![web()], policy);
    cluster.holds("shop/web", 0);
    let change = cluster.writes("shop/web").expect("a status");
    let (status, reason, message) = condition(&change, "Programmed");
    assert_eq!((status, reason), (ConditionStatus::False, "NoDirectors"));
    assert!(message.contains("--director-selector"), "{message}");
}

#[test]
fn what_a_node_cannot_do_is_told_with_its_name() {
    let mut cluster = cluster(vec![web()]);
    let exception = NodeException {
        namespace: "shop".into(),
        name: "web".into(),
        reason: "NoResources".into(),
        message: "the map ROWS is full".into(),
    };
    cluster.holds("shop/web", 0).report("n1", 200, |_| ()).report("n2", 200, |status| {
        status.exceptions = vec![exception];
        status.counts = Some(NodeCounts { exceptions: 1, ..NodeCounts::default() });
    });
    let change = cluster.writes("shop/web").expect("a status");
    assert_eq!(
        condition(&change, "Programmed"),
        (ConditionStatus::False, "NoResources", "in force on 1 of 2 directors: n2: the map ROWS is full (NoResources)")
    );
    assert_eq!(change.tellings[0].reason, "NoResources");
    // It has more than it lists: whoever is not listed is not believed to be in force either.
    cluster.report("n2", 200, |status| status.counts = Some(NodeCounts { exceptions: 1, ..NodeCounts::default() }));
    let change = cluster.writes("shop/web").expect("a status");
    assert!(condition(&change, "Programmed").2.contains("more exceptions than it lists"), "{change:?}");
}

#[test]
fn both_who_claim_a_frontend_are_told() {
    let younger = virtual_service("shop/young").created(9).vip("203.0.113.10").tcp(80).endpoint("10.0.0.1").into();
    let mut cluster = cluster(vec![web()]);
    cluster.holds("shop/web", 0).report("n1", 200, |_| ()).report("n2", 200, |_| ());
    cluster.writes("shop/web").expect("a status");
    cluster.book.tell(vec![SourceEvent::Apply(younger)]);
    cluster.holds("shop/young", 0);
    let Settled { changes, contested } = cluster.book.settle(cluster.now, "now");
    let of = |name| changes.iter().find(|(found, _)| *found == service_name(name)).expect("it is looked at").1.clone();
    let young = of("shop/young").expect("a status");
    let (status, reason, message) = condition(&young, "Accepted");
    assert_eq!((status, reason), (ConditionStatus::False, "Conflicted"));
    assert!(message.contains("203.0.113.10:80/TCP stays with VirtualService shop/web"), "{message}");
    assert_eq!(condition(&young, "Ready").1, "Conflicted");
    assert_eq!(of("shop/web"), None, "the older one's status does not change");
    let [(name, _, told)] = &contested[..] else { panic!("the older one is told, too: {contested:?}") };
    assert_eq!((name, told[0].reason.as_str()), (&service_name("shop/web"), "Contested"));
    assert!(told[0].note.contains("is claimed by VirtualService shop/young too"), "{told:?}");
}

#[test]
fn endpoints_that_are_not_ready_are_counted() {
    let slice = slice("shop/web-1", "web", ("http", 80));
    let slice = slice.ready("10.0.0.1", "n1").draining("10.0.0.2", "n2").not_ready("10.0.0.3", "n3");
    let Object::Node(mut dead) = node("n3", &["10.0.0.3"]) else { unreachable!("a Node") };
    dead.ready = false;
    let behind: Object = virtual_service("shop/web").vip("203.0.113.10").tcp(80).backend("web", 1).into();
    let mut cluster = cluster(vec![behind, service("shop/web", &[("http", 80)]), slice.into(), Object::Node(dead)]);
    cluster.holds("shop/web", 0).report("n1", 200, |_| ()).report("n2", 200, |_| ());
    let change = cluster.writes("shop/web").expect("a status");
    let counts = change.status.endpoints.clone().expect("counts");
    assert_eq!((counts.ready, counts.draining, counts.total), (1, 1, 3));
    assert_eq!(change.status.ports.as_deref(), Some("80/TCP"));
    assert_eq!(condition(&change, "Ready").0, ConditionStatus::True);
}

#[test]
fn resolved_refs_says_which_delivery_endpoints_got_and_why() {
    let slice = slice("shop/web-1", "web", ("http", 8080));
    let slice = slice.ready("10.244.0.7", "n1").ready("10.244.0.8", "n2").ready("10.0.0.1", "n1");
    let behind: Object = virtual_service("shop/web").vip("203.0.113.10").tcp(80).tcp(8080).backend("web", 1).into();
    let ports = service("shop/web", &[("http", 80), ("http", 8080)]);
    let mut cluster = cluster(vec![behind, ports, slice.into()]);
    cluster.holds("shop/web", 0).report("n1", 200, |_| ()).report("n2", 200, |_| ());
    let change = cluster.writes("shop/web").expect("a status");
    insta::assert_snapshot!(condition(&change, "ResolvedRefs").2, @"all that it refers to is there and can be used; delivery Local for 1 endpoint (an address of its node), Nat for 1 endpoint (an address of its node, but another port than clients dial), Nat for 2 endpoints (an address of its own)");
}

#[test]
fn endpoints_of_another_family_are_a_reason_of_resolved_refs() {
    let slice = slice("shop/web-1", "web", ("http", 8080)).ready("fd00::7", "n1");
    let behind: Object = virtual_service("shop/web").vip("203.0.113.10").tcp(80).backend("web", 1).into();
    let mut cluster = cluster(vec![behind, service("shop/web", &[("http", 80)]), slice.into()]);
    cluster.holds("shop/web", 0);
    let change = cluster.writes("shop/web").expect("a status");
    let (status, reason, _) = condition(&change, "ResolvedRefs");
    assert_eq!((status, reason), (ConditionStatus::False, "FamilyMismatch"));
    assert_eq!(condition(&change, "Ready").1, "FamilyMismatch");
}

#[test]
fn an_object_that_cannot_be_used_keeps_its_columns_and_says_why() {
    let mut cluster = cluster(vec![web()]);
    cluster.holds("shop/web", 0).report("n1", 200, |_| ()).report("n2", 200, |_| ());
    let before = cluster.writes("shop/web").expect("a status");
    let place = Place { object: "VirtualService shop/web".into(), field: "spec.ports".into(), ..Place::default() };
    let problem = Problem { reason: ProblemReason::Invalid, place, message: "the list has 33 entries".into() };
    let told = |problems| SourceEvent::Problems { place: "VirtualService shop/web".into(), problems };
    cluster.book.tell(vec![told(vec![problem])]);
    let change = cluster.writes("shop/web").expect("a status");
    let invalid = (ConditionStatus::False, "Invalid", "spec.ports: the list has 33 entries");
    assert_eq!((condition(&change, "Accepted"), condition(&change, "Ready")), (invalid, invalid));
    assert_eq!(change.status.addresses, before.status.addresses);
    cluster.book.tell(vec![told(vec![])]);
    assert_eq!(condition(&cluster.writes("shop/web").expect("mended"), "Ready").1, "Ready");
}

#[test]
fn addresses_outside_of_the_ranges_are_refused() {
    let policy = Policy { vip_ranges: vec!["198.51.100.0/24".parse().expect("a range")], ..Policy::default() };
    let mut cluster = with_policy(vec![web()], policy);
    cluster.holds("shop/web", 0);
    let change = cluster.writes("shop/web").expect("a status");
    let (_, reason, message) = condition(&change, "Accepted");
    assert_eq!(reason, "AddressNotAllowed");
    assert!(message.contains("198.51.100.0/24") && message.contains("vipRanges"), "{message}");
    assert_eq!(ip("203.0.113.10").to_string(), change.status.addresses.expect("a column"));
}

/// What is counted, but for zeros: `Ready=False 1`.
fn tally(cluster: &Cluster) -> Vec<String> {
    let counts = cluster.book.tally().counts().filter(|(.., count)| *count > 0);
    counts.map(|(type_, status, count)| format!("{type_}={status} {count}")).collect()
}

#[test]
fn services_are_counted_by_what_is_wanted_of_their_conditions() {
    let lost = virtual_service("shop/lost").vip("203.0.113.11").tcp(80).endpoint("10.0.0.1").into();
    let mut cluster = cluster(vec![web(), lost]);
    assert_eq!(cluster.book.tally().counts().count(), 12, "each from 0");
    assert_eq!(tally(&cluster), [""; 0]);
    cluster.holds("shop/web", 0).holds("shop/lost", 0).report("n1", 200, |_| ()).report("n2", 100, |_| ());
    cluster.writes("shop/web");
    let waits = ["Accepted=True 2", "ResolvedRefs=True 2", "Programmed=False 2", "Ready=False 2"];
    assert_eq!(tally(&cluster), waits);
    cluster.report("n2", 101, |_| ());
    cluster.writes("shop/web");
    let one = ["Accepted=True 2", "ResolvedRefs=True 2", "Programmed=True 1", "Programmed=False 1", "Ready=True 1"];
    assert_eq!(tally(&cluster)[..5], one);
    // Read back, looked at anew, and gone.
    cluster.holds("shop/web", 0).book.touch_all();
    cluster.report("n2", 200, |_| ()).writes("shop/web");
    assert_eq!(tally(&cluster), ["Accepted=True 2", "ResolvedRefs=True 2", "Programmed=True 2", "Ready=True 2"]);
    cluster.book.service_gone(&service_name("shop/web"));
    cluster.book.service_gone(&service_name("shop/lost"));
    assert_eq!(tally(&cluster), [""; 0]);
}
