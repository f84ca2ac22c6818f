//! The watch of one kind.

use std::fmt::Debug;
use std::pin::Pin;

use futures::{Stream, StreamExt as _, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::{self, Event, InitialListStrategy};
use kube::runtime::{WatchStreamExt as _, watcher as watch_objects};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

use super::chain;
use super::gather::{Kind, News, Seen};
use crate::convert::Converted;
use crate::model::{ObjectKey, Place, Problem, ProblemReason, ServiceName, SliceOrigin};

/// What a watch says, without end.
pub(super) type Watch = Pin<Box<dyn Stream<Item = News> + Send>>;

/// Turns an API object into the domain's.
type Convert<K> = fn(&K, &Place) -> Converted;

/// Watches all objects of a kind. Lists are streamed where the server does that; one that refuses is listed in pages.
pub(super) fn watch<K>(client: &Client, kind: Kind, convert: Convert<K>) -> Watch
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let api: Api<DeserializeGuard<K>> = Api::all(client.clone());
    let events = |strategy: InitialListStrategy| {
        let config = watcher::Config { initial_list_strategy: strategy, ..watcher::Config::default() };
        watch_objects(api.clone(), config).default_backoff()
    };
    let in_pages = events(InitialListStrategy::ListWatch).boxed();
    let streamed = events(InitialListStrategy::StreamingList).boxed();
    let begun = Watching { events: streamed, in_pages: Some(in_pages), kind };
    let events = stream::unfold(begun, |mut watching| async move {
        let event = watching.next().await?;
        Some((event, watching))
    });
    events.filter_map(move |event| std::future::ready(news(kind, event, convert))).boxed()
}

type Events<K> = Pin<Box<dyn Stream<Item = watcher::Result<Event<DeserializeGuard<K>>>> + Send>>;

struct Watching<K> {
    events: Events<K>,
    /// What to fall back to as long as no streamed list was complete.
    in_pages: Option<Events<K>>,
    kind: Kind,
}

impl<K> Watching<K> {
    async fn next(&mut self) -> Option<watcher::Result<Event<DeserializeGuard<K>>>> {
        loop {
            let event = self.events.next().await?;
            match &event {
                Ok(Event::InitDone) => self.in_pages = None,
                Err(error) if is_refusal(error) => {
                    if let Some(in_pages) = self.in_pages.take() {
                        tracing::info!(resource = self.kind.resource(), %error, "the server streams no lists; reading pages");
                        self.events = in_pages;
                        continue;
                    }
                }
                Ok(_) | Err(_) => {}
            }
            return Some(event);
        }
    }
}

/// Whether the server has understood the question and will not answer it as it was put.
fn is_refusal(error: &watcher::Error) -> bool {
    // 400 and 422: it knows no streamed lists. 500: its storage cannot serve them (etcd 3.4: RequestWatchProgress is
    // disabled); whatever else is wrong with it, pages serve as well.
    let by_code = |code: u16| matches!(code, 400 | 422 | 500);
    match error {
        watcher::Error::WatchError(status) => by_code(status.code),
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => by_code(status.code),
        watcher::Error::InitialListFailed(_)
        | watcher::Error::WatchStartFailed(_)
        | watcher::Error::WatchFailed(_)
        | watcher::Error::NoResourceVersion => false,
    }
}

/// `None`: nothing that anybody need know.
fn news<K: Resource>(
    kind: Kind,
    event: watcher::Result<Event<DeserializeGuard<K>>>,
    convert: Convert<K>,
) -> Option<News> {
    let news = match event {
        Ok(Event::Init) => News::ListBegins(kind),
        Ok(Event::InitApply(object)) => News::Listed(kind, seen(kind, object, convert)),
        Ok(Event::InitDone) => News::ListEnds(kind),
        Ok(Event::Apply(object)) => News::Applied(kind, seen(kind, object, convert)),
        Ok(Event::Delete(object)) => News::Deleted(kind, key(kind, metadata(&object))),
        Err(error) => return failed(kind, &error),
    };
    Some(news)
}

fn metadata<K: Resource>(object: &DeserializeGuard<K>) -> &ObjectMeta {
    match &object.0 {
        Ok(object) => object.meta(),
        Err(invalid) => &invalid.metadata,
    }
}

fn seen<K: Resource>(kind: Kind, object: DeserializeGuard<K>, convert: Convert<K>) -> Seen {
    let key = key(kind, metadata(&object));
    let place = Place { object: key.to_string(), ..Place::default() };
    let version = version(metadata(&object));
    let converted = match object.0 {
        Ok(object) => convert(&object, &place),
        Err(invalid) => {
            let message = format!("{}; write what `kubectl explain {}` says", invalid.error, kind.resource());
            Err(vec![Problem { reason: ProblemReason::Unreadable, place, message }])
        }
    };
    match converted {
        Ok(object) => Seen { key, object, problems: Vec::new(), version },
        Err(problems) => Seen { key, object: None, problems, version },
    }
}

/// A resourceVersion: Kubernetes promises that they can be compared as numbers (KEP-5504). 0: none.
pub(super) fn version(metadata: &ObjectMeta) -> u64 {
    metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or_default()
}

fn key(kind: Kind, metadata: &ObjectMeta) -> ObjectKey {
    let name = metadata.name.clone().unwrap_or_default();
    let namespaced = |name| ServiceName::new(metadata.namespace.clone().unwrap_or_default(), name);
    match kind {
        Kind::VirtualService => ObjectKey::VirtualService(namespaced(name)),
        Kind::Service => ObjectKey::Service(namespaced(name)),
        Kind::EndpointSlice => ObjectKey::Slice(SliceOrigin::EndpointSlice, namespaced(name)),
        Kind::Endpoints => ObjectKey::Slice(SliceOrigin::Endpoints, namespaced(name)),
        Kind::Node => ObjectKey::Node(name),
    }
}

/// What went wrong, and what to do.
fn failed(kind: Kind, error: &watcher::Error) -> Option<News> {
    // The server has forgotten where the watch was: the list is read anew.
    const GONE: u16 = 410;
    let resource = kind.resource();
    let (code, message) = match error {
        watcher::Error::WatchError(status) => (status.code, &status.message),
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status)) => (status.code, &status.message),
        watcher::Error::InitialListFailed(_)
        | watcher::Error::WatchStartFailed(_)
        | watcher::Error::WatchFailed(_)
        | watcher::Error::NoResourceVersion => {
            let cure =
                "is the API server up, may this node reach it, and are its certificates those of the kubeconfig?";
            return Some(News::Away(format!("cannot ask the API server: {}; {cure}", chain(error))));
        }
    };
    let cure = match (code, kind) {
        (GONE, _) => return None,
        (401, _) => "the token is not accepted: is the service account still there?".to_owned(),
        (403, _) => format!("allow the verbs list and watch of {resource}"),
        (404, Kind::VirtualService) => {
            let cure = "its definition is not installed: `kubectl apply -f deploy/crds`";
            return Some(News::DefinitionGone(format!("cannot watch {resource}: {message} ({code}); {cure}")));
        }
        (_, _) => "see the API server's log".to_owned(),
    };
    Some(News::Failed(kind, format!("cannot watch {resource}: {message} ({code}); {cure}")))
}
