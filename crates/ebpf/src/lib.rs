//! Guenon's data path as a pure library: what the XDP program, the agent and the simulator share.
//!
//! Nothing here allocates, does I/O or knows of a kernel; the same code runs in the XDP program
//! (`src/bin/guenon-xdp`), in the agent and in host tests.
//!
//! | module | subject |
//! |---|---|
//! | [`abi`] | the layout of every map, shared by both sides |
//! | [`reason`] | why packets are dropped: name, cause, cure |
//! | [`hash`] | the keyed flow hash that picks rows |
//! | [`probe`] | open-addressed lookup that insertions and deletions never disturb |
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod abi;
pub mod hash;
pub mod probe;
pub mod reason;
