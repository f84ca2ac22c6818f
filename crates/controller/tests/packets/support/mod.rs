//! Builders, tables and readers that all subjects share.

pub mod bed;
pub mod cpu;
pub mod expect;
pub mod frame;
pub mod guest;
pub mod headless;
pub mod lab;
pub mod mutate;
pub mod nat;
pub mod noise;
pub mod packet;
pub mod read;
pub mod rng;
pub mod segment;
pub mod tunnel;
