//! `guenon controller`: the cluster's one writer of status. All replicas watch, the elected one writes.
//!
//! What the objects say of a VirtualService ([`crate::resolve::judge`]) and what the agents say of their nodes (their
//! GuenonNodes, as long as their Leases are renewed) make up its conditions (`conditions`). Everything that is decided
//! is decided without I/O; `controller` composes.

mod book;
mod conditions;
mod controller;
mod desk;
mod directors;
mod election;
mod events;
mod leadership;
mod run;
mod tally;
#[cfg(test)]
mod tests;

pub(crate) use election::LASTS as LEASE_LASTS;
pub(crate) use leadership::NAME as LEASE;
pub use run::{ControllerConfig, run};
