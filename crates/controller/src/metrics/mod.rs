//! Prometheus metrics. What the data path counts is read from the maps at scrape; what the agent does is counted by it.

mod agent;
mod collector;
mod controller;
mod definition;
mod reference;

pub use agent::AgentMetrics;
pub use collector::{DataPathCollector, ReadMaps};
pub use controller::ControllerMetrics;
pub use definition::{ALL, CONTROLLER, Definition, Detail, Kind};
pub use reference::{drop_reasons_reference, metrics_reference};
