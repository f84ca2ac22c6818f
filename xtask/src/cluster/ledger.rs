//! The ledger of every node's agent, as the live tests judge it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};

use super::layout::Node;
use super::{Cluster, eventually};
use crate::live::ledger::judge;
use crate::topology::metrics::sums;

/// An error unless every node's ledger comes to balance.
pub(super) fn balanced(cluster: &Cluster) -> Result<()> {
    for node in Node::ALL {
        eventually(Duration::from_secs(5), || judge(&cluster.metrics(node)?))
            .with_context(|| format!("the ledger of {} does not balance", node.name()))?;
    }
    Ok(())
}

/// Drops by node and reason.
#[derive(Clone, Debug, Default)]
pub(super) struct Drops(BTreeMap<(Node, String), f64>);

impl Drops {
    /// What nodes' agents count now; those that do not answer count nothing.
    pub(super) fn now(cluster: &Cluster) -> Self {
        let mut drops = BTreeMap::new();
        for node in Node::ALL {
            let reasons = cluster.metrics(node).map(|samples| sums(&samples, "guenon_drops_total", "reason"));
            drops.extend(reasons.unwrap_or_default().into_iter().map(|(reason, count)| ((node, reason), count)));
        }
        Self(drops)
    }

    /// What has come since then, in words. A node that was away has counted from 0.
    pub(super) fn since(&self, before: &Self) -> String {
        let grown = self.0.iter().filter_map(|(key, &count)| {
            let old = before.0.get(key).copied().unwrap_or(0.0);
            let grown = if count < old { count } else { count - old };
            (grown > 0.0).then(|| format!("{} {} {grown}", key.0.name(), key.1))
        });
        let grown: Vec<String> = grown.collect();
        if grown.is_empty() { "no drops".to_owned() } else { format!("drops: {}", grown.join(", ")) }
    }
}
