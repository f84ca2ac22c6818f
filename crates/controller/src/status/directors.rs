//! What the agents say of their nodes, as long as they are heard. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use guenon_crd::{ConditionStatus, GuenonNodeSpec, GuenonNodeStatus, NodeState, conditions};

use crate::kube::LOST_AFTER;
use crate::model::{Node, Policy, ServiceName};

/// All nodes' agents.
#[derive(Debug, Default)]
pub(super) struct Agents {
    reports: BTreeMap<String, Report>,
    /// What a Lease said last, and when that changed.
    beats: BTreeMap<String, (String, Instant)>,
    /// Leases cannot be read now: nobody's silence says anything.
    deaf: bool,
}

/// What a GuenonNode says, as far as it matters here.
#[derive(Debug, PartialEq)]
struct Report {
    reached: u64,
    exceptions: BTreeMap<ServiceName, Exception>,
    /// It has more than it lists.
    has_more: bool,
    state: NodeState,
    /// Its Ready condition.
    ready: ConditionStatus,
}

/// Why a VirtualService is not in force on a node as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Exception {
    pub(super) reason: String,
    pub(super) message: String,
}

/// The directors as they are now.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Directors {
    /// By name: the version of VirtualServices up to which all is in force.
    pub(super) reached: BTreeMap<String, Reached>,
    /// The least of them.
    pub(super) least: u64,
    /// On whatever node, by VirtualService.
    pub(super) exceptions: BTreeMap<ServiceName, Vec<(String, Exception)>>,
    /// Directors with more exceptions than they list.
    pub(super) with_more: BTreeSet<String>,
}

/// How far a director is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reached {
    /// All up to this version is in force.
    Version(u64),
    /// Not known: why.
    Unknown(&'static str),
}

impl Agents {
    /// A GuenonNode is this now. Whether it matters to any VirtualService.
    pub(super) fn saw(&mut self, node: &str, spec: &GuenonNodeSpec, status: &GuenonNodeStatus) -> bool {
        let exceptions = status.exceptions.iter().map(|exception| {
            let name = ServiceName::new(exception.namespace.clone(), exception.name.clone());
            (name, Exception { reason: exception.reason.clone(), message: exception.message.clone() })
        });
        let counted = status.counts.as_ref().map_or(0, |counts| counts.exceptions);
        let ready = status.conditions.iter().find(|condition| condition.type_ == conditions::READY);
        let report = Report {
            reached: status.resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or_default(),
            has_more: usize::try_from(counted).unwrap_or_default() > status.exceptions.len(),
            exceptions: exceptions.collect(),
            state: spec.state,
            ready: ready.map_or(ConditionStatus::Unknown, |ready| ready.status),
        };
        let matters = self.reports.get(node) != Some(&report);
        self.reports.insert(node.to_owned(), report);
        matters
    }

    /// A GuenonNode is gone.
    pub(super) fn gone(&mut self, node: &str) {
        self.reports.remove(node);
        self.beats.remove(node);
    }

    /// Leases cannot be read any more.
    pub(super) fn deafen(&mut self) {
        self.deaf = true;
    }

    /// Leases can be read: agents that could not renew theirs meanwhile either get as long as ever.
    pub(super) fn hear(&mut self, now: Instant) {
        if std::mem::take(&mut self.deaf) {
            self.beats.values_mut().for_each(|(_, at)| *at = now);
        }
    }

    /// A Lease says this now. Whether its agent was lost before.
    pub(super) fn beat(&mut self, node: &str, says: String, now: Instant) -> bool {
        self.hear(now);
        let was_alive = self.is_alive(node, now);
        match self.beats.get_mut(node) {
            Some((said, at)) if *said != says => (*said, *at) = (says, now),
            Some(_) => {}
            None => drop(self.beats.insert(node.to_owned(), (says, now))),
        }
        was_alive != self.is_alive(node, now)
    }

    /// Agents that have fallen silent since a moment ago.
    pub(super) fn lost_since(&self, before: Instant, now: Instant) -> bool {
        self.beats.keys().any(|node| self.is_alive(node, before) && !self.is_alive(node, now))
    }

    /// When the next one will be lost, unless it is heard.
    pub(super) fn next_loss(&self, now: Instant) -> Option<Instant> {
        let ends = self.beats.values().map(|(_, at)| *at + LOST_AFTER + Duration::from_millis(1));
        ends.filter(|end| *end > now && !self.deaf).min()
    }

    /// Nodes whose agents are lost and whose GuenonNode does not say so.
    pub(super) fn silent(&self, now: Instant) -> impl Iterator<Item = &str> {
        let silent = move |(node, report): &(&String, &Report)| {
            report.ready != ConditionStatus::Unknown && self.beats.contains_key(*node) && !self.is_alive(node, now)
        };
        self.reports.iter().filter(silent).map(|(node, _)| node.as_str())
    }

    /// How many are heard, and how many GuenonNodes there are.
    pub(super) fn counts(&self, now: Instant) -> (usize, usize) {
        (self.reports.keys().filter(|node| self.is_alive(node, now)).count(), self.reports.len())
    }

    fn is_alive(&self, node: &str, now: Instant) -> bool {
        let is_fresh = |at: Instant| self.deaf || now.saturating_duration_since(at) <= LOST_AFTER;
        self.beats.get(node).is_some_and(|(_, at)| is_fresh(*at))
    }

    /// The directors among these Nodes. One whose kubelet and agent are both away receives nothing and is not counted; one
    /// that was detached on request neither.
    pub(super) fn directors<'a>(
        &self,
        nodes: impl Iterator<Item = &'a Node>,
        policy: &Policy,
        now: Instant,
    ) -> Directors {
        let mut directors = Directors { least: u64::MAX, ..Directors::default() };
        for node in nodes {
            let alive = self.is_alive(&node.name, now);
            let report = self.reports.get(&node.name);
            if report.is_some_and(|report| report.state == NodeState::Detached) || !(node.ready || alive) {
                continue;
            }
            for (name, exception) in report.iter().flat_map(|report| &report.exceptions) {
                let told = directors.exceptions.entry(name.clone()).or_default();
                told.push((node.name.clone(), exception.clone()));
            }
            if !policy.is_director(node) {
                continue;
            }
            let reached = match report {
                None => Reached::Unknown("runs no agent"),
                Some(_) if !alive => Reached::Unknown("has an agent that is not heard any more"),
                Some(report) => Reached::Version(report.reached),
            };
            directors.least = match reached {
                Reached::Version(version) => directors.least.min(version),
                Reached::Unknown(_) => 0,
            };
            if report.is_some_and(|report| report.has_more) {
                directors.with_more.insert(node.name.clone());
            }
            directors.reached.insert(node.name.clone(), reached);
        }
        directors
    }
}
