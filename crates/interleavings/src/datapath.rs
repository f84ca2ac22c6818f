//! The part of the data path that is modelled.

#[path = "../../controller/src/datapath/tables/mod.rs"]
pub mod tables;

/// Loom's atomics.
pub mod atomic {
    pub use loom::sync::atomic::{AtomicU64, Ordering};
}
