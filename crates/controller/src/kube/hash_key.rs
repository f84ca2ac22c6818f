//! The Secret that holds the key of the flow hash, asked for by its name alone.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch_objects};
use kube::{Api, Client};

use super::chain;
use crate::model::HashKey;

/// Its entry.
const ENTRY: &str = "key";
/// How long one question may take.
const LIMIT: Duration = Duration::from_secs(10);

/// The Secret that holds the key of the flow hash.
#[derive(Clone)]
pub struct HashKeySecret {
    api: Api<Secret>,
    namespace: String,
    name: String,
}

impl fmt::Display for HashKeySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret {}/{}", self.namespace, self.name)
    }
}

/// Why the key cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum HashKeyError {
    /// The server does not answer, or refuses.
    #[error("cannot {verb} {secret}: {error}; is the API server up, and does RBAC allow it?")]
    Server {
        /// What was asked for.
        verb: &'static str,
        /// The Secret.
        secret: String,
        /// What went wrong.
        error: String,
    },
    /// The Secret holds no key.
    #[error(
        "{0} has no key of 16 bytes under `key`; delete it for the controller to make one, or write one: \
         `kubectl create secret generic NAME --from-file=key` of 16 random bytes"
    )]
    NoKey(String),
}

impl HashKeySecret {
    /// The Secret of this name; nothing is asked yet.
    #[must_use]
    pub fn new(client: Client, namespace: &str, name: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// The key in it; `None`: there is no such Secret.
    ///
    /// # Errors
    ///
    /// [`HashKeyError`].
    pub async fn get(&self) -> Result<Option<HashKey>, HashKeyError> {
        let error = |error: String| HashKeyError::Server { verb: "get", secret: self.to_string(), error };
        match tokio::time::timeout(LIMIT, self.api.get_opt(&self.name)).await {
            Ok(Ok(Some(secret))) => self.key_in(&secret).map(Some),
            Ok(Ok(None)) => Ok(None),
            Ok(Err(cause)) => Err(error(chain(&cause))),
            Err(_) => Err(error(format!("no answer within {} s", LIMIT.as_secs()))),
        }
    }

    /// Makes it, immutable. Whether it was made: another may have been faster.
    ///
    /// # Errors
    ///
    /// [`HashKeyError::Server`].
    pub async fn create(&self, key: HashKey) -> Result<bool, HashKeyError> {
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                labels: Some(BTreeMap::from([(
                    "app.kubernetes.io/managed-by".to_owned(),
                    "guenon-controller".to_owned(),
                )])),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([(ENTRY.to_owned(), ByteString(key.0.to_vec()))])),
            immutable: Some(true),
            ..Secret::default()
        };
        match self.api.create(&PostParams::default(), &secret).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(cause) => Err(HashKeyError::Server { verb: "create", secret: self.to_string(), error: chain(&cause) }),
        }
    }

    /// What it holds, whenever that changes; `None`: it is gone. Without end; failures to ask are not told.
    pub fn changes(&self) -> impl Stream<Item = Result<Option<HashKey>, HashKeyError>> + Send + use<> {
        let config = watcher::Config::default().fields(&format!("metadata.name={}", self.name));
        let own = self.clone();
        let mut listed = None;
        let events = watch_objects(self.api.clone(), config).default_backoff();
        events.filter_map(move |event| {
            let told = match event {
                Ok(Event::Init) => {
                    listed = None;
                    None
                }
                Ok(Event::InitApply(secret)) => {
                    listed = Some(secret);
                    None
                }
                Ok(Event::InitDone) => Some(listed.take().map(|secret| own.key_in(&secret)).transpose()),
                Ok(Event::Apply(secret)) => Some(own.key_in(&secret).map(Some)),
                Ok(Event::Delete(_)) => Some(Ok(None)),
                Err(_) => None,
            };
            std::future::ready(told)
        })
    }

    fn key_in(&self, secret: &Secret) -> Result<HashKey, HashKeyError> {
        let entry = secret.data.as_ref().and_then(|data| data.get(ENTRY));
        entry.and_then(|bytes| HashKey::parse(&bytes.0)).ok_or_else(|| HashKeyError::NoKey(self.to_string()))
    }
}
