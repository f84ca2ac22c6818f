//! What must be set on the node itself for packets to get through: addresses on the loopback, sysctls,
//! programs at the far ends of veths. Each lesson behind it is told where it is handled.
//!
//! [`NodeSetup`] says what is wanted, [`steps`] (pure) what is to do about it, [`NodeKeeper`] does it, and
//! remembers in the state directory what it must undo: recorded first, done then.

mod far_end;
mod io;
mod keeper;
mod offload;
mod plan;
mod record;
mod setup;
mod sys;
#[cfg(test)]
mod tests;

pub use far_end::{FarEnds, observe_far_ends};
pub use keeper::{NodeError, NodeKeeper, Permission};
pub use offload::offload_problems;
pub use plan::{Observed, Step, steps};
pub use record::{Owned, Record};
pub use setup::{Duties, Family, NodeSetup, Sysctl, Wish};
pub use sys::{OffloadError, tx_checksum};
