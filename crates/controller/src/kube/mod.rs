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
//! - A server that is away, or that refuses, changes nothing: what is in force stays, and it is said since when.

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

use futures::StreamExt as _;
use futures::stream::SelectAll;
use k8s_openapi::api::core::v1::{Endpoints, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use tokio::sync::mpsc::Sender;

pub use self::client::{ConnectError, connect};
pub(crate) use self::conditions::{carry_times, condition, now};
pub(crate) use self::events::{NOTE, Telling};
use self::gather::{Gather, Kind, News};
pub use self::hash_key::{HashKeyError, HashKeySecret};
pub use self::heartbeat::{LOST_AFTER, lease_of, node_of};
pub use self::node_report::{NodeReporter, wanted_state};
pub(crate) use self::reports::{Learnt, Record, Writer, learn};
pub(crate) use self::survey::{Renewal, Survey, Surveyed, Surveyor};
pub use self::uninstall::{Outcome as NodeOutcome, detach_all as detach_nodes};
pub(crate) use self::watch::chain;
use self::watch::{Watch, watch};
use crate::convert;
use crate::source::{Source, SourceEvent};

/// Pieces of news that are handled as one batch, at most.
const BATCH: usize = 4096;

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
        loop {
            let news: Vec<News> = tokio::select! {
                () = batches.closed() => return Ok(()),
                news = watches.next() => match news {
                    Some(news) => news,
                    None => anyhow::bail!("the watches of the Kubernetes API ended"),
                },
            };
            let mut events: Vec<SourceEvent> = news.into_iter().flat_map(|news| gather.take(news)).collect();
            events.extend(gather.reached().map(SourceEvent::Reached));
            if !events.is_empty() && batches.send(events).await.is_err() {
                return Ok(());
            }
        }
    }
}
