//! The program on the way out: attached before all others at the egress of an interface, found again, taken off.
//!
//! Where the kernel has tcx links (6.6) it is attached by one, else as a filter of the clsact qdisc. Either is replaced
//! in one step: a packet sees the old program or the new one.

use std::collections::BTreeSet;
use std::os::fd::AsFd;

use guenon_ebpf::abi::Settings;

use super::attach::{Attacher, Record};
use super::error::DataPathError;
use super::flows;
use super::interfaces::{index_of, name_of};
use super::kernel::{EgressHook, Kernel, identity};
use super::maps::Mapped;
use super::pins::{self, Pins};
use super::program::{self, EGRESS, Loaded};
use super::sys;
use super::tables::attachments::{self, Attachment, Egress};
use super::tables::read_meta;
use crate::netlink::{Connection, NetlinkError, filters};

/// What is wrong at the egress of an interface: replies of endpoints of delivery `Nat` may leave there with the
/// endpoint's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressTrouble {
    /// The interface.
    pub interface: String,
    /// What it is, and what to do.
    pub message: String,
}

/// What to do where another program has come before ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Ours is put first: when an agent starts. Later that would be a race with whoever does the same.
    First,
    /// Ours stays where it is; people are told.
    Kept,
}

impl Attacher<'_> {
    /// Attaches the program on the way out of an interface, or sees to it that it is attached as it shall be.
    pub(super) fn attach_egress(
        &mut self,
        interface: &str,
        mut settings: Settings,
        hook: EgressHook,
        place: Place,
    ) -> Result<Egress, DataPathError> {
        let ifindex = index_of(interface)?;
        let slot = attachments::attachment_slot(self.set, interface)
            .ok_or_else(|| DataPathError::NoSlot(interface.to_owned()))?;
        settings.ifindex = ifindex;
        settings.slot = slot;
        let before = self.records.egress(interface);
        let by_tcx = match hook {
            EgressHook::Auto => self.attach_tcx(interface, ifindex, &settings, place)?,
            EgressHook::Clsact => false,
        };
        let egress = if by_tcx { Egress::Tcx } else { Egress::Clsact };
        if by_tcx {
            // What an agent on another kernel, or with another option, has left.
            if let Some(record) = before.filter(|record| record.preference != 0) {
                remove_filter(ifindex, Some(record), None)?;
            }
        } else {
            self.attach_clsact(interface, ifindex, &settings)?;
            pins::remove_pin(&self.pins.egress_link(interface))?;
        }
        set_egress(self.set, interface, egress);
        Ok(egress)
    }

    /// False: this kernel has no tcx links.
    fn attach_tcx(
        &mut self,
        interface: &str,
        ifindex: u32,
        settings: &Settings,
        place: Place,
    ) -> Result<bool, DataPathError> {
        let path = self.pins.egress_link(interface);
        let identity = identity(settings, self.set);
        if let Some((link, program)) = self.our_link(&path, interface, ifindex)?
            && (place == Place::Kept
                || sys::tcx_programs(ifindex).is_ok_and(|programs| programs.first() == Some(&program)))
        {
            if self.records.egress(interface) != Some(Record { program, identity, ..Record::default() }) {
                let loaded = program::load_egress(self.maps, settings)?;
                self.follow_flows();
                sys::update_link(link.as_fd(), loaded.fd.as_fd()).map_err(refused(interface, "by a tcx link"))?;
                self.note_egress(interface, &loaded, Record { identity, ..Record::default() })?;
            }
            return Ok(true);
        }
        let loaded = program::load_egress(self.maps, settings)?;
        self.follow_flows();
        let link = match sys::create_tcx_link(loaded.fd.as_fd(), ifindex) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(false),
            link => link.map_err(refused(interface, "by a tcx link"))?,
        };
        // A link of ours that others have come before goes when the new one has its name.
        let new = self.pins.new_egress_link(interface);
        pins::remove_pin(&new)?;
        sys::pin(link.as_fd(), &new).map_err(DataPathError::file("pin the link at", &new))?;
        std::fs::rename(&new, &path).map_err(DataPathError::file("pin the link at", &path))?;
        self.note_egress(interface, &loaded, Record { identity, ..Record::default() })?;
        tracing::info!(interface, ifindex, program = loaded.id, "attached to the egress by a tcx link");
        Ok(true)
    }

    fn attach_clsact(&mut self, interface: &str, ifindex: u32, settings: &Settings) -> Result<(), DataPathError> {
        let identity = identity(settings, self.set);
        let mut connection = Connection::open()?;
        let known = self.records.egress(interface);
        let mut qdisc = known.is_some_and(|known| known.qdisc);
        if !filters::has_clsact(&mut connection, ifindex)? {
            filters::add_clsact(&mut connection, ifindex).map_err(refused_clsact(interface))?;
            qdisc = true;
        }
        let all = filters::egress_filters(&mut connection, ifindex)?;
        let ours = all.iter().find(|filter| filter.name.as_deref() == Some(EGRESS));
        if let Some(ours) = ours
            && let Some(program) = ours.program
            && known == Some(Record { program, identity, preference: ours.preference, qdisc })
        {
            return Ok(());
        }
        let free = || (1..u16::MAX).find(|preference| all.iter().all(|filter| filter.preference != *preference));
        let preference = ours.map(|filter| filter.preference).or_else(free).unwrap_or(u16::MAX);
        let loaded = program::load_egress(self.maps, settings)?;
        self.follow_flows();
        filters::put_egress_filter(&mut connection, ifindex, preference, EGRESS, loaded.fd.as_fd())
            .map_err(refused_clsact(interface))?;
        self.note_egress(interface, &loaded, Record { identity, preference, qdisc, ..Record::default() })?;
        tracing::info!(interface, ifindex, program = loaded.id, preference, "attached to the egress by clsact");
        Ok(())
    }

    /// Loading takes its time: what was confirmed meanwhile goes along right before the program does.
    pub(super) fn follow_flows(&self) {
        if let Some(before) = self.before {
            flows::carry(before, self.set, read_meta(self.set).clock as u16);
        }
    }

    fn note_egress(&mut self, interface: &str, loaded: &Loaded, record: Record) -> Result<(), DataPathError> {
        let path = self.pins.egress_program(interface);
        pins::remove_pin(&path)?;
        sys::pin(loaded.fd.as_fd(), &path).map_err(DataPathError::file("pin the program at", &path))?;
        self.records.put_egress(interface, Record { program: loaded.id, ..record });
        Ok(())
    }
}

impl Kernel {
    /// Sees to the program on the way out: it is attached to the egress of every interface that has the XDP program, once
    /// some endpoint of this node is translated, and from then on until it is detached. Returns what is wrong there.
    /// Cheap where nothing is to be done; to be called before endpoints are put in force, and from time to time.
    pub fn tend_egress(&mut self, wanted: bool) -> Vec<EgressTrouble> {
        self.egress_wanted |= wanted;
        let attached = self.attachments().into_iter().filter(|attachment| attachment.ifindex != 0);
        let attached: Vec<Attachment> = attached.filter(|attached| self.wants_egress(&attached.interface)).collect();
        let mut troubles = Vec::new();
        for Attachment { interface, .. } in attached {
            let message = match self.attach_egress(&interface) {
                Ok(egress) => {
                    let program = self.records.egress(&interface).map_or(0, |record| record.program);
                    before_ours(&interface, egress, program)
                }
                Err(DataPathError::NoInterface(_)) => None,
                Err(error) => Some(format!(
                    "{error}; until the program is there, replies of endpoints that are translated (delivery Nat) leave here \
                     with the endpoint's address"
                )),
            };
            troubles.extend(message.map(|message| EgressTrouble { interface, message }));
        }
        troubles
    }

    /// Interfaces by which replies may leave: the program on the way out is there, or no endpoint of this node is
    /// translated so that nobody asks.
    #[must_use]
    pub fn answering(&self) -> BTreeSet<String> {
        let answers =
            |attached: &Attachment| attached.egress != Egress::None || !self.wants_egress(&attached.interface);
        let attached = self.attachments().into_iter().filter(|attached| attached.ifindex != 0);
        let mut answering: BTreeSet<String> = attached.filter(answers).map(|attached| attached.interface).collect();
        if self.previous.is_some() {
            // These go on with the old maps, and get both programs with the new ones.
            answering.extend(self.linked().unwrap_or_default());
        }
        answering
    }

    /// Whether the program on the way out belongs on an interface, or is there.
    pub(super) fn wants_egress(&self, interface: &str) -> bool {
        self.egress_wanted || self.has_egress(interface)
    }

    /// Whether the program on the way out is there, as far as is known.
    pub(super) fn has_egress(&self, interface: &str) -> bool {
        self.pins.egress_program(interface).exists() || self.records.egress(interface).is_some()
    }

    /// Before the XDP program lets flows in.
    pub(super) fn attach_wanted_egress(&mut self, interface: &str) -> Egress {
        if !self.wants_egress(interface) {
            return Egress::None;
        }
        match self.attach_egress(interface) {
            Ok(egress) => egress,
            // The XDP program is refused for that, too.
            Err(DataPathError::NoInterface(_) | DataPathError::NoSlot(_)) => Egress::None,
            // An interface that only sends to tunnels goes on without; who tends the egress is told why.
            Err(error) => {
                tracing::warn!("{error}");
                Egress::None
            }
        }
    }

    /// No flow comes in where the XDP program was refused.
    pub(super) fn withdraw_egress(&mut self, interface: &str) {
        if let Err(error) = self.detach_egress(interface) {
            tracing::warn!("{error}");
        }
        set_egress(self.tables.store(), interface, Egress::None);
    }

    pub(super) fn attach_egress(&mut self, interface: &str) -> Result<Egress, DataPathError> {
        if self.previous.is_some() && self.pins.link(interface).exists() {
            // It changes to the new maps together with the XDP program.
            return Ok(Egress::None);
        }
        let maps = if self.previous.is_some() { self.pins.new_maps() } else { self.pins.maps() };
        let settings = self.settings();
        let set = self.tables.store();
        let before = self.records.egress(interface);
        let place = if self.egress_placed.insert(interface.to_owned()) { Place::First } else { Place::Kept };
        let mut attacher = Attacher { pins: &self.pins, maps: &maps, set, records: &mut self.records, before: None };
        let result = attacher.attach_egress(interface, settings, self.options.egress, place);
        if result.is_err() {
            set_egress(set, interface, Egress::None);
        }
        if self.records.egress(interface) != before {
            self.records.write(&self.options.state_dir)?;
        }
        result
    }

    /// Takes the program off the egress of an interface, which need not be there any more.
    pub(super) fn detach_egress(&mut self, interface: &str) -> Result<(), DataPathError> {
        detach(&self.pins, interface, self.records.egress(interface))?;
        self.records.forget_egress(interface);
        Ok(())
    }
}

/// Says in the table how the egress is attached.
fn set_egress(set: &Mapped, interface: &str, egress: Egress) {
    let known = attachments::read_attachments(set).into_iter().find(|known| known.interface == interface);
    if let Some(known) = known.filter(|known| known.egress != egress) {
        attachments::set_attachment(set, &Attachment { egress, ..known });
    }
}

/// Takes the program off the egress of an interface, and the qdisc with it where it was added for it and nobody uses it.
pub(super) fn detach(pins: &Pins, interface: &str, record: Option<Record>) -> Result<(), DataPathError> {
    let path = pins.egress_program(interface);
    let pinned = sys::open_pin(&path).ok().and_then(|program| sys::program_info(program.as_fd()).ok());
    pins::remove_pin(&pins.egress_link(interface))?;
    if let Ok(ifindex) = index_of(interface) {
        remove_filter(ifindex, record, pinned.map(|(id, _)| id))?;
    }
    pins::remove_pin(&path)
}

/// Removes the filter that has one of these programs; then the qdisc, if it was added for it and is empty.
fn remove_filter(ifindex: u32, record: Option<Record>, pinned: Option<u32>) -> Result<(), DataPathError> {
    let mut connection = Connection::open()?;
    let ours = |program: Option<u32>| {
        program.is_some() && (program == pinned || program == record.map(|record| record.program))
    };
    for filter in filters::egress_filters(&mut connection, ifindex)? {
        if filter.name.as_deref() == Some(EGRESS) && ours(filter.program) {
            filters::remove_egress_filter(&mut connection, ifindex, filter.preference)?;
        }
    }
    let added = record.is_some_and(|record| record.qdisc);
    if added && filters::has_clsact(&mut connection, ifindex)? && filters::clsact_is_empty(&mut connection, ifindex)? {
        filters::remove_clsact(&mut connection, ifindex)?;
    }
    Ok(())
}

/// What stands before our program at an egress, if anything does: it may end the chain.
fn before_ours(interface: &str, egress: Egress, program: u32) -> Option<String> {
    let ifindex = index_of(interface).ok()?;
    // By clsact ours comes after all that are attached by tcx.
    let mut before: Vec<String> = sys::tcx_programs(ifindex)
        .unwrap_or_default()
        .into_iter()
        .take_while(|id| *id != program)
        .map(|id| format!("the tcx program {id}{}", name_of(id)))
        .collect();
    let cure = match egress {
        Egress::None => return None,
        Egress::Tcx => "take it off, or start the agent again, which then puts its own program first",
        Egress::Clsact => {
            let filters = filters::egress_filters(&mut Connection::open().ok()?, ifindex).ok()?;
            before.extend(filters.iter().take_while(|filter| filter.program != Some(program)).map(described));
            "take it off, or give it a preference behind Guenon's (`tc filter show dev INTERFACE egress`)"
        }
    };
    (!before.is_empty()).then(|| {
        format!(
            "before Guenon's program at this interface's egress stands {}: where it ends the chain, replies of endpoints \
             that are translated (delivery Nat) leave with the endpoint's address; {cure}",
            before.join(", ")
        )
    })
}

fn described(filter: &filters::Filter) -> String {
    let name = filter.name.as_ref().map_or_else(String::new, |name| format!(" \"{name}\""));
    let program = filter.program.map_or_else(String::new, |id| format!(" (program {id})"));
    format!("the {} filter{name}{program} of preference {}", filter.kind, filter.preference)
}

fn refused<E: ToString>(interface: &str, how: &'static str) -> impl FnOnce(E) -> DataPathError {
    let interface = interface.to_owned();
    move |error| {
        let hint = "; CAP_NET_ADMIN and CAP_BPF are needed";
        DataPathError::AttachEgress { interface, how, error: error.to_string(), hint }
    }
}

fn refused_clsact(interface: &str) -> impl FnOnce(NetlinkError) -> DataPathError {
    let interface = interface.to_owned();
    move |error| {
        let hint = match error.errno() {
            Some(libc::EEXIST) => {
                "; an ingress qdisc is in the place of clsact: remove it (`tc qdisc del dev INTERFACE ingress`), and have its \
                 filters added to the clsact that the agent then adds"
            }
            Some(libc::ENOENT | libc::EOPNOTSUPP) => "; is this kernel built with NET_SCH_INGRESS and NET_CLS_BPF?",
            _ => "",
        };
        DataPathError::AttachEgress { interface, how: "by clsact", error: error.to_string(), hint }
    }
}
