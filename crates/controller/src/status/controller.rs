//! The controller's loop: what is learnt goes into the book, what follows from it is written.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, Stream, StreamExt as _};
use guenon_crd::{ConditionStatus, VirtualServiceStatus, conditions as types};
use tokio::sync::{mpsc, watch};

use super::book::{Book, Change, Settled};
use super::desk::Desk;
use super::events::Allowance;
use super::tally::Tally;
use crate::http::Health;
use crate::kube::{LEASES, Learnt, Telling, Writer, chain, condition, now as kube_now};
use crate::metrics::ControllerMetrics;
use crate::model::ServiceName;
use crate::source::SourceEvent;

/// Changes that come within this time are looked at together.
const GATHER: Duration = Duration::from_millis(200);
/// How often the loop turns though nothing happens.
const TURN: Duration = Duration::from_secs(5);
/// How long one write may take.
const LIMIT: Duration = Duration::from_secs(10);

/// What has become of a write.
enum Done {
    Service(ServiceName, Box<VirtualServiceStatus>, Result<(), String>),
    Node(String, Result<(), String>),
    Told,
}

/// The controller's loop.
pub(super) struct Controller {
    pub(super) book: Book,
    pub(super) writer: Writer,
    pub(super) leads: watch::Receiver<Option<Instant>>,
    pub(super) metrics: ControllerMetrics,
    pub(super) health: Health,
    services: Desk<ServiceName, Change>,
    nodes: Desk<String, ()>,
    contested: Vec<(ServiceName, String, Vec<Telling>)>,
    allowance: Allowance,
    /// Kinds that have been listed.
    listed: BTreeSet<&'static str>,
    led: bool,
    settled_at: Option<Instant>,
    stale: bool,
    failed: Option<String>,
}

/// Kinds that are listed beside those of the source.
const KINDS: usize = 3;

impl Controller {
    pub(super) fn new(
        book: Book,
        writer: Writer,
        leads: watch::Receiver<Option<Instant>>,
        metrics: ControllerMetrics,
        health: Health,
    ) -> Self {
        for (condition, status, none) in Tally::default().counts() {
            metrics.services(condition, status, none);
        }
        Self {
            book,
            writer,
            leads,
            metrics,
            health,
            services: Desk::default(),
            nodes: Desk::default(),
            contested: Vec::new(),
            allowance: Allowance::new(Instant::now()),
            listed: BTreeSet::new(),
            led: false,
            settled_at: None,
            stale: true,
            failed: None,
        }
    }

    /// Runs as long as there is something to learn.
    pub(super) async fn turn(
        mut self,
        mut batches: mpsc::Receiver<Vec<SourceEvent>>,
        learnt: impl Stream<Item = Learnt> + Unpin,
    ) -> anyhow::Result<()> {
        let mut learnt = learnt.fuse();
        let mut under_way = FuturesUnordered::new();
        loop {
            let wait = self.next().saturating_duration_since(Instant::now());
            tokio::select! {
                batch = batches.recv() => match batch {
                    Some(batch) => self.tell(batch),
                    None => return Ok(()),
                },
                one = learnt.next() => match one {
                    Some(one) => self.learn(one),
                    None => anyhow::bail!("the watches of statuses ended"),
                },
                done = under_way.next(), if !under_way.is_empty() => if let Some(done) = done {
                    self.done(done);
                },
                changed = self.leads.changed() => if changed.is_err() {
                    anyhow::bail!("the election ended");
                },
                () = tokio::time::sleep(wait) => {}
            }
            while let Some(Some(one)) = learnt.next().now_or_never() {
                self.learn(one);
            }
            while let Ok(batch) = batches.try_recv() {
                self.tell(batch);
            }
            let now = Instant::now();
            self.lead(now);
            if self.led {
                for (name, change) in self.services.take(now) {
                    under_way.push(self.write(name, change, now).boxed());
                }
                for (name, uid, tellings) in std::mem::take(&mut self.contested) {
                    under_way.push(self.tell_of(name, uid, tellings, now).boxed());
                }
                for (node, ()) in self.nodes.take(now) {
                    under_way.push(self.mark_lost(node).boxed());
                }
            }
            self.report(now);
        }
    }

    fn tell(&mut self, batch: Vec<SourceEvent>) {
        self.metrics.source_heard();
        self.book.tell(batch);
        self.stale = true;
    }

    fn learn(&mut self, learnt: Learnt) {
        match learnt {
            Learnt::Service(name, record) => self.book.saw_service(name, record),
            Learnt::ServiceGone(name) => {
                self.services.withdraw(&name);
                self.book.service_gone(&name);
            }
            Learnt::Node(name, record, spec) => self.book.saw_node(&name, &spec, &record.status),
            Learnt::NodeGone(name) => {
                self.nodes.withdraw(&name);
                self.book.node_gone(&name);
            }
            Learnt::Beat(node, says) => return self.book.beat(&node, says, Instant::now()),
            Learnt::Listed(kind) => {
                tracing::debug!(kind, "listed");
                self.listed.insert(kind);
                if kind == LEASES {
                    self.book.leases_are_read(true, Instant::now());
                }
            }
            Learnt::Failed(kind, why) => {
                if kind == LEASES {
                    self.book.leases_are_read(false, Instant::now());
                }
                self.say(format!("cannot watch {kind}: {why}; is the API server up, and does RBAC allow it?"));
            }
        }
        self.stale = true;
    }

    /// Whether all that statuses are made of is known.
    fn knows(&self) -> bool {
        self.listed.len() >= KINDS && self.book.is_complete()
    }

    /// Looks what should be written, if this replica leads.
    fn lead(&mut self, now: Instant) {
        let leads = self.leads.borrow_and_update().is_some_and(|until| until > now);
        if leads != self.led {
            self.led = leads;
            self.services = Desk::default();
            self.nodes = Desk::default();
            self.book.touch_all();
            self.stale = true;
        }
        let due = self.settled_at.is_none_or(|at| at + GATHER <= now);
        let lost = self.book.agents().next_loss(self.settled_at.unwrap_or(now)).is_some_and(|at| at <= now);
        if !leads || !due || !self.knows() || !(self.stale || lost) {
            return;
        }
        let Settled { changes, contested } = self.book.settle(now, &kube_now());
        self.contested.extend(contested);
        for (name, change) in changes {
            match change {
                Some(change) => self.services.put(name, change),
                None => self.services.withdraw(&name),
            }
        }
        for node in self.book.agents().silent(now) {
            self.nodes.put(node.to_owned(), ());
        }
        (self.settled_at, self.stale) = (Some(now), false);
    }

    /// When something is to be done though nothing is learnt.
    fn next(&self) -> Instant {
        let now = Instant::now();
        let leads = (*self.leads.borrow()).filter(|until| *until > now);
        let settle = (self.stale && leads.is_some()).then(|| self.settled_at.map_or(now, |at| at + GATHER));
        let writes = [self.services.next(now), self.nodes.next(now)].into_iter().flatten().filter(|_| self.led);
        let loss = self.book.agents().next_loss(now);
        [settle, leads, loss].into_iter().flatten().chain(writes).fold(now + TURN, Instant::min)
    }

    fn write(&mut self, name: ServiceName, change: Change, now: Instant) -> impl Future<Output = Done> + Send + use<> {
        let Change { uid, status, tellings } = change;
        let tellings = self.allowed(tellings, now);
        let writer = self.writer.clone();
        async move {
            let written = limited(writer.service(&name, &status)).await;
            if written.is_ok() {
                publish(&writer, &name, &uid, &tellings).await;
            }
            Done::Service(name, Box::new(status), written)
        }
    }

    fn tell_of(
        &mut self,
        name: ServiceName,
        uid: String,
        tellings: Vec<Telling>,
        now: Instant,
    ) -> impl Future<Output = Done> + Send + use<> {
        let tellings = self.allowed(tellings, now);
        let writer = self.writer.clone();
        async move {
            publish(&writer, &name, &uid, &tellings).await;
            Done::Told
        }
    }

    /// As many as may be sent.
    fn allowed(&mut self, mut tellings: Vec<Telling>, now: Instant) -> Vec<Telling> {
        let all = tellings.len();
        tellings.retain(|_| self.allowance.take(now));
        self.metrics.events(tellings.len(), all - tellings.len());
        tellings
    }

    fn mark_lost(&self, node: String) -> impl Future<Output = Done> + Send + use<> {
        let writer = self.writer.clone();
        async move {
            let message = "the agent's Lease is not renewed any more: nothing is known of this node; is it up, and does \
                           its pod run?";
            let mut lost = condition(types::READY, ConditionStatus::Unknown, None, "AgentLost", message);
            lost.last_transition_time = kube_now();
            let written = limited(writer.node_condition(&node, &lost)).await;
            Done::Node(node, written)
        }
    }

    fn done(&mut self, done: Done) {
        let written = match done {
            Done::Told => return,
            Done::Service(name, status, written) => {
                self.services.ended(&name);
                match &written {
                    Ok(()) => self.book.wrote(&name, *status),
                    Err(_) => self.book.touch(name),
                }
                written
            }
            Done::Node(name, written) => {
                self.nodes.ended(&name);
                written
            }
        };
        self.metrics.wrote(written.is_ok());
        match written {
            Ok(()) => self.failed = None,
            Err(why) => self.say(format!("cannot write a status: {why}; trying again")),
        }
        self.stale = true;
    }

    fn say(&mut self, what: String) {
        if self.failed.as_ref() != Some(&what) {
            tracing::warn!("{what}");
            self.failed = Some(what);
        }
    }

    fn report(&self, now: Instant) {
        self.health.turned();
        let mut waiting_for = Vec::new();
        if !self.knows() {
            waiting_for.push("not all objects are known yet".to_owned());
            waiting_for.extend(self.book.source_problems().map(ToString::to_string));
        }
        self.health.set(waiting_for);
        self.metrics.source_is_up(self.book.source_problems().next().is_none());
        self.metrics.leads(self.led);
        self.metrics.waiting(self.services.len() + self.nodes.len());
        let (heard, all) = self.book.agents().counts(now);
        self.metrics.agents(heard, all - heard);
        for (condition, status, count) in self.book.tally().counts() {
            // What one that does not lead wants is not what is written.
            self.metrics.services(condition, status, if self.led { count } else { 0 });
        }
    }
}

async fn publish(writer: &Writer, name: &ServiceName, uid: &str, tellings: &[Telling]) {
    for telling in tellings {
        if let Err(error) = limited(writer.event(name, uid, telling)).await {
            tracing::debug!("cannot send an event of {name}: {error}");
        }
    }
}

async fn limited(write: impl Future<Output = kube::Result<()>>) -> Result<(), String> {
    match tokio::time::timeout(LIMIT, write).await {
        Ok(Ok(())) => Ok(()),
        // It is gone: nothing is left to say of it.
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Ok(()),
        Ok(Err(error)) => Err(chain(&error)),
        Err(_) => Err(format!("no answer within {} s", LIMIT.as_secs())),
    }
}
