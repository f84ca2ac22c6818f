//! Which route the kernel would take. Pure.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

use super::tables::{Route, RouteKind, Rule, Tables};

/// The routes of [`Tables`], ready for lookups: one step per prefix length in use.
#[derive(Debug)]
pub(super) struct RouteIndex<'a> {
    /// In the order of lookups.
    tables: Vec<TableIndex<'a>>,
}

#[derive(Debug)]
struct TableIndex<'a> {
    v6: bool,
    by_prefix: HashMap<IpNet, &'a Route>,
    /// Longest first.
    lengths: Vec<u8>,
}

impl<'a> RouteIndex<'a> {
    pub(super) fn new(tables: &'a Tables) -> Self {
        Self { tables: tables.rules.iter().map(|rule| TableIndex::new(rule, &tables.routes)).collect() }
    }

    /// The route to an address: the longest prefix of the first table that has one.
    pub(super) fn lookup(&self, to: IpAddr) -> Option<&'a Route> {
        self.tables
            .iter()
            .filter_map(|table| table.longest(IpNet::from(to)))
            .find(|route| route.kind != RouteKind::Throw)
    }

    /// All routes that some packet would take, so that the longest prefix among them decides.
    pub(super) fn all(&self) -> Vec<&'a Route> {
        let mut visible = Vec::new();
        for (position, table) in self.tables.iter().enumerate() {
            let hidden = |route: &Route| {
                self.tables[..position]
                    .iter()
                    .filter_map(|earlier| earlier.longest(route.to))
                    .any(|earlier| earlier.kind != RouteKind::Throw)
            };
            visible.extend(
                table.by_prefix.values().copied().filter(|route| route.kind != RouteKind::Throw && !hidden(route)),
            );
        }
        visible
    }
}

impl<'a> TableIndex<'a> {
    fn new(rule: &Rule, routes: &'a [Route]) -> Self {
        let counts = |route: &&Route| {
            let of_rule = route.table == rule.table && matches!(route.to, IpNet::V6(_)) == rule.v6;
            of_rule && rule.suppress_prefix_length.is_none_or(|limit| u32::from(route.to.prefix_len()) > limit)
        };
        let mut by_prefix: HashMap<IpNet, &Route> = HashMap::new();
        for route in routes.iter().filter(counts) {
            by_prefix
                .entry(route.to.trunc())
                // Of equal metrics the kernel's first stays.
                .and_modify(|best| {
                    if route.metric < best.metric {
                        *best = route;
                    }
                })
                .or_insert(route);
        }
        let lengths: BTreeSet<u8> = by_prefix.keys().map(IpNet::prefix_len).collect();
        Self { v6: rule.v6, by_prefix, lengths: lengths.into_iter().rev().collect() }
    }

    /// The longest prefix that holds all of `net`.
    fn longest(&self, net: IpNet) -> Option<&'a Route> {
        if matches!(net, IpNet::V6(_)) != self.v6 {
            return None;
        }
        self.lengths.iter().filter(|length| **length <= net.prefix_len()).find_map(|length| {
            let prefix = IpNet::new(net.addr(), *length).ok()?.trunc();
            self.by_prefix.get(&prefix).copied()
        })
    }
}
