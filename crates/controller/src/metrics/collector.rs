//! What the data path counts, read at scrape.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use guenon_ebpf::abi::{Counter, Event, PASSED};
use guenon_ebpf::reason::DropReason;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{self, MetricFamily, MetricType};

use super::definition::{self as define, Definition, Detail, Kind};
use crate::kernel_drops::{self, KernelDrops};
use crate::reading::{InterfaceReading, Ledger, Reading, VERDICTS};

/// Reads the maps with this much detail.
pub type ReadMaps = dyn Fn(Detail) -> anyhow::Result<Reading> + Send + Sync;

/// Prometheus' way to the maps.
pub struct DataPathCollector {
    read: Box<ReadMaps>,
    detail: Detail,
    errors: AtomicU64,
    descriptions: Vec<Desc>,
}

impl DataPathCollector {
    /// Exports with `detail` what `read` finds.
    ///
    /// # Errors
    ///
    /// A definition is not valid (a defect; a test builds this).
    pub fn new(read: Box<ReadMaps>, detail: Detail) -> prometheus::Result<Self> {
        let definition = define::REVISION;
        let description = Desc::new(definition.name.into(), definition.help.into(), Vec::new(), Default::default())?;
        Ok(Self { read, detail, errors: AtomicU64::new(0), descriptions: vec![description] })
    }
}

impl Collector for DataPathCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        let mut families = match (self.read)(self.detail) {
            Ok(reading) => families(&reading, &kernel_drops::read(), now),
            Err(error) => {
                self.errors.fetch_add(1, Ordering::Relaxed);
                tracing::warn!("cannot read the maps for a scrape: {error:#}");
                Vec::new()
            }
        };
        let mut errors = Family::new(define::SCRAPE_ERRORS);
        errors.add(&[], self.errors.load(Ordering::Relaxed) as f64);
        families.push(errors.0);
        families
    }
}

/// A family that grows by samples.
struct Family(MetricFamily, Definition);

impl Family {
    fn new(definition: Definition) -> Self {
        let mut family = MetricFamily::default();
        family.set_name(definition.name.to_owned());
        family.set_help(definition.help.to_owned());
        family.set_field_type(match definition.kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge | Kind::Histogram => MetricType::GAUGE,
        });
        Self(family, definition)
    }

    /// Adds a sample; labels in the definition's order.
    fn add(&mut self, labels: &[&str], value: f64) {
        debug_assert_eq!(labels.len(), self.1.labels.len(), "{}", self.1.name);
        let pairs = self.1.labels.iter().zip(labels).map(|(name, value)| {
            let mut pair = proto::LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        });
        let mut metric = proto::Metric::from_label(pairs.collect());
        match self.1.kind {
            Kind::Counter => {
                let mut counter = proto::Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            }
            Kind::Gauge | Kind::Histogram => {
                let mut gauge = proto::Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
        }
        self.0.mut_metric().push(metric);
    }
}

/// Packets and bytes of one thing, side by side.
struct Pair(Family, Family);

impl Pair {
    fn new(packets: Definition, bytes: Definition) -> Self {
        Self(Family::new(packets), Family::new(bytes))
    }

    fn add(&mut self, labels: &[&str], counter: Counter) {
        self.0.add(labels, counter.packets as f64);
        self.1.add(labels, counter.bytes as f64);
    }

    fn push_to(self, families: &mut Vec<MetricFamily>) {
        families.extend([self.0.0, self.1.0]);
    }
}

/// A reading as families; pure.
fn families(reading: &Reading, kernel_drops: &KernelDrops, now: f64) -> Vec<MetricFamily> {
    let mut families = Vec::new();
    interfaces(reading, kernel_drops, &mut families);
    totals(reading, now, &mut families);
    details(reading, &mut families);
    families
}

fn interfaces(reading: &Reading, kernel_drops: &KernelDrops, families: &mut Vec<MetricFamily>) {
    let mut received = Pair::new(define::RECEIVED_PACKETS, define::RECEIVED_BYTES);
    let mut verdicts = Pair::new(define::PACKETS, define::BYTES);
    let mut differences = Family::new(define::LEDGER_DIFFERENCE);
    let mut info = Family::new(define::INTERFACE_INFO);
    for interface in &reading.interfaces {
        let name = interface.name.as_str();
        for (cpu, counters) in interface.cpus.iter().enumerate() {
            let ledger = Ledger::sum([counters]);
            let cpu = cpu.to_string();
            received.add(&[name, &cpu], ledger.received());
            for (index, verdict) in VERDICTS {
                verdicts.add(&[name, &cpu, verdict], ledger.at(index));
            }
            verdicts.add(&[name, &cpu, "drop"], ledger.dropped());
        }
        differences.add(&[name], interface.total().difference() as f64);
        info.add(&[name, interface.mode.name()], 1.0);
    }
    received.push_to(families);
    verdicts.push_to(families);
    egress(reading, families);
    let mut drops = Family::new(define::KERNEL_DROPS);
    for interface in &reading.interfaces {
        if let Some((rx, tx)) = kernel_drops.get(&interface.name) {
            drops.add(&[&interface.name, "rx"], *rx as f64);
            drops.add(&[&interface.name, "tx"], *tx as f64);
        }
    }
    families.extend([differences.0, info.0, drops.0]);
}

fn egress(reading: &Reading, families: &mut Vec<MetricFamily>) {
    let mut verdicts = Pair::new(define::EGRESS_PACKETS, define::EGRESS_BYTES);
    let mut differences = Family::new(define::EGRESS_LEDGER_DIFFERENCE);
    let mut info = Family::new(define::EGRESS_INFO);
    for interface in &reading.interfaces {
        let name = interface.name.as_str();
        info.add(&[name, interface.egress.name()], 1.0);
        if !interface.has_egress() {
            continue;
        }
        for (cpu, counters) in interface.egress_cpus.iter().enumerate() {
            let ledger = Ledger::sum([counters]);
            let cpu = cpu.to_string();
            verdicts.add(&[name, &cpu, "pass"], ledger.at(PASSED));
            verdicts.add(&[name, &cpu, "drop"], ledger.dropped());
        }
        differences.add(&[name], interface.total_egress().difference() as f64);
    }
    families.push(info.0);
    if reading.interfaces.iter().any(InterfaceReading::has_egress) {
        verdicts.push_to(families);
        families.push(differences.0);
    }
}

fn totals(reading: &Reading, now: f64, families: &mut Vec<MetricFamily>) {
    let total = reading.total();
    let mut drops = Family::new(define::DROPS);
    for reason in DropReason::ALL {
        drops.add(&[reason.name()], total.dropped_for(*reason).packets as f64);
    }
    let mut events = Family::new(define::EVENTS);
    for (event, name) in Event::ALL {
        events.add(&[name], total.event(event) as f64);
    }
    let mut used = Family::new(define::MAP_USED);
    let mut capacity = Family::new(define::MAP_CAPACITY);
    for map in &reading.maps {
        used.add(&[map.map], map.used as f64);
        capacity.add(&[map.map], map.capacity as f64);
    }
    families.extend([drops.0, events.0, used.0, capacity.0]);

    let unresolved = reading.next_hops.iter().filter(|(_, state)| state.mac.is_none()).count();
    let mut single = |definition, value| {
        let mut family = Family::new(definition);
        family.add(&[], value);
        families.push(family.0);
    };
    single(define::FLOWS, reading.flows.known as f64);
    single(define::FLOWS_IN_USE, reading.flows.in_use as f64);
    single(define::FLOWS_CAPACITY, reading.flows.capacity as f64);
    single(define::REVISION, reading.revision as f64);
    if reading.revision_at != 0 {
        single(define::REVISION_TIMESTAMP, reading.revision_at as f64);
        single(define::REVISION_AGE, (now - reading.revision_at as f64).max(0.0));
    }
    single(define::NEXT_HOPS, reading.next_hops.len() as f64);
    single(define::NEXT_HOPS_UNRESOLVED, unresolved as f64);
}

fn details(reading: &Reading, families: &mut Vec<MetricFamily>) {
    let mut directed = Pair::new(define::FRONTEND_PACKETS, define::FRONTEND_BYTES);
    let mut delivered = Family::new(define::FRONTEND_DELIVERED);
    let mut dropped = Family::new(define::FRONTEND_DROPPED);
    for reading in &reading.frontends {
        let (service, frontend) = (reading.service.to_string(), reading.frontend.to_string());
        let labels = [service.as_str(), frontend.as_str()];
        directed.add(&labels, reading.counters.directed);
        delivered.add(&labels, reading.counters.delivered as f64);
        dropped.add(&labels, reading.counters.dropped as f64);
    }
    directed.push_to(families);
    families.extend([delivered.0, dropped.0]);
    let mut endpoints = Pair::new(define::ENDPOINT_PACKETS, define::ENDPOINT_BYTES);
    let mut shares = Family::new(define::ENDPOINT_SHARE);
    for reading in &reading.endpoints {
        let (service, address) = (reading.service.to_string(), reading.address.to_string());
        endpoints.add(&[&service, &address], reading.counter);
        if let Some(share) = reading.share {
            shares.add(&[&service, &address], share);
        }
    }
    endpoints.push_to(families);
    families.push(shares.0);
}

#[cfg(test)]
#[path = "collector_tests.rs"]
mod tests;
