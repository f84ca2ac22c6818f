use std::net::IpAddr;

use serde::Serialize;

use super::InForce;
use super::format::{self, Style, number, plain};

/// The rows of one endpoint in its service's forwarding table.
#[derive(Debug, Serialize)]
pub(super) struct Rows {
    pub(super) service: String,
    /// Rows of the table.
    pub(super) rows: usize,
    /// A number that is equal on two nodes exactly where their tables name the same endpoints in every row.
    pub(super) fingerprint: String,
    pub(super) endpoint: IpAddr,
    /// Rows that name the endpoint first.
    pub(super) primary: u64,
    /// Rows that name it second (and another one first).
    pub(super) secondary: u64,
}

pub(super) fn list(in_force: &InForce) -> Vec<Rows> {
    let mut list = Vec::new();
    for (name, service) in &in_force.state.services {
        let mut counts = vec![(0, 0); service.endpoints.len()];
        let mut fingerprint = Fingerprint::new();
        for row in service.rows.iter() {
            let (primary, secondary) = (usize::from(row.primary()), usize::from(row.secondary()));
            if let Some((first, _)) = counts.get_mut(primary) {
                *first += 1;
            }
            if let Some((_, second)) = counts.get_mut(secondary).filter(|_| primary != secondary) {
                *second += 1;
            }
            fingerprint.add(service.endpoints.get(primary).map(|endpoint| endpoint.address));
            fingerprint.add(service.endpoints.get(secondary).map(|endpoint| endpoint.address));
        }
        for (endpoint, (primary, secondary)) in service.endpoints.iter().zip(counts) {
            list.push(Rows {
                service: name.to_string(),
                rows: service.rows.len(),
                fingerprint: fingerprint.to_string(),
                endpoint: endpoint.address,
                primary,
                secondary,
            });
        }
    }
    list
}

/// FNV-1a (64 bits) over the addresses that the rows name, in order.
struct Fingerprint(u64);

impl Fingerprint {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, address: Option<IpAddr>) {
        let bytes = match address {
            Some(IpAddr::V4(v4)) => v4.to_ipv6_mapped().octets(),
            Some(IpAddr::V6(v6)) => v6.octets(),
            None => [0; 16],
        };
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

pub(super) fn table(list: &[Rows], style: Style) -> String {
    if list.is_empty() {
        return "No service has rows: nothing is forwarded.".to_owned();
    }
    let headings = ["SERVICE", "ROWS", "TABLE", "ENDPOINT", "PRIMARY", "SECONDARY"];
    let rows = list.iter().map(|rows| {
        vec![
            plain(&rows.service),
            number(rows.rows as u64),
            plain(&rows.fingerprint),
            plain(rows.endpoint.to_string()),
            number(rows.primary),
            number(rows.secondary),
        ]
    });
    format::table(&headings, rows, style)
}
