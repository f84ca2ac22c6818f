//! Grafana's dashboards: made here, committed in deploy/grafana and in the chart, tried on a real Prometheus.

mod board;
mod live;
mod node;
mod overview;
mod panel;
pub(crate) mod queries;
mod schema;
mod service;

use anyhow::{Context, Result};

use crate::test::{Count, count};
use board::Board;

/// Where they are committed: for people without the chart, and what the chart makes ConfigMaps of.
pub(crate) const COMMITTED: [&str; 2] = ["deploy/grafana", "deploy/helm/guenon/files/dashboards"];

/// `cargo xtask test --only dashboards`
pub(crate) fn test() -> Result<Count> {
    Ok(count("Grafana's schema has no complaint", schema::test) + live::test()?)
}

fn boards() -> [Board; 3] {
    [overview::board(), service::board(), node::board()]
}

/// What should be committed: names from the root of the clone, and contents.
pub(crate) fn files() -> Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    for board in boards() {
        let name = format!("{}.json", board.uid);
        let text = serde_json::to_string_pretty(&board.json()).context("a dashboard is no JSON")? + "\n";
        files.extend(COMMITTED.map(|directory| (format!("{directory}/{name}"), text.clone())));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_panel_has_a_name_a_description_and_a_place_of_its_own() {
        for board in boards() {
            let json = board.json();
            let panels = json["panels"].as_array().expect("panels").clone();
            let mut taken = std::collections::BTreeSet::new();
            for panel in &panels {
                assert!(!panel["title"].as_str().expect("a title").is_empty());
                if panel["type"] != "row" {
                    assert!(panel["description"].as_str().expect("a description").ends_with('.'), "{}", panel["title"]);
                }
                let at = |key: &str| panel["gridPos"][key].as_u64().expect("a place");
                assert!(at("x") + at("w") <= 24, "{} leaves the page", panel["title"]);
                for (x, y) in (0..at("w")).flat_map(|x| (0..at("h")).map(move |y| (x, y))) {
                    assert!(taken.insert((at("x") + x, at("y") + y)), "{} lies on another panel", panel["title"]);
                }
            }
            let ids: std::collections::BTreeSet<u64> = panels.iter().map(|p| p["id"].as_u64().expect("id")).collect();
            assert_eq!(ids.len(), panels.len());
        }
    }
}
