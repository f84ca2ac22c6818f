//! The data path in the kernel: pinned maps, programs and links; one writer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use guenon_ebpf::abi::{Counter, FLOW_TICK_SECONDS, FrontendCounters, Meta, ROLE_DECAP, ROLE_DIRECTOR, Settings};
use guenon_ebpf::hash::Schedule;
use ipnet::IpNet;

use super::attach::{Attacher, Records};
use super::bases::Bases;
use super::change_over::{Previous, maps, replay};
use super::counters::{self, Extent};
use super::error::DataPathError;
use super::grace_period::KernelGrace;
use super::maps::Mapped;
use super::pins::{self, Lock, Pins};
use super::preflight::preflight;
use super::program::{fingerprint, with_masks};
use super::tables::attachments::{self, Attachment, Egress, Mode};
use super::tables::{Capacities, Occupancy, Released, Store, Table, Tables};
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

/// Where at an interface's egress to attach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EgressHook {
    /// By a tcx link where the kernel has them, else by clsact.
    #[default]
    Auto,
    /// By clsact.
    Clsact,
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
    /// How to attach the program on the way out.
    pub egress: EgressHook,
    /// "Packet too big" answers a second and CPU.
    pub too_big_rate: u64,
    /// What the node does.
    pub director: bool,
    /// What the node does.
    pub decap: bool,
}

/// The data path in the kernel. Dropping it leaves everything in force.
pub struct Kernel {
    pub(super) options: Options,
    pub(super) pins: Pins,
    pub(super) tables: Tables<Mapped>,
    pub(super) bases: Bases,
    bases_written: Instant,
    bases_changed: bool,
    pub(super) previous: Option<Previous>,
    /// Interfaces that wait for the first revision on new maps.
    pub(super) waiting: BTreeSet<String>,
    pub(super) records: Records,
    /// Endpoints of this node are translated, so that the program on the way out is needed.
    pub(super) egress_wanted: bool,
    /// Interfaces where it has been put first.
    pub(super) egress_placed: BTreeSet<String>,
    /// Prefixes that are not answered by uplinks, as they are in force; `None`: not known yet.
    pub(super) hairpins: Option<BTreeMap<IpNet, bool>>,
    /// When the clock of flows was last moved on.
    ticked: Instant,
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
        pins::create_dir(&pins.egress_links())?;
        pins::create_dir(&pins.egress_programs())?;
        let (maps, previous) = maps(&pins, &options.capacities)?;

        let grace = KernelGrace::start().map_err(DataPathError::map("make the barrier of", "grace periods"))?;
        let mut tables = Tables::open(maps, Box::new(grace), options.gue_port, options.hash.fingerprint());
        let bases = Bases::read(&options.state_dir, tables.store().id());
        let fresh = previous.is_none() && pins.new_maps().exists();
        if fresh {
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
            egress_wanted: false,
            egress_placed: BTreeSet::new(),
            hairpins: None,
            ticked: Instant::now(),
            options,
            _lock: lock,
        };
        match &kernel.previous {
            // Nobody has counted anything in new maps.
            None if fresh => {}
            None => kernel.rebase()?,
            Some(previous) if previous.tables => kernel.change_over()?,
            Some(_) => {
                tracing::info!("the pinned maps are another version's: new ones are in force with the first revision")
            }
        }
        Ok(kernel)
    }

    /// Attaches the program to an interface, after the one on the way out where that is wanted, or sees to it that they are
    /// attached as they shall be; changes nothing where they are. To be called again when an interface has come back.
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
            return Ok(Attachment {
                slot,
                interface: interface.to_owned(),
                ifindex: 0,
                mode: Mode::None,
                egress: Egress::None,
            });
        }
        let had_egress = self.has_egress(interface);
        let maps = if self.previous.is_some() { self.pins.new_maps() } else { self.pins.maps() };
        let (pins, set) = (&self.pins, self.tables.store());
        if !had_egress {
            // Tried again and again, it does not come and go each time.
            Attacher { pins, maps: &maps, set, records: &mut self.records, before: None }.place(interface)?;
        }
        let egress = self.attach_wanted_egress(interface);
        let settings = self.settings();
        let (pins, set) = (&self.pins, self.tables.store());
        let mut attacher = Attacher { pins, maps: &maps, set, records: &mut self.records, before: None };
        let result = attacher.attach(interface, settings, self.options.mode, egress);
        if result.is_err() && !had_egress {
            self.withdraw_egress(interface);
        }
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
        let egress = self.detach_egress(interface);
        self.records.write(&self.options.state_dir)?;
        egress?;
        let known = self.attachments();
        if let Some(attachment) = known.into_iter().find(|known| known.interface == interface) {
            attachments::set_attachment(
                self.tables.store(),
                &Attachment { ifindex: 0, mode: Mode::None, egress: Egress::None, ..attachment },
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

    /// Moves the clock of flows on, as many ticks as have passed, from where it stood when an agent last ran. When to
    /// call again.
    pub fn tick(&mut self, now: Instant) -> Instant {
        const TICK: Duration = Duration::from_secs(FLOW_TICK_SECONDS);
        let ticks = now.saturating_duration_since(self.ticked).as_secs() / FLOW_TICK_SECONDS;
        if ticks > 0 {
            self.ticked += TICK * u32::try_from(ticks).unwrap_or(u32::MAX);
            move_clock(self.tables.store(), ticks);
            if let Some(previous) = self.previous.as_ref().filter(|previous| previous.tables) {
                move_clock(&previous.maps, ticks);
            }
        }
        self.ticked + TICK
    }

    /// What every program is told, but for what the interface decides.
    pub(super) fn settings(&self) -> Settings {
        settings(&self.options, self.tables.store())
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

/// Nobody else writes this word.
fn move_clock(store: &impl Store, ticks: u64) {
    let word = std::mem::offset_of!(Meta, clock) / 8;
    store.publish(Table::Meta, word, store.load(Table::Meta, word) + ticks);
}

/// Identity of the program that an interface shall have.
pub(super) fn identity(settings: &Settings, set: &Mapped) -> u64 {
    fingerprint(settings, set.id())
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
