//! Guenon's agent and command line, as a library so that tests, the benchmark and the simulator use the
//! same parts.
//!
//! The way of a change: source -> [`convert`] -> [`index`] -> [`resolve`] -> [`plan`] -> [`apply`] -> report.

pub mod agent_report;
pub mod apply;
pub mod cli;
pub mod convert;
pub mod datapath;
pub mod files;
#[cfg(test)]
mod fixtures;
pub mod http;
pub mod index;
pub mod kernel_drops;
pub mod kube;
pub mod logging;
pub mod metrics;
pub mod model;
pub mod netlink;
pub mod node;
mod parallel;
pub mod plan;
pub mod reading;
pub mod resolve;
pub mod run;
pub mod simulate;
pub mod source;
pub mod status;
pub mod table;
