//! What is done to the node itself, in the order that loses no packet.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::model::{FarEnd, NodeView, Problem};
use crate::netlink::{Connection, Link, NetlinkError, Peer};
use crate::node::{Duties, FarEnds, NodeKeeper, NodeSetup};
use crate::resolve::Needs;

/// How often the node is looked at though nothing changed: somebody may have changed it back.
const LOOK: Duration = Duration::from_secs(30);
/// How soon a far end that was refused is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Addresses, sysctls, programs on far ends.
pub(super) struct NodeSide {
    keeper: NodeKeeper,
    far_ends: FarEnds,
    connection: Connection,
    wanted: NodeSetup,
    near_ends: BTreeSet<String>,
    /// Those that are there, with their indices.
    present: BTreeMap<String, u32>,
    known: BTreeMap<u32, FarEnd>,
    problems: Vec<Problem>,
    next_look: Instant,
    next_tend: Option<Instant>,
}

impl NodeSide {
    /// Nothing is changed yet: what an earlier agent put on the loopback stays until the state that needs it is gone.
    pub(super) fn new(keeper: NodeKeeper, netns_dir: PathBuf) -> Result<Self, NetlinkError> {
        let wanted = NodeSetup { addresses: keeper.record().addresses.clone(), ..NodeSetup::default() };
        Ok(Self {
            keeper,
            far_ends: FarEnds::new(netns_dir),
            connection: Connection::open()?,
            wanted,
            near_ends: BTreeSet::new(),
            present: BTreeMap::new(),
            known: BTreeMap::new(),
            problems: Vec::new(),
            next_look: Instant::now(),
            next_tend: None,
        })
    }

    /// Sees to the far ends of these veths. What is known of them now, where that has changed.
    pub(super) fn tend<E: std::fmt::Display>(
        &mut self,
        near_ends: &BTreeSet<String>,
        view: &NodeView,
        attach: impl FnMut(&Link, &Peer) -> Result<(), E>,
        now: Instant,
    ) -> Option<BTreeMap<u32, FarEnd>> {
        let present: BTreeMap<String, u32> = view
            .interfaces
            .iter()
            .filter(|interface| near_ends.contains(&interface.name))
            .map(|interface| (interface.name.clone(), interface.index))
            .collect();
        let is_due = self.next_tend.is_some_and(|next| next <= now);
        if *near_ends == self.near_ends && present == self.present && !is_due {
            return None;
        }
        self.near_ends.clone_from(near_ends);
        self.present = present;
        let names = near_ends.iter().map(String::as_str);
        match self.far_ends.tend(&mut self.connection, names, attach) {
            Ok(known) => {
                let all_ready = known.len() == near_ends.len() && known.values().all(|end| *end == FarEnd::Ready);
                let wait = if all_ready { LOOK } else { RETRY };
                self.next_tend = (!near_ends.is_empty()).then(|| now + wait);
                (known != self.known).then(|| {
                    self.known.clone_from(&known);
                    known
                })
            }
            Err(error) => {
                tracing::warn!("cannot look at the far ends of veths: {error}; trying again");
                self.next_tend = Some(now + RETRY);
                None
            }
        }
    }

    /// Before a change of the data path: adds what the new state needs, keeps what the old one needed.
    pub(super) fn prepare(&mut self, needs: &Needs, view: &NodeView, now: Instant) -> NodeSetup {
        let setup = NodeSetup::new(&duties(needs), view);
        if setup != self.wanted || self.next_look <= now {
            let mut both = self.wanted.clone();
            both.addresses.extend(&setup.addresses);
            both.wishes.extend(setup.wishes.iter().cloned());
            self.problems = self.keeper.apply(&both);
            self.next_look = now + if self.problems.is_empty() { LOOK } else { RETRY };
        }
        setup
    }

    /// After it: takes away what nothing needs any more.
    pub(super) fn settle(&mut self, setup: NodeSetup) {
        if setup != self.wanted {
            self.problems = self.keeper.apply(&setup);
            self.wanted = setup;
        }
    }

    /// There is nothing to prepare for yet.
    pub(super) fn wait(&mut self, now: Instant) {
        self.next_look = now + LOOK;
    }

    /// What could not be done.
    pub(super) fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// When to look again.
    pub(super) fn next(&self) -> Instant {
        self.next_tend.map_or(self.next_look, |tend| tend.min(self.next_look))
    }
}

/// What the services' needs mean for the node.
fn duties(needs: &Needs) -> Duties {
    let Needs { neighbours: _, loopback, far_ends: _, replies, pods } = needs;
    Duties { loopback: loopback.clone(), veths: replies.clone(), pods: pods.clone() }
}
