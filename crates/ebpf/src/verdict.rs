//! What becomes of a packet, and where that is counted.

use crate::abi;
use crate::reason::DropReason;

/// The ways on for a packet that is not dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// To this node's stack.
    Pass,
    /// Out of the interface that it came in on.
    Transmit,
    /// Out of another one.
    Redirect {
        /// The kernel's index of it.
        ifindex: u32,
    },
}

/// The end of every stage. Exactly one for each packet.
pub type Outcome = Result<Verdict, DropReason>;

/// Index in [`abi::InterfaceCounters`] at which an outcome counts.
#[inline(always)]
#[must_use]
pub const fn counter(outcome: Outcome) -> usize {
    match outcome {
        Ok(Verdict::Pass) => abi::PASSED,
        Ok(Verdict::Transmit) => abi::TRANSMITTED,
        Ok(Verdict::Redirect { .. }) => abi::REDIRECTED,
        Err(reason) => abi::FIRST_DROP + reason as usize,
    }
}
