//! The atomics that the tables are made of. One name for them, so that `crates/interleavings` can run
//! the very same writer and readers under every interleaving with another implementation.

pub use std::sync::atomic::{AtomicU64, Ordering};
