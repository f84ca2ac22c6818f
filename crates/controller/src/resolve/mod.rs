//! From objects to what this node's data path should hold. Pure and deterministic: the same objects and the same
//! view give the same state, in whatever order they came and whatever came between.
//!
//! A VirtualService is resolved in two halves: `select` follows from the objects alone (frontends, endpoints,
//! weights, rows: the same on every node), `locate` finds the ways from this node. Both are kept per VirtualService,
//! and only what a change touches is done again.

mod answering;
mod backends;
mod delivery;
mod given;
mod issue;
mod judge;
mod locate;
mod needs;
mod routes;
mod select;
#[cfg(test)]
mod tests;
mod uses;
mod view_change;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use guenon_ebpf::hash::Schedule;
use ipnet::IpNet;

use crate::index::Index;
use crate::model::{NextHopKey, NodeView, Place, Policy, Problem, ProblemReason, Role, ServiceName, State};
use crate::parallel::parallel_with;
use crate::table::Builder;
pub use delivery::{Delivery, Why};
use issue::backends_field;
pub use judge::{Finding, Judgement, judge};
use locate::{Here, Located, locate};
pub use needs::{Needs, Neighbour};
pub use routes::{NoWay, Routes, Way};
use select::{Selection, select};
use uses::{AllUses, Uses};
use view_change::ViewChange;

/// What the state depends on beside objects and view.
#[derive(Clone, Debug)]
pub struct ResolveOptions {
    /// Schedule of the hash key: the same on every director.
    pub schedule: Schedule,
    /// Outer sources that are accepted beside the Nodes' InternalIPs.
    pub directors: BTreeSet<IpAddr>,
    /// Who may be a VIP, and which nodes are directors.
    pub policy: Policy,
}

/// Keeps the desired state of one node's data path.
#[derive(Debug)]
pub struct Resolver {
    options: ResolveOptions,
    view: Option<NodeView>,
    mtus: BTreeMap<NextHopKey, u32>,
    here: Here,
    services: BTreeMap<Arc<ServiceName>, Resolved>,
    uses: AllUses,
    vips_changed: bool,
    state: State,
}

/// What became of one VirtualService.
#[derive(Debug, Default)]
struct Resolved {
    field: &'static str,
    selection: Selection,
    /// One for each part, in the parts' order: nearly always one, so a list.
    located: Vec<(ServiceName, Located)>,
}

/// What has changed in the state: all that a plan must look at. The small sets (tunnels, directors, VIPs on the
/// node) are always looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Services of the data path.
    pub services: BTreeSet<ServiceName>,
    /// Next hops.
    pub next_hops: BTreeSet<NextHopKey>,
}

impl Resolver {
    /// A resolver that knows of nothing.
    #[must_use]
    pub fn new(options: ResolveOptions) -> Self {
        Self {
            options,
            view: None,
            mtus: BTreeMap::new(),
            here: Here::default(),
            services: BTreeMap::new(),
            uses: AllUses::default(),
            vips_changed: false,
            state: State::default(),
        }
    }

    /// Brings the state up to date with what has changed in the index since the last call (its changes are taken),
    /// with the view, and with the MTUs that routers told of next hops (bytes of IP; the caller forgets them in time).
    /// An index belongs to one resolver.
    pub fn resolve(&mut self, index: &mut Index, view: &NodeView, mtus: &BTreeMap<NextHopKey, u32>) -> Changed {
        let mut changed = Changed::default();
        let changes = index.take_changes();
        let view_change = ViewChange::between(self.view.as_ref(), view);
        if view_change != ViewChange::None {
            self.here = Here {
                node: view.node.clone(),
                is_director: view.roles.contains(&Role::Director),
                routes: Routes::new(view),
            };
            self.view = Some(view.clone());
        }
        self.select(index, changes.services, &mut changed);
        for name in self.touched_by(&view_change) {
            self.locate(&name, &mut changed);
        }
        if view_change != ViewChange::None || self.mtus != *mtus {
            self.mtus.clone_from(mtus);
            changed.next_hops.extend(self.uses.next_hops.keys().map(|(key, _)| key.clone()));
        }
        self.refresh_next_hops(&mut changed);
        self.refresh_sets(index, view, changes.nodes, &view_change);
        changed
    }

    /// Who may be a VIP, and which nodes are directors.
    #[must_use]
    pub const fn policy(&self) -> &Policy {
        &self.options.policy
    }

    /// What the data path should hold.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// Everything that keeps part of the objects out of force, sorted.
    #[must_use]
    pub fn problems(&self, index: &Index) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (name, resolved) in &self.services {
            let located = resolved.located.iter().flat_map(|(_, located)| &located.issues);
            let mut issues = resolved.selection.issues.iter().chain(located).peekable();
            if issues.peek().is_some() {
                let place = index.virtual_service(name).map(|service| service.place.clone()).unwrap_or_default();
                problems.extend(issues.map(|issue| issue.at(&place)));
            }
        }
        let unresolved = self.state.next_hops.iter().filter(|(_, state)| state.mac.is_none());
        problems.extend(unresolved.map(|(key, _)| no_neighbour(&key.interface, key.gateway)));
        problems.sort();
        problems.dedup();
        problems
    }

    /// What keeps VirtualServices from being in force on this node, for reasons of this node, by name.
    pub fn problems_here(&self) -> impl Iterator<Item = (&ServiceName, Finding)> {
        self.services.iter().flat_map(|(name, resolved)| {
            let issues = resolved.located.iter().flat_map(|(_, located)| &located.issues);
            issues.map(|issue| (name.as_ref(), Finding { reason: issue.reason, message: issue.message.clone() }))
        })
    }

    /// Endpoints of this node by service of the data path, with how each gets its packets and why.
    pub fn deliveries_here(&self) -> impl Iterator<Item = (&ServiceName, IpAddr, Delivery, Why)> {
        let located = self.services.values().flat_map(|resolved| &resolved.located);
        located.flat_map(|(name, located)| located.delivered.iter().map(move |(at, how, why)| (name, *at, *how, *why)))
    }

    /// Selects frontends and endpoints of these VirtualServices anew, which may be all there are.
    fn select(&mut self, index: &Index, names: BTreeSet<Arc<ServiceName>>, changed: &mut Changed) {
        let mut work = Vec::with_capacity(names.len());
        for name in names {
            match index.virtual_service(&name) {
                Some(service) => {
                    let resolved = self.services.entry(Arc::clone(&name)).or_default();
                    work.push((name, service, std::mem::take(&mut resolved.selection.parts)));
                }
                None => {
                    if let Some(old) = self.services.remove(&name) {
                        old.located.into_iter().for_each(|(part, located)| self.drop_part(part, &located, changed));
                    }
                }
            }
        }
        let ResolveOptions { schedule, policy, directors: _ } = &self.options;
        let builder = || Builder::new(schedule);
        let selected = parallel_with(work, builder, |builder, (name, service, before)| {
            (name, backends_field(service), select(index, service, policy, builder, &before))
        });
        for (name, field, selection) in selected {
            let resolved = self.services.entry(Arc::clone(&name)).or_default();
            (resolved.field, resolved.selection) = (field, selection);
            self.locate(&name, changed);
        }
    }

    /// Finds the ways to the endpoints of a VirtualService anew.
    fn locate(&mut self, name: &Arc<ServiceName>, changed: &mut Changed) {
        let Some(resolved) = self.services.get_mut(name) else { return };
        let mut before = std::mem::replace(&mut resolved.located, Vec::with_capacity(resolved.selection.parts.len()));
        let nothing = Uses::default();
        for part in &resolved.selection.parts {
            let now = locate(part, resolved.field, &self.here);
            let old = before.iter().position(|(name, _)| *name == part.name).map(|at| before.swap_remove(at).1);
            let (touched, vips) = self.uses.swap(old.as_ref().map_or(&nothing, |old| &old.uses), &now.uses);
            changed.next_hops.extend(touched);
            self.vips_changed |= vips;
            if self.state.services.get(&part.name).is_none_or(|state| *state != now.state) {
                self.state.services.insert(part.name.clone(), Arc::clone(&now.state));
                changed.services.insert(part.name.clone());
            }
            resolved.located.push((part.name.clone(), now));
        }
        before.into_iter().for_each(|(part, located)| self.drop_part(part, &located, changed));
    }

    fn drop_part(&mut self, part: ServiceName, located: &Located, changed: &mut Changed) {
        let (touched, vips) = self.uses.swap(&located.uses, &Uses::default());
        changed.next_hops.extend(touched);
        self.vips_changed |= vips;
        self.state.services.remove(&part);
        changed.services.insert(part);
    }

    /// The VirtualServices whose ways a change of the view may touch.
    fn touched_by(&self, change: &ViewChange) -> Vec<Arc<ServiceName>> {
        let is_touched = |resolved: &Resolved| match change {
            ViewChange::None => false,
            ViewChange::All => true,
            ViewChange::Neighbours(addresses) => {
                let mut targets = resolved.selection.parts.iter().flat_map(|part| &part.targets);
                let mut veths = resolved.located.iter().flat_map(|(_, located)| &located.uses.veths);
                targets.any(|target| addresses.contains(&target.address) || addresses.contains(&target.tunnel))
                    || veths.any(|(_, gateway)| addresses.contains(gateway))
            }
        };
        let touched = self.services.iter().filter(|(_, resolved)| is_touched(resolved));
        touched.map(|(name, _)| Arc::clone(name)).collect()
    }

    fn refresh_next_hops(&mut self, changed: &mut Changed) {
        changed.next_hops.retain(|key| {
            let mtu = self.uses.route_mtu(key).map(|mtu| self.mtus.get(key).map_or(mtu, |told| mtu.min(*told)));
            let new = mtu.and_then(|mtu| self.here.routes.next_hop(key, mtu).ok());
            let differs = self.state.next_hops.get(key) != new.as_ref();
            match new {
                Some(state) => drop(self.state.next_hops.insert(key.clone(), state)),
                None => drop(self.state.next_hops.remove(key)),
            }
            differs
        });
    }

    fn refresh_sets(&mut self, index: &Index, view: &NodeView, nodes: bool, view_change: &ViewChange) {
        let is_decap = view.roles.contains(&Role::Decap);
        if nodes || *view_change == ViewChange::All {
            let nodes = index.nodes().filter(|node| self.options.policy.is_director(node));
            let nodes = nodes.flat_map(|node| node.internal_ips.iter().copied());
            let directors = nodes.chain(self.options.directors.iter().copied());
            self.state.directors = if is_decap { directors.collect() } else { BTreeSet::new() };
        }
        let tunnels = view.tunnel.iter().chain(self.uses.tunnels.keys()).copied();
        self.state.tunnels = if is_decap { tunnels.collect() } else { BTreeSet::new() };
        if std::mem::take(&mut self.vips_changed) || *view_change == ViewChange::All {
            let own = view.interfaces.iter().flat_map(|interface| &interface.addresses).map(IpNet::addr);
            self.state.on_node = own.filter(|address| self.uses.vips.contains(address)).collect();
        }
    }
}

fn no_neighbour(interface: &str, gateway: IpAddr) -> Problem {
    Problem {
        reason: ProblemReason::NoNeighbour,
        place: Place { object: format!("interface {interface}"), ..Place::default() },
        message: format!(
            "the next hop {gateway} does not answer, so its MAC is not known; is it up and on that network? (see \
             `ip neigh show {gateway}`)"
        ),
    }
}
