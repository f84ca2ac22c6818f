//! The objects, and how they get into the server: by requests of our own, many at a time.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::Client;
use kube::api::PostParams;
use kube::core::Request;
use serde_json::{Value, json};

/// Where they are.
pub(super) const NAMESPACE: &str = "bench";
pub(super) const SERVICES: &str = "/api/v1/namespaces/bench/services";
pub(super) const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/bench/endpointslices";
pub(super) const VIRTUAL_SERVICES: &str = "/apis/guenon.dev/v1alpha1/namespaces/bench/virtualservices";
/// Requests under way at a time.
const AT_A_TIME: usize = 32;

/// How many there are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// Headless Services, each with a slice and a VirtualService.
    pub(crate) services: u32,
    /// Of each.
    pub(crate) endpoints: u32,
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} services x {} endpoints", self.services, self.endpoints)
    }
}

impl Size {
    /// An address of its own for each endpoint; those of services beyond the last are for changes.
    pub(super) fn endpoint(self, service: u32, number: u32) -> IpAddr {
        Ipv4Addr::from(u32::from(Ipv4Addr::new(172, 18, 0, 0)) + service * self.endpoints + number).into()
    }

    /// The endpoints of a slice, as the API has them; the last one's address may be another.
    pub(super) fn endpoints(self, service: u32, last: Option<IpAddr>) -> Value {
        let mut addresses: Vec<IpAddr> = (0..self.endpoints).map(|number| self.endpoint(service, number)).collect();
        if let (Some(at), Some(last)) = (addresses.last_mut(), last) {
            *at = last;
        }
        let of = |address: IpAddr| json!({"addresses": [address], "conditions": {"ready": true, "serving": true}});
        addresses.into_iter().map(of).collect()
    }
}

/// Makes all of them, and the Secret with the hash key.
pub(super) async fn load(client: &Client, size: Size, guenon: &str, hash_key: &str) -> anyhow::Result<()> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    let key = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": hash_key}, "immutable": true,
        "stringData": {"key": "sixteen octets!!"},
    });
    create(client, "/api/v1/namespaces", [namespace]).await?;
    create(client, &format!("/api/v1/namespaces/{guenon}/secrets"), [key]).await?;
    create(client, SERVICES, (0..size.services).map(service)).await?;
    create(client, SLICES, (0..size.services).map(|number| slice(size, number))).await?;
    create(client, VIRTUAL_SERVICES, (0..size.services).map(virtual_service)).await
}

/// Makes these.
pub(super) async fn create(
    client: &Client,
    path: &str,
    objects: impl IntoIterator<Item = Value>,
) -> anyhow::Result<()> {
    let request = Request::new(path);
    let create = |object: Value| {
        let request = request.create(&PostParams::default(), object.to_string().into_bytes());
        async move { client.request_text(request?).await.with_context(|| format!("cannot create in {path}")) }
    };
    stream::iter(objects).map(create).buffer_unordered(AT_A_TIME).try_for_each(|_| std::future::ready(Ok(()))).await
}

/// Without a cluster address and without a selector.
fn service(number: u32) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": format!("s{number}"), "namespace": NAMESPACE, "labels": {"app": format!("s{number}")}},
        "spec": {"clusterIP": "None", "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 80}]},
    })
}

fn slice(size: Size, number: u32) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": format!("s{number}-1"),
            "namespace": NAMESPACE,
            "labels": {
                "kubernetes.io/service-name": format!("s{number}"),
                "endpointslice.kubernetes.io/managed-by": "bench.guenon.dev",
            },
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "protocol": "TCP", "port": 80}],
        "endpoints": size.endpoints(number, None),
    })
}

/// Nobody has written its status yet.
pub(super) fn virtual_service(number: u32) -> Value {
    let vip = Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 0)) + number);
    json!({
        "apiVersion": "guenon.dev/v1alpha1",
        "kind": "VirtualService",
        "metadata": {"name": format!("s{number}")},
        "spec": {
            "addresses": [vip],
            "ports": [{"name": "http", "protocol": "TCP", "port": 80}],
            "backendRefs": [{"kind": "Service", "name": format!("s{number}")}],
        },
    })
}
