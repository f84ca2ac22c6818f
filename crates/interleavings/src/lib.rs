//! The very table writer and readers of `guenon-controller`, compiled from the same files, with loom's atomics in the
//! place of the processor's: `tests/` runs them under every interleaving and every reordering that the
//! memory model allows.
//!
//! A crate of its own, since the agent's other dependencies have no place in a model.

#[path = "../../controller/src/apply.rs"]
pub mod apply;
pub mod datapath;
#[path = "../../controller/src/model/mod.rs"]
pub mod model;
