use std::collections::BTreeMap;

use crate::model::{ObjectKey, ServiceName, Slice, SliceOrigin, SliceSubset};

/// Slices by the Service that they belong to, and their Services by name.
#[derive(Debug, Default)]
pub(super) struct Slices {
    by_service: BTreeMap<ServiceName, BTreeMap<(SliceOrigin, String), Slice>>,
    service_of: BTreeMap<(SliceOrigin, ServiceName), String>,
}

/// What [`Slices::put`] has met.
pub(super) enum Put {
    /// The very same slice.
    Same,
    /// None of that name.
    New,
    /// Another version.
    Changed(Slice),
}

impl Slices {
    pub(super) fn put(&mut self, slice: Slice) -> Put {
        let service = ServiceName::new(slice.name.namespace.clone(), slice.service.clone());
        let key = (slice.origin, slice.name.name.clone());
        if self.by_service.get(&service).and_then(|slices| slices.get(&key)) == Some(&slice) {
            return Put::Same;
        }
        let old = self.remove(slice.origin, &slice.name);
        self.service_of.insert((slice.origin, slice.name.clone()), slice.service.clone());
        self.by_service.entry(service).or_default().insert(key, slice);
        old.map_or(Put::New, Put::Changed)
    }

    pub(super) fn remove(&mut self, origin: SliceOrigin, name: &ServiceName) -> Option<Slice> {
        let service = self.service_of.remove(&(origin, name.clone()))?;
        let service = ServiceName::new(name.namespace.clone(), service);
        let slices = self.by_service.get_mut(&service)?;
        let old = slices.remove(&(origin, name.name.clone()));
        if slices.is_empty() {
            self.by_service.remove(&service);
        }
        old
    }

    /// EndpointSlices where there is one, else the Endpoints object.
    pub(super) fn of(&self, service: &ServiceName) -> impl Iterator<Item = &SliceSubset> {
        let slices = self.by_service.get(service);
        let origin = slices.and_then(|slices| slices.keys().next()).map(|(origin, _)| *origin);
        let slices = slices.into_iter().flat_map(BTreeMap::values);
        slices.filter(move |slice| Some(slice.origin) == origin).flat_map(|slice| &slice.subsets)
    }

    /// The Services that have an endpoint on a node.
    pub(super) fn services_on(&self, node: &str) -> Vec<ServiceName> {
        let is_there = |slice: &Slice| {
            let mut endpoints = slice.subsets.iter().flat_map(|subset| &subset.endpoints);
            endpoints.any(|endpoint| endpoint.node.as_deref() == Some(node))
        };
        let services = self.by_service.iter().filter(|(_, slices)| slices.values().any(is_there));
        services.map(|(service, _)| service.clone()).collect()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = ObjectKey> {
        self.service_of.keys().map(|(origin, name)| ObjectKey::Slice(*origin, name.clone()))
    }
}
