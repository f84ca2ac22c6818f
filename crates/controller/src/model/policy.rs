use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Node, Role, Selector};

/// What a cluster's operator has decided, the same for every agent and controller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Where VIPs may come from; empty = anywhere.
    pub vip_ranges: Vec<IpNet>,
    /// Nodes that are directors.
    pub directors: Selector,
}

impl Policy {
    /// Whether this may be a VIP.
    #[must_use]
    pub fn allows(&self, vip: IpAddr) -> bool {
        self.vip_ranges.is_empty() || self.vip_ranges.iter().any(|range| range.contains(&vip))
    }

    /// What a node with these labels does; `None`: nothing is known of it.
    #[must_use]
    pub fn roles(&self, labels: Option<&BTreeMap<String, String>>) -> Vec<Role> {
        let is_director = match labels {
            Some(labels) => self.directors.matches(labels),
            None => self.directors.is_everything(),
        };
        if is_director { vec![Role::Director, Role::Decap] } else { vec![Role::Decap] }
    }

    /// Whether this node is a director.
    #[must_use]
    pub fn is_director(&self, node: &Node) -> bool {
        self.directors.matches(&node.labels)
    }
}
