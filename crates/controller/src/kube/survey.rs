//! What a cluster shows of Guenon to somebody who asks whether it works: read once, not followed.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use guenon_crd::{GuenonNode, GuenonNodeSpec, GuenonNodeStatus, VirtualService, VirtualServiceStatus};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{DynamicObject, ListParams, ObjectList};
use kube::{Api, Client};

use super::chain;
use super::reports::{Record, of, part, record};
use crate::model::ServiceName;

/// How long one question may take.
const LIMIT: Duration = Duration::from_secs(10);
/// VirtualServices that are read at a time.
const PAGE: u32 = 500;

/// What a Lease says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Renewal {
    /// Who holds it; the empty string: nobody.
    pub(crate) holder: String,
    /// Changes whenever it is renewed.
    pub(crate) says: String,
}

/// A GuenonNode.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Surveyed {
    pub(crate) spec: GuenonNodeSpec,
    pub(crate) record: Record<GuenonNodeStatus>,
}

/// All but the VirtualServices.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Survey {
    /// By name.
    pub(crate) nodes: BTreeMap<String, Surveyed>,
    /// Those of Guenon's namespace, by name.
    pub(crate) leases: BTreeMap<String, Renewal>,
}

/// Asks.
pub(crate) struct Surveyor {
    nodes: Api<DynamicObject>,
    services: Api<DynamicObject>,
    leases: Api<Lease>,
}

impl Surveyor {
    /// `namespace` is the one that Guenon runs in.
    pub(crate) fn new(client: &Client, namespace: &str) -> Self {
        Self {
            nodes: of::<GuenonNode>(client),
            services: of::<VirtualService>(client),
            leases: Api::namespaced(client.clone(), namespace),
        }
    }

    /// What there is now; an error says what to do.
    pub(crate) async fn survey(&self) -> Result<Survey, String> {
        let all = ListParams::default();
        let nodes = limited("guenonnodes.guenon.dev", self.nodes.list(&all)).await?;
        let leases = limited("leases.coordination.k8s.io", self.leases.list(&all)).await?;
        let surveyed = |object: DynamicObject| {
            let surveyed = Surveyed { spec: part(&object, "spec"), record: record(&object) };
            Some((object.metadata.name?, surveyed))
        };
        let renewal = |lease: Lease| {
            let spec = lease.spec.unwrap_or_default();
            let says = spec.renew_time.map(|time| time.0.to_string()).unwrap_or_default();
            Some((lease.metadata.name?, Renewal { holder: spec.holder_identity.unwrap_or_default(), says }))
        };
        Ok(Survey {
            nodes: nodes.items.into_iter().filter_map(surveyed).collect(),
            leases: leases.items.into_iter().filter_map(renewal).collect(),
        })
    }

    /// All VirtualServices; an error says what to do.
    pub(crate) async fn services(&self) -> Result<BTreeMap<ServiceName, Record<VirtualServiceStatus>>, String> {
        let mut services = BTreeMap::new();
        let mut page = ListParams::default().limit(PAGE);
        loop {
            let ObjectList { items, metadata, .. } =
                limited("virtualservices.guenon.dev", self.services.list(&page)).await?;
            services.extend(items.iter().filter_map(|object| {
                let metadata = &object.metadata;
                Some((ServiceName::new(metadata.namespace.clone()?, metadata.name.clone()?), record(object)))
            }));
            match metadata.continue_ {
                Some(next) if !next.is_empty() => page = ListParams::default().limit(PAGE).continue_token(&next),
                Some(_) | None => return Ok(services),
            }
        }
    }
}

async fn limited<T>(what: &str, question: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
    let error = match tokio::time::timeout(LIMIT, question).await {
        Ok(Ok(answer)) => return Ok(answer),
        Ok(Err(error)) => error,
        Err(_) => return Err(format!("cannot list {what}: no answer within {} s", LIMIT.as_secs())),
    };
    let kube::Error::Api(status) = &error else {
        let cure = "is it up, may it be reached from here, and are its certificates those of the kubeconfig?";
        return Err(format!("cannot ask the API server: {}; {cure}", chain(&error)));
    };
    let cure = match status.code {
        401 => "the token is not accepted: is it the right kubeconfig, or the service account still there?".to_owned(),
        403 => format!("allow the verb list of {what}"),
        404 => "its definition is not installed: is the chart, with crds.install? Else `kubectl apply -f deploy/crds`"
            .to_owned(),
        410 => "it has changed too fast to be read in pages: try again".to_owned(),
        _ => "see the API server's log".to_owned(),
    };
    Err(format!("cannot list {what}: {} ({}); {cure}", status.message, status.code))
}
