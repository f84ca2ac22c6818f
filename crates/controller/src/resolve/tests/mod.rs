mod backends;
mod claims;
mod given;
mod incremental;
mod nat;
mod ways;

use std::collections::{BTreeMap, BTreeSet};

use guenon_ebpf::hash::{DEFAULT_KEY, Schedule};

use super::{Changed, Needs, ResolveOptions, Resolver};
use crate::fixtures::{ViewBuilder, ip, service_name, view};
use crate::index::Index;
use crate::model::{NextHopKey, NodeView, Object, Path, Policy, ServiceState, State};

/// One node of a made-up cluster, fed with objects.
struct Fed {
    index: Index,
    resolver: Resolver,
    view: NodeView,
    mtus: BTreeMap<NextHopKey, u32>,
}

fn options() -> ResolveOptions {
    ResolveOptions { schedule: Schedule::new(DEFAULT_KEY), directors: BTreeSet::new(), policy: Policy::default() }
}

/// t22 of the field: eth0 with 172.17.2.2 and 2001:db8:2::2, routers at .1.
fn t22() -> ViewBuilder {
    view("t22", &["172.17.2.2/24", "2001:db8:2::2/64"])
        .on_link("172.17.2.0/24", "eth0")
        .on_link("2001:db8:2::/64", "eth0")
        .route("172.17.0.0/16", "172.17.2.1", "eth0", 1500)
        .route("2001:db8::/32", "2001:db8:2::1", "eth0", 1500)
        .neighbour("172.17.2.1", "eth0", 1)
        .neighbour("2001:db8:2::1", "eth0", 1)
}

/// t22, having been told of these objects.
fn fed(objects: Vec<Object>) -> Fed {
    fed_at(t22().build(), objects)
}

fn fed_at(view: NodeView, objects: Vec<Object>) -> Fed {
    let mut index = Index::new();
    index.reset(objects);
    let mut fed = Fed { index, resolver: Resolver::new(options()), view, mtus: BTreeMap::new() };
    fed.resolve();
    fed
}

impl Fed {
    fn resolve(&mut self) -> Changed {
        self.resolver.resolve(&mut self.index, &self.view, &self.mtus)
    }

    fn apply(&mut self, object: impl Into<Object>) -> Changed {
        self.index.apply(object.into());
        self.resolve()
    }

    fn state(&self) -> &State {
        self.resolver.state()
    }

    fn needs(&self) -> Needs {
        self.resolver.needs()
    }

    fn service(&self, name: &str) -> &ServiceState {
        let services = &self.state().services;
        services.get(&service_name(name)).unwrap_or_else(|| panic!("no service {name} in {:?}", services.keys()))
    }

    /// The problems, a line each.
    fn problems(&self) -> String {
        let problems = self.resolver.problems(&self.index);
        problems.iter().map(|problem| format!("{problem}\n")).collect()
    }

    /// Endpoints of a service that rows name first, in order of address.
    fn primaries(&self, name: &str) -> Vec<String> {
        let service = self.service(name);
        let indices: BTreeSet<_> = service.rows.iter().map(|row| usize::from(row.primary())).collect();
        indices.into_iter().map(|index| service.endpoints[index].address.to_string()).collect()
    }

    /// All endpoints of a service.
    fn endpoints(&self, name: &str) -> Vec<String> {
        self.service(name).endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect()
    }

    fn frontends(&self, name: &str) -> Vec<String> {
        self.service(name).frontends.iter().map(ToString::to_string).collect()
    }

    fn path(&self, name: &str, address: &str) -> Path {
        let mut endpoints = self.service(name).endpoints.iter();
        let endpoint = endpoints.find(|endpoint| endpoint.address == ip(address));
        endpoint.unwrap_or_else(|| panic!("{name} has no endpoint {address}")).path.clone()
    }
}
