//! Guenon's agent and command line, as a library so that tests, the benchmark and the simulator use the
//! same parts.
//!
//! The way of a change: source -> [`convert`] -> [`index`] -> [`resolve`] -> [`plan`] -> [`apply`] -> report.

pub mod apply;
pub mod convert;
pub mod datapath;
pub mod model;
pub mod source;
