//! The data path seen from the agent: the only place that touches BPF.
//!
//! | module | subject |
//! |---|---|
//! | [`object`] | the compiled XDP programs |
//! | [`tables`] | the writer and the readers of the tables, over words of memory |
//! | [`memory`] | the tables in ordinary memory: tests, planning without a kernel |
//! | [`private`] | the program on maps of its own: the simulator, tests |
//! | [`Kernel`] | the tables in pinned maps, programs and links: what an agent holds |
//! | [`Reader`] | the same for reading: `guenon status`, metrics |

pub mod atomic;
mod attach;
mod bases;
mod change_over;
mod counters;
mod detach;
mod egress;
#[cfg(test)]
mod egress_tests;
mod error;
mod events;
mod flows;
mod grace_period;
mod hairpins;
mod interfaces;
mod kernel;
#[cfg(test)]
mod kernel_tests;
mod maps;
pub mod memory;
pub mod object;
pub mod pass;
mod pins;
mod preflight;
pub mod private;
mod program;
mod reader;
mod sys;
pub mod tables;
#[cfg(test)]
mod tables_tests;

pub use counters::Extent;
pub use detach::{Detached, detach_all};
pub use egress::EgressTrouble;
pub use error::DataPathError;
pub use events::{Events, TunnelTooBig};
pub use kernel::{AttachMode, EgressHook, Kernel, Options};
pub use maps::Mapped;
pub use pins::lock_holder;
pub use reader::Reader;
