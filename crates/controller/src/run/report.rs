//! What the agent says of itself: log, metrics, health, status file.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::problem_log::{Patience, ProblemLog};
use super::reconciler::Applied;
use crate::agent_report::{AgentReport, Deliveries, HEARTBEAT};
use crate::http::Health;
use crate::metrics::AgentMetrics;
use crate::model::{Problem, ProblemReason};
use crate::netlink::MonitorCounters;

/// Least time between two reports: problems by the thousand are put together.
const PAUSE: Duration = Duration::from_millis(100);
/// Services named in a log line.
const NAMED: usize = 5;

/// Tells the world.
pub(super) struct Reporter {
    state_dir: PathBuf,
    node: String,
    source: &'static str,
    source_heard_at: u64,
    metrics: AgentMetrics,
    health: Health,
    problems: ProblemLog,
    deliveries: Deliveries,
    patience: Patience,
    /// When a problem will have lasted long enough to be told.
    ripe_at: Option<Instant>,
    /// Something changed since the last report.
    stale: bool,
    reported_at: Option<Instant>,
}

/// What the agent has to tell.
pub(super) struct Told {
    pub(super) problems: BTreeSet<Problem>,
    /// Why the agent is not ready.
    pub(super) waiting_for: Vec<String>,
    /// How endpoints of this node get their packets.
    pub(super) deliveries: Deliveries,
}

impl Reporter {
    /// Nothing is told yet.
    pub(super) fn new(
        state_dir: PathBuf,
        node: String,
        source: &'static str,
        metrics: AgentMetrics,
        health: Health,
    ) -> Self {
        let (problems, patience) = (ProblemLog::default(), Patience::default());
        Self {
            state_dir,
            node,
            source,
            source_heard_at: 0,
            metrics,
            health,
            problems,
            deliveries: Deliveries::new(),
            patience,
            ripe_at: None,
            stale: true,
            reported_at: None,
        }
    }

    /// The source told something.
    pub(super) fn heard(&mut self) {
        self.source_heard_at = epoch_seconds();
        self.metrics.source_heard(self.source);
    }

    /// A reconcile is done; `since` is when its cause was heard of.
    pub(super) fn applied(&mut self, applied: &Applied, since: Instant) {
        self.stale = true;
        if applied.operations == 0 && applied.refused.is_empty() && applied.revision.is_none() {
            return;
        }
        let took = since.elapsed();
        self.metrics.reconciled(took, applied.operations, applied.refused.len());
        if let Some(revision) = applied.revision {
            let mut services =
                applied.services.iter().take(NAMED).map(ToString::to_string).collect::<Vec<_>>().join(" ");
            if applied.services.len() > NAMED {
                services.push_str(&format!(" and {} more", applied.services.len() - NAMED));
            }
            tracing::info!(
                revision,
                operations = applied.operations,
                refused = applied.refused.len(),
                micros = took.as_micros() as u64,
                services,
                "in force"
            );
        }
    }

    /// The agent's loop has turned once more.
    pub(super) fn turned(&self, counters: &MonitorCounters) {
        self.health.turned();
        self.metrics.monitored(counters);
    }

    /// Something that a report tells of has changed.
    pub(super) fn touch(&mut self) {
        self.stale = true;
    }

    /// When a report is due.
    pub(super) fn next(&self) -> Option<Instant> {
        let pause = if self.stale { PAUSE } else { Duration::from_secs(HEARTBEAT) };
        let regular = self.reported_at.map(|at| at + pause);
        [regular, self.ripe_at].into_iter().flatten().min()
    }

    /// Reports if it is time to: whether it was. `state` is asked only then.
    pub(super) fn report(&mut self, state: impl FnOnce() -> Told) -> bool {
        let now = Instant::now();
        if self.next().is_some_and(|next| now < next) {
            return false;
        }
        if self.stale || self.reported_at.is_none() || self.ripe_at.is_some_and(|at| at <= now) {
            let Told { problems, waiting_for, deliveries } = state();
            let problems = self.patience.lasting(problems, now);
            self.ripe_at = self.patience.next(now);
            let up = !problems.iter().any(|problem| problem.reason == ProblemReason::Source);
            self.metrics.source_is_up(self.source, up);
            self.metrics.set_problems(&problems);
            self.problems.replace(problems).log();
            self.health.set(waiting_for);
            self.deliveries = deliveries;
        }
        let report = AgentReport {
            written_at: epoch_seconds(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: self.node.clone(),
            waiting_for: self.health.reasons(),
            source: self.source.to_owned(),
            source_heard_at: self.source_heard_at,
            problems: self.problems.all().iter().cloned().collect(),
            deliveries: self.deliveries.clone(),
        };
        if let Err(error) = report.write(&self.state_dir) {
            tracing::debug!("cannot write the status file to {}: {error}", self.state_dir.display());
        }
        self.stale = false;
        self.reported_at = Some(now);
        true
    }

    /// All problems that have been told, and why the agent is not ready.
    pub(super) fn told(&self) -> (&BTreeSet<Problem>, Vec<String>) {
        (self.problems.all(), self.health.reasons())
    }
}

fn epoch_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
