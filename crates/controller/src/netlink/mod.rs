//! What the kernel knows of links, addresses, routes and neighbours. The only place that touches netlink.
//!
//! [`Tables`] are plain copies of the kernel's tables, [`compose`] (pure) makes a
//! [`NodeView`](crate::model::NodeView) of them, [`Monitor`] keeps both current and asks for neighbours
//! that are wanted and not resolved.

#![expect(clippy::wildcard_enum_match_arm, reason = "netlink's enums are another crate's and open-ended")]

mod ask;
mod compose;
mod connection;
pub mod filters;
mod hairpins;
mod kernel;
mod monitor;
mod namespace;
mod parse;
mod read;
mod routes;
mod tables;
#[cfg(test)]
pub(crate) mod tests;

pub use ask::{Ask, Asker};
pub use compose::{
    Composition, Interest, InterfaceError, NeighbourKey, ViewOptions, choose_interfaces, compose, default_interface,
    default_tunnels,
};
pub use connection::{Connection, NetlinkError};
pub use hairpins::{Hairpins, hairpins};
pub use monitor::{Monitor, MonitorCounters};
pub use namespace::{NamespaceError, Namespaces, Peer, inside};
pub use read::{read, read_addresses, read_links};
pub use tables::{Address, Link, Neighbour, NeighbourState, Route, RouteKind, Rule, Tables, VlanTag};
