//! What the maps say at one moment, as plain data: `guenon status` and `/metrics` are made of it.
//! No I/O here: `datapath` fills it.

use std::net::IpAddr;

use guenon_ebpf::abi::{
    Counter, Event, FIRST_DROP, FrontendCounters, InterfaceCounters, PASSED, RECEIVED, REDIRECTED, TRANSMITTED,
};
use guenon_ebpf::reason::DropReason;

use crate::model::{Frontend, NextHopKey, NextHopState, ServiceName};

/// One reading of the maps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// Number of the configuration in force.
    pub revision: u64,
    /// When it came into force, seconds since the Unix epoch; 0 = none yet.
    pub revision_at: u64,
    /// Fingerprint of the hash key in use.
    pub hash_fingerprint: u64,
    /// Interfaces, in order of slot.
    pub interfaces: Vec<InterfaceReading>,
    /// How full the maps are.
    pub maps: Vec<MapUse>,
    /// How full the table of flows is.
    pub flows: FlowUse,
    /// Where tunnels leave.
    pub next_hops: Vec<(NextHopKey, NextHopState)>,
    /// Frontends with their counters, where asked for.
    pub frontends: Vec<FrontendReading>,
    /// Endpoints with their counters, where asked for.
    pub endpoints: Vec<EndpointReading>,
}

/// An interface that the program is, or was, attached to.
#[derive(Clone, Debug, PartialEq)]
pub struct InterfaceReading {
    /// Its name.
    pub name: String,
    /// The kernel's index at the last attachment.
    pub ifindex: u32,
    /// How the program is attached now.
    pub mode: AttachedMode,
    /// Counters by CPU.
    pub cpus: Vec<InterfaceCounters>,
    /// How the program on the way out is attached now.
    pub egress: AttachedEgress,
    /// Its counters by CPU.
    pub egress_cpus: Vec<InterfaceCounters>,
}

/// How the program on the way out is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum AttachedEgress {
    /// It is not: no endpoint of this node is translated, or it could not be.
    #[default]
    None,
    /// By a tcx link.
    Tcx,
    /// As a filter of the clsact qdisc.
    Clsact,
}

impl AttachedEgress {
    /// The word in metrics and `status`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AttachedMode {
    /// Not now: the interface is away, or taken by another program.
    Detached,
    /// In the driver.
    Native,
    /// In the kernel's generic path.
    Generic,
}

impl AttachedMode {
    /// From `Attachment::mode`.
    #[must_use]
    pub const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Native,
            2 => Self::Generic,
            _ => Self::Detached,
        }
    }

    /// The word in metrics and `status`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Detached => "detached",
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// How full a map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapUse {
    /// Its name.
    pub map: &'static str,
    /// Elements in use, those that wait for a grace period included.
    pub used: u64,
    /// Elements that it promises to hold.
    pub capacity: u64,
}

/// How full the table of flows is (endpoints of delivery `Nat`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct FlowUse {
    /// Flows that it knows.
    pub known: u64,
    /// Those that had a packet in the last minute.
    pub in_use: u64,
    /// Flows that it has room for.
    pub capacity: u64,
}

/// A frontend and what was counted for it.
#[derive(Clone, Debug, PartialEq)]
pub struct FrontendReading {
    /// The service that holds it.
    pub service: ServiceName,
    /// The frontend.
    pub frontend: Frontend,
    /// Sum over CPUs.
    pub counters: FrontendCounters,
}

/// An endpoint of a service and what was counted for it.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointReading {
    /// The service.
    pub service: ServiceName,
    /// Its address.
    pub address: IpAddr,
    /// Sum over CPUs.
    pub counter: Counter,
    /// Share of the service's rows that name it first, 0 to 1; `None`: the service has no rows here.
    pub share: Option<f64>,
}

/// The verdicts of the ledger but drops: index in the counters and name in metrics.
pub const VERDICTS: [(usize, &str); 3] = [(PASSED, "pass"), (TRANSMITTED, "tx"), (REDIRECTED, "redirect")];

/// Every packet of one interface and CPU (or a sum of such), by what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger(InterfaceCounters);

impl Default for Ledger {
    fn default() -> Self {
        Self(InterfaceCounters([Counter::default(); guenon_ebpf::abi::COUNTERS_PER_INTERFACE]))
    }
}

impl Ledger {
    /// The sum of these counters.
    pub fn sum<'a>(counters: impl IntoIterator<Item = &'a InterfaceCounters>) -> Self {
        let mut sum = Self::default();
        for counters in counters {
            for (total, counter) in sum.0.0.iter_mut().zip(&counters.0) {
                total.packets += counter.packets;
                total.bytes += counter.bytes;
            }
        }
        sum
    }

    /// What is counted at this index of [`InterfaceCounters`].
    #[must_use]
    pub fn at(&self, index: usize) -> Counter {
        self.0.0.get(index).copied().unwrap_or_default()
    }

    /// What came in.
    #[must_use]
    pub fn received(&self) -> Counter {
        self.at(RECEIVED)
    }

    /// What was dropped for this reason.
    #[must_use]
    pub fn dropped_for(&self, reason: DropReason) -> Counter {
        self.at(FIRST_DROP + reason as usize)
    }

    /// What was dropped, for whatever reason; a number that this version does not know included.
    #[must_use]
    pub fn dropped(&self) -> Counter {
        self.0.0[FIRST_DROP..].iter().fold(Counter::default(), |sum, counter| Counter {
            packets: sum.packets + counter.packets,
            bytes: sum.bytes + counter.bytes,
        })
    }

    /// How often this happened.
    #[must_use]
    pub fn event(&self, event: Event) -> u64 {
        self.at(event.index()).packets
    }

    /// Packets received less packets with a verdict. 0 in a moment of rest; a few, of either sign, while packets are
    /// under way, since counters are read one after the other.
    #[must_use]
    #[expect(clippy::cast_possible_wrap, reason = "a difference of counters; the sign is the point")]
    pub fn difference(&self) -> i64 {
        let judged: u64 =
            VERDICTS.iter().map(|(index, _)| self.at(*index).packets).sum::<u64>() + self.dropped().packets;
        self.received().packets.wrapping_sub(judged) as i64
    }
}

impl InterfaceReading {
    /// The sum over CPUs.
    #[must_use]
    pub fn total(&self) -> Ledger {
        Ledger::sum(&self.cpus)
    }

    /// The sum over CPUs of what leaves.
    #[must_use]
    pub fn total_egress(&self) -> Ledger {
        Ledger::sum(&self.egress_cpus)
    }

    /// Whether there is anything to say of what leaves.
    #[must_use]
    pub fn has_egress(&self) -> bool {
        self.egress != AttachedEgress::None || self.total_egress() != Ledger::default()
    }
}

impl Reading {
    /// The sum over interfaces and CPUs, of what comes in and of what leaves: drops and events are of both ways.
    #[must_use]
    pub fn total(&self) -> Ledger {
        Ledger::sum(self.interfaces.iter().flat_map(|interface| interface.cpus.iter().chain(&interface.egress_cpus)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ledger_balances_when_every_packet_has_one_verdict() {
        let mut counters = Ledger::default().0;
        counters.0[RECEIVED].packets = 10;
        counters.0[PASSED].packets = 4;
        counters.0[TRANSMITTED].packets = 3;
        counters.0[REDIRECTED].packets = 1;
        counters.0[FIRST_DROP + DropReason::NoBackend as usize].packets = 2;
        counters.0[Event::Encapsulated.index()].packets = 3;
        let ledger = Ledger::sum([&counters, &counters]);
        assert_eq!((ledger.received().packets, ledger.dropped().packets, ledger.difference()), (20, 4, 0));
        assert_eq!(ledger.dropped_for(DropReason::NoBackend).packets, 4);

        counters.0[PASSED].packets = 5;
        assert_eq!(Ledger::sum([&counters]).difference(), -1);
    }
}
