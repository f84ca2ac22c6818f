//! How the pure library sees a frame: the same in the kernel and in tests.

use crate::headers::ipv6::{self, Hidden, Upper};

/// Bytes that may be looked at.
pub trait Packet {
    /// `N` bytes from `at` on; `None` where the frame (its linear part, in the kernel) ends before.
    fn bytes<const N: usize>(&self, at: usize) -> Option<&[u8; N]>;

    /// Walks IPv6 extension headers: [`ipv6::walk`], or what comes to the same.
    ///
    /// # Errors
    ///
    /// [`Hidden`]: the upper-layer header cannot be found.
    fn walk(&self, next: u8, at: usize, end: usize) -> Result<Upper, Hidden>;

    /// Whether the whole frame, further buffers included, has at least `end` bytes.
    fn reaches(&self, end: usize) -> bool;
}

impl Packet for &[u8] {
    fn bytes<const N: usize>(&self, at: usize) -> Option<&[u8; N]> {
        self.get(at..)?.first_chunk()
    }

    fn walk(&self, next: u8, at: usize, end: usize) -> Result<Upper, Hidden> {
        ipv6::walk(self, next, at, end)
    }

    fn reaches(&self, end: usize) -> bool {
        self.len() >= end
    }
}
