//! Leaving nothing behind.

use std::collections::BTreeSet;
use std::path::Path;

use super::attach::Records;
use super::bases::Bases;
use super::egress;
use super::error::DataPathError;
use super::pins::{self, Pins};

/// Removes programs, links, maps and the pin directory, and what was kept of counters. What is not there is no error.
///
/// # Errors
///
/// [`DataPathError::Locked`] while an agent runs; [`DataPathError::File`].
pub fn detach_all(pin_dir: &Path, state_dir: &Path) -> Result<Detached, DataPathError> {
    let pins = Pins::new(pin_dir);
    let mut detached = Detached::default();
    if pins.root().exists() {
        let _lock = pins::lock(pins.root())?;
        detached.interfaces = pins::names_in(&pins.links())?.iter().map(|name| pins::unescape(name)).collect();
        detached.maps = pins::names_in(&pins.maps())?.len();
        for directory in [pins.links(), pins.programs()] {
            pins::remove_dir(&directory)?;
        }
        let records = Records::read(state_dir);
        let pinned = pins::names_in(&pins.egress_programs())?;
        let known: BTreeSet<String> = pinned
            .iter()
            .map(|name| pins::unescape(name))
            .chain(records.egress_interfaces().map(str::to_owned))
            .collect();
        for interface in known {
            egress::detach(&pins, &interface, records.egress(&interface))?;
        }
        for directory in [pins.egress_links(), pins.egress_programs(), pins.maps(), pins.new_maps(), pins.old_maps()] {
            pins::remove_dir(&directory)?;
        }
        pins::remove_dir(pins.root())?;
    }
    Bases::remove(state_dir)?;
    Records::remove(state_dir)?;
    Ok(detached)
}

/// What [`detach_all`] found and removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Detached {
    /// Interfaces that had a program; `far-NAME` = the far end of the veth NAME.
    pub interfaces: Vec<String>,
    /// Number of maps.
    pub maps: usize,
}
