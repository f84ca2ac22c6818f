//! From one set of maps to another: filled beside the old one, programs swapped link by link, counters carried over.

use std::collections::BTreeSet;

use guenon_ebpf::abi::{ABI_VERSION, Counter, FrontendCounters, Meta};

use super::attach::Attacher;
use super::bases::Bases;
use super::counters;
use super::egress::Place;
use super::error::DataPathError;
use super::flows;
use super::grace_period::wait_once;
use super::kernel::Kernel;
use super::maps::{Mapped, shapes};
use super::pins::{self, Pins};
use super::tables::attachments::Egress;
use super::tables::{Capacities, Store, Table, Tables, endpoint_counters, frontend_slots, read_meta, read_state};
use crate::apply::{DataPath, Operation};

/// The maps before these, until the programs have been swapped.
pub(super) struct Previous {
    pub(super) maps: Mapped,
    /// Counters of interfaces can be read.
    pub(super) counters: bool,
    /// All of it can be read.
    pub(super) tables: bool,
}

impl Kernel {
    /// Puts new maps in force: every program changes over, then the old maps are read out and taken away.
    pub(super) fn change_over(&mut self) -> Result<(), DataPathError> {
        let settings = self.settings();
        let interfaces: BTreeSet<String> = self.linked()?.into_iter().chain(self.waiting.iter().cloned()).collect();
        for interface in interfaces {
            // First what lets replies leave.
            let wants_egress = self.wants_egress(&interface);
            let (maps, set) = (self.pins.new_maps(), self.tables.store());
            let before = self.previous.as_ref().filter(|previous| previous.tables).map(|previous| &previous.maps);
            let mut attacher = Attacher { pins: &self.pins, maps: &maps, set, records: &mut self.records, before };
            let mut egress = Egress::None;
            if wants_egress {
                let attached = attacher.attach_egress(&interface, settings, self.options.egress, Place::Kept);
                egress = attached.inspect_err(|error| tracing::warn!("{error}")).unwrap_or_default();
                // Those that were confirmed at the very moment.
                attacher.follow_flows();
            }
            match attacher.attach(&interface, settings, self.options.mode, egress) {
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

    /// Counters go on from what the old maps show, and flows that were confirmed there until now are known.
    fn carry_over(&mut self, previous: &Previous) -> Result<(), DataPathError> {
        let old = Bases::read(&self.options.state_dir, previous.maps.id());
        if previous.counters {
            for interface in counters::interfaces(&previous.maps, &old)? {
                self.bases.carry_interface(&interface.name, &interface.cpus);
                self.bases.carry_interface(&counters::egress_name(&interface.name), &interface.egress_cpus);
            }
        }
        if previous.tables {
            flows::carry(&previous.maps, self.tables.store(), read_meta(self.tables.store()).clock as u16);
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
}

/// The maps to work on, and those that they replace.
pub(super) fn maps(pins: &Pins, capacities: &Capacities) -> Result<(Mapped, Option<Previous>), DataPathError> {
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
    let readable = previous.as_ref().filter(|previous: &&Previous| previous.tables).map(|previous| &previous.maps);
    let made = Mapped::create(&pins.new_maps(), capacities, readable)?;
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
pub(super) fn replay(tables: &mut Tables<Mapped>, from: &Mapped) {
    let state = read_state(from);
    tables.keep_ids(from);
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
    tables.forget_ids();
    // The age of flows goes by it.
    let clock = std::mem::offset_of!(Meta, clock) / 8;
    tables.store().publish(Table::Meta, clock, read_meta(from).clock);
    flows::carry(from, tables.store(), read_meta(from).clock as u16);
    let revision = read_meta(from).revision;
    while read_meta(tables.store()).revision < revision {
        let meta = tables.store();
        meta.publish(Table::Meta, std::mem::offset_of!(Meta, revision) / 8, revision - 1);
        tables.commit();
    }
}
