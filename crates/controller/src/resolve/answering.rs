//! Which frontends a VirtualService gets, and who answers on them: what needs no table.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::backends::Backend;
use super::delivery::{Delivery, Listening};
use super::given;
use super::issue::{Issue, Issues, backends_field, some_of};
use super::select::{Ports, Target, TargetGroup};
use crate::index::{Index, frontends};
use crate::model::{Backends, Frontend, ObjectKey, Policy, ProblemReason, ServiceName, VirtualService};

/// Frontends on which the same endpoints answer with the same weights.
pub(super) struct Answering {
    pub(super) groups: Vec<TargetGroup>,
    pub(super) frontends: BTreeSet<Frontend>,
    pub(super) ports: Ports,
}

/// The endpoints of a backendRef, or those that are given, for one port.
pub(super) struct Candidates {
    pub(super) name: String,
    pub(super) weight: u32,
    /// With the port on which each listens.
    pub(super) targets: BTreeMap<IpAddr, (Target, u16)>,
}

impl Answering {
    /// Whether any endpoint takes new flows.
    fn takes_flows(&self) -> bool {
        let mut groups = self.groups.iter().filter(|group| group.weight > 0);
        groups.any(|group| group.targets.values().any(|target| target.weight > 0))
    }

    /// How many endpoints there are.
    fn endpoints(&self) -> usize {
        self.groups.iter().flat_map(|group| group.targets.keys()).collect::<BTreeSet<_>>().len()
    }
}

/// All frontends that a VirtualService gets, by who answers on them, in order of their least frontends.
pub(super) fn sets(index: &Index, service: &VirtualService, policy: &Policy, issues: &mut Issues) -> Vec<Answering> {
    let granted = granted(index, service, policy, issues);
    let mut sets: Vec<Answering> = Vec::new();
    for new in by_endpoints(index, service, &granted, issues) {
        match sets.iter_mut().find(|set| set.groups == new.groups) {
            Some(set) => {
                set.frontends.extend(new.frontends);
                set.ports.extend(new.ports);
            }
            None => sets.push(new),
        }
    }
    sets.sort_by(|a, b| a.frontends.first().cmp(&b.frontends.first()));
    for set in sets.iter().filter(|set| !set.takes_flows()) {
        issues.add(no_ready_endpoints(service, set));
    }
    sets
}

/// The frontends that the VirtualService asks for and gets.
fn granted(index: &Index, service: &VirtualService, policy: &Policy, issues: &mut Issues) -> Vec<Frontend> {
    const FIELD: &str = "spec.addresses";
    let mut refused = BTreeSet::new();
    for &vip in &service.addresses {
        let owner = index.owners(vip).next().map(ToString::to_string);
        let owner = owner.or_else(|| given::has(service, vip).then(|| "an endpoint of this very object".to_owned()));
        if let Some(owner) = owner {
            let message = format!("{vip} is the address of {owner}; choose one that no node, Service or endpoint has");
            issues.add(Issue::new(ProblemReason::AddressNotAllowed, FIELD, message));
            refused.insert(vip);
        } else if !policy.allows(vip) {
            let ranges = some_of(&policy.vip_ranges.iter().collect());
            let message = format!(
                "{vip} is in none of the ranges that VIPs may come from ({ranges}); choose another, or have its range \
                 added to --vip-range (in the Helm chart: vipRanges)"
            );
            issues.add(Issue::new(ProblemReason::AddressNotAllowed, FIELD, message));
            refused.insert(vip);
        }
    }
    for &vip in service.addresses.iter().filter(|vip| !refused.contains(vip)) {
        for rival in index.claimed_for(vip) {
            let message = format!(
                "another load balancer answers on {vip} too, for Service {rival} (its externalIPs or load balancer); give one \
                 of the two another address, or, if that Service is there to announce the address for Guenon, annotate it \
                 with guenon.dev/announces=true"
            );
            issues.add(Issue::new(ProblemReason::Contested, FIELD, message));
        }
    }
    let mut granted = Vec::new();
    let mut lost = BTreeMap::<&ServiceName, BTreeSet<Frontend>>::new();
    let mut contested = BTreeMap::<&ServiceName, BTreeSet<Frontend>>::new();
    for frontend in frontends(service).filter(|frontend| !refused.contains(&frontend.vip)) {
        let mut claimants = index.claimants(frontend);
        match claimants.next() {
            Some(first) if *first != service.name => {
                lost.entry(first).or_default().insert(frontend);
            }
            _ => {
                for other in claimants {
                    contested.entry(other).or_default().insert(frontend);
                }
                granted.push(frontend);
            }
        }
    }
    for (holder, frontends) in lost {
        let key = ObjectKey::VirtualService(holder.clone());
        let message = format!(
            "{} stays with {key}, which is older or comes first by name; remove it there or here",
            some_of(&frontends)
        );
        issues.add(Issue::new(ProblemReason::Conflicted, FIELD, message));
    }
    for (loser, frontends) in contested {
        let key = ObjectKey::VirtualService(loser.clone());
        let message = format!("{} is claimed by {key} too, which does not get it", some_of(&frontends));
        issues.add(Issue::new(ProblemReason::Contested, FIELD, message));
    }
    granted
}

/// The endpoints that answer, for each set of frontends that is asked for alike: those of one family, protocol and port.
fn by_endpoints(index: &Index, service: &VirtualService, granted: &[Frontend], issues: &mut Issues) -> Vec<Answering> {
    if granted.is_empty() {
        return Vec::new();
    }
    let mut alike = BTreeMap::<_, BTreeSet<Frontend>>::new();
    for frontend in granted {
        alike.entry((frontend.vip.is_ipv4(), frontend.protocol, frontend.port)).or_default().insert(*frontend);
    }
    let alike = alike.into_values().filter_map(|frontends| Some((*frontends.first()?, frontends)));
    match &service.backends {
        Backends::Given(endpoints) => {
            let mut given = |frontend| vec![given::candidates(index, service, endpoints, frontend, issues)];
            alike.map(|(first, frontends)| answering(first, frontends, given(first))).collect()
        }
        Backends::Refs(refs) => {
            let backends: Vec<_> =
                refs.iter().filter_map(|reference| Backend::find(index, service, reference, issues)).collect();
            let mut referred =
                |frontend| backends.iter().map(|backend| backend.candidates(frontend, issues)).collect::<Vec<_>>();
            alike.map(|(first, frontends)| answering(first, frontends, referred(first))).collect()
        }
    }
}

/// Parts endpoints and the ports on which they listen.
fn answering(first: Frontend, frontends: BTreeSet<Frontend>, candidates: Vec<Candidates>) -> Answering {
    // An endpoint of several groups is that of the first: it cannot be told, by its address, from that of another.
    let (mut seen, mut listens) = (BTreeSet::new(), BTreeMap::new());
    for (address, (target, port)) in candidates.iter().flat_map(|group| &group.targets) {
        if seen.insert(*address) && target.delivery == Delivery::Nat {
            listens.insert(*address, *port);
        }
    }
    let group = |Candidates { name, weight, targets }| {
        let targets = targets.into_iter().map(|(address, (target, _))| (address, target)).collect();
        TargetGroup { name, weight, targets }
    };
    let ports = Listening::of(&listens).map(|listening| ((first.protocol, first.port), listening));
    Answering { groups: candidates.into_iter().map(group).collect(), frontends, ports: ports.into_iter().collect() }
}

fn no_ready_endpoints(service: &VirtualService, set: &Answering) -> Issue {
    let frontends = some_of(&set.frontends);
    let why = match (set.endpoints(), &service.backends) {
        (0, Backends::Refs(_)) => "the Services have no endpoint that can be used".to_owned(),
        (0, Backends::Given(_)) => "no endpoint can be used".to_owned(),
        (count, Backends::Refs(_)) => format!("of {count} endpoints none is ready, or all backendRefs have weight 0"),
        (count, Backends::Given(_)) => format!("all of {count} endpoints have weight 0"),
    };
    let message =
        format!("no endpoint takes new flows for {frontends}: {why}; until then packets are dropped (no_backend)");
    Issue::new(ProblemReason::NoReadyEndpoints, backends_field(service), message)
}
