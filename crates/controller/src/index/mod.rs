//! The latest of every object, and what a change touches. Pure.
//!
//! [`Index::apply`], [`Index::delete`] and [`Index::reset`] take what a source tells; [`Index::take_changes`] names
//! the VirtualServices that may come out differently since it was last asked, so that a change costs what it
//! changes.

mod slices;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{
    BackendService, Backends, Frontend, Node, Object, ObjectKey, Protocol, ServiceName, Slice, SliceSubset,
    VirtualService,
};
use slices::Slices;

/// The latest of every object.
#[derive(Debug, Default)]
pub struct Index {
    virtual_services: BTreeMap<Arc<ServiceName>, VirtualService>,
    backends: BTreeMap<ServiceName, BackendService>,
    slices: Slices,
    nodes: BTreeMap<String, Node>,
    /// Who wants a frontend; the first of a frontend has it.
    claims: BTreeSet<(Frontend, i64, Arc<ServiceName>)>,
    /// Who refers to a Service: (Service, VirtualService).
    references: BTreeSet<(ServiceName, Arc<ServiceName>)>,
    /// Addresses of nodes, Services and pods: never allowed as VIPs.
    owners: BTreeSet<(IpAddr, Arc<ObjectKey>)>,
    /// Addresses on which other load balancers answer for Services.
    claimed: BTreeSet<(IpAddr, ServiceName)>,
    changes: Changes,
    complete: bool,
}

/// What may come out differently.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// VirtualServices that are new, gone, changed, or touched by a change of something else.
    pub services: BTreeSet<Arc<ServiceName>>,
    /// Some Node is new, gone or changed.
    pub nodes: bool,
}

impl Index {
    /// An index of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the source has told of all its objects once. Before that, nothing may be taken out of force.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.complete
    }

    /// An object is new or has changed.
    pub fn apply(&mut self, object: Object) {
        match object {
            Object::VirtualService(new) => self.put_virtual_service(new),
            Object::Service(new) => {
                if self.backends.get(&new.name) != Some(&new) {
                    let old = self.backends.insert(new.name.clone(), new.clone());
                    self.backend_changed(&new.name);
                    let old = old.map(|old| (old.cluster_ips, old.claimed)).unwrap_or_default();
                    self.claim(&new.name, &old.1, &new.claimed);
                    self.own(&ObjectKey::Service(new.name), &old.0, &new.cluster_ips);
                }
            }
            Object::Slice(new) => self.put_slice(new),
            Object::Node(new) => {
                if self.nodes.get(&new.name) != Some(&new) {
                    let old = self.nodes.insert(new.name.clone(), new.clone());
                    self.node_changed(&new.name, old.map(|old| old.internal_ips).unwrap_or_default(), new.internal_ips);
                }
            }
        }
    }

    /// An object is gone.
    pub fn delete(&mut self, key: &ObjectKey) {
        match key {
            ObjectKey::VirtualService(name) => {
                if let Some(old) = self.virtual_services.remove(name) {
                    self.withdraw(&Arc::new(name.clone()), &old);
                }
            }
            ObjectKey::Service(name) => {
                if let Some(old) = self.backends.remove(name) {
                    self.backend_changed(name);
                    self.own(key, &old.cluster_ips, &[]);
                    self.claim(name, &old.claimed, &[]);
                }
            }
            ObjectKey::Slice(origin, name) => {
                if let Some(old) = self.slices.remove(*origin, name) {
                    self.backend_changed(&ServiceName::new(name.namespace.clone(), old.service.clone()));
                    self.own(key, &addresses(&old), &[]);
                }
            }
            ObjectKey::Node(name) => {
                if let Some(old) = self.nodes.remove(name) {
                    self.node_changed(name, old.internal_ips, Vec::new());
                }
            }
        }
    }

    /// These are all objects there are. What is as it was counts as no change.
    pub fn reset(&mut self, objects: Vec<Object>) {
        self.complete = true;
        let kept: BTreeSet<ObjectKey> = objects.iter().map(Object::key).collect();
        for gone in self.keys().filter(|key| !kept.contains(key)).collect::<Vec<_>>() {
            self.delete(&gone);
        }
        // Nodes first: a Node looks through the slices for its endpoints, and at first there are none.
        let (nodes, rest): (Vec<_>, Vec<_>) = objects.into_iter().partition(|object| matches!(object, Object::Node(_)));
        for object in nodes.into_iter().chain(rest) {
            self.apply(object);
        }
    }

    /// What has changed since this was last asked.
    pub fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }

    /// The VirtualService of this name.
    #[must_use]
    pub fn virtual_service(&self, name: &ServiceName) -> Option<&VirtualService> {
        self.virtual_services.get(name)
    }

    /// All VirtualServices, in order of name.
    pub fn virtual_services(&self) -> impl Iterator<Item = &VirtualService> {
        self.virtual_services.values()
    }

    /// The Service of this name.
    #[must_use]
    pub fn backend(&self, name: &ServiceName) -> Option<&BackendService> {
        self.backends.get(name)
    }

    /// The endpoints of a Service: those of its EndpointSlices, or where it has none, of its Endpoints object.
    pub fn subsets(&self, service: &ServiceName) -> impl Iterator<Item = &SliceSubset> {
        self.slices.of(service)
    }

    /// The Node of this name.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// All Nodes, in order of name.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// Who claims a frontend, the one who has it first: the older, then the first by namespace and name.
    pub fn claimants(&self, frontend: Frontend) -> impl Iterator<Item = &ServiceName> {
        let from = (frontend, i64::MIN, Arc::new(ServiceName::new("", "")));
        self.claims.range(from..).take_while(move |claim| claim.0 == frontend).map(|(_, _, name)| &**name)
    }

    /// Services for which another load balancer answers on this address.
    pub fn claimed_for(&self, address: IpAddr) -> impl Iterator<Item = &ServiceName> {
        let from = (address, ServiceName::new("", ""));
        self.claimed.range(from..).take_while(move |claim| claim.0 == address).map(|(_, name)| name)
    }

    /// The Nodes, Services and slices that have this address.
    pub fn owners(&self, address: IpAddr) -> impl Iterator<Item = &ObjectKey> {
        let from = (address, Arc::new(ObjectKey::VirtualService(ServiceName::new("", ""))));
        self.owners.range(from..).take_while(move |owner| owner.0 == address).map(|(_, key)| &**key)
    }

    fn keys(&self) -> impl Iterator<Item = ObjectKey> {
        let virtual_services = self.virtual_services.keys().map(|name| ObjectKey::VirtualService((**name).clone()));
        let backends = self.backends.keys().map(|name| ObjectKey::Service(name.clone()));
        let nodes = self.nodes.keys().map(|name| ObjectKey::Node(name.clone()));
        virtual_services.chain(backends).chain(self.slices.keys()).chain(nodes)
    }

    fn put_virtual_service(&mut self, mut new: VirtualService) {
        if let Some(old) = self.virtual_services.get_mut(&new.name) {
            std::mem::swap(&mut old.place, &mut new.place);
            if *old == new {
                return; // It may have moved in its file; that is no change of the configuration.
            }
            std::mem::swap(&mut old.place, &mut new.place);
        }
        let name = Arc::new(new.name.clone());
        if let Some(old) = self.virtual_services.remove(&new.name) {
            self.withdraw(&name, &old);
        }
        for frontend in frontends(&new) {
            self.touch_claimants(frontend);
            self.claims.insert((frontend, new.created, Arc::clone(&name)));
        }
        self.references.extend(referred(&new).map(|service| (service, Arc::clone(&name))));
        self.changes.services.insert(Arc::clone(&name));
        self.virtual_services.insert(name, new);
    }

    fn withdraw(&mut self, name: &Arc<ServiceName>, old: &VirtualService) {
        for frontend in frontends(old) {
            self.claims.remove(&(frontend, old.created, Arc::clone(name)));
            self.touch_claimants(frontend);
        }
        for service in referred(old) {
            self.references.remove(&(service, Arc::clone(name)));
        }
        self.changes.services.insert(Arc::clone(name));
    }

    fn put_slice(&mut self, new: Slice) {
        let key = ObjectKey::Slice(new.origin, new.name.clone());
        let after = addresses(&new);
        let service = ServiceName::new(new.name.namespace.clone(), new.service.clone());
        let before = match self.slices.put(new) {
            slices::Put::Same => return,
            slices::Put::New => Vec::new(),
            slices::Put::Changed(old) => {
                self.backend_changed(&ServiceName::new(old.name.namespace.clone(), old.service.clone()));
                addresses(&old)
            }
        };
        self.backend_changed(&service);
        self.own(&key, &before, &after);
    }

    /// A Service or its endpoints changed: so did all who refer to it.
    fn backend_changed(&mut self, service: &ServiceName) {
        let from = (service.clone(), Arc::new(ServiceName::new("", "")));
        let users = self.references.range(from..).take_while(|reference| reference.0 == *service);
        self.changes.services.extend(users.map(|(_, name)| Arc::clone(name)));
    }

    /// A Node changed: so did all who have an endpoint there.
    fn node_changed(&mut self, node: &str, before: Vec<IpAddr>, after: Vec<IpAddr>) {
        self.changes.nodes = true;
        self.own(&ObjectKey::Node(node.to_owned()), &before, &after);
        for service in self.slices.services_on(node) {
            self.backend_changed(&service);
        }
        let touched = |address: &IpAddr| before.contains(address) || after.contains(address);
        for (name, service) in &self.virtual_services {
            if let Backends::Given(endpoints) = &service.backends
                && endpoints.iter().any(|endpoint| endpoint.tunnel.as_ref().is_some_and(touched))
            {
                self.changes.services.insert(Arc::clone(name));
            }
        }
    }

    /// Another load balancer answered for this Service on the addresses `before`, and does on those of `after`.
    fn claim(&mut self, name: &ServiceName, before: &[IpAddr], after: &[IpAddr]) {
        for address in before.iter().filter(|address| !after.contains(address)) {
            self.claimed.remove(&(*address, name.clone()));
            self.touch_vip(*address);
        }
        for address in after.iter().filter(|address| !before.contains(address)) {
            self.claimed.insert((*address, name.clone()));
            self.touch_vip(*address);
        }
    }

    /// `key` had the addresses `before` and has those of `after`: VIPs among them are no longer, or now, refused.
    fn own(&mut self, key: &ObjectKey, before: &[IpAddr], after: &[IpAddr]) {
        let key = Arc::new(key.clone());
        for address in before.iter().filter(|address| !after.contains(address)) {
            self.owners.remove(&(*address, Arc::clone(&key)));
            self.touch_vip(*address);
        }
        for address in after.iter().filter(|address| !before.contains(address)) {
            self.owners.insert((*address, Arc::clone(&key)));
            self.touch_vip(*address);
        }
    }

    fn touch_claimants(&mut self, frontend: Frontend) {
        let from = (frontend, i64::MIN, Arc::new(ServiceName::new("", "")));
        let claims = self.claims.range(from..).take_while(|claim| claim.0 == frontend);
        self.changes.services.extend(claims.map(|(_, _, name)| Arc::clone(name)));
    }

    fn touch_vip(&mut self, vip: IpAddr) {
        let least = Frontend { vip, protocol: Protocol::Tcp, port: 0 };
        let from = (least, i64::MIN, Arc::new(ServiceName::new("", "")));
        let claims = self.claims.range(from..).take_while(|claim| claim.0.vip == vip);
        self.changes.services.extend(claims.map(|(_, _, name)| Arc::clone(name)));
    }
}

/// Every frontend that a VirtualService asks for, in order.
pub fn frontends(service: &VirtualService) -> impl Iterator<Item = Frontend> + '_ {
    service.addresses.iter().flat_map(|&vip| {
        service.ports.iter().map(move |port| Frontend { vip, protocol: port.protocol, port: port.port })
    })
}

fn referred(service: &VirtualService) -> impl Iterator<Item = ServiceName> + '_ {
    let refs = match &service.backends {
        Backends::Refs(refs) => refs.as_slice(),
        Backends::Given(_) => &[],
    };
    refs.iter().map(|reference| ServiceName::new(service.name.namespace.clone(), reference.name.clone()))
}

fn addresses(slice: &Slice) -> Vec<IpAddr> {
    let endpoints = slice.subsets.iter().flat_map(|subset| &subset.endpoints);
    let mut addresses: Vec<_> = endpoints.map(|endpoint| endpoint.address).collect();
    addresses.sort();
    addresses.dedup();
    addresses
}
