//! The source of objects for clusters: the Kubernetes API, watched. The only place that touches the API server.
//!
//! What holds:
//!
//! - The first batch of objects is told once every kind has been listed: a table of half of the endpoints would send their
//!   flows elsewhere.
//! - Nothing is kept of an object but what the index holds and its key: it is converted as it comes.
//! - A list that is read anew (the server forgot where the watch was, or the connection was lost) is compared with what
//!   is known: what is missing from it is deleted. Order and repetition of events do not matter.
//! - An object that cannot be used is named, and stops no other; what it put in force before stays.
//! - A definition that is deleted takes all VirtualServices with it: they stay in force until it is there again, and some
//!   minutes more, in which whoever has made it again applies them again.
//! - A server that is away, or that refuses, changes nothing: what is in force stays, and it is said since when.

mod chain;
mod client;
mod conditions;
mod events;
mod follow;
mod gather;
mod hash_key;
mod heartbeat;
mod node_report;
mod reports;
mod survey;
mod uninstall;
mod watch;

use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::SelectAll;
use k8s_openapi::api::core::v1::{Endpoints, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client, CustomResourceExt as _};
use tokio::sync::mpsc::Sender;
use tokio::time::Instant;

pub(crate) use self::chain::chain;
pub use self::client::{ConnectError, connect};
pub(crate) use self::conditions::{carry_times, condition, now};
pub(crate) use self::events::{NOTE, Telling};
use self::gather::{Gather, Kind, News, ORPHANS_STAY};
pub use self::hash_key::{HashKeyError, HashKeySecret};
pub use self::heartbeat::{LOST_AFTER, lease_of, node_of};
pub use self::node_report::{NodeReporter, wanted_state};
pub(crate) use self::reports::{LEASES, Learnt, Record, Writer, learn};
pub(crate) use self::survey::{Renewal, Survey, Surveyed, Surveyor};
pub use self::uninstall::{Outcome as NodeOutcome, detach_all as detach_nodes};
use self::watch::{Watch, watch};
use crate::convert;
use crate::source::{Source, SourceEvent};

/// Pieces of news that are handled as one batch, at most.
const BATCH: usize = 4096;
/// How long one question may take.
const LIMIT: Duration = Duration::from_secs(5);

/// The objects of a cluster.
pub struct Cluster {
    client: Client,
}

impl Cluster {
    /// The objects that this client may read.
    #[must_use]
    pub const fn new(client: Client) -> Self {
        Self { client }
    }

    /// What is to be told if the definition of VirtualServices is gone or about to go. Whoever may not ask believes that it
    /// is not.
    async fn undefined(&self) -> Option<News> {
        let definitions: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        let name = guenon_crd::VirtualService::crd_name();
        let asked = tokio::time::timeout(LIMIT, definitions.get_metadata_opt(name)).await;
        let definition = asked.ok()?.ok()?;
        if definition.is_some_and(|definition| definition.metadata.deletion_timestamp.is_none()) {
            return None;
        }
        let message = format!(
            "the definition {name} is being deleted, and all VirtualServices with it; apply it again (`kubectl apply -f \
             deploy/crds`), and then them"
        );
        Some(News::DefinitionGone(message))
    }

    fn watches(&self) -> SelectAll<Watch> {
        let client = &self.client;
        let watches = [
            watch::<guenon_crd::VirtualService>(client, Kind::VirtualService, convert::virtual_service),
            watch::<Service>(client, Kind::Service, convert::service),
            watch::<EndpointSlice>(client, Kind::EndpointSlice, convert::endpoint_slice),
            watch::<Endpoints>(client, Kind::Endpoints, convert::endpoints),
            watch::<Node>(client, Kind::Node, convert::node),
        ];
        futures::stream::select_all(watches)
    }
}

impl Source for Cluster {
    fn name(&self) -> &'static str {
        "kubernetes"
    }

    async fn run(self, batches: Sender<Vec<SourceEvent>>) -> anyhow::Result<()> {
        let mut watches = self.watches().ready_chunks(BATCH);
        let mut gather = Gather::default();
        let mut orphans_go: Option<Instant> = None;
        loop {
            let news: Vec<News> = tokio::select! {
                () = batches.closed() => return Ok(()),
                news = watches.next() => match news {
                    Some(news) => news,
                    None => anyhow::bail!("the watches of the Kubernetes API ended"),
                },
                () = tokio::time::sleep_until(orphans_go.unwrap_or_else(Instant::now)), if orphans_go.is_some() => {
                    if batches.send(gather.let_orphans_go()).await.is_err() {
                        return Ok(());
                    }
                    orphans_go = None;
                    continue;
                }
            };
            // A definition that is deleted takes all objects with it, one by one.
            let deletes = news.iter().any(|news| matches!(news, News::Deleted(Kind::VirtualService, _)));
            let undefined = if deletes { self.undefined().await } else { None };
            let mut events: Vec<SourceEvent> =
                undefined.into_iter().chain(news).flat_map(|news| gather.take(news)).collect();
            events.extend(gather.reached().map(SourceEvent::Reached));
            let go = orphans_go.unwrap_or_else(|| Instant::now() + ORPHANS_STAY);
            orphans_go = gather.holds_orphans().then_some(go);
            if !events.is_empty() && batches.send(events).await.is_err() {
                return Ok(());
            }
        }
    }
}
