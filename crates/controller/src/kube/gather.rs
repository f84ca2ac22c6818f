//! From what the watches say to what the index is told. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use crate::model::{Object, ObjectKey, Place, Problem, ProblemReason, SliceOrigin};
use crate::source::SourceEvent;

/// How long VirtualServices that went with their definition stay in force once it is there again.
pub(super) const ORPHANS_STAY: Duration = Duration::from_secs(5 * 60);

/// Kinds of objects that are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    VirtualService,
    Service,
    EndpointSlice,
    Endpoints,
    Node,
}

impl Kind {
    const ALL: [Self; 5] = [Self::VirtualService, Self::Service, Self::EndpointSlice, Self::Endpoints, Self::Node];

    fn of(key: &ObjectKey) -> Self {
        match key {
            ObjectKey::VirtualService(_) => Self::VirtualService,
            ObjectKey::Service(_) => Self::Service,
            ObjectKey::Slice(SliceOrigin::EndpointSlice, _) => Self::EndpointSlice,
            ObjectKey::Slice(SliceOrigin::Endpoints, _) => Self::Endpoints,
            ObjectKey::Node(_) => Self::Node,
        }
    }

    /// The resource, as `kubectl` calls it.
    pub(super) const fn resource(self) -> &'static str {
        match self {
            Self::VirtualService => "virtualservices.guenon.dev",
            Self::Service => "services",
            Self::EndpointSlice => "endpointslices.discovery.k8s.io",
            Self::Endpoints => "endpoints",
            Self::Node => "nodes",
        }
    }
}

/// One thing that a watch says of a kind.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum News {
    /// A list begins: all objects that there are.
    ListBegins(Kind),
    /// An object of that list.
    Listed(Kind, Seen),
    /// The list is complete.
    ListEnds(Kind),
    /// An object is new or has changed.
    Applied(Kind, Seen),
    /// An object is gone.
    Deleted(Kind, ObjectKey),
    /// The definition of VirtualServices is gone, or about to go and to take them all with it: what is wrong.
    DefinitionGone(String),
    /// The server has refused; it is asked again.
    Failed(Kind, String),
    /// The server could not be asked, for whatever kind; it is tried again.
    Away(String),
}

/// What an API object came to.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Seen {
    pub(super) key: ObjectKey,
    /// `None` where it is none of Guenon's business, or cannot be used.
    pub(super) object: Option<Object>,
    pub(super) problems: Vec<Problem>,
    /// Its metadata.resourceVersion.
    pub(super) version: u64,
}

/// What is known of the cluster's objects: their keys, no more.
#[derive(Debug, Default)]
pub(super) struct Gather {
    kinds: BTreeMap<Kind, Known>,
    /// Objects that wait until every kind has been listed. `None`: all have.
    waiting: Waiting,
    /// What was told last of whatever is wrong.
    told: BTreeMap<Subject, Vec<Problem>>,
    /// The newest version of a VirtualService, and the one told of.
    newest: u64,
    reached: u64,
    /// Whether VirtualServices have a definition, as far as is known.
    undefined: bool,
    /// VirtualServices that went with their definition. They stay in force until they are let go.
    orphans: BTreeSet<ObjectKey>,
}

/// What problems are told of, each replacing what was told before.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Server,
    Watch(Kind),
    Orphans,
    Object(ObjectKey),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server => f.write_str("the Kubernetes API"),
            Self::Watch(kind) => write!(f, "the watch of {}", kind.resource()),
            Self::Orphans => f.write_str("VirtualServices without a definition"),
            Self::Object(key) => key.fmt(f),
        }
    }
}

#[derive(Debug)]
enum Waiting {
    For(BTreeMap<ObjectKey, Object>),
    Nothing,
}

impl Default for Waiting {
    fn default() -> Self {
        Self::For(BTreeMap::new())
    }
}

#[derive(Debug, Default)]
struct Known {
    /// Objects that the index has.
    keys: BTreeSet<ObjectKey>,
    /// While a list is read: every object in it.
    listing: Option<BTreeSet<ObjectKey>>,
    /// Whether a list was read to its end.
    listed: bool,
}

impl Gather {
    /// What the index is to be told of this.
    pub(super) fn take(&mut self, news: News) -> Vec<SourceEvent> {
        let mut events = Vec::new();
        match news {
            News::ListBegins(kind) => self.known(kind).listing = Some(BTreeSet::new()),
            News::Listed(kind, seen) => {
                if let Some(listing) = &mut self.known(kind).listing {
                    listing.insert(seen.key.clone());
                }
                self.put(kind, seen, &mut events);
            }
            News::ListEnds(kind) => {
                let known = self.known(kind);
                known.listed = true;
                let listing = known.listing.take().unwrap_or_default();
                let gone: Vec<_> = known.keys.difference(&listing).cloned().collect();
                let unusable = self.told.keys().filter_map(|subject| match subject {
                    Subject::Object(key) if Kind::of(key) == kind && !listing.contains(key) => Some(key.clone()),
                    Subject::Object(_) | Subject::Orphans | Subject::Watch(_) | Subject::Server => None,
                });
                let unusable = unusable.collect::<Vec<_>>();
                let undefined = kind == Kind::VirtualService && std::mem::take(&mut self.undefined);
                for key in gone.into_iter().chain(unusable) {
                    if undefined {
                        self.orphans.insert(key);
                    } else if !self.orphans.contains(&key) {
                        self.delete(kind, &key, &mut events);
                    }
                }
                self.works(kind, &mut events);
                self.tell_orphans(&mut events);
                self.begin_if_complete(&mut events);
            }
            News::Applied(kind, seen) => {
                self.works(kind, &mut events);
                self.put(kind, seen, &mut events);
            }
            News::Deleted(Kind::VirtualService, key) if self.undefined => {
                self.orphans.insert(key);
            }
            News::Deleted(kind, key) => {
                self.works(kind, &mut events);
                self.delete(kind, &key, &mut events);
            }
            News::DefinitionGone(message) => {
                self.undefined = true;
                let kind = Kind::VirtualService;
                self.fail(Subject::Watch(kind), kind.resource(), &message, &mut events);
            }
            News::Failed(kind, message) => {
                // It was asked, after all.
                self.tell(Subject::Server, Vec::new(), &mut events);
                self.fail(Subject::Watch(kind), kind.resource(), &message, &mut events);
            }
            News::Away(message) => self.fail(Subject::Server, "the Kubernetes API", &message, &mut events),
        }
        events
    }

    /// The version of VirtualServices up to which all has been told, where that is news.
    pub(super) fn reached(&mut self) -> Option<u64> {
        let listing = self.kinds.get(&Kind::VirtualService).is_none_or(|known| known.listing.is_some());
        if listing || matches!(self.waiting, Waiting::For(_)) || self.newest <= self.reached {
            return None;
        }
        self.reached = self.newest;
        Some(self.newest)
    }

    /// Whether VirtualServices stay in force that went with their definition, which is there again.
    pub(super) fn holds_orphans(&self) -> bool {
        !self.undefined && !self.orphans.is_empty()
    }

    /// They have not come back: they go.
    pub(super) fn let_orphans_go(&mut self) -> Vec<SourceEvent> {
        let mut events = Vec::new();
        for key in std::mem::take(&mut self.orphans) {
            self.delete(Kind::VirtualService, &key, &mut events);
        }
        self.tell_orphans(&mut events);
        events
    }

    fn tell_orphans(&mut self, events: &mut Vec<SourceEvent>) {
        let problem = (!self.orphans.is_empty()).then(|| {
            let names: Vec<String> = self.orphans.iter().take(3).map(ToString::to_string).collect();
            let message = format!(
                "{} VirtualServices ({}{}) are gone since their definition was deleted; they stay in force for {} minutes: \
                 apply them again, or delete nothing but them",
                self.orphans.len(),
                names.join(", "),
                if self.orphans.len() > names.len() { ", ..." } else { "" },
                ORPHANS_STAY.as_secs() / 60,
            );
            let place = Place { object: Kind::VirtualService.resource().to_owned(), ..Place::default() };
            Problem { reason: ProblemReason::Source, place, message }
        });
        self.tell(Subject::Orphans, problem.into_iter().collect(), events);
    }

    fn known(&mut self, kind: Kind) -> &mut Known {
        self.kinds.entry(kind).or_default()
    }

    fn put(&mut self, kind: Kind, seen: Seen, events: &mut Vec<SourceEvent>) {
        let Seen { key, object, problems, version } = seen;
        if kind == Kind::VirtualService {
            self.newest = self.newest.max(version);
        }
        let usable = problems.is_empty();
        if self.orphans.remove(&key) {
            self.tell_orphans(events);
        }
        self.tell(Subject::Object(key.clone()), problems, events);
        match object {
            Some(object) => {
                self.known(kind).keys.insert(key.clone());
                match &mut self.waiting {
                    Waiting::For(objects) => drop(objects.insert(key, object)),
                    Waiting::Nothing => events.push(SourceEvent::Apply(object)),
                }
            }
            // None of Guenon's business now, whatever it was before.
            None if usable => self.delete(kind, &key, events),
            // What it put in force before stays.
            None => {}
        }
    }

    fn delete(&mut self, kind: Kind, key: &ObjectKey, events: &mut Vec<SourceEvent>) {
        self.tell(Subject::Object(key.clone()), Vec::new(), events);
        if !self.known(kind).keys.remove(key) {
            return;
        }
        match &mut self.waiting {
            Waiting::For(objects) => drop(objects.remove(key)),
            Waiting::Nothing => events.push(SourceEvent::Delete(key.clone())),
        }
    }

    fn fail(&mut self, subject: Subject, object: &str, message: &str, events: &mut Vec<SourceEvent>) {
        let stays = match self.waiting {
            Waiting::For(_) => "what is in force stays until all objects are known",
            Waiting::Nothing => "the last objects stay in force",
        };
        let place = Place { object: object.to_owned(), ..Place::default() };
        let problem = Problem { reason: ProblemReason::Source, place, message: format!("{message}; {stays}") };
        self.tell(subject, vec![problem], events);
    }

    /// The server answers for this kind.
    fn works(&mut self, kind: Kind, events: &mut Vec<SourceEvent>) {
        self.tell(Subject::Server, Vec::new(), events);
        self.tell(Subject::Watch(kind), Vec::new(), events);
    }

    fn tell(&mut self, subject: Subject, problems: Vec<Problem>, events: &mut Vec<SourceEvent>) {
        if self.told.get(&subject).map_or(&[][..], Vec::as_slice) == problems {
            return;
        }
        events.push(SourceEvent::Problems { place: subject.to_string(), problems: problems.clone() });
        if problems.is_empty() {
            self.told.remove(&subject);
        } else {
            self.told.insert(subject, problems);
        }
    }

    fn begin_if_complete(&mut self, events: &mut Vec<SourceEvent>) {
        if !Kind::ALL.iter().all(|kind| self.kinds.get(kind).is_some_and(|known| known.listed)) {
            return;
        }
        if let Waiting::For(objects) = std::mem::replace(&mut self.waiting, Waiting::Nothing) {
            events.push(SourceEvent::Reset(objects.into_values().collect()));
        }
    }
}

#[cfg(test)]
#[path = "gather_tests.rs"]
mod tests;
