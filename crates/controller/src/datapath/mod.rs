//! The data path seen from the agent: the only place that touches BPF.
//!
//! | module | subject |
//! |---|---|
//! | [`object`] | the compiled XDP programs |
//! | [`tables`] | the writer and the readers of the tables, over words of memory |
//! | [`memory`] | the tables in ordinary memory: tests, planning without a kernel |
//! | [`private`] | the program on maps of its own: the simulator, tests |

pub mod atomic;
pub mod memory;
pub mod object;
pub mod private;
pub mod tables;
