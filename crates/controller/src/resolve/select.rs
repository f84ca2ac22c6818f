//! The first half of resolving a VirtualService: what follows from the objects alone, and so is the same on every
//! node: which frontends it has, and which endpoints answer on them with which weight.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use guenon_ebpf::abi::Row;

use super::answering::{self, Answering};
use super::delivery::{Delivery, Listening, Why};
use super::issue::{Issue, Issues, backends_field};
use crate::index::Index;
use crate::model::{Frontend, Policy, ProblemReason, Protocol, ServiceName, VirtualService};
use crate::table::{self, Builder, Candidate, Group};

/// Frontends of one VirtualService that have the same endpoints: one service of the data path.
#[derive(Debug, PartialEq)]
pub(super) struct Part {
    pub(super) name: ServiceName,
    pub(super) frontends: BTreeSet<Frontend>,
    pub(super) client_ip: bool,
    pub(super) groups: Vec<TargetGroup>,
    /// Where endpoints of delivery `Nat` listen, by protocol and port of frontends. Beside the groups, so that frontends with
    /// other target ports share one table.
    pub(super) ports: Ports,
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
    pub(super) why: Why,
    /// Its share of new flows within its group.
    pub(super) weight: u32,
    /// Whether it says that it is ready; one that is given is, unless its weight is 0.
    pub(super) ready: bool,
    /// Whether it still answers (ready or draining).
    pub(super) serving: bool,
}

/// Where endpoints of delivery `Nat` listen, by protocol and port of frontends.
pub(super) type Ports = BTreeMap<(Protocol, u16), Listening>;

/// What the objects say of a VirtualService.
#[derive(Debug, Default)]
pub(super) struct Selection {
    pub(super) parts: Vec<Part>,
    pub(super) issues: Vec<Issue>,
}

/// Selects frontends and endpoints. Tables of `before` are kept where their endpoints are the same.
pub(super) fn select(
    index: &Index,
    service: &VirtualService,
    policy: &Policy,
    builder: &mut Builder,
    before: &[Part],
) -> Selection {
    let mut issues = Issues::default();
    let sets = answering::sets(index, service, policy, &mut issues);
    let mut parts = Vec::with_capacity(sets.len());
    for answering in sets {
        let name = match answering.frontends.first() {
            Some(least) if !parts.is_empty() => service.name.part(*least),
            _ => service.name.clone(),
        };
        let part = part(name, answering, service.client_ip, builder, before);
        if part.targets.len() == table::MAX_ENDPOINTS {
            let message =
                format!("a service has {} endpoints at most; of more, the rest takes no flows", table::MAX_ENDPOINTS);
            issues.add(Issue::new(ProblemReason::NoResources, backends_field(service), message));
        }
        parts.push(part);
    }
    Selection { parts, issues: issues.end() }
}

fn part(name: ServiceName, answering: Answering, client_ip: bool, builder: &mut Builder, before: &[Part]) -> Part {
    let Answering { groups, frontends, ports } = answering;
    let shares: Vec<_> = groups.iter().map(shares).collect();
    if let Some(same) = before.iter().find(|part| part.groups.iter().map(self::shares).eq(shares.iter().cloned())) {
        let targets = targets(&groups, same.targets.iter().map(|target| target.address));
        return Part { name, frontends, client_ip, targets, groups, ports, rows: Arc::clone(&same.rows) };
    }
    let table = builder.build(&shares);
    let targets = targets(&groups, table.endpoints.into_iter());
    Part { name, frontends, client_ip, targets, groups, ports, rows: table.rows }
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
