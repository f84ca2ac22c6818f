//! What the agent counts of its own doing.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::{Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntGaugeVec, Opts, Registry};

use super::definition::{self as define, Definition};
use crate::model::{HashKey, Problem, ProblemReason};
use crate::netlink::MonitorCounters;

/// Metrics that the agent sets.
#[derive(Clone)]
pub struct AgentMetrics {
    reconcile_duration: Histogram,
    reconcile_errors: IntCounter,
    reconcile_operations: IntCounter,
    problems: IntGaugeVec,
    source_timestamp: GaugeVec,
    source_up: IntGaugeVec,
    hash_key: IntGaugeVec,
    neighbours_asked: IntCounter,
    netlink_events: IntCounter,
    netlink_resyncs: IntCounter,
    netlink_errors: IntCounter,
    process: Process,
}

/// What every process says of itself.
#[derive(Clone)]
pub(super) struct Process {
    resident_memory: Gauge,
    own_memory: Gauge,
}

/// 100 us to 10 s: a change of one endpoint at the low end, a cold start of 10,000 services at the high one.
const BUCKETS: [f64; 13] = [0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0];

impl AgentMetrics {
    /// Makes them, each with its first value, and registers them.
    ///
    /// # Errors
    ///
    /// A name is registered already, or not valid.
    pub fn register(registry: &Registry, source: &str) -> prometheus::Result<Self> {
        let duration = define::RECONCILE_DURATION;
        let metrics = Self {
            reconcile_duration: Histogram::with_opts(
                HistogramOpts::new(duration.name, duration.help).buckets(BUCKETS.to_vec()),
            )?,
            reconcile_errors: IntCounter::with_opts(options(define::RECONCILE_ERRORS))?,
            reconcile_operations: IntCounter::with_opts(options(define::RECONCILE_OPERATIONS))?,
            problems: IntGaugeVec::new(options(define::PROBLEMS), define::PROBLEMS.labels)?,
            source_timestamp: GaugeVec::new(options(define::SOURCE_TIMESTAMP), define::SOURCE_TIMESTAMP.labels)?,
            source_up: IntGaugeVec::new(options(define::SOURCE_UP), define::SOURCE_UP.labels)?,
            hash_key: IntGaugeVec::new(options(define::HASH_KEY_INFO), define::HASH_KEY_INFO.labels)?,
            neighbours_asked: IntCounter::with_opts(options(define::NEIGHBOURS_ASKED))?,
            netlink_events: IntCounter::with_opts(options(define::NETLINK_EVENTS))?,
            netlink_resyncs: IntCounter::with_opts(options(define::NETLINK_RESYNCS))?,
            netlink_errors: IntCounter::with_opts(options(define::NETLINK_ERRORS))?,
            process: Process::register(registry)?,
        };
        registry.register(Box::new(metrics.reconcile_duration.clone()))?;
        for counter in [
            &metrics.reconcile_errors,
            &metrics.reconcile_operations,
            &metrics.neighbours_asked,
            &metrics.netlink_events,
            &metrics.netlink_resyncs,
            &metrics.netlink_errors,
        ] {
            registry.register(Box::new(counter.clone()))?;
        }
        registry.register(Box::new(metrics.problems.clone()))?;
        registry.register(Box::new(metrics.source_timestamp.clone()))?;
        registry.register(Box::new(metrics.source_up.clone()))?;
        registry.register(Box::new(metrics.hash_key.clone()))?;
        metrics.source_up.with_label_values(&[source]).set(0);
        metrics.set_problems([]);
        Ok(metrics)
    }

    /// A reconcile took this long, carried out and was refused this many operations.
    pub fn reconciled(&self, took: Duration, operations: usize, refused: usize) {
        self.reconcile_duration.observe(took.as_secs_f64());
        self.reconcile_operations.inc_by(operations as u64);
        self.reconcile_errors.inc_by(refused as u64);
    }

    /// These are all problems now.
    pub fn set_problems<'a>(&self, problems: impl IntoIterator<Item = &'a Problem>) {
        let mut counts = vec![0; ProblemReason::ALL.len()];
        for problem in problems {
            if let Some(count) = ProblemReason::ALL.iter().position(|reason| *reason == problem.reason) {
                counts[count] += 1;
            }
        }
        for (reason, count) in ProblemReason::ALL.iter().zip(counts) {
            self.problems.with_label_values(&[reason.name()]).set(count);
        }
    }

    /// The source told something just now.
    pub fn source_heard(&self, source: &str) {
        self.source_timestamp.with_label_values(&[source]).set(epoch_seconds());
    }

    /// This key is in force.
    pub fn has_hash_key(&self, key: &HashKey) {
        self.hash_key.reset();
        self.hash_key.with_label_values(&[key.fingerprint()]).set(1);
    }

    /// Whether the source can be read.
    pub fn source_is_up(&self, source: &str, up: bool) {
        self.source_up.with_label_values(&[source]).set(i64::from(up));
    }

    /// What the monitor has done so far.
    pub fn monitored(&self, counters: &MonitorCounters) {
        let MonitorCounters { events, overruns: _, resyncs, views: _, asked, errors } = counters;
        for (metric, counter) in [
            (&self.netlink_events, events),
            (&self.netlink_resyncs, resyncs),
            (&self.neighbours_asked, asked),
            (&self.netlink_errors, errors),
        ] {
            metric.inc_by(counter.load(Ordering::Relaxed).saturating_sub(metric.get()));
        }
    }

    /// Reads what the process itself uses; before a scrape.
    pub fn refresh(&self) {
        self.process.refresh();
    }
}

impl Process {
    /// Makes its metrics and registers them, start and build among them.
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let process = Self {
            resident_memory: Gauge::with_opts(options(define::RESIDENT_MEMORY))?,
            own_memory: Gauge::with_opts(options(define::OWN_MEMORY))?,
        };
        registry.register(Box::new(process.resident_memory.clone()))?;
        registry.register(Box::new(process.own_memory.clone()))?;
        let start = Gauge::with_opts(options(define::START_TIME))?;
        start.set(epoch_seconds());
        registry.register(Box::new(start))?;
        let build = IntGaugeVec::new(options(define::BUILD_INFO), define::BUILD_INFO.labels)?;
        let abi = guenon_ebpf::abi::ABI_VERSION.to_string();
        build.with_label_values(&[env!("CARGO_PKG_VERSION"), abi.as_str()]).set(1);
        registry.register(Box::new(build))?;
        Ok(process)
    }

    /// Reads what the process itself uses.
    pub(super) fn refresh(&self) {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        for (gauge, field) in [(&self.resident_memory, "VmRSS:"), (&self.own_memory, "RssAnon:")] {
            if let Some(bytes) = bytes_of(&status, field) {
                gauge.set(bytes as f64);
            }
        }
    }
}

pub(super) fn options(definition: Definition) -> Opts {
    Opts::new(definition.name, definition.help)
}

pub(super) fn epoch_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// A field of /proc/PID/status that is given in kB.
fn bytes_of(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use prometheus::{Encoder as _, TextEncoder};

    use super::*;
    use crate::metrics::Kind;
    use crate::model::Place;

    fn text(registry: &Registry) -> String {
        let mut text = Vec::new();
        TextEncoder::new().encode(&registry.gather(), &mut text).expect("the metrics encode");
        String::from_utf8(text).expect("text")
    }

    #[test]
    fn problems_are_counted_by_reason_from_zero() {
        let registry = Registry::new();
        let metrics = AgentMetrics::register(&registry, "files").expect("metrics register");
        assert!(text(&registry).contains("guenon_problems{reason=\"Conflicted\"} 0\n"));

        let problem = |reason| Problem { reason, place: Place::default(), message: String::new() };
        metrics.set_problems(&[problem(ProblemReason::Conflicted), problem(ProblemReason::Conflicted)]);
        assert!(text(&registry).contains("guenon_problems{reason=\"Conflicted\"} 2\n"));

        metrics.set_problems([]);
        assert!(text(&registry).contains("guenon_problems{reason=\"Conflicted\"} 0\n"));
    }

    #[test]
    fn the_process_has_memory_and_a_start() {
        let registry = Registry::new();
        AgentMetrics::register(&registry, "files").expect("metrics register").refresh();
        let text = text(&registry);
        for name in
            ["process_resident_memory_bytes ", "guenon_resident_anonymous_bytes ", "process_start_time_seconds "]
        {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}"));
            let value: f64 = line[name.len()..].parse().expect("a number");
            assert!(value > 1e5, "{line}");
        }
        assert_eq!(define::RECONCILE_DURATION.kind, Kind::Histogram);
        assert!(text.contains("guenon_reconcile_duration_seconds_bucket{le=\"0.01\"} 0\n"));
    }
}
