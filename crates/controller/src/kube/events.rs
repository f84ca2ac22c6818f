//! Kubernetes events: what a person would want to be told of an object. One that repeats becomes a series.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};

/// What an event tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Telling {
    pub(crate) warning: bool,
    pub(crate) reason: String,
    /// Of 1,000 characters at most.
    pub(crate) note: String,
}

/// Most characters of a note; the server takes 1,024.
pub(crate) const NOTE: usize = 1000;

/// Sends events.
#[derive(Clone)]
pub(super) struct Events(Recorder);

impl Events {
    /// From this instance of a controller.
    pub(super) fn new(client: Client, controller: &str, instance: &str) -> Self {
        let reporter = Reporter { controller: controller.to_owned(), instance: Some(instance.to_owned()) };
        Self(Recorder::new(client, reporter))
    }

    /// Tells of this object.
    pub(super) async fn tell<K: Resource<DynamicType = ()>>(
        &self,
        namespace: Option<&str>,
        name: &str,
        uid: &str,
        telling: &Telling,
    ) -> kube::Result<()> {
        let about = ObjectReference {
            api_version: Some(K::api_version(&()).into_owned()),
            kind: Some(K::kind(&()).into_owned()),
            namespace: namespace.map(ToOwned::to_owned),
            name: Some(name.to_owned()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        };
        let Telling { warning, reason, note } = telling;
        let event = Event {
            type_: if *warning { EventType::Warning } else { EventType::Normal },
            reason: reason.clone(),
            note: Some(note.clone()),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        self.0.publish(&event, &about).await
    }
}
