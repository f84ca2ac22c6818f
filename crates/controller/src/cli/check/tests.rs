use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use guenon_crd::{ConditionStatus, GuenonNodeStatus, NodeRole, NodeState, VirtualServiceStatus};

use super::judge::{Finding, Verdict, holds, judge, of_services};
use super::pulses::Pulses;
use crate::fixtures::service_name;
use crate::kube::{Record, Renewal, Survey, Surveyed, condition};
use crate::model::ServiceName;

/// A cluster that is looked at twice, ten seconds apart, in which everybody renews.
struct Cluster {
    survey: Survey,
    silent: Vec<&'static str>,
}

/// n1 and n2 are Ready directors with the same hash key, c1 leads.
fn cluster() -> Cluster {
    let node = || {
        let status = GuenonNodeStatus {
            observed_generation: Some(1),
            roles: vec![NodeRole::Director, NodeRole::Decap],
            hash_key_fingerprint: Some("aaaa".to_owned()),
            conditions: vec![condition("Ready", ConditionStatus::True, Some(1), "Ready", "what is wanted is in force")],
            ..GuenonNodeStatus::default()
        };
        Surveyed { record: Record { generation: 1, status, ..Record::default() }, ..Surveyed::default() }
    };
    let lease =
        |name: &str, holder: &str| (name.to_owned(), Renewal { holder: holder.to_owned(), says: "1".to_owned() });
    let leases = [lease("guenon-controller", "c1"), lease("guenon-node.n1", "n1"), lease("guenon-node.n2", "n2")];
    let nodes = [("n1".to_owned(), node()), ("n2".to_owned(), node())];
    Cluster { survey: Survey { nodes: nodes.into(), leases: leases.into() }, silent: Vec::new() }
}

impl Cluster {
    fn node(mut self, name: &str, change: impl FnOnce(&mut Surveyed)) -> Self {
        change(self.survey.nodes.get_mut(name).expect("a node of the cluster"));
        self
    }

    fn without_lease(mut self, name: &str) -> Self {
        self.survey.leases.remove(name).expect("a Lease of the cluster");
        self
    }

    fn does_not_renew(mut self, name: &'static str) -> Self {
        self.silent.push(name);
        self
    }

    fn judged(&self) -> Vec<Finding> {
        let (mut pulses, start) = (Pulses::default(), Instant::now());
        pulses.saw(&self.survey.leases, start);
        let mut second = self.survey.clone();
        for (name, lease) in second.leases.iter_mut().filter(|(name, _)| !self.silent.contains(&name.as_str())) {
            lease.says = format!("{name} again");
        }
        let now = start + Duration::from_secs(10);
        pulses.saw(&second.leases, now);
        judge(&second, &pulses, "guenon-system", now)
    }

    /// What is wrong, in words.
    fn lacks(&self) -> Vec<String> {
        let findings = self.judged();
        let lacking: Vec<_> = findings.iter().filter(|finding| finding.result == Verdict::Failed).collect();
        assert_eq!(lacking.is_empty(), holds(&findings));
        assert!(lacking.iter().all(|finding| finding.cure.is_some()), "a failure without a cure: {lacking:#?}");
        lacking.iter().map(|finding| format!("{}: {}", finding.about, finding.message)).collect()
    }
}

fn unready(reason: &str, message: &str) -> impl FnOnce(&mut Surveyed) {
    let ready = condition("Ready", ConditionStatus::False, Some(1), reason, message);
    move |node| node.record.status.conditions = vec![ready]
}

#[test]
fn a_cluster_in_which_all_is_well_passes_and_says_what_was_looked_at() {
    let findings = cluster().judged();
    assert!(holds(&findings));
    let said: Vec<String> = findings.iter().map(|one| format!("{}: {}", one.about, one.message)).collect();
    assert_eq!(
        said,
        [
            "controller: c1 leads and renews its Lease",
            "nodes: 2 of 2 are Ready, their agents heard",
            "hash key: aaaa on every director (2 of them)",
        ]
    );
}

#[test]
fn nobody_is_believed_to_live_who_is_not_seen_to_renew() {
    // Its own words say that it is Ready.
    let dead = cluster().does_not_renew("guenon-node.n2");
    assert_eq!(
        dead.lacks(),
        ["node n2: its agent has not been heard: no renewal of the Lease guenon-node.n2 was seen"]
    );
    let cure = dead.judged().into_iter().find_map(|finding| finding.cure).expect("a cure");
    assert!(cure.contains("-n guenon-system") && cure.contains("spec.nodeName=n2"), "{cure}");
    let leaderless = cluster().does_not_renew("guenon-controller");
    assert_eq!(leaderless.lacks(), ["controller: c1 holds the Lease guenon-controller, and no renewal of it was seen"]);
}

#[test]
fn a_lease_that_is_missing_or_let_go_is_named() {
    assert_eq!(
        cluster().without_lease("guenon-node.n1").lacks(),
        ["node n1: there is no Lease guenon-node.n1 in the namespace guenon-system"]
    );
    assert_eq!(
        cluster().without_lease("guenon-controller").lacks(),
        ["controller: there is no Lease guenon-controller in the namespace guenon-system"]
    );
    let mut let_go = cluster();
    let_go.survey.leases.get_mut("guenon-controller").expect("the Lease").holder.clear();
    assert_eq!(let_go.lacks(), ["controller: nobody holds the Lease guenon-controller"]);
}

#[test]
fn a_cluster_without_agents_is_not_well() {
    let empty = Cluster { survey: Survey { nodes: BTreeMap::new(), ..cluster().survey }, silent: Vec::new() };
    assert_eq!(empty.lacks(), ["nodes: there is no GuenonNode: no agent has said anything yet"]);
}

#[test]
fn a_node_that_is_not_ready_says_why() {
    let waits = cluster().node("n1", unready("NotReady", "no revision is in force yet"));
    assert_eq!(waits.lacks(), ["node n1: Ready is False (NotReady): no revision is in force yet"]);
    let silent = cluster().node("n1", |node| node.record.status.conditions.clear());
    assert_eq!(silent.lacks(), ["node n1: its agent has not said yet whether it is Ready"]);
    let detached = cluster().node("n1", |node| node.spec.state = NodeState::Detached);
    assert_eq!(detached.lacks(), ["node n1: it was asked to give its data path back: spec.state is Detached"]);
    let late = cluster().node("n1", |node| node.record.generation = 2);
    assert_eq!(late.lacks(), ["node n1: its agent has not taken note of its newest spec yet"]);
}

#[test]
fn a_node_that_is_ready_but_for_problems_is_told_of() {
    let ready = condition("Ready", ConditionStatus::True, Some(1), "Problems", "in force, but for a problem: x");
    let with = cluster().node("n2", |node| node.record.status.conditions = vec![ready]);
    let told: Vec<Finding> = with.judged().into_iter().filter(|one| one.result == Verdict::Warning).collect();
    assert_eq!(with.lacks(), [""; 0]);
    assert_eq!((told.len(), told[0].about.as_str()), (1, "node n2"));
    assert_eq!(told[0].message, "Ready is True (Problems): in force, but for a problem: x");
}

#[test]
fn directors_hash_by_one_key_and_others_do_not_matter() {
    let other = |node: &mut Surveyed| node.record.status.hash_key_fingerprint = Some("bbbb".to_owned());
    assert_eq!(
        cluster().node("n2", other).lacks(),
        ["hash key: directors hash flows by different keys: aaaa on n1; bbbb on n2"]
    );
    let none = cluster().node("n2", |node| node.record.status.hash_key_fingerprint = None);
    assert_eq!(none.lacks(), ["hash key: the key that flows are hashed by is not known of n2"]);
    let decap = cluster().node("n2", other).node("n2", |node| node.record.status.roles = vec![NodeRole::Decap]);
    assert_eq!(decap.lacks(), [""; 0]);
    let nowhere = |node: &mut Surveyed| node.record.status.roles.clear();
    let findings = cluster().node("n1", nowhere).node("n2", nowhere).judged();
    assert!(findings.iter().any(|one| one.result == Verdict::Warning && one.message == "no node is a director"));
}

fn services(all: &[(&str, ConditionStatus, i64)]) -> BTreeMap<ServiceName, Record<VirtualServiceStatus>> {
    let record = |(name, ready, generation): &(&str, ConditionStatus, i64)| {
        let conditions = vec![condition("Ready", *ready, Some(1), "Some", "words")];
        let status = VirtualServiceStatus { conditions, ..VirtualServiceStatus::default() };
        (service_name(name), Record { generation: *generation, status, ..Record::default() })
    };
    all.iter().map(record).collect()
}

#[test]
fn a_service_that_is_not_ready_is_told_of_and_fails_a_strict_check() {
    let all = services(&[
        ("shop/web", ConditionStatus::True, 1),
        ("shop/old", ConditionStatus::True, 2),
        ("shop/lost", ConditionStatus::False, 1),
    ]);
    let told = of_services(&all, false);
    assert!(holds(&told) && !holds(&of_services(&all, true)));
    let said: Vec<_> = told.iter().map(|one| (one.about.as_str(), one.message.as_str())).collect();
    assert_eq!(
        said,
        [
            ("virtual services", "1 of 3 are Ready"),
            ("shop/lost", "Ready is False (Some): words"),
            ("shop/old", "its status speaks of an older generation"),
        ]
    );
    assert_eq!(told[1].cure.as_deref(), Some("`kubectl -n shop describe gvs lost`"));
    assert!(holds(&of_services(&services(&[]), true)), "none is no failure");
}

#[test]
fn of_thousands_of_services_twenty_are_named() {
    let names: Vec<String> = (0..1000).map(|number| format!("shop/web-{number:04}")).collect();
    let all: Vec<_> = names.iter().map(|name| (name.as_str(), ConditionStatus::Unknown, 1)).collect();
    let told = of_services(&services(&all), true);
    assert_eq!(told.len(), 22);
    assert_eq!(told.last().map(|last| last.message.as_str()), Some("980 more are not Ready"));
}
