//! The agent's state and its round: look, resolve, prepare the node, apply, clean up, tell.

use std::collections::BTreeSet;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::attachments::{Action, Attachments};
use super::egress::EgressSide;
use super::node_side::NodeSide;
use super::node_status::{Facts, NodeReports};
use super::problem_log::SILENCE;
use super::reconciler::{NewDestinations, Reconciler};
use super::report::{Reporter, Told};
use crate::datapath::{Kernel, TunnelTooBig};
use crate::model::{NodeView, ProblemReason, Role};
use crate::netlink::{Link, Monitor, Peer};
use crate::source::SourceEvent;

/// How long a new view is waited for before services are put in force with the old one.
const VIEW_TIMEOUT: Duration = Duration::from_secs(1);
/// Rounds of "services want ways, the view tells them" before one is applied all the same.
const LOOKS: usize = 4;

/// How long new next hops are waited for.
const NEIGHBOUR_TIMEOUT: Duration = Duration::from_millis(50);
/// How often they are looked for meanwhile.
const NEIGHBOUR_LOOK: Duration = Duration::from_millis(1);

/// How long objects are read before the cluster is told of what an earlier agent has left.
const LISTS: Duration = Duration::from_secs(30);

/// How long next hops that do not answer keep a new agent from being ready: then they are a problem of their own.
const SILENT_START: Duration = SILENCE;

/// Everything that the agent keeps current.
pub(super) struct Agent {
    pub(super) reconciler: Reconciler<Kernel>,
    pub(super) monitor: Monitor,
    pub(super) views: watch::Receiver<Arc<NodeView>>,
    pub(super) node: NodeSide,
    /// Whether programs may be put on far ends of veths.
    pub(super) node_setup: bool,
    /// Near ends of the veths whose far ends have been sorted out.
    pub(super) tended: Option<BTreeSet<String>>,
    pub(super) attachments: Attachments,
    pub(super) egress: EgressSide,
    /// When the clock of flows is moved on.
    pub(super) next_tick: Instant,
    pub(super) reporter: Reporter,
    /// The node's name.
    pub(super) name: String,
    /// What it does, as its labels say.
    pub(super) roles: Vec<Role>,
    /// Where the cluster is told of the node.
    pub(super) told: Option<NodeReports>,
    /// When the agent began.
    pub(super) started: Instant,
    /// Whether it was ready once.
    pub(super) was_ready: bool,
}

impl Agent {
    /// The source told this.
    pub(super) fn tell(&mut self, events: Vec<SourceEvent>) {
        self.reporter.heard();
        self.reconciler.tell(events);
    }

    /// Brings the data path up to date with all that was told; `since` is when the first of it was.
    pub(super) fn round(&mut self, since: Instant) {
        let now = Instant::now();
        self.follow_roles();
        let mut view = self.look();
        self.attach(&view, now);
        self.reconciler.resolve(&view, now);
        // What services want to know of the node must be in the view before any of it is put in force.
        for _ in 0..LOOKS {
            if !self.look_further(&view, now) {
                break;
            }
            view = self.look();
            self.reconciler.resolve(&view, now);
            view = self.await_neighbours(view, now);
        }
        if self.reconciler.is_complete() {
            let needs = self.reconciler.needs();
            let setup = self.node.prepare(&needs, &view, now);
            let egress = !needs.pods.is_empty();
            // Before endpoints are put in force whose replies it lets leave.
            self.tend_egress(egress, now);
            let applied = self.reconciler.apply(now);
            self.node.settle(setup);
            self.release_far_ends(&needs.far_ends);
            // Some attachments wait for the first revision.
            self.attach(&view, now);
            self.tend_egress(egress, now);
            self.reporter.applied(&applied, since);
        } else {
            self.node.wait(now);
        }
        self.reporter.touch();
    }

    /// Tells what there is to tell.
    pub(super) fn report(&mut self) {
        self.reporter.turned(self.monitor.counters());
        let (reconciler, attachments, node) = (&self.reconciler, &self.attachments, &self.node);
        let egress = &self.egress;
        let (started, was_ready) = (self.started, &mut self.was_ready);
        let reported = self.reporter.report(|| {
            let mut problems = reconciler.problems();
            problems.extend(attachments.problems());
            problems.extend(node.problems().iter().cloned());
            problems.extend(egress.problems().iter().cloned());
            let mut waiting_for = Vec::new();
            // What an earlier agent left is as good as ever while nobody can be asked for more.
            let source_fails = problems.iter().any(|problem| problem.reason == ProblemReason::Source);
            let goes_on = source_fails && reconciler.revision().is_some();
            if !reconciler.is_complete() && !goes_on {
                waiting_for.push("the source has not told of its objects yet; what was in force stays".to_owned());
            }
            if reconciler.revision().is_none() {
                waiting_for.push("no revision is in force yet".to_owned());
            }
            if !*was_ready && started.elapsed() < SILENT_START {
                let silent = reconciler
                    .silent_next_hops()
                    .map(|key| format!("the next hop {} on {} has not answered yet", key.gateway, key.interface));
                waiting_for.extend(silent);
            }
            waiting_for.extend(attachments.missing().map(|name| format!("the program is not attached to {name}")));
            *was_ready |= waiting_for.is_empty();
            Told { problems, waiting_for, deliveries: reconciler.deliveries() }
        });
        self.tell_cluster(reported);
    }

    fn tell_cluster(&mut self, reported: bool) {
        let Some(told) = &mut self.told else { return };
        let now = Instant::now();
        let may_tell = self.reconciler.is_complete() || self.started.elapsed() > LISTS;
        if told.is_due(reported, now) && may_tell {
            let (problems, waiting_for) = self.reporter.told();
            let view = self.views.borrow().clone();
            let attachments = self.reconciler.data_path_mut().attachments();
            let facts = Facts {
                view: &view,
                attachments: &attachments,
                revision: self.reconciler.revision(),
                reached: self.reconciler.reached(),
                counts: self.reconciler.counts(),
                exceptions: &self.reconciler.exceptions(),
                waiting_for: &waiting_for,
                problems,
            };
            told.tell(&facts, now);
        }
    }

    /// What this node does changes with its labels.
    fn follow_roles(&mut self) {
        if !self.reconciler.is_complete() {
            return;
        }
        let roles = self.reconciler.roles(&self.name);
        if roles != self.roles {
            tracing::info!(?roles, "this node's roles");
            self.monitor.update(|options| options.roles.clone_from(&roles));
            if !self.monitor.settle(VIEW_TIMEOUT) {
                tracing::warn!("the kernel's tables change too fast to be read in time; going on with an older view");
            }
            self.roles = roles;
        }
    }

    /// A router refused a tunnel packet of ours. Whether that changes anything.
    pub(super) fn tell_too_big(&mut self, told: TunnelTooBig) -> bool {
        let TunnelTooBig { destination, mtu } = told;
        let changes = self.reconciler.tell_too_big(destination, mtu, Instant::now());
        if changes {
            tracing::info!(%destination, mtu, "a router says that tunnel packets to this address may have no more bytes");
        }
        changes
    }

    /// When something is to be done though nothing is told.
    pub(super) fn next(&self) -> Instant {
        let told = self.told.as_ref().and_then(NodeReports::next);
        let others = [self.reconciler.due(), self.attachments.next(), self.reporter.next(), told];
        let own = self.node.next().min(self.egress.next()).min(self.next_tick);
        others.into_iter().flatten().fold(own, Instant::min)
    }

    /// Whether that is a round, and not just a report.
    pub(super) fn round_is_due(&self, now: Instant) -> bool {
        let due = [self.reconciler.due(), self.attachments.next(), Some(self.node.next()), Some(self.egress.next())];
        due.into_iter().flatten().any(|due| due <= now)
    }

    /// Moves the clock of flows on.
    pub(super) fn tick(&mut self) {
        self.next_tick = self.reconciler.data_path_mut().tick(Instant::now());
    }

    /// Sees to the program on the way out.
    fn tend_egress(&mut self, wanted: bool, now: Instant) {
        let data_path = self.reconciler.data_path_mut();
        if self.egress.tend(wanted, now, || data_path.tend_egress(wanted)) {
            self.reporter.touch();
        }
        if !self.monitor.answers_by(data_path.answering(), VIEW_TIMEOUT) {
            tracing::warn!(
                "the kernel's tables change too fast to be read in time; which routes are answered comes later"
            );
        }
        if let Err(error) = data_path.set_hairpins(&self.monitor.hairpins()) {
            tracing::warn!("{error}");
        }
    }

    fn look(&mut self) -> Arc<NodeView> {
        Arc::clone(&self.views.borrow_and_update())
    }

    /// Asks the monitor for what services want to know. Whether the view may tell more now.
    fn look_further(&mut self, view: &NodeView, now: Instant) -> bool {
        let NewDestinations { added, removed } = self.reconciler.new_destinations();
        let may_tell_more = (!added.is_empty() || !removed.is_empty()) && self.monitor.follow(&added, &removed);
        let near_ends = self.reconciler.needs().far_ends;
        let data_path = self.reconciler.data_path_mut();
        let node_setup = self.node_setup;
        let attach = |near: &Link, peer: &Peer| put_on_far_end(data_path, node_setup, near, peer);
        let far_ends = self.node.tend(&near_ends, view, attach, now);
        match far_ends {
            Some(far_ends) => self.monitor.update(|options| options.far_ends = far_ends),
            None if may_tell_more => {}
            None => return false,
        }
        if !self.monitor.settle(VIEW_TIMEOUT) {
            tracing::warn!("the kernel's tables change too fast to be read in time; going on with an older view");
        }
        true
    }

    /// Next hops that nobody used before are asked for just now; on a LAN they answer within a millisecond. What is put
    /// in force without their MACs drops packets until then.
    fn await_neighbours(&mut self, mut view: Arc<NodeView>, now: Instant) -> Arc<NodeView> {
        let until = now + NEIGHBOUR_TIMEOUT;
        while self.reconciler.awaits_neighbours() && Instant::now() < until {
            std::thread::sleep(NEIGHBOUR_LOOK);
            if self.views.has_changed().unwrap_or(false) {
                view = self.look();
                self.reconciler.resolve(&view, now);
            }
        }
        view
    }

    /// Takes the pass program off far ends that nothing is sent to any more.
    fn release_far_ends(&mut self, needed: &BTreeSet<String>) {
        if self.tended.as_ref() == Some(needed) {
            return;
        }
        let data_path = self.reconciler.data_path_mut();
        let released = data_path.far_ends().and_then(|known| {
            known.iter().filter(|near| !needed.contains(*near)).try_for_each(|near| data_path.detach_far_end(near))
        });
        match released {
            Ok(()) => self.tended = Some(needed.clone()),
            Err(error) => tracing::warn!("cannot take a program off the far end of a veth: {error}"),
        }
    }

    /// Takes the program off interfaces that an earlier agent was told of, and this one is not.
    pub(super) fn release_interfaces(&mut self) {
        let data_path = self.reconciler.data_path_mut();
        let Ok(linked) = data_path.linked() else { return };
        for interface in linked.iter().filter(|name| !self.attachments.wants(name)) {
            self.egress.touch();
            match data_path.detach(interface) {
                Ok(()) => tracing::info!(interface, "detached: --interface does not name it any more"),
                Err(error) => tracing::warn!(interface, "cannot detach: {error}"),
            }
        }
    }

    fn attach(&mut self, view: &NodeView, now: Instant) {
        for action in self.attachments.due(view, now) {
            let data_path = self.reconciler.data_path_mut();
            match action {
                Action::Forget(interface) => {
                    if let Err(error) = data_path.detach(&interface) {
                        tracing::warn!(interface, "cannot forget an interface that is gone: {error}");
                    }
                }
                Action::Attach(interface, ifindex) => match data_path.attach(&interface) {
                    // Programs that still use the maps of another version wait for the first revision.
                    Ok(attachment) if attachment.ifindex == 0 => {}
                    Ok(attachment) => self.attachments.attached(&interface, attachment.ifindex),
                    Err(error) => self.attachments.refused(&interface, ifindex, error.to_string(), now),
                },
            }
            self.egress.touch();
            self.reporter.touch();
        }
    }
}

/// Puts the pass program on the far end of a veth.
fn put_on_far_end(data_path: &mut Kernel, node_setup: bool, near: &Link, peer: &Peer) -> Result<(), String> {
    if !node_setup {
        return Err(format!(
            "node setup is off (--no-node-setup); attach one there: `guenon pass attach` in {}",
            peer.path.display()
        ));
    }
    data_path.attach_far_end(&near.name, peer.namespace.as_fd(), peer.index).map_err(|error| error.to_string())
}
