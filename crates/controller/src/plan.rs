//! What must be done so that the data path holds what it should. Pure.
//!
//! Make before break: what services need comes first, then services, then what nobody needs any more goes. A
//! frontend that moves from one service to another is taken over by one operation; until then it stays where it was.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::apply::Operation;
use crate::model::{Frontend, LocalDelivery, Path, ServiceName, ServiceState, State, TargetPorts};
use crate::resolve::Changed;

/// Operations that turn `observed` into `desired`. Equal states need none.
///
/// With `changed`, services and next hops outside of it are taken to be equal, and the cost is that of the change.
#[must_use]
pub fn plan(desired: &State, observed: &State, changed: Option<&Changed>) -> Vec<Operation> {
    let State { tunnels, directors, on_node, next_hops, services: _ } = desired;
    let mut plan = Vec::new();
    plan.extend(tunnels.difference(&observed.tunnels).copied().map(Operation::PutTunnel));
    plan.extend(directors.difference(&observed.directors).copied().map(Operation::PutDirector));

    let touched = touched(changed.map(|changed| &changed.next_hops), next_hops, &observed.next_hops);
    let (mut puts, mut removals) = (Vec::new(), Vec::new());
    for key in touched {
        match next_hops.get(key) {
            Some(state) if observed.next_hops.get(key) != Some(state) => {
                puts.push(Operation::PutNextHop(key.clone(), state.clone()));
            }
            None if observed.next_hops.contains_key(key) => removals.push(Operation::RemoveNextHop(key.clone())),
            Some(_) | None => {}
        }
    }
    plan.append(&mut puts);
    plan.extend(services(desired, observed, changed));
    // A VIP must be there before it can be marked.
    plan.extend(on_node.difference(&observed.on_node).map(|vip| Operation::SetOnNode(*vip, true)));
    plan.extend(observed.on_node.difference(on_node).map(|vip| Operation::SetOnNode(*vip, false)));
    plan.append(&mut removals);
    plan.extend(observed.directors.difference(directors).copied().map(Operation::RemoveDirector));
    plan.extend(observed.tunnels.difference(tunnels).copied().map(Operation::RemoveTunnel));
    plan
}

fn services(desired: &State, observed: &State, changed: Option<&Changed>) -> Vec<Operation> {
    let names = touched(changed.map(|changed| &changed.services), &desired.services, &observed.services);
    let differs = |name: &&ServiceName| match (desired.services.get(*name), observed.services.get(*name)) {
        (Some(new), Some(old)) => !Arc::ptr_eq(new, old) && new != old,
        (new, old) => new.is_some() || old.is_some(),
    };
    let names: Vec<&ServiceName> = names.into_iter().filter(differs).collect();
    // Who will take each frontend: until it has, the service that holds it must not let go.
    let mut takers = BTreeMap::new();
    for name in &names {
        for frontend in desired.services.get(*name).iter().flat_map(|state| &state.frontends) {
            takers.insert(*frontend, *name);
        }
    }
    let (mut puts, mut removals) = (Vec::new(), Vec::new());
    let mut done = BTreeSet::new();
    for name in names {
        done.insert(name);
        match desired.services.get(name) {
            Some(state) => {
                let still_held = observed.services.get(name).map(|old| &old.frontends).into_iter().flatten();
                let waiting: Vec<Frontend> = still_held
                    .filter(|frontend| !state.frontends.contains(frontend))
                    .filter(|frontend| takers.get(frontend).is_some_and(|taker| !done.contains(taker)))
                    .copied()
                    .collect();
                let others = waiting.iter().filter_map(|frontend| desired.services.get(*takers.get(frontend)?));
                let sources: Vec<_> = observed.services.get(name).into_iter().chain(others).collect();
                puts.push(Operation::PutService(name.clone(), holding(state, waiting, &sources)));
            }
            None => removals.push(Operation::RemoveService(name.clone())),
        }
    }
    puts.append(&mut removals);
    puts
}

/// The state, with frontends that are about to be taken over. Where endpoints listen for those is known to whoever had or
/// will have them.
fn holding(state: &Arc<ServiceState>, waiting: Vec<Frontend>, sources: &[&Arc<ServiceState>]) -> Arc<ServiceState> {
    if waiting.is_empty() {
        return Arc::clone(state);
    }
    let mut holding = ServiceState::clone(state);
    for endpoint in &mut holding.endpoints {
        let Path::Local(LocalDelivery::Nat { ports }) = &mut endpoint.path else { continue };
        let known = sources.iter().filter_map(|source| target_ports(source, endpoint.address));
        let known: Vec<&TargetPorts> = known.collect();
        for port in waiting.iter().map(|frontend| (frontend.protocol, frontend.port)) {
            if let Some(listens) = known.iter().find_map(|known| known.get(&port)) {
                Arc::make_mut(ports).entry(port).or_insert(*listens);
            }
        }
    }
    holding.frontends.extend(waiting);
    Arc::new(holding)
}

/// Where an endpoint of a service listens, if its delivery changes ports.
fn target_ports(service: &ServiceState, address: IpAddr) -> Option<&TargetPorts> {
    match &service.endpoints.iter().find(|endpoint| endpoint.address == address)?.path {
        Path::Local(LocalDelivery::Nat { ports }) => Some(ports),
        Path::Local(LocalDelivery::Local | LocalDelivery::Veth { .. } | LocalDelivery::None)
        | Path::Tunnel { .. }
        | Path::Unreachable { .. } => None,
    }
}

/// The keys to look at: those that changed, or all of either.
fn touched<'a, K: Ord, V, W>(
    changed: Option<&'a BTreeSet<K>>,
    desired: &'a BTreeMap<K, V>,
    observed: &'a BTreeMap<K, W>,
) -> BTreeSet<&'a K> {
    match changed {
        Some(keys) => keys.iter().collect(),
        None => desired.keys().chain(observed.keys()).collect(),
    }
}

#[cfg(test)]
pub(crate) mod tests;
