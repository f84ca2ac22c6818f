//! Packets through the real program in the kernel, on tables that the real writer filled, touching no interface.

mod attribution;
mod outcome;
pub mod sandbox;
