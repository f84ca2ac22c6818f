//! Where objects come from: one interface, two implementations (a directory of manifests; the Kubernetes API).

use std::future::Future;

use crate::model::{Object, ObjectKey, Problem};

/// What a source tells. A batch is applied together, then resolved once.
#[derive(Clone, Debug, PartialEq)]
pub enum SourceEvent {
    /// An object is new or has changed.
    Apply(Object),
    /// An object is gone.
    Delete(ObjectKey),
    /// These are all objects there are; whatever else was known is gone.
    Reset(Vec<Object>),
    /// All changes of VirtualServices up to this metadata.resourceVersion have been told.
    Reached(u64),
    /// All that is wrong at one place (a file, or the whole source), replacing what was said of it before; empty = mended.
    Problems {
        /// The place: a file's path, or the source's name.
        place: String,
        /// Everything wrong there.
        problems: Vec<Problem>,
    },
}

/// A source of objects.
pub trait Source: Send {
    /// Name in metrics and messages: `files` or `kubernetes`.
    fn name(&self) -> &'static str;

    /// Runs until the receiver is dropped. The first batch that tells of objects holds a `Reset`; until then (the
    /// directory is not there yet) batches hold nothing but `Problems`, and what is in force must stay.
    fn run(
        self,
        batches: tokio::sync::mpsc::Sender<Vec<SourceEvent>>,
    ) -> impl Future<Output = anyhow::Result<()>> + Send;
}
