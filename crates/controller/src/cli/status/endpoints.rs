use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Serialize;

use super::InForce;
use super::format::{self, Style, Tone, number, plain};
use crate::model::{LocalDelivery, NextHopKey, NextHopState, Path, Protocol, ServiceName};

/// An endpoint of a service and the way to it.
#[derive(Debug, Serialize)]
pub(super) struct Endpoint {
    pub(super) service: String,
    pub(super) endpoint: IpAddr,
    /// `tunnel`, `local`, `veth`, `nat`, `undeliverable`, `unreachable`.
    pub(super) path: &'static str,
    /// `Local`, `Veth` or `Nat`, for an endpoint of this node of which an agent has told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) delivery: Option<String>,
    /// Why it has that delivery.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) why: Option<String>,
    /// Where it listens, by the port and protocol that clients dial, for `nat`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) target_ports: BTreeMap<String, u16>,
    /// The tunnel address, for `tunnel` and `unreachable`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tunnel: Option<IpAddr>,
    /// The gateway, or the tunnel address itself where it is on-link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next_hop: Option<IpAddr>,
    /// The interface it leaves by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) interface: Option<String>,
    /// MAC that frames for it carry; absent = not resolved, or not needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mac: Option<String>,
    /// Share of the service's rows that name it as primary, 0 to 1.
    pub(super) share: f64,
    /// Packets sent or delivered to it.
    pub(super) packets: u64,
    /// What keeps packets from it, by the name of the drop reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fault: Option<&'static str>,
}

pub(super) fn list(in_force: &InForce) -> Vec<Endpoint> {
    let counted: BTreeMap<(&ServiceName, IpAddr), u64> = (in_force.reading.endpoints.iter())
        .map(|reading| ((&reading.service, reading.address), reading.counter.packets))
        .collect();
    let mut list = Vec::new();
    let told = in_force.agent.as_ref().map(|agent| &agent.deliveries);
    for (name, service) in &in_force.state.services {
        let told = told.and_then(|told| told.get(&name.to_string()));
        let mut primaries = vec![0_u32; service.endpoints.len()];
        for row in service.rows.iter() {
            if let Some(count) = primaries.get_mut(usize::from(row.primary())) {
                *count += 1;
            }
        }
        for (endpoint, rows) in service.endpoints.iter().zip(primaries) {
            let mut shown = way(&endpoint.path, &in_force.state.next_hops);
            if let (Path::Local(_), Some(told)) = (&endpoint.path, told.and_then(|told| told.get(&endpoint.address))) {
                (shown.delivery, shown.why) = (Some(told.delivery.clone()), Some(told.why.clone()));
            }
            shown.service = name.to_string();
            shown.endpoint = endpoint.address;
            shown.share = if rows == 0 { 0.0 } else { f64::from(rows) / service.rows.len() as f64 };
            shown.packets = counted.get(&(name, endpoint.address)).copied().unwrap_or(0);
            list.push(shown);
        }
    }
    list
}

/// The way to an endpoint; who it is, is left to fill in.
fn way(path: &Path, next_hops: &BTreeMap<NextHopKey, NextHopState>) -> Endpoint {
    let nowhere = Endpoint {
        service: String::new(),
        endpoint: IpAddr::from([0; 4]),
        path: "undeliverable",
        delivery: None,
        why: None,
        target_ports: BTreeMap::new(),
        tunnel: None,
        next_hop: None,
        interface: None,
        mac: None,
        share: 0.0,
        packets: 0,
        fault: None,
    };
    match path {
        Path::Tunnel { source: _, destination, next_hop } => {
            let mac = next_hops.get(next_hop).and_then(|state| state.mac);
            Endpoint {
                path: "tunnel",
                tunnel: Some(*destination),
                next_hop: Some(next_hop.gateway),
                interface: Some(next_hop.interface.clone()),
                mac: mac.map(|mac| mac.to_string()),
                fault: mac.is_none().then_some("no_neighbour"),
                ..nowhere
            }
        }
        Path::Local(LocalDelivery::Local) => Endpoint { path: "local", ..nowhere },
        Path::Local(LocalDelivery::Veth { ifindex: _, mac, mtu: _ }) => Endpoint {
            path: "veth",
            mac: mac.map(|mac| mac.to_string()),
            fault: mac.is_none().then_some("no_neighbour"),
            ..nowhere
        },
        Path::Local(LocalDelivery::Nat { ports }) => {
            let shown =
                |((protocol, port), listens): (&(Protocol, u16), &u16)| (format!("{port}/{protocol}"), *listens);
            Endpoint { path: "nat", target_ports: ports.iter().map(shown).collect(), ..nowhere }
        }
        Path::Local(LocalDelivery::None) => Endpoint { fault: Some("no_delivery"), ..nowhere },
        Path::Unreachable { destination } => {
            Endpoint { path: "unreachable", tunnel: Some(*destination), fault: Some("no_route"), ..nowhere }
        }
    }
}

/// `tunnel`, `nat :8080`, `nat :5353 :8080`.
fn path_shown(endpoint: &Endpoint) -> String {
    let ports: BTreeSet<u16> = endpoint.target_ports.values().copied().collect();
    ports.iter().fold(endpoint.path.to_owned(), |shown, port| format!("{shown} :{port}"))
}

pub(super) fn table(list: &[Endpoint], style: Style) -> String {
    if list.is_empty() {
        return "No endpoint is in force.".to_owned();
    }
    let headings =
        ["SERVICE", "ENDPOINT", "PATH", "WHY", "TUNNEL", "NEXT HOP", "MAC", "SHARE", "PACKETS", "DROPPED AS"];
    let shown = |address: Option<IpAddr>| address.map_or_else(|| "-".to_owned(), |address| address.to_string());
    let rows = list.iter().map(|endpoint| {
        let next_hop = match &endpoint.interface {
            Some(interface) => format!("{} on {interface}", shown(endpoint.next_hop)),
            None => "-".to_owned(),
        };
        vec![
            plain(&endpoint.service),
            plain(endpoint.endpoint.to_string()),
            plain(path_shown(endpoint)),
            plain(endpoint.why.as_deref().unwrap_or("-")),
            plain(shown(endpoint.tunnel)),
            plain(next_hop),
            plain(endpoint.mac.clone().unwrap_or_else(|| "-".to_owned())),
            plain(format!("{:.2} %", endpoint.share * 100.0)).set_alignment(comfy_table::CellAlignment::Right),
            number(endpoint.packets),
            format::text(
                endpoint.fault.unwrap_or("-"),
                if endpoint.fault.is_some() { Tone::Bad } else { Tone::Plain },
                style,
            ),
        ]
    });
    format::table(&headings, rows, style)
}
