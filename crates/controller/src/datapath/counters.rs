//! Reads what the program counted.

use std::collections::BTreeMap;
use std::net::IpAddr;

use guenon_ebpf::abi::{
    COUNTERS_PER_PAGE, Counter, FLOW_TICK_SECONDS, FlowEntry, FrontendCounters, InterfaceCounters, locate_counter, map,
};

use super::atomic::Ordering;
use super::bases::Bases;
use super::error::DataPathError;
use super::maps::Mapped;
use super::sys;
use super::tables::{
    Store, Table, attachments, endpoint_counters, endpoint_shares, frontend_slots, occupancy, read_meta, read_next_hops,
};
use crate::model::ServiceName;
use crate::reading::{
    AttachedEgress, AttachedMode, EndpointReading, FlowUse, FrontendReading, InterfaceReading, MapUse, Reading,
};

/// How much of what was counted is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Counters of each frontend.
    pub frontends: bool,
    /// Counters of each endpoint.
    pub endpoints: bool,
}

impl Extent {
    /// Everything.
    pub const ALL: Self = Self { frontends: true, endpoints: true };
}

pub(super) fn read(maps: &Mapped, bases: &Bases, extent: Extent) -> Result<Reading, DataPathError> {
    let meta = read_meta(maps);
    let mut reading = Reading {
        revision: meta.revision,
        revision_at: meta.revision_at,
        hash_fingerprint: meta.hash_fingerprint,
        interfaces: interfaces(maps, bases)?,
        maps: occupancy(maps)
            .into_iter()
            .map(|of| MapUse { map: of.map, used: of.used as u64, capacity: of.capacity as u64 })
            .collect(),
        flows: flows(maps),
        next_hops: read_next_hops(maps).into_iter().collect(),
        ..Reading::default()
    };
    if extent.frontends {
        let counted = frontends(maps)?;
        reading.frontends = frontend_slots(maps)
            .into_iter()
            .map(|(frontend, (service, slot))| FrontendReading {
                service,
                frontend,
                counters: bases.frontend(slot, counted.get(&slot).copied().unwrap_or_default()),
            })
            .collect();
    }
    if extent.endpoints {
        let counted = endpoints(maps)?;
        let shares = endpoint_shares(maps);
        reading.endpoints = endpoint_counters(maps)
            .into_iter()
            .map(|(key, index)| EndpointReading {
                share: shares.get(&key).copied(),
                service: key.0,
                address: key.1,
                counter: bases.endpoint(index, counted.get(&index).copied().unwrap_or_default()),
            })
            .collect();
    }
    Ok(reading)
}

/// Counters of every interface that ever had a slot, by CPU.
pub(super) fn interfaces(maps: &Mapped, bases: &Bases) -> Result<Vec<InterfaceReading>, DataPathError> {
    let cpus = cpus()?;
    let mut interfaces = Vec::new();
    for attachment in attachments::read_attachments(maps) {
        let shown = |map: &'static str, name: &str| -> Result<Vec<InterfaceCounters>, DataPathError> {
            let fd = maps.fd(map).ok_or_else(|| missing(map))?;
            let counted = sys::lookup_per_cpu(fd, attachment.slot, cpus).map_err(DataPathError::map("read", map))?;
            Ok((0..).zip(counted).map(|(cpu, counters)| bases.interface(name, cpu, counters)).collect())
        };
        interfaces.push(InterfaceReading {
            cpus: shown(map::COUNTERS, &attachment.interface)?,
            egress_cpus: shown(map::EGRESS_COUNTERS, &egress_name(&attachment.interface))?,
            egress: match attachment.egress {
                attachments::Egress::None => AttachedEgress::None,
                attachments::Egress::Tcx => AttachedEgress::Tcx,
                attachments::Egress::Clsact => AttachedEgress::Clsact,
            },
            ifindex: attachment.ifindex,
            mode: match attachment.mode {
                attachments::Mode::None => AttachedMode::Detached,
                attachments::Mode::Native => AttachedMode::Native,
                attachments::Mode::Generic => AttachedMode::Generic,
            },
            name: attachment.interface,
        });
    }
    Ok(interfaces)
}

/// How full the table of flows is. A read of all of it; the programs write meanwhile.
fn flows(maps: &Mapped) -> FlowUse {
    let words = maps.words(Table::Flows);
    let clock = read_meta(maps).clock as u16;
    let mut flows = FlowUse { capacity: (words.len() / ENTRY_WORDS) as u64, ..FlowUse::default() };
    for entry in words.chunks_exact(ENTRY_WORDS) {
        if entry[0].load(Ordering::Relaxed) != 0 {
            flows.known += 1;
            // The top of an entry's last word is the tick of its last use.
            let used = (entry[ENTRY_WORDS - 1].load(Ordering::Relaxed) >> 48) as u16;
            flows.in_use += u64::from(clock.wrapping_sub(used) <= IN_USE_TICKS);
        }
    }
    flows
}

const ENTRY_WORDS: usize = size_of::<FlowEntry>() / 8;
/// A minute.
const IN_USE_TICKS: u16 = (60 / FLOW_TICK_SECONDS) as u16;

/// Under which name the bases have what leaves an interface. No interface has a slash in its name.
pub(super) fn egress_name(interface: &str) -> String {
    format!("egress/{interface}")
}

/// What frontends' slots have counted, but for those with nothing.
pub(super) fn frontends(maps: &Mapped) -> Result<BTreeMap<u32, FrontendCounters>, DataPathError> {
    all(maps, map::FRONTEND_STATS, |sum: &mut FrontendCounters, counters: &FrontendCounters| {
        sum.directed.packets += counters.directed.packets;
        sum.directed.bytes += counters.directed.bytes;
        sum.delivered += counters.delivered;
        sum.dropped += counters.dropped;
    })
}

/// What endpoints' indices have counted, but for those with nothing.
pub(super) fn endpoints(maps: &Mapped) -> Result<BTreeMap<u32, Counter>, DataPathError> {
    all(maps, map::ENDPOINT_STATS, |sum: &mut Counter, counter: &Counter| {
        sum.packets += counter.packets;
        sum.bytes += counter.bytes;
    })
}

/// What one frontend's slot has counted.
pub(super) fn frontend(maps: &Mapped, slot: u32) -> Result<FrontendCounters, DataPathError> {
    let values = one::<FrontendCounters>(maps, map::FRONTEND_STATS, slot)?;
    Ok(values.iter().fold(FrontendCounters::default(), |sum, value| FrontendCounters {
        directed: Counter {
            packets: sum.directed.packets + value.directed.packets,
            bytes: sum.directed.bytes + value.directed.bytes,
        },
        delivered: sum.delivered + value.delivered,
        dropped: sum.dropped + value.dropped,
    }))
}

/// What one endpoint's index has counted.
pub(super) fn endpoint(maps: &Mapped, index: u32) -> Result<Counter, DataPathError> {
    let values = one::<Counter>(maps, map::ENDPOINT_STATS, index)?;
    Ok(values.iter().fold(Counter::default(), |sum, value| Counter {
        packets: sum.packets + value.packets,
        bytes: sum.bytes + value.bytes,
    }))
}

/// Endpoints with what they show.
pub(super) fn shown_endpoints(
    maps: &Mapped,
    bases: &Bases,
) -> Result<BTreeMap<(ServiceName, IpAddr), Counter>, DataPathError> {
    let counted = endpoints(maps)?;
    let shown = |index: u32| bases.endpoint(index, counted.get(&index).copied().unwrap_or_default());
    Ok(endpoint_counters(maps).into_iter().map(|(key, index)| (key, shown(index))).collect())
}

/// One counter, by CPU.
fn one<T: sys::Plain>(maps: &Mapped, name: &'static str, number: u32) -> Result<Vec<T>, DataPathError> {
    let map = maps.fd(name).ok_or_else(|| missing(name))?;
    let (page, at) = locate_counter(number);
    let pages: Vec<[T; COUNTERS_PER_PAGE]> =
        sys::lookup_per_cpu(map, page, cpus()?).map_err(DataPathError::map("read", name))?;
    Ok(pages.iter().map(|page| page[at]).collect())
}

fn all<T: sys::Plain + Default + PartialEq>(
    maps: &Mapped,
    name: &'static str,
    add: impl Fn(&mut T, &T),
) -> Result<BTreeMap<u32, T>, DataPathError> {
    let map = maps.fd(name).ok_or_else(|| missing(name))?;
    let (_, shape) = sys::map_info(map).map_err(DataPathError::map("inspect", name))?;
    let mut counted = BTreeMap::new();
    sys::for_each_per_cpu(map, shape.max_entries, cpus()?, |page, by_cpu: &[[T; COUNTERS_PER_PAGE]]| {
        for (at, number) in (page * COUNTERS_PER_PAGE as u32..).take(COUNTERS_PER_PAGE).enumerate() {
            let mut sum = T::default();
            by_cpu.iter().for_each(|page| add(&mut sum, &page[at]));
            if sum != T::default() {
                counted.insert(number, sum);
            }
        }
    })
    .map_err(DataPathError::map("read", name))?;
    Ok(counted)
}

fn cpus() -> Result<usize, DataPathError> {
    sys::possible_cpus().map_err(DataPathError::file("read", "/sys/devices/system/cpu/possible"))
}

fn missing(name: &str) -> DataPathError {
    DataPathError::map("find", name)(std::io::ErrorKind::NotFound.into())
}

#[cfg(test)]
mod tests {
    use super::super::tables::Capacities;
    use super::*;

    /// Entries as programs write them: of these keys, last used at these ticks.
    fn put(maps: &Mapped, entries: impl IntoIterator<Item = (u64, u16)>) {
        for (number, (key, used)) in entries.into_iter().enumerate() {
            maps.publish(Table::Flows, number * ENTRY_WORDS, key);
            maps.publish(Table::Flows, number * ENTRY_WORDS + ENTRY_WORDS - 1, u64::from(used) << 48);
        }
    }

    #[test]
    fn flows_are_counted_by_the_time_of_their_last_packet() {
        let maps = Mapped::unpinned(&Capacities { flows: 64, ..Capacities::default() }).expect("root may make maps");
        assert_eq!(flows(&maps), FlowUse { known: 0, in_use: 0, capacity: 64 });
        let clock = 0x1_0002_u64;
        maps.publish(Table::Meta, std::mem::offset_of!(guenon_ebpf::abi::Meta, clock) / 8, clock);
        // Now, a minute ago over the end of the clock's low bits, two minutes ago, and nothing.
        put(&maps, [(7, 2), (8, 0xfffe), (9, 0xfffa), (0, 2)]);
        assert_eq!(flows(&maps), FlowUse { known: 3, in_use: 2, capacity: 64 });
    }

    /// What a scrape costs for it: `cargo test --release -- --ignored --nocapture flow_table`.
    #[test]
    #[ignore = "a measurement"]
    fn time_of_a_full_flow_table() {
        let maps = Mapped::unpinned(&Capacities::default()).expect("root may make maps");
        put(&maps, (1..=262_144).map(|key| (key, 0)));
        let mut times: Vec<_> = (0..21)
            .map(|_| {
                let start = std::time::Instant::now();
                assert_eq!(flows(&maps).known, 262_144);
                start.elapsed()
            })
            .collect();
        times.sort();
        println!("262,144 flows: {:?} (median), {:?} (worst)", times[10], times[20]);
    }
}
