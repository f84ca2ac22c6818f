//! What the agent has set on the node and must undo: STATE_DIR/node.json.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::setup::Sysctl;

/// Name of the file in the state directory.
pub(super) const FILE: &str = "node.json";

/// What is ours on the node, and what was there before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Cookie of the network namespace that this is about: in another one it means nothing.
    pub namespace: u64,
    /// Addresses put on the loopback.
    pub addresses: BTreeSet<IpAddr>,
    /// Sysctls set.
    pub sysctls: BTreeMap<Sysctl, Owned>,
}

/// A sysctl that the agent has set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owned {
    /// Its value before.
    pub previous: i64,
    /// The value that was set.
    pub set: i64,
    /// Index of its device then; a device of the same name with another index is another device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    /// What else the kernel changes along with it, and the values before, where the way back differs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub also: BTreeMap<Sysctl, i64>,
}

impl Record {
    /// Reads it; empty where there is none.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or holds something else.
    pub fn load(state_dir: &Path) -> io::Result<Self> {
        match fs::read(state_dir.join(FILE)) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Writes it so that the file is the old or the new, whole, whatever happens; removes it when there is
    /// nothing to undo.
    ///
    /// # Errors
    ///
    /// The directory cannot be made or written.
    pub fn save(&self, state_dir: &Path) -> io::Result<()> {
        let path = state_dir.join(FILE);
        if self.addresses.is_empty() && self.sysctls.is_empty() {
            return match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        fs::create_dir_all(state_dir)?;
        let temporary = state_dir.join(format!(".{FILE}.new"));
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(state_dir)?.sync_all()
    }
}
