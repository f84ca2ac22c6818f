//! Packets through the real program in the kernel, on tables that the pure core filled, touching no interface.
//!
//! | module | subject |
//! |---|---|
//! | [`desired`] | manifests and a view in, the state of the data path out: no kernel |
//! | [`sandbox`] | the program on private maps: one frame in, its outcome out |
//! | [`capture`] | files of captured frames |
//! | [`replay`] | a capture through a sandbox: a line and a frame out for each packet |

mod attribution;
pub mod capture;
pub mod desired;
mod outcome;
pub mod replay;
pub mod sandbox;

/// Bytes as hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
