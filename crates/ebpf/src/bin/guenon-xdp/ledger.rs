//! The accounts of one packet: opened once, closed once, by one exit.

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_REDIRECT, XDP_TX};
use aya_ebpf::helpers::bpf_redirect;
use guenon_ebpf::abi::{
    COUNTERS_PER_INTERFACE, COUNTERS_PER_PAGE, Counter, Event, FrontendCounters, InterfaceCounters, PASSED, RECEIVED,
    TRANSMITTED, locate_counter,
};
use guenon_ebpf::reason::DropReason;
use guenon_ebpf::verdict::{Outcome, Verdict};

use crate::frame::opaque;
use crate::maps::{COUNTERS, ENDPOINT_STATS, FRONTEND_STATS};
use crate::settings;

/// The counters of this interface and CPU, and of the frontend that the packet turned out to be for.
pub(crate) struct Ledger {
    counters: &'static mut InterfaceCounters,
    frontend: Option<&'static mut FrontendCounters>,
    bytes: u64,
}

impl Ledger {
    /// Counts a packet as received. `None` if the loader gave a slot that does not exist.
    #[inline(always)]
    pub(crate) fn open(bytes: usize) -> Option<Self> {
        let mut ledger = Self::resume(bytes)?;
        ledger.count(RECEIVED);
        Some(ledger)
    }

    /// Goes on with the accounts of a packet that is counted as received.
    #[inline(always)]
    pub(crate) fn resume(bytes: usize) -> Option<Self> {
        let counters = COUNTERS.get_ptr_mut(settings::slot())?;
        // SAFETY: an element of this CPU, on which no other program counts while this one runs.
        Some(Self { counters: unsafe { &mut *counters }, frontend: None, bytes: bytes as u64 })
    }

    /// Counts what has happened beside the verdict; packets alone.
    #[inline(always)]
    pub(crate) fn event(&mut self, event: Event) {
        self.counters.0[event.index()].packets += 1;
    }

    /// The packet is for this frontend: a drop from here on is counted there too.
    #[inline(always)]
    pub(crate) fn frontend(&mut self, index: u32) {
        let (page, at) = locate_counter(index);
        // SAFETY: as in `resume`.
        self.frontend = FRONTEND_STATS.get_ptr_mut(page).map(|page| unsafe { &mut (*page)[within_page(at)] });
    }

    /// The director role took the packet for its frontend.
    #[inline(always)]
    pub(crate) fn directed(&mut self) {
        if let Some(frontend) = &mut self.frontend {
            add(&mut frontend.directed, self.bytes);
        }
    }

    /// The decap role delivered the packet for its frontend.
    #[inline(always)]
    pub(crate) fn delivered(&mut self) {
        if let Some(frontend) = &mut self.frontend {
            frontend.delivered += 1;
        }
    }

    /// The packet goes to the endpoint with these counters.
    #[inline(always)]
    pub(crate) fn endpoint(&mut self, counter: u32) {
        let (page, at) = locate_counter(counter);
        if let Some(page) = ENDPOINT_STATS.get_ptr_mut(page) {
            // SAFETY: as in `resume`.
            add(unsafe { &mut (*page)[within_page(at)] }, self.bytes);
        }
    }

    /// Counts the packet under its verdict, and says it in the kernel's terms.
    #[inline(always)]
    pub(crate) fn close(mut self, outcome: Outcome) -> u32 {
        let (Ok(mut verdict) | Err(mut verdict)) = outcome;
        if let Some(ifindex) = verdict.redirected_to()
            && !redirect(ifindex)
        {
            verdict = Verdict::drop(DropReason::Redirect);
        }
        self.count(verdict.counter());
        if verdict.is_drop() {
            if let Some(frontend) = self.frontend {
                frontend.dropped += 1;
            }
            return if verdict == Verdict::drop(DropReason::Aborted) { XDP_ABORTED } else { XDP_DROP };
        }
        match verdict.counter() {
            PASSED => XDP_PASS,
            TRANSMITTED => XDP_TX,
            _ => XDP_REDIRECT,
        }
    }

    #[inline(always)]
    fn count(&mut self, index: usize) {
        add(&mut self.counters.0[index & (COUNTERS_PER_INTERFACE - 1)], self.bytes);
    }
}

/// The same place: the compiler must not add it to a page's address before that is known to be none of null.
#[inline(always)]
fn within_page(at: usize) -> usize {
    opaque(at) & (COUNTERS_PER_PAGE - 1)
}

#[inline(always)]
fn add(counter: &mut Counter, bytes: u64) {
    counter.packets += 1;
    counter.bytes += bytes;
}

#[inline(always)]
fn redirect(ifindex: u32) -> bool {
    // SAFETY: the helper notes the target; it touches no memory of ours.
    unsafe { bpf_redirect(ifindex, 0) == XDP_REDIRECT as i64 }
}
