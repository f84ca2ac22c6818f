//! What the agent says of itself in a small file, for `guenon status`: what maps cannot tell.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::{Deserialize, Serialize};

use crate::model::Problem;

/// The file's name in the state directory.
pub const FILE: &str = "status.json";

/// The agent writes its report at least this often, seconds.
pub const HEARTBEAT: u64 = 10;

/// What an agent says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentReport {
    /// When it was written, seconds since the Unix epoch.
    pub written_at: u64,
    /// The agent's process.
    pub pid: u32,
    /// The agent's version.
    pub version: String,
    /// The node's name.
    pub node: String,
    /// Why the agent is not ready; empty = it is.
    pub waiting_for: Vec<String>,
    /// The source of objects: `files` or `kubernetes`.
    pub source: String,
    /// When the source last told something, seconds since the Unix epoch; 0 = never.
    pub source_heard_at: u64,
    /// What keeps part of the configuration out of force.
    pub problems: Vec<Problem>,
    /// How endpoints of this node get their packets, by `namespace/name` of the service of the data path and by address.
    #[serde(default)]
    pub deliveries: Deliveries,
}

/// By service of the data path (`namespace/name`) and address of an endpoint.
pub type Deliveries = BTreeMap<String, BTreeMap<IpAddr, Delivered>>;

/// How an endpoint gets its packets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivered {
    /// `Local`, `Veth` or `Nat`.
    pub delivery: String,
    /// Why this one: half a sentence.
    pub why: String,
}

impl AgentReport {
    /// Replaces the report in this directory, so that no reader sees half of it.
    ///
    /// # Errors
    ///
    /// The directory cannot be written.
    pub fn write(&self, state_dir: &Path) -> io::Result<()> {
        let path = path(state_dir);
        let new = path.with_extension("json.new");
        fs::write(&new, serde_json::to_vec(self)?)?;
        fs::rename(&new, &path)
    }

    /// The report in this directory, if an agent has left one that can be read.
    #[must_use]
    pub fn read(state_dir: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path(state_dir)).ok()?).ok()
    }

    /// Takes the report away; one that is not there is no error.
    ///
    /// # Errors
    ///
    /// The directory cannot be written.
    pub fn remove(state_dir: &Path) -> io::Result<()> {
        match fs::remove_file(path(state_dir)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Whether the report is younger than two heartbeats.
    #[must_use]
    pub fn is_fresh(&self, now: u64) -> bool {
        now.saturating_sub(self.written_at) <= 2 * HEARTBEAT + 1
    }
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Place, ProblemReason};

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let directory = tempfile::tempdir().expect("a directory");
        assert_eq!(AgentReport::read(directory.path()), None);
        let place = Place { file: "web.yaml".into(), line: 3, ..Place::default() };
        let problem = Problem { reason: ProblemReason::Invalid, place, message: "port 0".into() };
        let delivered = Delivered { delivery: "Nat".into(), why: "as asked for".into() };
        let address = IpAddr::from([10, 244, 2, 7]);
        let deliveries = [("shop/web".to_owned(), [(address, delivered)].into())].into();
        let report =
            AgentReport { written_at: 100, pid: 7, problems: vec![problem], deliveries, ..AgentReport::default() };
        report.write(directory.path()).expect("the report is written");
        assert_eq!(AgentReport::read(directory.path()), Some(report.clone()));
        assert!(report.is_fresh(100 + HEARTBEAT) && !report.is_fresh(100 + 3 * HEARTBEAT));
        AgentReport::remove(directory.path()).expect("the report is removed");
        AgentReport::remove(directory.path()).expect("nothing left to remove");
        assert_eq!(AgentReport::read(directory.path()), None);
    }
}
