//! The ledger of every node's agent, as the live tests judge it.

use std::time::Duration;

use anyhow::{Context, Result};

use super::layout::Node;
use super::{Cluster, eventually};
use crate::live::ledger::judge;

/// An error unless every node's ledger comes to balance.
pub(super) fn balanced(cluster: &Cluster) -> Result<()> {
    for node in Node::ALL {
        eventually(Duration::from_secs(5), || judge(&cluster.metrics(node)?))
            .with_context(|| format!("the ledger of {} does not balance", node.name()))?;
    }
    Ok(())
}
