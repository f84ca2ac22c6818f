//! The data path in the kernel: pinned maps, programs and links; one writer.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use guenon_ebpf::abi::{ABI_VERSION, Counter, FrontendCounters, ROLE_DECAP, ROLE_DIRECTOR, Settings};
use guenon_ebpf::hash::Schedule;

use super::attach::{Attacher, Records};
use super::bases::Bases;
use super::counters::{self, Extent};
use super::error::DataPathError;
use super::grace_period::{KernelGrace, wait_once};
use super::maps::{Mapped, shapes};
use super::pins::{self, Lock, Pins};
use super::preflight::preflight;
use super::program::{fingerprint, with_masks};
use super::tables::attachments::{self, Attachment, Mode};
use super::tables::{
    Capacities, Occupancy, Released, Store, Table, Tables, endpoint_counters, frontend_slots, read_meta, read_state,
};
use crate::apply::{DataPath, Operation, Refusal};
use crate::model::State;
use crate::reading::Reading;

/// How to attach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttachMode {
    /// In the driver where it can, else generic.
    #[default]
    Auto,
    /// In the driver.
    Native,
    /// In the kernel's generic path.
    Generic,
}

/// What the data path is told once.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to pin.
    pub pin_dir: PathBuf,
    /// For bases of counters, and what was loaded.
    pub state_dir: PathBuf,
    /// Sizes of the maps.
    pub capacities: Capacities,
    /// UDP destination port of GUE.
    pub gue_port: u16,
    /// Schedule of the flow hash.
    pub hash: Schedule,
    /// How to attach.
    pub mode: AttachMode,
    /// "Packet too big" answers a second and CPU.
    pub too_big_rate: u64,
    /// What the node does.
    pub director: bool,
    /// What the node does.
    pub decap: bool,
}

/// The maps before these, until the programs have been swapped.
struct Previous {
    maps: Mapped,
    /// Counters of interfaces can be read.
    counters: bool,
    /// All of it can be read.
    tables: bool,
}

/// The data path in the kernel. Dropping it leaves everything in force.
pub struct Kernel {
    options: Options,
    pins: Pins,
    tables: Tables<Mapped>,
    bases: Bases,
    bases_written: Instant,
    bases_changed: bool,
    previous: Option<Previous>,
    /// Interfaces that wait for the first revision on new maps.
    waiting: BTreeSet<String>,
    records: Records,
    _lock: Lock,
}

/// Bases of counters are saved at most this often, and at the end.
const SAVE_EVERY: Duration = Duration::from_secs(5);

impl Kernel {
    /// Takes over what is pinned, or pins new maps. Where the pinned maps are of another version or size, new
    /// ones are made and filled; the programs change over to them in one step each: at once where the old tables
    /// can be read, else at the first [`DataPath::commit`].
    ///
    /// # Errors
    ///
    /// [`DataPathError`]; what was in force still is.
    pub fn open(options: Options) -> Result<Self, DataPathError> {
        preflight()?;
        let pins = Pins::new(&options.pin_dir);
        pins::ensure_bpffs(pins.root())?;
        pins::create_dir(pins.root())?;
        let lock = pins::lock(pins.root())?;
        pins::create_dir(&options.state_dir)?;
        pins::create_dir(&pins.links())?;
        pins::create_dir(&pins.programs())?;
        let (maps, previous) = maps(&pins, &options.capacities)?;

        let grace = KernelGrace::start().map_err(DataPathError::map("make the barrier of", "grace periods"))?;
        let mut tables = Tables::open(maps, Box::new(grace), options.gue_port, options.hash.fingerprint());
        let bases = Bases::read(&options.state_dir, tables.store().id());
        if previous.is_none() && pins.new_maps().exists() {
            std::fs::rename(pins.new_maps(), pins.maps())
                .map_err(DataPathError::file("put the new maps at", pins.maps()))?;
        }
        if let Some(previous) = &previous {
            if previous.counters {
                for old in attachments::read_attachments(&previous.maps) {
                    attachments::attachment_slot(tables.store(), &old.interface);
                }
            }
            if previous.tables {
                replay(&mut tables, &previous.maps);
            }
        }
        let records = Records::read(&options.state_dir);
        let mut kernel = Self {
            pins,
            tables,
            bases,
            bases_written: Instant::now(),
            bases_changed: false,
            previous,
            waiting: BTreeSet::new(),
            records,
            options,
            _lock: lock,
        };
        match &kernel.previous {
            None => kernel.rebase()?,
            Some(previous) if previous.tables => kernel.change_over()?,
            Some(_) => {
                tracing::info!("the pinned maps are another version's: new ones are in force with the first revision")
            }
        }
        Ok(kernel)
    }

    /// Attaches the program to an interface, or sees to it that it is attached as it shall be; changes nothing where it
    /// is. To be called again when an interface has come back.
    ///
    /// # Errors
    ///
    /// [`DataPathError`]: the interface is as it was.
    pub fn attach(&mut self, interface: &str) -> Result<Attachment, DataPathError> {
        if self.previous.is_some() && self.pins.link(interface).exists() {
            // The old program goes on with the old maps until the new ones are filled.
            self.waiting.insert(interface.to_owned());
            let slot = attachments::attachment_slot(self.tables.store(), interface);
            let slot = slot.ok_or_else(|| DataPathError::NoSlot(interface.to_owned()))?;
            return Ok(Attachment { slot, interface: interface.to_owned(), ifindex: 0, mode: Mode::None });
        }
        let maps = if self.previous.is_some() { self.pins.new_maps() } else { self.pins.maps() };
        let settings = self.settings();
        let set = self.tables.store();
        let mut attacher = Attacher { pins: &self.pins, maps: &maps, set, records: &mut self.records };
        let result = attacher.attach(interface, settings, self.options.mode);
        self.records.write(&self.options.state_dir)?;
        result
    }

    /// Takes the program off an interface (which need not be there any more). Its counters stay.
    ///
    /// # Errors
    ///
    /// [`DataPathError::File`]: a pin could not be removed.
    pub fn detach(&mut self, interface: &str) -> Result<(), DataPathError> {
        self.waiting.remove(interface);
        pins::remove_pin(&self.pins.link(interface))?;
        pins::remove_pin(&self.pins.program(interface))?;
        self.records.forget(interface);
        self.records.write(&self.options.state_dir)?;
        let known = self.attachments();
        if let Some(attachment) = known.into_iter().find(|known| known.interface == interface) {
            attachments::set_attachment(
                self.tables.store(),
                &Attachment { ifindex: 0, mode: Mode::None, ..attachment },
            );
        }
        Ok(())
    }

    /// Interfaces that have a pinned link, whether they are there or not.
    ///
    /// # Errors
    ///
    /// [`DataPathError::File`]: the pins cannot be listed.
    pub fn linked(&self) -> Result<Vec<String>, DataPathError> {
        let names = pins::names_in(&self.pins.links())?;
        Ok(names.iter().filter(|name| !name.starts_with("far-")).map(|name| pins::unescape(name)).collect())
    }

    /// Interfaces that have, or had, the program.
    #[must_use]
    pub fn attachments(&self) -> Vec<Attachment> {
        attachments::read_attachments(self.tables.store())
    }

    /// The maps' content: counters are those shown, bases included.
    ///
    /// # Errors
    ///
    /// [`DataPathError::Map`].
    pub fn reading(&self, extent: Extent) -> Result<Reading, DataPathError> {
        counters::read(self.tables.store(), &self.bases, extent)
    }

    /// How much of the tables is in use, what waits for a grace period included.
    #[must_use]
    pub fn occupancy(&self) -> Vec<Occupancy> {
        self.tables.occupancy()
    }

    /// Waits until what was taken out of force may be used again.
    pub fn settle(&mut self) {
        self.tables.settle();
        self.note_released();
    }

    /// What every program is told, but for what the interface decides.
    fn settings(&self) -> Settings {
        settings(&self.options, self.tables.store())
    }

    /// Puts new maps in force: every program changes over, then the old maps are read out and taken away.
    fn change_over(&mut self) -> Result<(), DataPathError> {
        let settings = self.settings();
        let interfaces: BTreeSet<String> = self.linked()?.into_iter().chain(self.waiting.iter().cloned()).collect();
        for interface in interfaces {
            let (maps, set) = (self.pins.new_maps(), self.tables.store());
            let mut attacher = Attacher { pins: &self.pins, maps: &maps, set, records: &mut self.records };
            match attacher.attach(&interface, settings, self.options.mode) {
                Ok(_) | Err(DataPathError::NoInterface(_)) => {}
                Err(error) => return Err(error),
            }
        }
        exchange(&self.pins)?;
        self.records.write(&self.options.state_dir)?;
        if let Some(previous) = self.previous.take() {
            wait_once().map_err(DataPathError::map("wait for programs that still use", "the old maps"))?;
            self.carry_over(&previous)?;
        }
        self.waiting.clear();
        pins::remove_dir(&self.pins.old_maps())
    }

    /// Counters go on from what the old maps show.
    fn carry_over(&mut self, previous: &Previous) -> Result<(), DataPathError> {
        let old = Bases::read(&self.options.state_dir, previous.maps.id());
        if previous.counters {
            for interface in counters::interfaces(&previous.maps, &old)? {
                self.bases.carry_interface(&interface.name, &interface.cpus);
            }
        }
        if previous.tables {
            let counted = counters::frontends(&previous.maps)?;
            let before = frontend_slots(&previous.maps);
            for (frontend, (_, slot)) in frontend_slots(self.tables.store()) {
                if let Some((_, old_slot)) = before.get(&frontend) {
                    let shown = old.frontend(*old_slot, counted.get(old_slot).copied().unwrap_or_default());
                    self.bases.set_frontend(slot, shown, FrontendCounters::default());
                }
            }
            let shown = counters::shown_endpoints(&previous.maps, &old)?;
            for (key, index) in endpoint_counters(self.tables.store()) {
                if let Some(shown) = shown.get(&key) {
                    self.bases.set_endpoint(index, *shown, Counter::default());
                }
            }
        }
        self.bases.write(&self.options.state_dir)
    }

    /// After a start: what counts for nobody starts from what it shows now.
    fn rebase(&mut self) -> Result<(), DataPathError> {
        let (slots, indices) = self.tables.counting();
        let mut changed = false;
        for (slot, counted) in counters::frontends(self.tables.store())? {
            if !slots.contains(&slot) {
                changed |= self.bases.set_frontend(slot, FrontendCounters::default(), counted);
            }
        }
        for (index, counted) in counters::endpoints(self.tables.store())? {
            if !indices.contains(&index) {
                changed |= self.bases.set_endpoint(index, Counter::default(), counted);
            }
        }
        if changed { self.bases.write(&self.options.state_dir) } else { Ok(()) }
    }

    /// What has lost its user starts from what it shows now.
    fn note_released(&mut self) {
        for released in self.tables.take_released() {
            let store = self.tables.store();
            let changed = match released {
                Released::Frontend(slot) => counters::frontend(store, slot)
                    .map(|counted| self.bases.set_frontend(slot, FrontendCounters::default(), counted)),
                Released::Endpoint(index) => counters::endpoint(store, index)
                    .map(|counted| self.bases.set_endpoint(index, Counter::default(), counted)),
            };
            match changed {
                Ok(changed) => self.bases_changed |= changed,
                Err(error) => tracing::warn!(%error, ?released, "a counter goes on from its last user's count"),
            }
        }
        if self.bases_changed && self.bases_written.elapsed() > SAVE_EVERY {
            self.save_bases();
        }
    }

    fn save_bases(&mut self) {
        if let Err(error) = self.bases.write(&self.options.state_dir) {
            tracing::warn!(%error, "bases of counters are not saved; after a restart some counters may jump up");
        }
        self.bases_changed = false;
        self.bases_written = Instant::now();
    }

    /// The tables, for lookups ([`super::tables::lookup`]).
    #[must_use]
    pub fn store(&self) -> &Mapped {
        self.tables.store()
    }

    /// Where the pins are.
    pub(super) fn pins(&self) -> &Pins {
        &self.pins
    }
}

impl DataPath for Kernel {
    fn observe(&self) -> State {
        self.tables.observe()
    }

    fn execute(&mut self, operation: &Operation) -> Result<(), Refusal> {
        let outcome = self.tables.execute(operation);
        self.note_released();
        outcome
    }

    fn commit(&mut self) -> u64 {
        let revision = self.tables.commit();
        self.note_released();
        if self.previous.is_some()
            && let Err(error) = self.change_over()
        {
            tracing::error!(%error, "the old programs stay in force with the old maps; trying again with the next revision");
        }
        revision
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        if self.bases_changed {
            self.save_bases();
        }
    }
}

/// The maps to work on, and those that they replace.
fn maps(pins: &Pins, capacities: &Capacities) -> Result<(Mapped, Option<Previous>), DataPathError> {
    // Leftovers of a change-over that was cut off.
    if !pins.maps().exists() && pins.old_maps().exists() {
        std::fs::rename(pins.old_maps(), pins.maps())
            .map_err(DataPathError::file("put the old maps back at", pins.maps()))?;
    }
    pins::remove_dir(&pins.new_maps())?;
    pins::remove_dir(&pins.old_maps())?;
    let mut previous = None;
    if pins.maps().exists() {
        match Mapped::open(&pins.maps(), true) {
            Ok(found) => {
                let abi = found.abi();
                let readable = found.is_readable()?;
                if abi == ABI_VERSION && found.shapes()? == shapes(capacities) {
                    return Ok((found, None));
                }
                tracing::info!(abi, readable, "the pinned maps have another version or size: they are replaced");
                previous = Some(Previous { counters: readable, tables: readable && abi == ABI_VERSION, maps: found });
            }
            Err(error) => {
                tracing::warn!(%error, "the pinned maps cannot be used: they are replaced, and counters start from zero");
            }
        }
    }
    let made = Mapped::create(&pins.new_maps(), capacities)?;
    if previous.is_none() {
        pins::remove_dir(&pins.maps())?;
    }
    Ok((made, previous))
}

/// Puts the new maps' directory in the place of the old one's.
fn exchange(pins: &Pins) -> Result<(), DataPathError> {
    let (maps, new, old) = (pins.maps(), pins.new_maps(), pins.old_maps());
    if maps.exists() {
        std::fs::rename(&maps, &old).map_err(DataPathError::file("put the old maps aside at", &old))?;
    }
    std::fs::rename(&new, &maps).map_err(DataPathError::file("put the new maps at", &maps))
}

/// Writes what one set of tables says into another.
fn replay(tables: &mut Tables<Mapped>, from: &Mapped) {
    let state = read_state(from);
    let mut operations: Vec<Operation> = Vec::new();
    operations.extend(state.tunnels.into_iter().map(Operation::PutTunnel));
    operations.extend(state.directors.into_iter().map(Operation::PutDirector));
    operations.extend(state.on_node.into_iter().map(|vip| Operation::SetOnNode(vip, true)));
    operations.extend(state.next_hops.into_iter().map(|(key, hop)| Operation::PutNextHop(key, hop)));
    operations.extend(state.services.into_iter().map(|(name, service)| Operation::PutService(name, service)));
    for operation in operations {
        if let Err(refusal) = tables.execute(&operation) {
            tracing::error!(%refusal, "part of what was in force does not fit the new maps");
        }
    }
    let revision = read_meta(from).revision;
    while read_meta(tables.store()).revision < revision {
        let meta = tables.store();
        meta.publish(Table::Meta, std::mem::offset_of!(guenon_ebpf::abi::Meta, revision) / 8, revision - 1);
        tables.commit();
    }
}

/// Identity of the program that an interface shall have.
pub(super) fn identity(settings: &Settings, set: &Mapped) -> u64 {
    fingerprint(settings, set.id())
}

/// Removes programs, links, maps and the pin directory, and what was kept of counters. What is not there is no error.
///
/// # Errors
///
/// [`DataPathError::Locked`] while an agent runs; [`DataPathError::File`].
pub fn detach_all(pin_dir: &std::path::Path, state_dir: &std::path::Path) -> Result<Detached, DataPathError> {
    let pins = Pins::new(pin_dir);
    let mut detached = Detached::default();
    if pins.root().exists() {
        let _lock = pins::lock(pins.root())?;
        detached.interfaces = pins::names_in(&pins.links())?.iter().map(|name| pins::unescape(name)).collect();
        detached.maps = pins::names_in(&pins.maps())?.len();
        for directory in [pins.links(), pins.programs(), pins.maps(), pins.new_maps(), pins.old_maps()] {
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

/// What a program is told, but for interface and slot.
pub(super) fn settings(options: &Options, store: &impl Store) -> Settings {
    let role = |is: bool, role: u8| if is { role } else { 0 };
    let settings = Settings {
        hash: options.hash.0,
        gue_port: options.gue_port,
        roles: role(options.director, ROLE_DIRECTOR) | role(options.decap, ROLE_DECAP),
        too_big_rate: options.too_big_rate,
        ..Settings::default()
    };
    with_masks(settings, store)
}
