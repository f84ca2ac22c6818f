//! The accounts of the way out: received = passed + drops, as on the way in.

use guenon_ebpf::abi::{COUNTERS_PER_INTERFACE, Counter, Event, FIRST_DROP, InterfaceCounters, PASSED, RECEIVED};
use guenon_ebpf::flow::Frontend;
use guenon_ebpf::reason::DropReason;

use crate::maps::EGRESS_COUNTERS;
use crate::settings;

/// How a packet's way ends, in one word: bit 0 translated, bit 1 dropped, 8..16 for which reason, 16..60 the frontend whose
/// address it got.
#[derive(Clone, Copy)]
pub(super) struct End(pub(super) u64);

impl End {
    /// Leaves as it is.
    pub(super) const UNTOUCHED: Self = Self(0);

    const TRANSLATED: u64 = 1;
    const REFUSED: u64 = 2;

    /// Leaves as this frontend's.
    #[inline(always)]
    pub(super) fn translated(frontend: Frontend) -> Self {
        Self(Self::TRANSLATED | frontend.bits() << 16)
    }
    /// Dropped.
    #[inline(always)]
    pub(super) fn refused(reason: DropReason) -> Self {
        Self(Self::REFUSED | (reason as u64) << 8)
    }
    #[inline(always)]
    pub(super) fn is_refused(self) -> bool {
        self.0 & Self::REFUSED != 0
    }
    /// The frontend whose address the packet got.
    #[inline(always)]
    pub(super) fn frontend(self) -> Option<Frontend> {
        if self.0 & Self::TRANSLATED != 0 { Some(Frontend::from_bits(self.0 >> 16)) } else { None }
    }
}

/// The counters of this interface and CPU.
pub(super) struct Accounts {
    counters: &'static mut InterfaceCounters,
    bytes: u64,
}

impl Accounts {
    /// Counts a packet as received. `None` if the loader gave a slot that does not exist.
    #[inline(always)]
    pub(super) fn open(bytes: usize) -> Option<Self> {
        let counters = EGRESS_COUNTERS.get_ptr_mut(settings::slot())?;
        // SAFETY: an element of this CPU, on which no other program counts while this one runs.
        let mut accounts = Self { counters: unsafe { &mut *counters }, bytes: bytes as u64 };
        accounts.count(RECEIVED);
        Some(accounts)
    }

    /// Counts it under its verdict.
    #[inline(always)]
    pub(super) fn close(&mut self, end: End) {
        if end.0 == End::UNTOUCHED.0 {
            self.count(PASSED);
        } else if end.is_refused() {
            self.count(FIRST_DROP + (end.0 >> 8 & 0xff) as usize);
        } else {
            self.counters.0[Event::ReplyTranslated.index()].packets += 1;
            self.count(PASSED);
        }
    }

    #[inline(always)]
    fn count(&mut self, index: usize) {
        let Counter { packets, bytes } = &mut self.counters.0[index & (COUNTERS_PER_INTERFACE - 1)];
        *packets += 1;
        *bytes += self.bytes;
    }
}
