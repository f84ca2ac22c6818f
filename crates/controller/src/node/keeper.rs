//! Does what the plan says, and undoes it.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::io::{Sysctls, add_address, observe, remove_address};
use super::plan::{Step, steps};
use super::record::{FILE, Owned, Record};
use super::setup::{NodeSetup, Sysctl, Wish};
use super::sys::namespace_cookie;
use crate::model::{Place, Problem, ProblemReason};
use crate::netlink::{Connection, NetlinkError};

/// Index of the loopback in every network namespace.
const LOOPBACK: u32 = 1;

/// Whether the agent may change the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// It does what is wanted.
    Change,
    /// `--no-node-setup`: it says what is wanted and not there.
    Tell,
}

/// Why the node can neither be set up nor restored.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// What was set is not known.
    #[error(
        "cannot read {path}, which says what to restore on this node: {error}; mend it, or move it away and \
         restore by hand what it tells"
    )]
    Record {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// The kernel cannot be asked.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// Keeps the node as wanted. All of it happens in the network namespace of the thread that it is used on.
#[derive(Debug)]
pub struct NodeKeeper {
    state_dir: PathBuf,
    permission: Permission,
    sysctls: Sysctls,
    connection: Connection,
    record: Record,
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error("cannot record it in {path}: {error}")]
    Record { path: PathBuf, error: io::Error },
    #[error("{0}")]
    Write(#[from] io::Error),
    #[error("{0}")]
    Netlink(#[from] NetlinkError),
}

impl NodeKeeper {
    /// Reads what earlier agents have set on this node, whose network sysctls are beneath `sysctls` (`/proc/sys/net`,
    /// or where it can be written in a pod).
    ///
    /// # Errors
    ///
    /// [`NodeError`].
    pub fn open(state_dir: &Path, permission: Permission, sysctls: &Path) -> Result<Self, NodeError> {
        let path = state_dir.join(FILE);
        let mut record = Record::load(state_dir).map_err(|error| NodeError::Record { path, error })?;
        let namespace = namespace_cookie();
        if record.namespace != namespace {
            if record != Record::default() {
                tracing::info!(dir = %state_dir.display(), "what was recorded is of a network namespace that is gone");
            }
            record = Record { namespace, ..Record::default() };
        }
        let (state_dir, sysctls) = (state_dir.to_owned(), Sysctls::new(sysctls));
        Ok(Self { state_dir, permission, sysctls, connection: Connection::open()?, record })
    }

    /// What is set now, and what was there before.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Sets the node up as wanted. What could not be done is told, with what to do by hand; the rest is done.
    pub fn apply(&mut self, setup: &NodeSetup) -> Vec<Problem> {
        let observed = match observe(&self.sysctls, &mut self.connection, setup, &self.record) {
            Ok(observed) => observed,
            Err(error) => return vec![problem("", format!("cannot look at this node: {error}"))],
        };
        let steps = steps(setup, &observed, &self.record);
        steps.into_iter().filter_map(|step| self.take(step, setup)).collect()
    }

    /// Gives back everything that was set. What could not be given back stays recorded, and is told.
    pub fn restore(&mut self) -> Vec<Problem> {
        self.apply(&NodeSetup::default())
    }

    fn take(&mut self, step: Step, setup: &NodeSetup) -> Option<Problem> {
        let by_hand = by_hand(&step);
        if let Step::Ask(..) = step {
            let why = purpose(&step, setup);
            return Some(problem(device(&step), format!("it does not forward{why}; {by_hand}, and in /etc/sysctl.d")));
        }
        let adds = matches!(step, Step::Set(..) | Step::SetAgain(..) | Step::AddAddress(_));
        if adds && self.permission == Permission::Tell {
            let message = format!("node setup is off (--no-node-setup){}; {by_hand}", purpose(&step, setup));
            return Some(problem(device(&step), message));
        }
        match self.carry_out(&step) {
            Ok(()) => {
                tracing::info!(?step, "node setup");
                None
            }
            Err(error) => Some(problem(device(&step), format!("{error}{}; {by_hand}", purpose(&step, setup)))),
        }
    }

    fn carry_out(&mut self, step: &Step) -> Result<(), StepError> {
        match step {
            Step::Set(key, owned) => {
                self.record.sysctls.insert(key.clone(), owned.clone());
                self.save()?;
                self.sysctls.set(key, owned.set).inspect_err(|_| {
                    self.record.sysctls.remove(key);
                    self.save_or_warn();
                })?;
            }
            Step::SetAgain(key, value) => self.sysctls.set(key, *value)?,
            Step::AddAddress(address) => {
                let is_new = self.record.addresses.insert(*address);
                self.save()?;
                add_address(&mut self.connection, LOOPBACK, *address).inspect_err(|_| {
                    if is_new {
                        self.record.addresses.remove(address);
                        self.save_or_warn();
                    }
                })?;
            }
            Step::RemoveAddress(address) => {
                remove_address(&mut self.connection, LOOPBACK, *address)?;
                self.record.addresses.remove(address);
                self.save()?;
            }
            Step::Restore(key, Owned { previous, also, .. }) => {
                self.sysctls.set(key, *previous)?;
                for (other, value) in also {
                    // A device that is gone has nothing to restore.
                    if self.sysctls.get(other).is_some() {
                        self.sysctls.set(other, *value)?;
                    }
                }
                self.record.sysctls.remove(key);
                self.save()?;
            }
            Step::Ask(..) => {}
            Step::Forget(key) => {
                self.record.sysctls.remove(key);
                self.save()?;
            }
            Step::ForgetAddress(address) => {
                self.record.addresses.remove(address);
                self.save()?;
            }
        }
        Ok(())
    }

    fn save(&self) -> Result<(), StepError> {
        let path = self.state_dir.join(FILE);
        self.record.save(&self.state_dir).map_err(|error| StepError::Record { path, error })
    }

    fn save_or_warn(&self) {
        if let Err(error) = self.save() {
            tracing::warn!(%error, "node setup");
        }
    }
}

/// What to do when the agent cannot.
fn by_hand(step: &Step) -> String {
    let address = |verb: &str, address: &IpAddr| {
        let length = if address.is_ipv4() { "32 dev lo scope host" } else { "128 dev lo nodad preferred_lft 0" };
        format!("by hand: `ip address {verb} {address}/{length}`")
    };
    match step {
        Step::Set(key, Owned { set, .. }) | Step::SetAgain(key, set) | Step::Ask(key, set) => {
            format!("set it by hand: `sysctl -w {key}={set}`")
        }
        Step::Restore(key, Owned { previous, .. }) => format!("restore it by hand: `sysctl -w {key}={previous}`"),
        Step::AddAddress(vip) => address("add", vip),
        Step::RemoveAddress(vip) => format!("by hand: `ip address delete {vip} dev lo`"),
        Step::Forget(_) | Step::ForgetAddress(_) => "make the state directory writable".to_owned(),
    }
}

/// `: why`, where a wish stands behind the step.
fn purpose(step: &Step, setup: &NodeSetup) -> String {
    let asks = matches!(step, Step::Ask(..));
    let of = |key: &Sysctl| {
        let mut wishes = setup.wishes.iter().filter(|wish| wish.is_yours() == asks);
        wishes.find(|wish| wish.reads().contains(key)).map(Wish::purpose)
    };
    let why = match step {
        Step::Set(key, _) | Step::SetAgain(key, _) | Step::Ask(key, _) => of(key),
        Step::AddAddress(_) => Some("endpoints of this node take packets for the VIP only if it is theirs"),
        Step::RemoveAddress(_) | Step::Restore(..) | Step::Forget(_) | Step::ForgetAddress(_) => None,
    };
    why.map(|why| format!(": {why}")).unwrap_or_default()
}

/// The device that a step is about.
fn device(step: &Step) -> &str {
    match step {
        Step::Set(key, _) | Step::SetAgain(key, _) | Step::Ask(key, _) | Step::Restore(key, _) | Step::Forget(key) => {
            key.device().unwrap_or_default()
        }
        Step::AddAddress(_) | Step::RemoveAddress(_) | Step::ForgetAddress(_) => "lo",
    }
}

pub(super) fn problem(device: &str, message: String) -> Problem {
    let object = if device.is_empty() { "this node".to_owned() } else { format!("interface {device}") };
    Problem { reason: ProblemReason::Node, place: Place { object, ..Place::default() }, message }
}
