//! What the objects alone say of a VirtualService, for its status: no node's view, no table.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::answering;
use super::delivery::{Delivery, Why};
use super::issue::Issues;
use crate::index::Index;
use crate::model::{Policy, ProblemReason, ServiceName};

/// What the objects say of a VirtualService.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// The metadata.generation that was judged.
    pub generation: i64,
    /// All that is wrong, or worth knowing.
    pub findings: Vec<Finding>,
    /// Endpoints that are ready.
    pub ready: usize,
    /// Endpoints that still answer, and are not ready.
    pub draining: usize,
    /// How endpoints get their packets, and why, with their number.
    pub deliveries: BTreeMap<(Delivery, Why), usize>,
    /// All endpoints, those that cannot be used among them.
    pub total: usize,
}

/// Something that is wrong with a VirtualService, or worth knowing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Its kind.
    pub reason: ProblemReason,
    /// What it is, and what to do.
    pub message: String,
}

/// Judges one VirtualService; `None`: there is none of that name.
#[must_use]
pub fn judge(index: &Index, name: &ServiceName, policy: &Policy) -> Option<Judgement> {
    let service = index.virtual_service(name)?;
    let mut issues = Issues::default();
    let sets = answering::sets(index, service, policy, &mut issues);
    // (ready, serving), of whatever frontend says best.
    let mut endpoints: BTreeMap<IpAddr, (bool, bool)> =
        issues.endpoints().into_iter().map(|address| (address, (false, false))).collect();
    let mut delivered = BTreeMap::<_, BTreeSet<IpAddr>>::new();
    for target in sets.iter().flat_map(|set| &set.groups).flat_map(|group| group.targets.values()) {
        let known = endpoints.entry(target.address).or_default();
        *known = (known.0 | target.ready, known.1 | target.serving);
        delivered.entry((target.delivery, target.why)).or_default().insert(target.address);
    }
    let findings = issues.end().into_iter().map(|issue| Finding { reason: issue.reason, message: issue.message });
    Some(Judgement {
        generation: service.generation,
        findings: findings.collect(),
        ready: endpoints.values().filter(|(ready, _)| *ready).count(),
        draining: endpoints.values().filter(|(ready, serving)| *serving && !ready).count(),
        deliveries: delivered.into_iter().map(|(how, endpoints)| (how, endpoints.len())).collect(),
        total: endpoints.len(),
    })
}
