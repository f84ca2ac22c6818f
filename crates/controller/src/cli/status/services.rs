use serde::Serialize;

use super::InForce;
use super::format::{self, Style, Tone, number, plain};
use crate::model::{Frontend, ServiceName};
use crate::reading::FrontendReading;

/// A frontend of a service and what was counted for it.
#[derive(Debug, Serialize)]
pub(super) struct Service {
    pub(super) service: String,
    pub(super) frontend: String,
    /// Endpoints of the service.
    pub(super) endpoints: usize,
    /// Rows of the service's forwarding table; 0 = its packets are dropped as `no_backend`.
    pub(super) rows: usize,
    /// `None` or `ClientIP`.
    pub(super) affinity: &'static str,
    /// Packets that the director role took.
    pub(super) directed: u64,
    /// Packets that the decap role delivered.
    pub(super) delivered: u64,
    /// Packets that either role dropped.
    pub(super) dropped: u64,
}

pub(super) fn list(in_force: &InForce) -> Vec<Service> {
    let counted: std::collections::BTreeMap<Frontend, &FrontendReading> =
        in_force.reading.frontends.iter().map(|reading| (reading.frontend, reading)).collect();
    let frontends = in_force
        .state
        .services
        .iter()
        .flat_map(|(name, service)| service.frontends.iter().map(move |frontend| (name, service, frontend)));
    frontends
        .map(|(name, service, frontend): (&ServiceName, _, _)| {
            let counters = counted.get(frontend).map(|reading| reading.counters).unwrap_or_default();
            Service {
                service: name.to_string(),
                frontend: frontend.to_string(),
                endpoints: service.endpoints.len(),
                rows: service.rows.len(),
                affinity: if service.client_ip { "ClientIP" } else { "None" },
                directed: counters.directed.packets,
                delivered: counters.delivered,
                dropped: counters.dropped,
            }
        })
        .collect()
}

pub(super) fn table(list: &[Service], style: Style) -> String {
    if list.is_empty() {
        return "No service is in force.".to_owned();
    }
    let headings = ["SERVICE", "FRONTEND", "ENDPOINTS", "ROWS", "AFFINITY", "DIRECTED", "DELIVERED", "DROPPED"];
    let rows = list.iter().map(|service| {
        let rows = format::text(
            format::grouped(service.rows as u64),
            if service.rows == 0 { Tone::Bad } else { Tone::Plain },
            style,
        );
        vec![
            plain(&service.service),
            plain(&service.frontend),
            number(service.endpoints as u64),
            rows.set_alignment(comfy_table::CellAlignment::Right),
            plain(service.affinity),
            number(service.directed),
            number(service.delivered),
            number(service.dropped),
        ]
    });
    format::table(&headings, rows, style)
}
