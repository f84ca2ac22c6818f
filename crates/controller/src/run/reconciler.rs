//! From what sources and the kernel tell to what is in force: index, resolve, plan, apply. Pure but for the data
//! path that it executes plans on.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::node_status::Counts;
use super::path_mtus::PathMtus;
use super::refused::{Refused, Subject, frees};
use crate::agent_report::{Delivered, Deliveries};
use crate::apply::{DataPath, Operation, Refusal};
use crate::index::Index;
use crate::model::{
    Frontend, NextHopKey, NextHopState, NodeView, Path, Problem, ProblemReason, Role, ServiceName, ServiceState, State,
};
use crate::plan::plan;
use crate::resolve::{Changed, Needs, ResolveOptions, Resolver, Routes};
use crate::source::SourceEvent;

/// Keeps one data path as objects and view want it.
pub(super) struct Reconciler<D> {
    data_path: D,
    index: Index,
    resolver: Resolver,
    /// What the data path holds, kept in step with it.
    in_force: State,
    holders: HashMap<Frontend, ServiceName>,
    /// What has changed in the desired state since it was last applied; `None` = all of it may differ.
    pending: Option<Changed>,
    refused: Refused,
    path_mtus: PathMtus,
    source_problems: BTreeMap<String, Vec<Problem>>,
    destinations: Destinations,
    /// Next hops whose MAC is lost, and until when the last one is kept.
    lost: BTreeMap<NextHopKey, Instant>,
    revision: Option<u64>,
    /// The newest version of VirtualServices that was told of.
    reached: Option<u64>,
}

/// How long the last MAC of a next hop is kept when the kernel has none any more. It forgets neighbours that it sends
/// nothing to itself, and asks three times, a second apart, before it gives one up.
const KEEP_MAC: Duration = Duration::from_secs(3);

/// What one application did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Applied {
    /// Operations carried out.
    pub(super) operations: usize,
    /// Services among what they were about.
    pub(super) services: BTreeSet<ServiceName>,
    /// Operations refused.
    pub(super) refused: Vec<(Subject, Refusal)>,
    /// The revision now in force, where anything changed.
    pub(super) revision: Option<u64>,
}

impl<D: DataPath> Reconciler<D> {
    /// Takes over a data path with what it holds.
    pub(super) fn adopt(data_path: D, revision: u64, options: ResolveOptions) -> Self {
        let in_force = data_path.observe();
        let holders = (in_force.services.iter())
            .flat_map(|(name, service)| service.frontends.iter().map(|frontend| (*frontend, name.clone())))
            .collect();
        Self {
            data_path,
            index: Index::new(),
            resolver: Resolver::new(options),
            in_force,
            holders,
            pending: None,
            refused: Refused::default(),
            path_mtus: PathMtus::default(),
            source_problems: BTreeMap::new(),
            destinations: Destinations::default(),
            lost: BTreeMap::new(),
            revision: (revision > 0).then_some(revision),
            reached: None,
        }
    }

    /// The source told this.
    pub(super) fn tell(&mut self, events: Vec<SourceEvent>) {
        for event in events {
            match event {
                SourceEvent::Apply(object) => self.index.apply(object),
                SourceEvent::Delete(key) => self.index.delete(&key),
                SourceEvent::Reset(objects) => self.index.reset(objects),
                SourceEvent::Reached(version) => self.reached = Some(version),
                SourceEvent::Problems { place, problems } if problems.is_empty() => {
                    self.source_problems.remove(&place);
                }
                SourceEvent::Problems { place, problems } => {
                    self.source_problems.insert(place, problems);
                }
            }
        }
    }

    /// A router refused a tunnel packet for its size. Whether that changes anything.
    pub(super) fn tell_too_big(&mut self, destination: IpAddr, mtu: u32, now: Instant) -> bool {
        self.path_mtus.tell(destination, mtu, now)
    }

    /// Computes what should be in force on a node with this view. Nothing is applied.
    pub(super) fn resolve(&mut self, view: &NodeView, now: Instant) {
        self.path_mtus.expire(now);
        let mtus =
            if self.path_mtus.is_empty() { BTreeMap::new() } else { self.path_mtus.by_next_hop(&Routes::new(view)) };
        let changed = self.resolver.resolve(&mut self.index, view, &mtus);
        for name in &changed.services {
            self.destinations.put(name, self.resolver.state().services.get(name));
        }
        if let Some(pending) = &mut self.pending {
            pending.services.extend(changed.services);
            pending.next_hops.extend(changed.next_hops);
        }
    }

    /// Whether the source has told of all its objects: before, nothing is applied, and what was adopted stays.
    pub(super) const fn is_complete(&self) -> bool {
        self.index.is_complete()
    }

    /// What the node must do so that the desired state works.
    pub(super) fn needs(&self) -> Needs {
        self.resolver.needs()
    }

    /// Addresses that the view must tell the ways to (where tunnels go, and endpoints of this node): what has changed
    /// among them since this was last asked.
    pub(super) fn new_destinations(&mut self) -> NewDestinations {
        std::mem::take(&mut self.destinations.new)
    }

    /// Puts the desired state in force.
    pub(super) fn apply(&mut self, now: Instant) -> Applied {
        let mut applied = Applied::default();
        if !self.index.is_complete() {
            return applied;
        }
        let retries = self.refused.is_due(now);
        if let Some(pending) = self.pending.as_mut().filter(|_| retries) {
            pending.services.extend(self.refused.services().cloned());
            pending.next_hops.extend(self.refused.next_hops().cloned());
        }
        let operations = plan(self.resolver.state(), &self.in_force, self.pending.as_ref());
        let mut freed = false;
        let mut left = Changed::default();
        for operation in operations {
            let Some(operation) = self.keep_mac(operation, &mut left, now) else { continue };
            if let Some(key) = self.must_wait(&operation) {
                left.next_hops.insert(key.clone());
                continue;
            }
            let subject = Subject::of(&operation);
            match self.data_path.execute(&operation) {
                Ok(()) => {
                    self.refused.clear(&subject);
                    freed |= frees(&operation);
                    applied.operations += 1;
                    if let Subject::Service(name) = subject {
                        applied.services.insert(name);
                    }
                    self.record(operation);
                }
                Err(refusal) => {
                    self.refused.put(subject.clone(), refusal.clone());
                    applied.refused.push((subject, refusal));
                }
            }
        }
        self.pending = Some(left);
        let desired = &self.resolver.state().next_hops;
        self.lost.retain(|key, _| desired.get(key).is_some_and(|state| state.mac.is_none()));
        self.refused.retain_wanted(self.resolver.state());
        self.refused.attempted(now, retries || !applied.refused.is_empty(), freed);
        if applied.operations > 0 || self.revision.is_none() {
            let revision = self.data_path.commit();
            self.revision = Some(revision);
            applied.revision = Some(revision);
        }
        applied
    }

    /// A next hop that loses its MAC keeps it for a while. `None`: nothing is left to do.
    fn keep_mac(&mut self, operation: Operation, left: &mut Changed, now: Instant) -> Option<Operation> {
        let Operation::PutNextHop(key, state) = operation else { return Some(operation) };
        let last = self.in_force.next_hops.get(&key).filter(|last| state.mac.is_none() && last.mac.is_some());
        let Some(last) = last else { return Some(Operation::PutNextHop(key, state)) };
        if *self.lost.entry(key.clone()).or_insert(now + KEEP_MAC) <= now {
            return Some(Operation::PutNextHop(key, state));
        }
        left.next_hops.insert(key.clone());
        let kept = NextHopState { mac: last.mac, ..state };
        (kept != *last).then_some(Operation::PutNextHop(key, kept))
    }

    /// Next hops in force that have no MAC.
    pub(super) fn silent_next_hops(&self) -> impl Iterator<Item = &NextHopKey> {
        self.in_force.next_hops.iter().filter(|(_, state)| state.mac.is_none()).map(|(key, _)| key)
    }

    /// Whether a next hop that is new has no MAC yet.
    pub(super) fn awaits_neighbours(&self) -> bool {
        let (desired, in_force) = (&self.resolver.state().next_hops, &self.in_force.next_hops);
        desired.iter().any(|(key, state)| state.mac.is_none() && !in_force.contains_key(key))
    }

    /// A next hop that nobody should need any more, and that is still needed by a service whose change was refused.
    fn must_wait<'a>(&self, operation: &'a Operation) -> Option<&'a NextHopKey> {
        let Operation::RemoveNextHop(key) = operation else { return None };
        let uses = |service: &Arc<ServiceState>| {
            service
                .endpoints
                .iter()
                .any(|endpoint| matches!(&endpoint.path, Path::Tunnel { next_hop, .. } if next_hop == key))
        };
        self.refused.services().filter_map(|name| self.in_force.services.get(name)).any(uses).then_some(key)
    }

    /// Keeps `in_force` in step with an operation that was carried out.
    fn record(&mut self, operation: Operation) {
        let State { tunnels, directors, on_node, next_hops, services } = &mut self.in_force;
        match operation {
            Operation::PutTunnel(address) => drop(tunnels.insert(address)),
            Operation::RemoveTunnel(address) => drop(tunnels.remove(&address)),
            Operation::PutDirector(address) => drop(directors.insert(address)),
            Operation::RemoveDirector(address) => drop(directors.remove(&address)),
            Operation::PutNextHop(key, state) => drop(next_hops.insert(key, state)),
            Operation::RemoveNextHop(key) => drop(next_hops.remove(&key)),
            Operation::SetOnNode(vip, true) => drop(on_node.insert(vip)),
            Operation::SetOnNode(vip, false) => drop(on_node.remove(&vip)),
            Operation::PutService(name, state) => {
                for frontend in &state.frontends {
                    let holder = self.holders.insert(*frontend, name.clone());
                    if let Some(held) = holder.filter(|holder| *holder != name).and_then(|name| services.get_mut(&name))
                    {
                        Arc::make_mut(held).frontends.remove(frontend);
                    }
                }
                if let Some(old) = services.insert(name.clone(), Arc::clone(&state)) {
                    for frontend in old.frontends.difference(&state.frontends) {
                        self.holders.remove(frontend);
                    }
                }
            }
            Operation::RemoveService(name) => {
                for frontend in services.remove(&name).iter().flat_map(|old| &old.frontends) {
                    self.holders.remove(frontend);
                }
            }
        }
    }

    /// Everything that keeps part of the configuration out of force.
    pub(super) fn problems(&self) -> BTreeSet<Problem> {
        let place_of = |name: &ServiceName| self.index.virtual_service(name).map(|service| service.place.clone());
        let mut problems: BTreeSet<Problem> = self.resolver.problems(&self.index).into_iter().collect();
        problems.extend(self.source_problems.values().flatten().cloned());
        problems.extend(self.refused.problems(place_of));
        problems
    }

    /// How endpoints of this node get their packets, and why.
    pub(super) fn deliveries(&self) -> Deliveries {
        let mut deliveries = Deliveries::new();
        for (name, address, delivery, why) in self.resolver.deliveries_here() {
            let delivered = Delivered { delivery: delivery.name().to_owned(), why: why.reason().to_owned() };
            deliveries.entry(name.to_string()).or_default().insert(address, delivered);
        }
        deliveries
    }

    /// VirtualServices that are not in force here as they should be, for reasons of this node.
    pub(super) fn exceptions(&self) -> BTreeMap<ServiceName, (ProblemReason, String)> {
        let mut exceptions = BTreeMap::new();
        for (name, finding) in self.resolver.problems_here() {
            exceptions.entry(name.clone()).or_insert((finding.reason, finding.message));
        }
        for (name, refusal) in self.refused.of_services() {
            exceptions.insert(name.owner(), (ProblemReason::NoResources, refusal.to_string()));
        }
        exceptions
    }

    /// What is in force, in numbers.
    pub(super) fn counts(&self) -> Counts {
        let services: BTreeSet<ServiceName> = self.in_force.services.keys().map(ServiceName::owner).collect();
        Counts {
            services: services.len(),
            frontends: self.holders.len(),
            endpoints: self.in_force.services.values().map(|service| service.endpoints.len()).sum(),
            next_hops: self.in_force.next_hops.len(),
        }
    }

    /// What this node does, by its labels.
    pub(super) fn roles(&self, node: &str) -> Vec<Role> {
        self.resolver.policy().roles(self.index.node(node).map(|node| &node.labels))
    }

    /// The newest version of VirtualServices that was told of.
    pub(super) const fn reached(&self) -> Option<u64> {
        self.reached
    }

    /// When something is to be done though nothing was told: a refused operation, an MTU or MAC to be forgotten.
    pub(super) fn due(&self) -> Option<Instant> {
        let in_force = |key: &NextHopKey| self.in_force.next_hops.get(key).is_some_and(|state| state.mac.is_some());
        let lost = self.lost.iter().filter(|(key, _)| in_force(key)).map(|(_, until)| *until).min();
        [self.refused.due(), self.path_mtus.next_expiry(), lost].into_iter().flatten().min()
    }

    /// The revision in force, once there is one.
    pub(super) const fn revision(&self) -> Option<u64> {
        self.revision
    }

    /// The data path.
    pub(super) fn data_path_mut(&mut self) -> &mut D {
        &mut self.data_path
    }
}

/// What has changed among the addresses that services want ways to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NewDestinations {
    /// Wanted now, and not before.
    pub(super) added: BTreeSet<IpAddr>,
    /// Wanted before, and not now.
    pub(super) removed: BTreeSet<IpAddr>,
}

/// Addresses that services want ways to, by how many want each.
#[derive(Debug, Default)]
struct Destinations {
    new: NewDestinations,
    users: BTreeMap<IpAddr, u32>,
    of: BTreeMap<ServiceName, BTreeSet<IpAddr>>,
}

impl Destinations {
    fn put(&mut self, name: &ServiceName, service: Option<&Arc<ServiceState>>) {
        let new: BTreeSet<IpAddr> = service
            .iter()
            .flat_map(|service| &service.endpoints)
            .map(|endpoint| match &endpoint.path {
                Path::Tunnel { destination, .. } | Path::Unreachable { destination } => *destination,
                Path::Local(_) => endpoint.address,
            })
            .collect();
        let old = self.of.remove(name).unwrap_or_default();
        for address in new.difference(&old) {
            let users = self.users.entry(*address).or_default();
            if *users == 0 && !self.new.removed.remove(address) {
                self.new.added.insert(*address);
            }
            *users += 1;
        }
        for address in old.difference(&new) {
            if let Some(users) = self.users.get_mut(address) {
                *users -= 1;
                if *users == 0 {
                    self.users.remove(address);
                    if !self.new.added.remove(address) {
                        self.new.removed.insert(*address);
                    }
                }
            }
        }
        if !new.is_empty() {
            self.of.insert(name.clone(), new);
        }
    }
}

/// The next hops that MTUs were told of.
impl PathMtus {
    /// The least MTU told of any destination over each next hop.
    fn by_next_hop(&self, routes: &Routes) -> BTreeMap<NextHopKey, u32> {
        let mut mtus = BTreeMap::new();
        for (destination, mtu) in self.all() {
            if let Ok(way) = routes.way(destination) {
                let least = mtus.entry(way.key).or_insert(mtu);
                *least = mtu.min(*least);
            }
        }
        mtus
    }
}

#[cfg(test)]
#[path = "reconciler_tests.rs"]
mod tests;
