//! The last step of a change: executes a plan on the data path.

use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{NextHopKey, NextHopState, ServiceName, ServiceState, State};

/// One step of a plan. Each is whole: it comes into force completely or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Accept GUE on this address.
    PutTunnel(IpAddr),
    /// No longer accept GUE on this address.
    RemoveTunnel(IpAddr),
    /// Accept GUE from this address.
    PutDirector(IpAddr),
    /// No longer accept GUE from this address.
    RemoveDirector(IpAddr),
    /// Add or change a next hop.
    PutNextHop(NextHopKey, NextHopState),
    /// Remove a next hop that no endpoint uses any more.
    RemoveNextHop(NextHopKey),
    /// Add or change a service: its endpoints, rows, frontends and local deliveries. Frontends that
    /// another service held are taken over with no gap.
    PutService(ServiceName, Arc<ServiceState>),
    /// Remove a service and the frontends that it still holds.
    RemoveService(ServiceName),
    /// Say whether a VIP is configured on this node too. A VIP that is not there is no error.
    SetOnNode(IpAddr, bool),
}

/// Why an operation was not carried out. What was in force still is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A map has no room for it.
    #[error(
        "no room in {map}: {needed} more of {capacity} needed, {free} free; \
         raise its capacity with {flag}, or remove services"
    )]
    Full {
        /// Name of the map.
        map: &'static str,
        /// Elements that the operation needs.
        needed: usize,
        /// Elements that are free.
        free: usize,
        /// Elements in all.
        capacity: usize,
        /// The flag of `guenon agent` that sets the capacity.
        flag: &'static str,
    },
    /// The operation contradicts what the data path holds: a defect in Guenon.
    #[error("cannot {0}; this is a defect in Guenon, please report it")]
    Inconsistent(String),
}

/// Where plans are executed: BPF maps, or memory. One writer.
pub trait DataPath {
    /// What is in force, read back.
    fn observe(&self) -> State;

    /// Carries out one operation.
    ///
    /// # Errors
    ///
    /// [`Refusal`]: nothing has changed.
    fn execute(&mut self, operation: &Operation) -> Result<(), Refusal>;

    /// Ends a batch of operations: counts the revision up and returns it.
    fn commit(&mut self) -> u64;
}
