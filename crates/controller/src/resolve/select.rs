//! The first half of resolving a VirtualService: what follows from the objects alone, and so is the same on every
//! node: which frontends it has, and which endpoints answer on them with which weight.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use guenon_ebpf::abi::Row;

use super::backends::Backend;
use super::given;
use super::issue::{Issue, Issues, backends_field, some_of};
use crate::index::{Index, frontends};
use crate::model::{Backends, Frontend, ObjectKey, ProblemReason, ServiceName, VirtualService};
use crate::table::{self, Builder, Candidate, Group};

/// Frontends of one VirtualService that have the same endpoints: one service of the data path.
#[derive(Debug, PartialEq)]
pub(super) struct Part {
    pub(super) name: ServiceName,
    pub(super) frontends: BTreeSet<Frontend>,
    pub(super) client_ip: bool,
    pub(super) groups: Vec<TargetGroup>,
    /// Every endpoint of every group once, in order of address: the order of the data path's endpoint block.
    pub(super) targets: Vec<Target>,
    pub(super) rows: Arc<[Row]>,
}

/// The endpoints of one backendRef, or all that are given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TargetGroup {
    pub(super) name: String,
    pub(super) weight: u32,
    pub(super) targets: BTreeMap<IpAddr, Target>,
}

/// An endpoint, as the objects tell of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) address: IpAddr,
    /// Where packets for it are sent.
    pub(super) tunnel: IpAddr,
    /// Its node, where the objects name it.
    pub(super) node: Option<Arc<str>>,
    pub(super) delivery: Delivery,
    /// Its share of new flows within its group.
    pub(super) weight: u32,
    /// Whether it still answers (ready or draining).
    pub(super) serving: bool,
}

/// How an endpoint gets its packets; what this version has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    Local,
    Veth,
}

/// What the objects say of a VirtualService.
#[derive(Debug, Default)]
pub(super) struct Selection {
    pub(super) parts: Vec<Part>,
    pub(super) issues: Vec<Issue>,
}

/// Selects frontends and endpoints. Tables of `before` are kept where their endpoints are the same.
pub(super) fn select(index: &Index, service: &VirtualService, builder: &mut Builder, before: &[Part]) -> Selection {
    let mut issues = Issues::default();
    let granted = granted(index, service, &mut issues);
    let mut sets: Vec<(Vec<TargetGroup>, BTreeSet<Frontend>)> = Vec::new();
    for (groups, frontends) in by_endpoints(index, service, &granted, &mut issues) {
        match sets.iter_mut().find(|set| set.0 == groups) {
            Some(set) => set.1.extend(frontends),
            None => sets.push((groups, frontends)),
        }
    }
    sets.sort_by(|a, b| a.1.first().cmp(&b.1.first()));
    let mut parts = Vec::with_capacity(sets.len());
    for (groups, frontends) in sets {
        let name = match frontends.first() {
            Some(least) if !parts.is_empty() => service.name.part(*least),
            _ => service.name.clone(),
        };
        let part = part(name, frontends, service.client_ip, groups, builder, before);
        if part.targets.len() == table::MAX_ENDPOINTS {
            let message =
                format!("a service has {} endpoints at most; of more, the rest takes no flows", table::MAX_ENDPOINTS);
            issues.add(Issue::new(ProblemReason::NoResources, backends_field(service), message));
        }
        if part.rows.is_empty() {
            issues.add(no_ready_endpoints(service, &part));
        }
        parts.push(part);
    }
    Selection { parts, issues: issues.end() }
}

/// The frontends that the VirtualService asks for and gets.
fn granted(index: &Index, service: &VirtualService, issues: &mut Issues) -> Vec<Frontend> {
    const FIELD: &str = "spec.addresses";
    let mut refused = BTreeSet::new();
    for &vip in &service.addresses {
        let owner = index.owners(vip).next().map(ToString::to_string);
        let owner = owner.or_else(|| given::has(service, vip).then(|| "an endpoint of this very object".to_owned()));
        if let Some(owner) = owner {
            let message = format!("{vip} is the address of {owner}; choose one that no node, Service or endpoint has");
            issues.add(Issue::new(ProblemReason::AddressNotAllowed, FIELD, message));
            refused.insert(vip);
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

/// The endpoints that answer, for each set of frontends that is asked for alike.
fn by_endpoints(
    index: &Index,
    service: &VirtualService,
    granted: &[Frontend],
    issues: &mut Issues,
) -> Vec<(Vec<TargetGroup>, BTreeSet<Frontend>)> {
    if granted.is_empty() {
        return Vec::new();
    }
    match &service.backends {
        Backends::Given(endpoints) => {
            let groups = vec![given::group(index, service, endpoints, issues)];
            vec![(groups, granted.iter().copied().collect())]
        }
        Backends::Refs(refs) => {
            let backends: Vec<_> =
                refs.iter().filter_map(|reference| Backend::find(index, service, reference, issues)).collect();
            let mut alike = BTreeMap::<_, BTreeSet<Frontend>>::new();
            for frontend in granted {
                alike.entry((frontend.vip.is_ipv4(), frontend.protocol, frontend.port)).or_default().insert(*frontend);
            }
            let groups = |frontend: Frontend, issues: &mut Issues| {
                backends.iter().map(|backend| backend.group(frontend, issues)).collect()
            };
            alike.into_values().filter_map(|frontends| Some((groups(*frontends.first()?, issues), frontends))).collect()
        }
    }
}

fn part(
    name: ServiceName,
    frontends: BTreeSet<Frontend>,
    client_ip: bool,
    groups: Vec<TargetGroup>,
    builder: &mut Builder,
    before: &[Part],
) -> Part {
    let shares: Vec<_> = groups.iter().map(shares).collect();
    if let Some(same) = before.iter().find(|part| part.groups.iter().map(self::shares).eq(shares.iter().cloned())) {
        let targets = targets(&groups, same.targets.iter().map(|target| target.address));
        return Part { name, frontends, client_ip, targets, groups, rows: Arc::clone(&same.rows) };
    }
    let table = builder.build(&shares);
    let targets = targets(&groups, table.endpoints.into_iter());
    Part { name, frontends, client_ip, targets, groups, rows: table.rows }
}

/// What the table is made of.
fn shares(group: &TargetGroup) -> Group {
    let members = group.targets.values().map(|target| Candidate { address: target.address, weight: target.weight });
    Group { name: group.name.clone(), weight: group.weight, members: members.collect() }
}

/// The targets of these addresses. An endpoint of several groups serves if it does in any.
fn targets(groups: &[TargetGroup], addresses: impl Iterator<Item = IpAddr>) -> Vec<Target> {
    let target = |address: IpAddr| {
        let mut found = groups.iter().filter_map(|group| group.targets.get(&address));
        let mut target = found.next()?.clone();
        target.serving |= found.any(|other| other.serving);
        Some(target)
    };
    let mut targets: Vec<_> = addresses.filter_map(target).collect();
    targets.shrink_to_fit(); // It stays for as long as the service does.
    targets
}

fn no_ready_endpoints(service: &VirtualService, part: &Part) -> Issue {
    let frontends = some_of(&part.frontends);
    let why = match (part.targets.len(), &service.backends) {
        (0, Backends::Refs(_)) => "the Services have no endpoint that can be used".to_owned(),
        (0, Backends::Given(_)) => "no endpoint can be used".to_owned(),
        (count, Backends::Refs(_)) => format!("of {count} endpoints none is ready, or all backendRefs have weight 0"),
        (count, Backends::Given(_)) => format!("all of {count} endpoints have weight 0"),
    };
    let message =
        format!("no endpoint takes new flows for {frontends}: {why}; until then packets are dropped (no_backend)");
    Issue::new(ProblemReason::NoReadyEndpoints, backends_field(service), message)
}
