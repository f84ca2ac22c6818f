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
//! | [`packet`], [`headers`], [`parse`] | what a packet is |
//! | [`gue`], [`outer`], [`tunnel`], [`ecn`], [`checksum`] | the tunnel |
//! | [`flow`], [`nat`], [`place`] | delivery `Nat`: flows of endpoints, rewriting |
//! | [`fragment`], [`limiter`] | the small memory of slow paths |
//! | [`answer`] | ICMP answers |
//! | [`verdict`] | what becomes of a packet |
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod abi;
pub mod answer;
pub mod checksum;
pub mod ecn;
pub mod flow;
pub mod fragment;
pub mod gue;
pub mod hash;
pub mod headers;
pub mod limiter;
pub mod nat;
pub mod outer;
pub mod packet;
pub mod parse;
pub mod place;
pub mod probe;
pub mod reason;
pub mod tunnel;
pub mod verdict;
