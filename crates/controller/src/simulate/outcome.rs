use std::net::IpAddr;

use guenon_ebpf::abi::{COUNTERS_PER_INTERFACE, Counter, Event, FIRST_DROP, InterfaceCounters};
use guenon_ebpf::reason::DropReason;
use serde::Serialize;

use crate::model::{Frontend, ServiceName};

/// What the program said of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// The program met something that cannot be.
    Aborted,
    /// Dropped.
    Drop,
    /// To the node's own stack.
    Pass,
    /// Out of the interface that it came in on.
    Tx,
    /// Out of another interface.
    Redirect,
}

impl Verdict {
    /// As XDP calls it, without the prefix.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aborted => "ABORTED",
            Self::Drop => "DROP",
            Self::Pass => "PASS",
            Self::Tx => "TX",
            Self::Redirect => "REDIRECT",
        }
    }

    /// From what the program on the way out returns: `TC_ACT_UNSPEC`, which lets those behind it decide, or `TC_ACT_SHOT`.
    #[must_use]
    pub const fn from_egress_action(action: i32) -> Option<Self> {
        match action {
            -1 => Some(Self::Pass),
            2 => Some(Self::Drop),
            _ => None,
        }
    }

    /// From XDP's number of it.
    #[must_use]
    pub const fn from_action(action: u32) -> Option<Self> {
        match action {
            0 => Some(Self::Aborted),
            1 => Some(Self::Drop),
            2 => Some(Self::Pass),
            3 => Some(Self::Tx),
            4 => Some(Self::Redirect),
            _ => None,
        }
    }
}

/// What became of one packet: the kernel's answer, and the difference that it made to the program's counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The verdict.
    pub verdict: Verdict,
    /// The reason for which it was dropped.
    pub reason: Option<DropReason>,
    /// The frame as the program left it, whatever the verdict.
    pub frame: Vec<u8>,
    /// The device by which it leaves (its index in the tables); `None` where it does not, or goes to the node's stack.
    pub interface: Option<u32>,
    /// The frontend that counted it.
    pub frontend: Option<Frontend>,
    /// The service of that frontend, or of the endpoint.
    pub service: Option<ServiceName>,
    /// The endpoint that counted it.
    pub endpoint: Option<IpAddr>,
    /// What it added to the interface's counters.
    pub counters: Box<InterfaceCounters>,
}

impl Outcome {
    /// The events that were counted, in order of number.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        let counted = |event: &Event| self.counters.0[event.index()].packets > 0;
        Event::ALL.iter().map(|(event, _)| *event).filter(counted).collect()
    }
}

/// The counters' difference.
pub(super) fn difference(after: &InterfaceCounters, before: &InterfaceCounters) -> Box<InterfaceCounters> {
    let mut counters = Box::new(InterfaceCounters([Counter::default(); COUNTERS_PER_INTERFACE]));
    for (difference, (after, before)) in counters.0.iter_mut().zip(after.0.iter().zip(&before.0)) {
        difference.packets = after.packets.wrapping_sub(before.packets);
        difference.bytes = after.bytes.wrapping_sub(before.bytes);
    }
    counters
}

/// The first reason that was counted.
pub(super) fn reason(counters: &InterfaceCounters) -> Option<DropReason> {
    let number = counters.0[FIRST_DROP..].iter().position(|counter| counter.packets > 0)?;
    u8::try_from(number).ok().and_then(DropReason::from_number)
}
