//! The only place that touches BPF.

pub mod object;
