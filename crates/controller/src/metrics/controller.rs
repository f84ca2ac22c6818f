//! What the controller counts of its own doing.

use prometheus::{Gauge, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::agent::{Process, epoch_seconds, options};
use super::definition::{self as define};

/// Metrics of `guenon controller`.
#[derive(Clone)]
pub struct ControllerMetrics {
    leader: IntGauge,
    writes: IntCounterVec,
    waiting: IntGauge,
    agents: IntGaugeVec,
    services: IntGaugeVec,
    events: IntCounterVec,
    source_up: IntGaugeVec,
    source_timestamp: Gauge,
    process: Process,
}

impl ControllerMetrics {
    /// Makes them, each with its first value, and registers them.
    ///
    /// # Errors
    ///
    /// A name is registered already, or not valid.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self {
            leader: IntGauge::with_opts(options(define::LEADER))?,
            writes: IntCounterVec::new(options(define::STATUS_WRITES), define::STATUS_WRITES.labels)?,
            waiting: IntGauge::with_opts(options(define::STATUS_WAITING))?,
            agents: IntGaugeVec::new(options(define::AGENTS), define::AGENTS.labels)?,
            services: IntGaugeVec::new(options(define::CONTROLLER_SERVICES), define::CONTROLLER_SERVICES.labels)?,
            events: IntCounterVec::new(options(define::KUBERNETES_EVENTS), define::KUBERNETES_EVENTS.labels)?,
            source_up: IntGaugeVec::new(options(define::SOURCE_UP), define::SOURCE_UP.labels)?,
            source_timestamp: Gauge::with_opts(options(define::SOURCE_TIMESTAMP).const_label("source", "kubernetes"))?,
            process: Process::register(registry)?,
        };
        registry.register(Box::new(metrics.leader.clone()))?;
        registry.register(Box::new(metrics.writes.clone()))?;
        registry.register(Box::new(metrics.waiting.clone()))?;
        registry.register(Box::new(metrics.agents.clone()))?;
        registry.register(Box::new(metrics.services.clone()))?;
        registry.register(Box::new(metrics.events.clone()))?;
        registry.register(Box::new(metrics.source_up.clone()))?;
        registry.register(Box::new(metrics.source_timestamp.clone()))?;
        for result in ["ok", "error"] {
            metrics.writes.with_label_values(&[result]).inc_by(0);
        }
        metrics.events(0, 0);
        metrics.agents(0, 0);
        metrics.source_is_up(false);
        Ok(metrics)
    }

    /// Whether this replica leads.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// A status was written, or could not be.
    pub fn wrote(&self, well: bool) {
        self.writes.with_label_values(&[if well { "ok" } else { "error" }]).inc();
    }

    /// So many statuses wait to be written.
    pub fn waiting(&self, count: usize) {
        self.waiting.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// So many agents are heard, and so many are not.
    pub fn agents(&self, heard: usize, lost: usize) {
        for (state, count) in [("heard", heard), ("lost", lost)] {
            self.agents.with_label_values(&[state]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// So many VirtualServices have a condition of this type and status.
    pub fn services(&self, condition: &str, status: &str, count: usize) {
        self.services.with_label_values(&[condition, status]).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// So many events were sent, and so many kept back.
    pub fn events(&self, sent: usize, kept_back: usize) {
        self.events.with_label_values(&["sent"]).inc_by(sent as u64);
        self.events.with_label_values(&["kept_back"]).inc_by(kept_back as u64);
    }

    /// The API server told something just now.
    pub fn source_heard(&self) {
        self.source_timestamp.set(epoch_seconds());
    }

    /// Whether objects can be read.
    pub fn source_is_up(&self, up: bool) {
        self.source_up.with_label_values(&["kubernetes"]).set(i64::from(up));
    }

    /// Reads what the process itself uses; before a scrape.
    pub fn refresh(&self) {
        self.process.refresh();
    }
}
