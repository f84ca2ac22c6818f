//! All that the controller knows, and what follows from it: which statuses should be other than they are. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use guenon_crd::{GuenonNodeSpec, GuenonNodeStatus, VirtualServiceStatus};

use super::conditions;
use super::directors::{Agents, Directors};
use super::events::{contested, tellings};
use super::tally::{Statuses, Tally};
use crate::index::Index;
use crate::kube::{Record, Telling, carry_times};
use crate::model::{Policy, Problem, ServiceName};
use crate::resolve::{Judgement, judge};
use crate::source::SourceEvent;

/// All that the controller knows.
#[derive(Debug)]
pub(super) struct Book {
    policy: Policy,
    index: Index,
    /// VirtualServices that cannot be used, and why.
    invalid: BTreeMap<ServiceName, Vec<Problem>>,
    /// What else is wrong, by its place.
    source_problems: BTreeMap<String, Vec<Problem>>,
    objects: BTreeMap<ServiceName, Kept>,
    judged: BTreeMap<ServiceName, Judgement>,
    agents: Agents,
    directors: Directors,
    directors_at: Instant,
    directors_changed: bool,
    touched: Touched,
    tally: Tally,
}

/// What a server holds of a VirtualService.
#[derive(Debug)]
struct Kept {
    record: Record<VirtualServiceStatus>,
    /// The version at which this generation was seen first.
    since: u64,
    /// As what it is counted.
    counted: Option<Statuses>,
}

#[derive(Debug)]
enum Touched {
    All,
    Some(BTreeSet<ServiceName>),
}

impl Touched {
    fn add(&mut self, name: ServiceName) {
        match self {
            Self::All => {}
            Self::Some(names) => drop(names.insert(name)),
        }
    }
}

/// A status that should be other than it is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Change {
    pub(super) uid: String,
    pub(super) status: VirtualServiceStatus,
    pub(super) tellings: Vec<Telling>,
}

/// What follows from all that has been learnt.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Settled {
    /// Of each VirtualService that anything has touched: `None`, its status is as it should be.
    pub(super) changes: Vec<(ServiceName, Option<Change>)>,
    /// Whose frontends others claim, and what is to be told of that: name, uid.
    pub(super) contested: Vec<(ServiceName, String, Vec<Telling>)>,
}

impl Book {
    pub(super) fn new(policy: Policy, now: Instant) -> Self {
        Self {
            policy,
            index: Index::new(),
            invalid: BTreeMap::new(),
            source_problems: BTreeMap::new(),
            objects: BTreeMap::new(),
            judged: BTreeMap::new(),
            agents: Agents::default(),
            directors: Directors::default(),
            directors_at: now,
            directors_changed: true,
            touched: Touched::All,
            tally: Tally::default(),
        }
    }

    /// The source told this.
    pub(super) fn tell(&mut self, events: Vec<SourceEvent>) {
        for event in events {
            match event {
                SourceEvent::Apply(object) => self.index.apply(object),
                SourceEvent::Delete(key) => self.index.delete(&key),
                SourceEvent::Reset(objects) => self.index.reset(objects),
                SourceEvent::Reached(_) => {}
                SourceEvent::Problems { place, problems } => {
                    let service = place.strip_prefix("VirtualService ").and_then(ServiceName::parse);
                    if let Some(name) = &service {
                        self.touched.add(name.clone());
                    }
                    match (service, problems.is_empty()) {
                        (Some(name), true) => drop(self.invalid.remove(&name)),
                        (Some(name), false) => drop(self.invalid.insert(name, problems)),
                        (None, true) => drop(self.source_problems.remove(&place)),
                        (None, false) => drop(self.source_problems.insert(place, problems)),
                    }
                }
            }
        }
    }

    /// A server holds this of a VirtualService.
    pub(super) fn saw_service(&mut self, name: ServiceName, record: Record<VirtualServiceStatus>) {
        let generation = record.generation;
        let told = record.status.observed_version.as_deref().and_then(|version| version.parse().ok());
        let known = self
            .objects
            .get(&name)
            .filter(|kept| kept.record.uid == record.uid && kept.record.generation == generation);
        let since = match (known, told) {
            (Some(kept), _) => kept.since,
            (None, Some(version)) if record.status.observed_generation == Some(generation) => version,
            (None, _) => record.version,
        };
        let counted = self.objects.get(&name).and_then(|kept| kept.counted);
        self.touched.add(name.clone());
        self.objects.insert(name, Kept { record, since, counted });
    }

    /// A VirtualService is gone.
    pub(super) fn service_gone(&mut self, name: &ServiceName) {
        if let Some(kept) = self.objects.remove(name) {
            self.tally.change(kept.counted, None);
        }
    }

    /// A server holds this GuenonNode.
    pub(super) fn saw_node(&mut self, name: &str, spec: &GuenonNodeSpec, status: &GuenonNodeStatus) {
        self.directors_changed |= self.agents.saw(name, spec, status);
    }

    /// A GuenonNode is gone.
    pub(super) fn node_gone(&mut self, name: &str) {
        self.agents.gone(name);
        self.directors_changed = true;
    }

    /// A Lease says this.
    pub(super) fn beat(&mut self, node: &str, says: String, now: Instant) {
        self.directors_changed |= self.agents.beat(node, says, now);
    }

    /// Leases cannot be read, or can be read again.
    pub(super) fn leases_are_read(&mut self, are: bool, now: Instant) {
        if are {
            self.agents.hear(now);
        } else {
            self.agents.deafen();
        }
    }

    /// Whether the objects are all known.
    pub(super) const fn is_complete(&self) -> bool {
        self.index.is_complete()
    }

    /// What keeps the objects from being read.
    pub(super) fn source_problems(&self) -> impl Iterator<Item = &Problem> {
        self.source_problems.values().flatten()
    }

    /// All agents.
    pub(super) const fn agents(&self) -> &Agents {
        &self.agents
    }

    /// Whatever was written or found before is looked at anew.
    pub(super) fn touch_all(&mut self) {
        self.touched = Touched::All;
        self.directors_changed = true;
    }

    /// This one is looked at anew.
    pub(super) fn touch(&mut self, name: ServiceName) {
        self.touched.add(name);
    }

    /// A status has been written.
    pub(super) fn wrote(&mut self, name: &ServiceName, status: VirtualServiceStatus) {
        if let Some(kept) = self.objects.get_mut(name) {
            kept.record.status = status;
        }
    }

    /// What follows from all that has been learnt since this was last asked.
    pub(super) fn settle(&mut self, now: Instant, time: &str) -> Settled {
        let mut settled = Settled::default();
        let changes = self.index.take_changes();
        self.directors_changed |= changes.nodes;
        for name in changes.services {
            let old = match judge(&self.index, &name, &self.policy) {
                Some(judgement) => self.judged.insert((*name).clone(), judgement),
                None => self.judged.remove(&*name),
            };
            if let (Some(old), Some(new), Some(kept)) = (old, self.judged.get(&*name), self.objects.get(&*name)) {
                let told = contested(&old.findings, &new.findings);
                if !told.is_empty() {
                    settled.contested.push(((*name).clone(), kept.record.uid.clone(), told));
                }
            }
            self.touched.add((*name).clone());
        }
        if self.directors_changed || self.agents.lost_since(self.directors_at, now) {
            let directors = self.agents.directors(self.index.nodes(), &self.policy, now);
            if directors != self.directors {
                self.directors = directors;
                self.touched = Touched::All;
            }
            self.directors_changed = false;
        }
        self.directors_at = now;
        let touched: Vec<ServiceName> = match std::mem::replace(&mut self.touched, Touched::Some(BTreeSet::new())) {
            Touched::All => self.objects.keys().cloned().collect(),
            Touched::Some(names) => names.into_iter().collect(),
        };
        settled.changes.extend(touched.into_iter().map(|name| {
            let change = self.change(&name, time);
            self.count(&name, change.as_ref());
            (name, change)
        }));
        settled
    }

    /// How many VirtualServices have which status, as far as they have been settled.
    pub(super) const fn tally(&self) -> &Tally {
        &self.tally
    }

    fn count(&mut self, name: &ServiceName, change: Option<&Change>) {
        let Some(kept) = self.objects.get_mut(name) else { return };
        let status = change.map_or(&kept.record.status, |change| &change.status);
        let new = Some(Statuses::of(&status.conditions));
        self.tally.change(std::mem::replace(&mut kept.counted, new), new);
    }

    fn change(&self, name: &ServiceName, time: &str) -> Option<Change> {
        let Kept { record, since, counted: _ } = self.objects.get(name)?;
        let mut status = match (self.invalid.get(name), self.index.virtual_service(name), self.judged.get(name)) {
            (Some(problems), _, _) => conditions::of_invalid(record.generation, problems, &record.status),
            (None, Some(service), Some(judged)) if judged.generation == record.generation => {
                conditions::of_judged(service, judged, *since, &self.directors)
            }
            // The rest of it has not been told of yet.
            (None, _, _) => return None,
        };
        carry_times(&mut status.conditions, &record.status.conditions, time);
        let mut held = record.status.clone();
        held.conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
        if status == held {
            return None;
        }
        let tellings = tellings(&held, &status);
        Some(Change { uid: record.uid.clone(), status, tellings })
    }
}
