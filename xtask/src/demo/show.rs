//! Tables of what happened.

use anyhow::Result;

use super::traffic::Answers;
use crate::progress::table;
use crate::topology::Topology;
use crate::topology::layout::Host;
use crate::topology::metrics::sums;

/// Who answered.
pub(crate) fn answers(all: &[Answers], names: &[&str]) -> String {
    let mut header = vec!["", "answered"];
    header.extend(names);
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|answers| {
            let by = names.iter().map(|name| answers.by.get(*name).copied().unwrap_or(0).to_string());
            let mut row = vec![answers.kind.clone(), format!("{} of {}", answers.answered(), answers.asked)];
            row.extend(by);
            row
        })
        .collect();
    format!("\nWho answered\n{}\n", table(&header, &rows))
}

/// What each node's program counted, from its agent's metrics.
pub(super) fn counters(topology: &Topology) -> Result<String> {
    let mut rows = Vec::new();
    for host in Host::NODES {
        let samples = topology.metrics(host)?;
        let mut add = |kind: &str, name: &str, label: &str| {
            for (what, count) in sums(&samples, name, label) {
                if count > 0.0 {
                    rows.push(vec![host.name().to_owned(), kind.to_owned(), what, count.to_string()]);
                }
            }
        };
        add("verdict", "guenon_packets_total", "verdict");
        add("event", "guenon_events_total", "event");
        add("drop", "guenon_drops_total", "reason");
    }
    Ok(format!("What each program counted\n{}\n", table(&["node", "", "", "packets"], &rows)))
}
