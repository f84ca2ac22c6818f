//! The program on maps of its own, neither pinned nor attached: for the simulator and for tests.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd};

use aya::maps::{Map, MapData, PerCpuArray, RingBuf};
use aya::programs::{ProgramFd, SchedClassifier, TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader, Pod};
use guenon_ebpf::abi::{
    Counter, EndpointPage, FrontendCounters, FrontendPage, InterfaceCounters, Settings, TunnelTooBig, locate_counter,
    map,
};
use memmap2::{MmapOptions, MmapRaw};
use zerocopy::{FromBytes, IntoBytes};

use super::atomic::AtomicU64;
use super::maps::counter_pages;
use super::object::OBJECT;
use super::program::{EGRESS, lacks_frags, told};
use super::tables::{Capacities, Store, Table};

/// Why the program cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum PrivateError {
    /// The kernel refused maps or program.
    #[error(
        "cannot load the XDP program on private maps; it takes CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN: run as root"
    )]
    Load(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The object has no such map or program.
    #[error("the embedded XDP object has no `{0}`; this is a defect in Guenon, please report it")]
    Missing(&'static str),
    /// A map cannot be mapped into memory.
    #[error("cannot map `{name}` into memory; BPF_F_MMAPABLE needs kernel 5.5 or newer")]
    Map {
        /// The map.
        name: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A map cannot be read.
    #[error("cannot read `{name}`")]
    Read {
        /// The map.
        name: &'static str,
        /// What the kernel said.
        source: aya::maps::MapError,
    },
    /// The kernel did not take the frame.
    #[error(
        "the kernel takes no frame of {length} bytes for a test run ({})",
        if *linear { "14 to about 3,500 bytes: before kernel 5.18 there are no multi-buffer frames" }
        else { "14 to about 60,000 bytes" }
    )]
    Run {
        /// Bytes of the frame.
        length: usize,
        /// Whether the program is the one for linear frames.
        linear: bool,
        /// What the kernel said.
        source: aya::programs::ProgramError,
    },
}

/// Index of `ifindex` in `struct __sk_buff`, in words.
const SK_BUFF_IFINDEX: usize = 10;

/// The largest frame that a test run may give back.
const MAX_FRAME: usize = 1 << 16;

/// The memory of private maps.
#[derive(Debug)]
pub struct PrivateMaps(BTreeMap<Table, (MmapRaw, usize)>);

impl Store for PrivateMaps {
    fn words(&self, table: Table) -> &[AtomicU64] {
        let (memory, words) = &self.0[&table];
        // SAFETY: the mapping is at least `words` words long, page-aligned, and lives as long as `self`; all
        // access from this side is by atomic operations, as the program's is by whole aligned words.
        unsafe { std::slice::from_raw_parts(memory.as_ptr().cast(), *words) }
    }
}

/// A loaded program with its private maps, but for those that [`PrivateMaps`] holds.
pub struct PrivateProgram {
    bpf: Ebpf,
    name: &'static str,
    slot: u32,
    counters: PerCpuArray<MapData, Words<INTERFACE_WORDS>>,
    egress_counters: PerCpuArray<MapData, Words<INTERFACE_WORDS>>,
    egress_is_loaded: bool,
    /// Maps that the program on the way out is loaded on, when it is first run.
    _maps: Vec<MapData>,
    frontends: PerCpuArray<MapData, Words<FRONTEND_WORDS>>,
    endpoints: PerCpuArray<MapData, Words<ENDPOINT_WORDS>>,
    events: RingBuf<MapData>,
    out: Vec<u8>,
}

const INTERFACE_WORDS: usize = size_of::<InterfaceCounters>() / 8;
const FRONTEND_WORDS: usize = size_of::<FrontendPage>() / 8;
const ENDPOINT_WORDS: usize = size_of::<EndpointPage>() / 8;
type Words<const N: usize> = [u64; N];

/// Loads the program with these settings (its table masks are set here) on maps of these capacities. `linear` asks for
/// the program that knows no multi-buffer frames, which a kernel before 5.18 gets anyway.
///
/// # Errors
///
/// [`PrivateError`]: nothing is left behind.
pub fn load(
    settings: Settings,
    capacities: &Capacities,
    linear: bool,
) -> Result<(PrivateProgram, PrivateMaps), PrivateError> {
    let mask = |table: Table| capacities.elements(table) - 1;
    let settings = Settings {
        address_mask: mask(Table::Addresses),
        frontend_mask: mask(Table::Frontends),
        local_mask: mask(Table::Locals),
        director_mask: mask(Table::Directors),
        flow_mask: mask(Table::Flows),
        ..settings
    };
    let mut loader = EbpfLoader::new();
    for table in Table::ALL {
        loader.map_max_entries(table.map(), capacities.elements(table));
    }
    loader.map_max_entries(map::FRONTEND_STATS, counter_pages(capacities, Table::Frontends));
    loader.map_max_entries(map::ENDPOINT_STATS, counter_pages(capacities, Table::Endpoints));
    loader.override_global("SETTINGS", settings.as_bytes(), true);
    let mut bpf = loader.load(OBJECT).map_err(|error| PrivateError::Load(Box::new(error)))?;

    let linear = linear || lacks_frags();
    let name = if linear { "guenon_linear" } else { "guenon" };
    xdp(&mut bpf, name)?.load().map_err(|error| PrivateError::Load(told(name, &error).into()))?;

    let (mut maps, mut held) = (BTreeMap::new(), Vec::new());
    for table in Table::ALL {
        let bytes = capacities.elements(table) as usize * table.element_bytes();
        let (memory, map) = map_memory(&mut bpf, table.map(), bytes)?;
        maps.insert(table, (memory, bytes / 8));
        held.push(map);
    }
    let program = PrivateProgram {
        counters: per_cpu(&mut bpf, map::COUNTERS)?,
        egress_counters: per_cpu(&mut bpf, map::EGRESS_COUNTERS)?,
        egress_is_loaded: false,
        _maps: held,
        frontends: per_cpu(&mut bpf, map::FRONTEND_STATS)?,
        endpoints: per_cpu(&mut bpf, map::ENDPOINT_STATS)?,
        events: RingBuf::try_from(take(&mut bpf, map::EVENTS)?)
            .map_err(|source| PrivateError::Read { name: map::EVENTS, source })?,
        bpf,
        name,
        slot: settings.slot,
        out: vec![0; MAX_FRAME],
    };
    Ok((program, PrivateMaps(maps)))
}

impl PrivateProgram {
    /// Whether it is the program that knows no multi-buffer frames.
    #[must_use]
    pub fn is_linear(&self) -> bool {
        self.name == "guenon_linear"
    }

    /// The loaded program, as for a tail call.
    ///
    /// # Errors
    ///
    /// [`PrivateError::Load`].
    pub fn fd(&self) -> Result<&ProgramFd, PrivateError> {
        let program = self.bpf.program(self.name).ok_or(PrivateError::Missing(self.name))?;
        program.fd().map_err(|error| PrivateError::Load(Box::new(error)))
    }

    /// Runs one frame through the program: the XDP action, and the frame as the program left it.
    ///
    /// # Errors
    ///
    /// [`PrivateError::Run`] for a frame that is too short or too long.
    pub fn run(&mut self, frame: &[u8]) -> Result<(u32, Vec<u8>), PrivateError> {
        let linear = self.is_linear();
        let options =
            TestRunOptions { data_in: Some(frame), data_out: Some(&mut self.out), ..TestRunOptions::default() };
        let result = xdp(&mut self.bpf, self.name)?.test_run(options).map_err(|source| PrivateError::Run {
            length: frame.len(),
            linear,
            source,
        })?;
        Ok((result.return_value, self.out[..result.data_size_out as usize].to_vec()))
    }

    /// Runs one frame through the program on the way out, on the same maps: the action (-1 = go on, 2 = drop), and the
    /// frame as the program left it. `device` is the index of the device that it leaves by, in this network namespace;
    /// without, the loopback.
    ///
    /// # Errors
    ///
    /// [`PrivateError::Load`] at the first call; [`PrivateError::Run`] for a frame that is too short or too long, or a
    /// device that is not there.
    pub fn run_egress(&mut self, frame: &[u8], device: Option<u32>) -> Result<(i32, Vec<u8>), PrivateError> {
        self.egress()?;
        let classifier: &SchedClassifier = self
            .bpf
            .program(EGRESS)
            .and_then(|program| program.try_into().ok())
            .ok_or(PrivateError::Missing(EGRESS))?;
        // The beginning of a `struct __sk_buff`.
        let mut context = [0u32; SK_BUFF_IFINDEX + 1];
        context[SK_BUFF_IFINDEX] = device.unwrap_or_default();
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut self.out),
            ctx_in: device.is_some().then(|| context.as_bytes()),
            ..TestRunOptions::default()
        };
        let result = classifier.test_run(options);
        let result = result.map_err(|source| PrivateError::Run { length: frame.len(), linear: true, source })?;
        let length = result.data_size_out as usize;
        Ok((result.return_value.cast_signed(), self.out[..length].to_vec()))
    }

    /// The program on the way out, as for a tail call; loaded at the first call.
    ///
    /// # Errors
    ///
    /// [`PrivateError::Load`].
    pub fn egress(&mut self) -> Result<&ProgramFd, PrivateError> {
        let classifier: &mut SchedClassifier = (self.bpf.program_mut(EGRESS))
            .and_then(|program| program.try_into().ok())
            .ok_or(PrivateError::Missing(EGRESS))?;
        if !self.egress_is_loaded {
            classifier.load().map_err(|error| PrivateError::Load(told(EGRESS, &error).into()))?;
            self.egress_is_loaded = true;
        }
        classifier.fd().map_err(|error| PrivateError::Load(Box::new(error)))
    }

    /// What the program on the way out has counted, all CPUs together.
    ///
    /// # Errors
    ///
    /// [`PrivateError::Read`].
    pub fn egress_counters(&self) -> Result<InterfaceCounters, PrivateError> {
        let words = sum(&self.egress_counters, map::EGRESS_COUNTERS, self.slot)?;
        Ok(zerocopy::transmute!(words))
    }

    /// The interface's counters, all CPUs together.
    ///
    /// # Errors
    ///
    /// [`PrivateError::Read`].
    pub fn counters(&self) -> Result<InterfaceCounters, PrivateError> {
        let words = sum(&self.counters, map::COUNTERS, self.slot)?;
        Ok(zerocopy::transmute!(words))
    }

    /// A frontend's counters.
    ///
    /// # Errors
    ///
    /// [`PrivateError::Read`].
    pub fn frontend_counters(&self, slot: u32) -> Result<FrontendCounters, PrivateError> {
        let (page, at) = locate_counter(slot);
        let page: FrontendPage = zerocopy::transmute!(sum(&self.frontends, map::FRONTEND_STATS, page)?);
        Ok(page[at])
    }

    /// An endpoint's counter.
    ///
    /// # Errors
    ///
    /// [`PrivateError::Read`].
    pub fn endpoint_counter(&self, index: u32) -> Result<Counter, PrivateError> {
        let (page, at) = locate_counter(index);
        let page: EndpointPage = zerocopy::transmute!(sum(&self.endpoints, map::ENDPOINT_STATS, page)?);
        Ok(page[at])
    }

    /// What routers said of tunnel packets since the last call.
    pub fn tunnel_too_big(&mut self) -> Vec<TunnelTooBig> {
        let mut records = Vec::new();
        while let Some(item) = self.events.next() {
            records.extend(TunnelTooBig::read_from_bytes(&item));
        }
        records
    }
}

fn xdp<'a>(bpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp, PrivateError> {
    bpf.program_mut(name).and_then(|program| program.try_into().ok()).ok_or(PrivateError::Missing(name))
}

fn take(bpf: &mut Ebpf, name: &'static str) -> Result<Map, PrivateError> {
    bpf.take_map(name).ok_or(PrivateError::Missing(name))
}

fn per_cpu<const N: usize>(bpf: &mut Ebpf, name: &'static str) -> Result<PerCpuArray<MapData, [u64; N]>, PrivateError>
where
    [u64; N]: Pod,
{
    PerCpuArray::try_from(take(bpf, name)?).map_err(|source| PrivateError::Read { name, source })
}

fn map_memory(bpf: &mut Ebpf, name: &'static str, bytes: usize) -> Result<(MmapRaw, MapData), PrivateError> {
    let Map::Array(data) = take(bpf, name)? else { return Err(PrivateError::Missing(name)) };
    let memory = MmapOptions::new()
        .len(bytes)
        .map_raw(data.fd().as_fd().as_raw_fd())
        .map_err(|source| PrivateError::Map { name, source })?;
    Ok((memory, data))
}

fn sum<const N: usize>(
    array: &PerCpuArray<MapData, [u64; N]>,
    name: &'static str,
    index: u32,
) -> Result<[u64; N], PrivateError>
where
    [u64; N]: Pod,
{
    let values = array.get(&index, 0).map_err(|source| PrivateError::Read { name, source })?;
    let mut total = [0_u64; N];
    for value in values.iter() {
        for (sum, word) in total.iter_mut().zip(value) {
            *sum += word;
        }
    }
    Ok(total)
}
