//! The real program in the real kernel, packet by packet (`BPF_PROG_TEST_RUN`), on private maps that the real table
//! writer filled. Needs CAP_BPF and CAP_NET_ADMIN; touches no interface and pins nothing.
#![expect(unreachable_pub, reason = "a test binary has no outside; `pub` marks what a module offers the others")]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as loudly as tests do")]

mod support;

mod decap;
mod ecn;
mod encapsulation;
mod fragments;
mod headroom;
mod icmp;
mod jumbo;
mod lessons;
mod malformed;
mod mutations;
mod nat_flows;
mod nat_fuzz;
mod nat_in;
mod nat_out;
mod nat_readers;
mod node;
mod options;
mod passthrough;
mod readers;
mod reasons;
mod selection;
mod too_big;
mod vlan;
