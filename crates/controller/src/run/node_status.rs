//! What the agent says of its node in the cluster: the status of its GuenonNode.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use guenon_crd::{
    ConditionStatus, EgressHook, GuenonNodeStatus, NodeCounts, NodeException, NodeInterface, NodeRole, NodeSummary,
    XdpMode, conditions,
};

use tokio::sync::watch;

use crate::datapath::tables::attachments::{Attachment, Egress, Mode};
use crate::kube::condition;
use crate::model::{HashKey, NodeView, Problem, ProblemReason, Role, ServiceName, cut};

/// Most exceptions that are listed; their number is told in any case.
const EXCEPTIONS: usize = 200;
/// Most characters of a message, and of a line for `kubectl get`.
const MESSAGE: usize = 1024;
const LINE: usize = 512;

/// Least time between two of them: many changes are told of together.
const PAUSE: Duration = Duration::from_secs(1);

/// Where the cluster is told of the node.
pub(super) struct NodeReports {
    sender: watch::Sender<Option<GuenonNodeStatus>>,
    fingerprint: String,
    stale: bool,
    /// When it may be told again.
    again: Instant,
}

impl NodeReports {
    /// Told by this way, of a data path with this key.
    pub(super) fn new(sender: watch::Sender<Option<GuenonNodeStatus>>, key: HashKey) -> Self {
        Self { sender, fingerprint: key.fingerprint(), stale: true, again: Instant::now() }
    }

    /// Whether something is to be told now.
    pub(super) fn is_due(&mut self, changed: bool, now: Instant) -> bool {
        self.stale |= changed;
        self.next().is_some_and(|next| next <= now)
    }

    /// When.
    pub(super) fn next(&self) -> Option<Instant> {
        self.stale.then_some(self.again)
    }

    /// Tells it.
    pub(super) fn tell(&mut self, facts: &Facts<'_>, now: Instant) {
        let new = node_status(facts, &self.fingerprint);
        self.sender.send_if_modified(|old| {
            let differs = old.as_ref() != Some(&new);
            *old = Some(new);
            differs
        });
        (self.stale, self.again) = (false, now + PAUSE);
    }
}

/// What there is to say.
pub(super) struct Facts<'a> {
    pub(super) view: &'a NodeView,
    pub(super) attachments: &'a [Attachment],
    pub(super) revision: Option<u64>,
    pub(super) reached: Option<u64>,
    pub(super) counts: Counts,
    /// VirtualServices that are not in force here as they should be, for a reason of this node.
    pub(super) exceptions: &'a BTreeMap<ServiceName, (ProblemReason, String)>,
    pub(super) waiting_for: &'a [String],
    pub(super) problems: &'a BTreeSet<Problem>,
}

/// What is in force, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) services: usize,
    pub(super) frontends: usize,
    pub(super) endpoints: usize,
    pub(super) next_hops: usize,
}

/// The status; whoever writes it fills in generation and times.
pub(super) fn node_status(facts: &Facts<'_>, fingerprint: &str) -> GuenonNodeStatus {
    let Facts { view, attachments, revision, reached, counts, exceptions, waiting_for, problems } = facts;
    let roles: Vec<NodeRole> = view.roles.iter().map(|role| role_of(*role)).collect();
    let tunnels: Vec<String> = view.tunnel.iter().map(ToString::to_string).collect();
    let attached = view
        .attached
        .iter()
        .chain(view.interfaces.first().map(|first| &first.name).filter(|_| view.attached.is_empty()));
    let interfaces: Vec<NodeInterface> = attached.map(|name| interface(name, view, attachments)).collect();
    let lines = interfaces.iter().map(|interface| format!("{} ({:?})", interface.name, interface.mode));
    let summary = NodeSummary {
        roles: Some(roles.iter().map(|role| format!("{role:?}")).collect::<Vec<_>>().join(",")),
        tunnel_addresses: Some(cut(&tunnels.join(","), LINE)),
        interfaces: Some(cut(&lines.collect::<Vec<_>>().join(","), LINE)),
    };
    let listed = exceptions.iter().take(EXCEPTIONS).map(|(name, (reason, message))| NodeException {
        namespace: name.namespace.clone(),
        name: name.name.clone(),
        reason: reason.name().to_owned(),
        message: cut(message, MESSAGE),
    });
    GuenonNodeStatus {
        observed_generation: None,
        roles,
        tunnel_addresses: tunnels,
        interfaces,
        revision: revision.and_then(|revision| i64::try_from(revision).ok()),
        resource_version: reached.map(|version| version.to_string()),
        hash_key_fingerprint: Some(fingerprint.to_owned()),
        agent_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        counts: Some(NodeCounts {
            services: count(counts.services),
            frontends: count(counts.frontends),
            endpoints: count(counts.endpoints),
            next_hops: count(counts.next_hops),
            problems: count(problems.len()),
            exceptions: count(exceptions.len()),
        }),
        exceptions: listed.collect(),
        conditions: vec![ready(waiting_for, problems)],
        summary: Some(summary),
    }
}

/// The status of a node that was told to give everything back.
pub(super) fn detached(problem: Option<String>) -> GuenonNodeStatus {
    let (reason, message) = match problem {
        None => ("Detached", "spec.state is Detached: nothing of Guenon is in force on this node".to_owned()),
        Some(problem) => ("DetachFailed", problem),
    };
    GuenonNodeStatus {
        agent_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        conditions: vec![condition(conditions::READY, ConditionStatus::False, None, reason, cut(&message, MESSAGE))],
        ..GuenonNodeStatus::default()
    }
}

fn ready(waiting_for: &[String], problems: &BTreeSet<Problem>) -> guenon_crd::Condition {
    let some = problems.iter().take(3).map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let (status, reason, message) = match (waiting_for, problems.len()) {
        ([], 0) => (ConditionStatus::True, "Ready", "what is wanted is in force".to_owned()),
        ([], 1) => (ConditionStatus::True, "Problems", format!("in force, but for a problem: {some}")),
        ([], count) => (ConditionStatus::True, "Problems", format!("in force, but for {count} problems: {some}")),
        (reasons, _) => (ConditionStatus::False, "NotReady", reasons.join("; ")),
    };
    condition(conditions::READY, status, None, reason, cut(&message, MESSAGE))
}

const fn role_of(role: Role) -> NodeRole {
    match role {
        Role::Director => NodeRole::Director,
        Role::Decap => NodeRole::Decap,
    }
}

fn interface(name: &str, view: &NodeView, attachments: &[Attachment]) -> NodeInterface {
    let (mode, egress) = (attachments.iter().find(|attachment| attachment.interface == name))
        .map_or((Mode::None, Egress::None), |found| (found.mode, found.egress));
    let mode = match mode {
        Mode::None => XdpMode::Detached,
        Mode::Native => XdpMode::Native,
        Mode::Generic => XdpMode::Generic,
    };
    let egress = match egress {
        Egress::None => EgressHook::None,
        Egress::Tcx => EgressHook::Tcx,
        Egress::Clsact => EgressHook::Clsact,
    };
    let mtu = view.interfaces.iter().find(|interface| interface.name == name).map(|found| found.mtu);
    NodeInterface { name: name.to_owned(), mode, egress, mtu: mtu.and_then(|mtu| i32::try_from(mtu).ok()) }
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::view;
    use crate::model::Place;

    fn status(
        exceptions: &BTreeMap<ServiceName, (ProblemReason, String)>,
        waiting_for: &[String],
        problems: &BTreeSet<Problem>,
    ) -> GuenonNodeStatus {
        let attachments =
            [Attachment { slot: 0, interface: "eth0".to_owned(), ifindex: 2, mode: Mode::Native, egress: Egress::Tcx }];
        let facts = Facts {
            view: &view("n1", &["10.0.0.1/24", "2001:db8::1/64"]).build(),
            attachments: &attachments,
            revision: Some(7),
            reached: Some(1234),
            counts: Counts { services: 1, frontends: 2, endpoints: 3, next_hops: 4 },
            exceptions,
            waiting_for,
            problems,
        };
        node_status(&facts, "0123456789abcdef")
    }

    #[test]
    fn it_says_at_a_glance_what_is_in_force() {
        let status = status(&BTreeMap::new(), &[], &BTreeSet::new());
        let summary = status.summary.expect("lines for kubectl get");
        assert_eq!(summary.roles.as_deref(), Some("Director,Decap"));
        assert_eq!(summary.interfaces.as_deref(), Some("eth0 (Native)"));
        assert_eq!((status.interfaces[0].mode, status.interfaces[0].egress), (XdpMode::Native, EgressHook::Tcx));
        assert_eq!((status.revision, status.resource_version.as_deref()), (Some(7), Some("1234")));
        assert_eq!(status.conditions[0].status, ConditionStatus::True);
    }

    #[test]
    fn of_many_exceptions_some_are_listed_and_all_are_counted() {
        let of = |number| {
            (ServiceName::new("shop", format!("web-{number:04}")), (ProblemReason::NoResources, "x".repeat(2000)))
        };
        let status = status(&(0..300).map(of).collect(), &[], &BTreeSet::new());
        assert_eq!((status.exceptions.len(), status.counts.map(|counts| counts.exceptions)), (200, Some(300)));
        assert_eq!(status.exceptions[0].message.chars().count(), 1024);
    }

    #[test]
    fn a_node_that_waits_is_not_ready_and_one_with_problems_is() {
        let problem = Problem { reason: ProblemReason::Source, place: Place::default(), message: "away".to_owned() };
        let waiting = status(&BTreeMap::new(), &["no revision is in force yet".to_owned()], &BTreeSet::new());
        assert_eq!(waiting.conditions[0].status, ConditionStatus::False);
        assert_eq!(waiting.conditions[0].message, "no revision is in force yet");
        let with = status(&BTreeMap::new(), &[], &[problem].into());
        assert_eq!(
            (with.conditions[0].status, with.conditions[0].reason.as_str()),
            (ConditionStatus::True, "Problems")
        );
    }
}
