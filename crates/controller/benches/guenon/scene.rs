//! The configuration that is timed: services of ten endpoints on other nodes, and this node's own tunnel address.
