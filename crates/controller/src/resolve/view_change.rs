use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::routes::is_single;
use crate::model::{Mac, NextHopView, NodeView};

/// How much of what was resolved a new view touches.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ViewChange {
    /// It is the same view.
    None,
    /// Nothing but what is known of these neighbours.
    Neighbours(BTreeSet<IpAddr>),
    /// Anything.
    All,
}

impl ViewChange {
    pub(super) fn between(old: Option<&NodeView>, new: &NodeView) -> Self {
        let Some(old) = old else { return Self::All };
        if old == new {
            return Self::None;
        }
        let NodeView { node, roles, tunnel, interfaces, next_hops, attached } = new;
        let same = (&old.node, &old.roles, &old.tunnel, &old.interfaces) == (node, roles, tunnel, interfaces);
        if !same || old.attached != *attached || !routes(&old.next_hops).eq(routes(next_hops)) {
            return Self::All;
        }
        let (before, after) = (neighbours(&old.next_hops), neighbours(next_hops));
        let of_either = before.keys().chain(after.keys());
        let differs = of_either.filter(|key| before.get(*key) != after.get(*key));
        Self::Neighbours(differs.map(|(address, _)| *address).collect())
    }
}

/// Entries that decide where packets go, without the MACs.
fn routes(entries: &[NextHopView]) -> impl Iterator<Item = NextHopView> {
    entries.iter().filter(|entry| !is_single(entry)).map(|entry| NextHopView { mac: None, ..entry.clone() })
}

/// What is known of neighbours and gateways: MAC and MTU.
fn neighbours(entries: &[NextHopView]) -> BTreeMap<(IpAddr, &str), (Option<Mac>, u32)> {
    let of_entry = |entry: &NextHopView| entry.via.or_else(|| is_single(entry).then(|| entry.to.addr()));
    let neighbours = entries.iter().filter_map(|entry| Some((of_entry(entry)?, entry)));
    neighbours.map(|(address, entry)| ((address, entry.interface.as_str()), (entry.mac, entry.mtu))).collect()
}
