//! A watch that tells of each object what became of it; lists that are read anew are compared with what was known.

use std::collections::BTreeSet;
use std::fmt::Debug;

use futures::{Stream, StreamExt as _, stream};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch_objects};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use super::chain;

/// What became of an object.
#[derive(Clone, Debug)]
pub(crate) enum Told<K> {
    /// It is new or has changed.
    Is(K),
    /// It is gone: its namespace and name.
    Gone(String, String),
    /// All there are have been told of.
    Listed,
    /// The server cannot be asked, or refuses; it is asked again.
    Failed(String),
}

/// Follows all objects of this API that the configuration selects, without end.
pub(crate) fn follow<K>(api: Api<K>, config: watcher::Config) -> impl Stream<Item = Told<K>> + Send
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut known = BTreeSet::new();
    let mut listing = BTreeSet::new();
    let events = watch_objects(api, config).default_backoff();
    events.flat_map(move |event| {
        let told = match event {
            Ok(Event::Init) => {
                listing.clear();
                Vec::new()
            }
            Ok(Event::InitApply(object)) => {
                listing.insert(key(&object));
                vec![Told::Is(object)]
            }
            Ok(Event::InitDone) => {
                let gone: Vec<_> = known.difference(&listing).cloned().collect();
                known = std::mem::take(&mut listing);
                let gone = gone.into_iter().map(|(namespace, name)| Told::Gone(namespace, name));
                gone.chain([Told::Listed]).collect()
            }
            Ok(Event::Apply(object)) => {
                known.insert(key(&object));
                vec![Told::Is(object)]
            }
            Ok(Event::Delete(object)) => {
                let key = key(&object);
                known.remove(&key);
                vec![Told::Gone(key.0, key.1)]
            }
            Err(error) => vec![Told::Failed(chain(&error))],
        };
        stream::iter(told)
    })
}

fn key<K: Resource>(object: &K) -> (String, String) {
    let metadata = object.meta();
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}
