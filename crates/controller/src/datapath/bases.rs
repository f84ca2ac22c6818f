//! What is added to a counter when it is shown. Maps of counters are never written by the agent: an index that gets a
//! new user starts from what it shows then, and new maps go on from what the old ones showed last.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use guenon_ebpf::abi::{Counter, FrontendCounters, InterfaceCounters};
use serde::{Deserialize, Serialize};

use super::error::DataPathError;

/// The file's name in the state directory.
const FILE: &str = "counters.json";

/// Packets and bytes to add, modulo 2^64.
type Base = [u64; 2];

/// All bases of one set of maps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Bases {
    /// The set of maps that they belong to.
    pub(super) maps: u32,
    /// By name of interface, then by CPU, then by index in [`InterfaceCounters`].
    interfaces: BTreeMap<String, Vec<BTreeMap<usize, Base>>>,
    /// By index in `FRONTEND_STATS`: directed packets and bytes, delivered, dropped.
    frontends: BTreeMap<u32, [u64; 4]>,
    /// By index in `ENDPOINT_STATS`.
    endpoints: BTreeMap<u32, Base>,
}

impl Bases {
    /// The bases of these maps; none where the file is missing, unreadable, or about other maps.
    pub(super) fn read(state_dir: &Path, maps: u32) -> Self {
        let file = fs::read(path(state_dir)).ok();
        let bases = file.and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok());
        bases.filter(|bases| bases.maps == maps).unwrap_or_else(|| Self { maps, ..Self::default() })
    }

    /// Replaces the file, so that no reader sees half of it.
    pub(super) fn write(&self, state_dir: &Path) -> Result<(), DataPathError> {
        let path = path(state_dir);
        let new = path.with_extension("json.new");
        let bytes = serde_json::to_vec(self).map_err(|error| DataPathError::file("write", &path)(error.into()))?;
        fs::write(&new, bytes).map_err(DataPathError::file("write", &new))?;
        fs::rename(&new, &path).map_err(DataPathError::file("replace", &path))
    }

    /// Takes the file away.
    pub(super) fn remove(state_dir: &Path) -> Result<(), DataPathError> {
        super::pins::remove_pin(&path(state_dir))
    }

    pub(super) fn interface(&self, name: &str, cpu: usize, mut counters: InterfaceCounters) -> InterfaceCounters {
        if let Some(bases) = self.interfaces.get(name).and_then(|cpus| cpus.get(cpu)) {
            for (index, [packets, bytes]) in bases {
                if let Some(counter) = counters.0.get_mut(*index) {
                    counter.packets = counter.packets.wrapping_add(*packets);
                    counter.bytes = counter.bytes.wrapping_add(*bytes);
                }
            }
        }
        counters
    }

    pub(super) fn frontend(&self, slot: u32, counters: FrontendCounters) -> FrontendCounters {
        let [packets, bytes, delivered, dropped] = self.frontends.get(&slot).copied().unwrap_or_default();
        FrontendCounters {
            directed: Counter {
                packets: counters.directed.packets.wrapping_add(packets),
                bytes: counters.directed.bytes.wrapping_add(bytes),
            },
            delivered: counters.delivered.wrapping_add(delivered),
            dropped: counters.dropped.wrapping_add(dropped),
        }
    }

    pub(super) fn endpoint(&self, index: u32, counter: Counter) -> Counter {
        let [packets, bytes] = self.endpoints.get(&index).copied().unwrap_or_default();
        Counter { packets: counter.packets.wrapping_add(packets), bytes: counter.bytes.wrapping_add(bytes) }
    }

    /// The interface shall show what `shown` says (by CPU) where the map shows nothing yet.
    pub(super) fn carry_interface(&mut self, name: &str, shown: &[InterfaceCounters]) {
        let cpu = |counters: &InterfaceCounters| -> BTreeMap<usize, Base> {
            let counted = |(_, counter): &(usize, &Counter)| counter.packets != 0 || counter.bytes != 0;
            let base = |(index, counter): (usize, &Counter)| (index, [counter.packets, counter.bytes]);
            counters.0.iter().enumerate().filter(counted).map(base).collect()
        };
        self.interfaces.insert(name.to_owned(), shown.iter().map(cpu).collect());
    }

    /// The frontend in this slot shall show `shown` where the map has `counted`. Whether that changes anything.
    pub(super) fn set_frontend(&mut self, slot: u32, shown: FrontendCounters, counted: FrontendCounters) -> bool {
        let base = [
            shown.directed.packets.wrapping_sub(counted.directed.packets),
            shown.directed.bytes.wrapping_sub(counted.directed.bytes),
            shown.delivered.wrapping_sub(counted.delivered),
            shown.dropped.wrapping_sub(counted.dropped),
        ];
        set(&mut self.frontends, slot, base)
    }

    /// The endpoint that counts here shall show `shown` where the map has `counted`. Whether that changes anything.
    pub(super) fn set_endpoint(&mut self, index: u32, shown: Counter, counted: Counter) -> bool {
        let base = [shown.packets.wrapping_sub(counted.packets), shown.bytes.wrapping_sub(counted.bytes)];
        set(&mut self.endpoints, index, base)
    }
}

fn set<const N: usize>(bases: &mut BTreeMap<u32, [u64; N]>, index: u32, base: [u64; N]) -> bool {
    let before = if base == [0; N] { bases.remove(&index) } else { bases.insert(index, base) };
    before.unwrap_or([0; N]) != base
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_with_a_new_user_starts_from_nothing() {
        let mut bases = Bases::default();
        let counted = Counter { packets: 7, bytes: 700 };
        assert!(bases.set_endpoint(3, Counter::default(), counted));
        assert!(!bases.set_endpoint(3, Counter::default(), counted), "the same again changes nothing");
        assert_eq!(bases.endpoint(3, counted), Counter::default());
        let later = Counter { packets: 9, bytes: 750 };
        assert_eq!(bases.endpoint(3, later), Counter { packets: 2, bytes: 50 });
        assert_eq!(bases.endpoint(4, later), later);
    }

    #[test]
    fn bases_of_other_maps_are_not_taken() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut bases = Bases { maps: 5, ..Bases::default() };
        let mut shown = InterfaceCounters([Counter::default(); guenon_ebpf::abi::COUNTERS_PER_INTERFACE]);
        shown.0[1] = Counter { packets: 4, bytes: 5 };
        bases.carry_interface("eth0", &[shown, shown]);
        bases.write(directory.path()).expect("the bases are written");
        assert_eq!(Bases::read(directory.path(), 5), bases);
        assert_eq!(
            Bases::read(directory.path(), 5).interface("eth0", 1, shown).0[1],
            Counter { packets: 8, bytes: 10 }
        );
        assert_eq!(Bases::read(directory.path(), 6), Bases { maps: 6, ..Bases::default() });
    }
}
