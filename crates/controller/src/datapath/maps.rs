//! A set of maps in the kernel: made, found again, compared, mapped into memory.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use guenon_ebpf::abi::{self, FRAGMENT_SETS, MAX_INTERFACES, map};
use memmap2::{MmapOptions, MmapRaw};

use super::atomic::AtomicU64;
use super::error::DataPathError;
use super::sys::{self, Shape};
use super::tables::{Capacities, Store, Table};

/// Maps that programs of the old and of the new set share while one set follows the other: programs write them, and at no
/// moment may a flow be known to one of two programs alone. Their entries name VIPs by ids, which are kept
/// ([`super::tables::Tables::keep_ids`]). Flows of a table of another size are copied ([`super::flows`]).
const SHARED: [&str; 3] = [map::FLOWS, map::NAT_FRAGMENTS, map::HAIRPINS];

/// Bytes of the ring buffer `EVENTS`.
const RING_BYTES: u32 = 64 * 1024;

/// Elements that hold a counter for each element of this table.
pub(super) fn counter_pages(capacities: &Capacities, table: Table) -> u32 {
    capacities.elements(table).div_ceil(abi::COUNTERS_PER_PAGE as u32)
}

/// Every map of the program, with the shape that these capacities give it.
pub(super) fn shapes(capacities: &Capacities) -> BTreeMap<&'static str, Shape> {
    let shape = |kind, value: usize, max_entries, flags| Shape {
        kind,
        key_size: 4,
        value_size: value as u32,
        max_entries,
        flags,
    };
    let mut shapes: BTreeMap<&'static str, Shape> = Table::ALL
        .into_iter()
        .map(|table| {
            let elements = capacities.elements(table);
            (table.map(), shape(sys::ARRAY, table.element_bytes(), elements, sys::MMAPABLE))
        })
        .collect();
    let frontends = counter_pages(capacities, Table::Frontends);
    let endpoints = counter_pages(capacities, Table::Endpoints);
    shapes.insert(map::COUNTERS, shape(sys::PER_CPU_ARRAY, size_of::<abi::InterfaceCounters>(), MAX_INTERFACES, 0));
    shapes.insert(map::FRONTEND_STATS, shape(sys::PER_CPU_ARRAY, size_of::<abi::FrontendPage>(), frontends, 0));
    shapes.insert(map::ENDPOINT_STATS, shape(sys::PER_CPU_ARRAY, size_of::<abi::EndpointPage>(), endpoints, 0));
    shapes.insert(map::FRAGMENTS, shape(sys::ARRAY, size_of::<abi::FragmentSet>(), FRAGMENT_SETS, 0));
    shapes.insert(map::NAT_FRAGMENTS, shape(sys::ARRAY, size_of::<abi::FragmentSet>(), FRAGMENT_SETS, 0));
    shapes.insert(
        map::EGRESS_COUNTERS,
        shape(sys::PER_CPU_ARRAY, size_of::<abi::InterfaceCounters>(), MAX_INTERFACES, 0),
    );
    let trie = Shape {
        kind: sys::LPM_TRIE,
        key_size: size_of::<abi::HairpinKey>() as u32,
        value_size: 4,
        max_entries: abi::MAX_HAIRPINS,
        flags: sys::NO_PREALLOC,
    };
    shapes.insert(map::HAIRPINS, trie);
    shapes.insert(map::LIMITER, shape(sys::PER_CPU_ARRAY, size_of::<abi::Limiter>(), 1, 0));
    let ring = Shape { kind: sys::RING_BUFFER, key_size: 0, value_size: 0, max_entries: RING_BYTES, flags: 0 };
    shapes.insert(map::EVENTS, ring);
    shapes
}

/// A table mapped into memory.
#[derive(Debug)]
struct Region {
    memory: MmapRaw,
    words: usize,
}

/// A set of maps, the tables among them mapped into memory.
#[derive(Debug)]
pub struct Mapped {
    regions: BTreeMap<Table, Region>,
    maps: BTreeMap<&'static str, OwnedFd>,
    id: u32,
}

impl Mapped {
    /// Maps of these shapes, pinned in no place.
    ///
    /// # Errors
    ///
    /// The kernel makes no such map: for lack of memory or of a capability.
    pub fn unpinned(capacities: &Capacities) -> Result<Self, DataPathError> {
        Self::beside(capacities, None)
    }

    /// As [`Self::unpinned`], and pins them in this directory. What [`SHARED`] names is taken from the maps before, where
    /// it has the same shape there.
    pub(super) fn create(
        directory: &Path,
        capacities: &Capacities,
        before: Option<&Self>,
    ) -> Result<Self, DataPathError> {
        let made = Self::beside(capacities, before)?;
        super::pins::create_dir(directory)?;
        for (name, map) in &made.maps {
            sys::pin(map.as_fd(), &directory.join(name)).map_err(DataPathError::map("pin", name))?;
        }
        Ok(made)
    }

    fn beside(capacities: &Capacities, before: Option<&Self>) -> Result<Self, DataPathError> {
        let mut maps = BTreeMap::new();
        for (name, shape) in shapes(capacities) {
            let known = before.filter(|_| SHARED.contains(&name)).and_then(|before| before.maps.get(name));
            let same = match known {
                Some(map) => {
                    let (_, found) = sys::map_info(map.as_fd()).map_err(DataPathError::map("inspect", name))?;
                    (found == shape).then_some(map)
                }
                None => None,
            };
            let map = match same {
                Some(map) => map.try_clone().map_err(DataPathError::map("hold", name))?,
                None => sys::create_map(&shape, None).map_err(DataPathError::map("make", name))?,
            };
            maps.insert(name, map);
        }
        Self::map(maps, true)
    }

    /// Opens what is pinned in this directory, whatever its capacities are.
    pub(super) fn open(directory: &Path, writable: bool) -> Result<Self, DataPathError> {
        let mut maps = BTreeMap::new();
        for name in shapes(&Capacities::default()).into_keys() {
            // The kernel shares memory with descriptors that may write alone; reading is a matter of the mapping.
            let map = sys::open_pin(&directory.join(name)).map_err(DataPathError::map("open the pinned", name))?;
            maps.insert(name, map);
        }
        Self::map(maps, writable)
    }

    fn map(maps: BTreeMap<&'static str, OwnedFd>, writable: bool) -> Result<Self, DataPathError> {
        let (mut regions, mut id) = (BTreeMap::new(), 0);
        for table in Table::ALL {
            let name = table.map();
            let Some(map) = maps.get(name) else { continue };
            let (found, shape) = sys::map_info(map.as_fd()).map_err(DataPathError::map("inspect", name))?;
            if table == Table::Meta {
                id = found;
            }
            let bytes = shape.max_entries as usize * (shape.value_size as usize).next_multiple_of(8);
            let mut options = MmapOptions::new();
            options.len(bytes);
            let memory =
                if writable { options.map_raw(map.as_raw_fd()) } else { options.map_raw_read_only(map.as_raw_fd()) };
            let memory = memory.map_err(DataPathError::map("map into memory the", name))?;
            regions.insert(table, Region { memory, words: bytes / 8 });
        }
        Ok(Self { regions, maps, id })
    }

    /// A map, for calls on it.
    pub(super) fn fd(&self, name: &str) -> Option<BorrowedFd<'_>> {
        self.maps.get(name).map(AsFd::as_fd)
    }

    /// A number that tells this set of maps from every other one made since the machine was started.
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// What the maps are, by name.
    pub(super) fn shapes(&self) -> Result<BTreeMap<&'static str, Shape>, DataPathError> {
        let shape = |(name, map): (&&'static str, &OwnedFd)| match sys::map_info(map.as_fd()) {
            Ok((_, shape)) => Ok((*name, shape)),
            Err(error) => Err(DataPathError::map("inspect", name)(error)),
        };
        self.maps.iter().map(shape).collect()
    }

    /// Whether every element has the size that this version gives it (numbers of elements may differ).
    pub(super) fn is_readable(&self) -> Result<bool, DataPathError> {
        let ours = shapes(&Capacities::default());
        let found = self.shapes()?;
        Ok(ours.iter().all(|(name, ours)| {
            found.get(name).is_some_and(|found| Shape { max_entries: 0, ..*found } == Shape { max_entries: 0, ..*ours })
        }))
    }

    /// Version of the layout, as whoever made the maps wrote it.
    pub(super) fn abi(&self) -> u32 {
        self.words(Table::Meta).first().map_or(0, |word| word.load(super::atomic::Ordering::Acquire) as u32)
    }
}

impl Store for Mapped {
    fn words(&self, table: Table) -> &[AtomicU64] {
        let Some(region) = self.regions.get(&table) else { return &[] };
        // SAFETY: the mapping is `words` times eight bytes long and aligned to a page; it lives as long as
        // `self`. Everybody who writes to it does so by whole aligned words, and programs read by such.
        // Where it is read-only nobody stores: `Tables` is made of writable ones alone.
        unsafe { std::slice::from_raw_parts(region.memory.as_ptr().cast::<AtomicU64>(), region.words) }
    }
}
