//! What becomes of a packet, and where that is counted.

use crate::abi;
use crate::place::Place;
use crate::reason::DropReason;

/// The end of a packet's way, in one word (one register of the program): in the low half the index in
/// [`abi::InterfaceCounters`] under which it counts, in the high half the device to redirect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict(u64);

/// How a stage ends: `Err` is a drop. Exactly one for each packet.
pub type Outcome = Result<Verdict, Verdict>;

impl Verdict {
    /// To this node's stack.
    pub const PASS: Self = Self(abi::PASSED as u64);
    /// Out of the interface that it came in on.
    pub const TRANSMIT: Self = Self(abi::TRANSMITTED as u64);

    /// The bit that no verdict has, and every packet that goes on.
    pub const TRANSLATE: u64 = 1 << 63;

    /// Out of the device with this index.
    #[inline(always)]
    #[must_use]
    pub const fn redirect(ifindex: u32) -> Self {
        Self(abi::REDIRECTED as u64 | (ifindex as u64) << 32)
    }

    /// Goes on in the function that rewrites it: no verdict yet. What is in the word is [`Place`]'s.
    #[inline(always)]
    #[must_use]
    pub const fn translate(place: Place) -> Self {
        Self(Self::TRANSLATE | place.0)
    }

    /// Where the packet goes on, as one word with [`Self::TRANSLATE`] set; `None` if it has a verdict.
    #[inline(always)]
    #[must_use]
    pub const fn goes_on(self) -> Option<u64> {
        if self.0 & Self::TRANSLATE != 0 { Some(self.0) } else { None }
    }

    /// Dropped.
    #[inline(always)]
    #[must_use]
    pub const fn drop(reason: DropReason) -> Self {
        Self(abi::FIRST_DROP as u64 + reason as u64)
    }

    /// Dropped for the reason with this number, which a function of its own gave.
    #[inline(always)]
    #[must_use]
    pub const fn drop_number(reason: u8) -> Self {
        Self(abi::FIRST_DROP as u64 + reason as u64)
    }

    /// Index in [`abi::InterfaceCounters`].
    #[inline(always)]
    #[must_use]
    pub const fn counter(self) -> usize {
        self.0 as u32 as usize
    }

    /// The device to redirect to; `None` unless that is the verdict.
    #[inline(always)]
    #[must_use]
    pub const fn redirected_to(self) -> Option<u32> {
        if self.counter() == abi::REDIRECTED { Some((self.0 >> 32) as u32) } else { None }
    }

    /// Whether the packet is dropped.
    #[inline(always)]
    #[must_use]
    pub const fn is_drop(self) -> bool {
        self.counter() >= abi::FIRST_DROP
    }
}

impl From<DropReason> for Verdict {
    #[inline(always)]
    fn from(reason: DropReason) -> Self {
        Self::drop(reason)
    }
}
