//! Attaching the program to an interface, and finding that it is attached already.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use guenon_ebpf::abi::Settings;
use serde::{Deserialize, Serialize};

use super::error::DataPathError;
use super::interfaces::{foreign, index_of, may_be_partial, mode_on, program_on};
use super::kernel::{AttachMode, Kernel, identity};
use super::maps::Mapped;
use super::pins::{self, Pins};
use super::program::{self, Loaded};
use super::sys;
use super::tables::attachments::{self, Attachment, Egress, Mode};
use crate::netlink;

/// The file's name in the state directory.
const FILE: &str = "programs.json";

/// Before the name of an interface, which never has a slash.
const EGRESS: &str = "egress/";

fn egress_key(interface: &str) -> String {
    format!("{EGRESS}{interface}")
}

/// What was loaded: for knowing it again after a restart.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Records(BTreeMap<String, Record>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Record {
    pub(super) program: u32,
    pub(super) identity: u64,
    /// Preference of the clsact filter that has the program; 0 = another hook has it.
    pub(super) preference: u16,
    /// The clsact qdisc of the interface was added for it.
    pub(super) qdisc: bool,
}

impl Records {
    pub(super) fn read(state_dir: &Path) -> Self {
        // Without it programs are loaded anew and swapped in: no packet notices.
        let file = fs::read(state_dir.join(FILE)).ok();
        file.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    pub(super) fn write(&self, state_dir: &Path) -> Result<(), DataPathError> {
        let path = state_dir.join(FILE);
        let new = path.with_extension("json.new");
        let bytes = serde_json::to_vec(self).map_err(|error| DataPathError::file("write", &path)(error.into()))?;
        fs::write(&new, bytes).map_err(DataPathError::file("write", &new))?;
        fs::rename(&new, &path).map_err(DataPathError::file("replace", &path))
    }

    pub(super) fn remove(state_dir: &Path) -> Result<(), DataPathError> {
        pins::remove_pin(&state_dir.join(FILE))
    }

    pub(super) fn forget(&mut self, interface: &str) {
        self.0.remove(interface);
    }

    /// What is known of the program on the way out of an interface.
    pub(super) fn egress(&self, interface: &str) -> Option<Record> {
        self.0.get(&egress_key(interface)).copied()
    }

    pub(super) fn put_egress(&mut self, interface: &str, record: Record) {
        self.0.insert(egress_key(interface), record);
    }

    pub(super) fn forget_egress(&mut self, interface: &str) {
        self.0.remove(&egress_key(interface));
    }

    /// Interfaces whose egress has, or had, the program.
    pub(super) fn egress_interfaces(&self) -> impl Iterator<Item = &str> {
        self.0.keys().filter_map(|key| key.strip_prefix(EGRESS))
    }
}

/// Attaches programs that use one set of maps.
pub(super) struct Attacher<'a> {
    pub(super) pins: &'a Pins,
    /// Where the maps are pinned now.
    pub(super) maps: &'a Path,
    pub(super) set: &'a Mapped,
    pub(super) records: &'a mut Records,
    /// The maps before, whose flows are to be known here too.
    pub(super) before: Option<&'a Mapped>,
}

impl Attacher<'_> {
    /// Attaches the XDP program, or sees to it that it is attached as it shall be. `egress`: how the program on the way out
    /// is, which comes first, so that no reply leaves before it is there.
    pub(super) fn attach(
        &mut self,
        interface: &str,
        mut settings: Settings,
        wanted: AttachMode,
        egress: Egress,
    ) -> Result<Attachment, DataPathError> {
        let (ifindex, ours) = self.place(interface)?;
        let slot = attachments::attachment_slot(self.set, interface)
            .ok_or_else(|| DataPathError::NoSlot(interface.to_owned()))?;
        settings.ifindex = ifindex;
        settings.slot = slot;
        let may_be_partial = may_be_partial(ifindex)?;
        let settings =
            |mode: Mode| Settings { partial_checksums: u8::from(may_be_partial || mode == Mode::Generic), ..settings };
        let known = attachments::read_attachments(self.set).into_iter().find(|known| known.slot == slot);
        let mode_now = known.map_or(Mode::None, |known| known.mode);

        if let Some((link, program)) = ours {
            let right_mode = match wanted {
                AttachMode::Auto => true,
                AttachMode::Native => mode_now != Mode::Generic,
                AttachMode::Generic => mode_now != Mode::Native,
            };
            let mode_kept = if mode_now == Mode::None { mode_on(ifindex)? } else { mode_now };
            let attachment = Attachment { slot, interface: interface.to_owned(), ifindex, mode: mode_kept, egress };
            if right_mode {
                let settings = settings(mode_kept);
                let identity = identity(&settings, self.set);
                let right = Record { program, identity, ..Record::default() };
                if self.records.0.get(interface) != Some(&right) {
                    let loaded = program::load(self.maps, &settings)?;
                    sys::update_link(link.as_fd(), loaded.fd.as_fd()).map_err(self.refused(interface, "the same"))?;
                    self.note(interface, &loaded, identity)?;
                }
                attachments::set_attachment(self.set, &attachment);
                return Ok(attachment);
            }
            // Another mode was asked for: an interface has one mode, so this needs a moment without program.
            tracing::warn!(interface, ?wanted, "changing the XDP mode: packets pass without Guenon for a moment");
            pins::remove_pin(&self.pins.link(interface))?;
        }

        let first = if wanted == AttachMode::Generic { Mode::Generic } else { Mode::Native };
        let mut loaded = program::load(self.maps, &settings(first))?;
        let (link, mode) = create_link(interface, ifindex, loaded.fd.as_fd(), wanted)?;
        if settings(mode) != settings(first) {
            loaded = program::load(self.maps, &settings(mode))?;
            sys::update_link(link.as_fd(), loaded.fd.as_fd()).map_err(self.refused(interface, "generic"))?;
        }
        let identity = identity(&settings(mode), self.set);
        sys::pin(link.as_fd(), &self.pins.link(interface))
            .map_err(DataPathError::file("pin the link at", self.pins.link(interface)))?;
        self.note(interface, &loaded, identity)?;
        let attachment = Attachment { slot, interface: interface.to_owned(), ifindex, mode, egress };
        attachments::set_attachment(self.set, &attachment);
        tracing::info!(interface, ifindex, mode = ?mode, program = loaded.id, frags = loaded.frags, "attached");
        Ok(attachment)
    }

    /// The index of the interface, and the link of ours that is there. Refused where the place is taken.
    pub(super) fn place(&self, interface: &str) -> Result<(u32, Option<(OwnedFd, u32)>), DataPathError> {
        let ifindex = index_of(interface)?;
        let ours = self.our_link(&self.pins.link(interface), interface, ifindex)?;
        if ours.is_none() {
            match program_on(ifindex)? {
                0 => {}
                id => return Err(foreign(interface, id)),
            }
        }
        Ok((ifindex, ours))
    }

    /// The pinned link and its program's id, if it is still on the interface of this index; one that is not is removed.
    pub(super) fn our_link(
        &self,
        path: &Path,
        interface: &str,
        ifindex: u32,
    ) -> Result<Option<(OwnedFd, u32)>, DataPathError> {
        let link = match sys::open_pin(path) {
            Ok(link) => link,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(DataPathError::file("open the pinned link", path)(error)),
        };
        let (program, on) =
            sys::link_info(link.as_fd()).map_err(DataPathError::file("inspect the pinned link", path))?;
        if on == ifindex {
            return Ok(Some((link, program)));
        }
        tracing::info!(interface, was = on, is = ifindex, "the interface is another one now: attaching anew");
        pins::remove_pin(path)?;
        Ok(None)
    }

    fn note(&mut self, interface: &str, loaded: &Loaded, identity: u64) -> Result<(), DataPathError> {
        let path = self.pins.program(interface);
        pins::remove_pin(&path)?;
        sys::pin(loaded.fd.as_fd(), &path).map_err(DataPathError::file("pin the program at", &path))?;
        self.records.0.insert(interface.to_owned(), Record { program: loaded.id, identity, ..Record::default() });
        Ok(())
    }

    fn refused(&self, interface: &str, mode: &'static str) -> impl FnOnce(std::io::Error) -> DataPathError {
        let interface = interface.to_owned();
        move |error| DataPathError::Attach { interface, mode, error, hint: "" }
    }
}

pub(super) fn create_link(
    interface: &str,
    ifindex: u32,
    program: BorrowedFd<'_>,
    wanted: AttachMode,
) -> Result<(OwnedFd, Mode), DataPathError> {
    let native = || sys::create_xdp_link(program, ifindex, sys::XDP_NATIVE).map(|link| (link, Mode::Native));
    let generic = || sys::create_xdp_link(program, ifindex, sys::XDP_GENERIC).map(|link| (link, Mode::Generic));
    let refused = |mode: &'static str| {
        move |error: std::io::Error| {
            let hint = match (mode, error.raw_os_error()) {
                (_, Some(libc::EPERM)) => "; CAP_NET_ADMIN is needed",
                (_, Some(libc::EBUSY)) => "; somebody else has just attached a program",
                ("native", _) => {
                    "; this driver cannot, as the interface is set up now (`ethtool -S`, `dmesg` may say \
                                  why: an MTU above a page, too few queues, LRO): use --xdp-mode generic, or auto"
                }
                _ => "",
            };
            DataPathError::Attach { interface: interface.to_owned(), mode, error, hint }
        }
    };
    match wanted {
        AttachMode::Native => native().map_err(refused("native")),
        AttachMode::Generic => generic().map_err(refused("generic")),
        AttachMode::Auto => match native() {
            Ok(attached) => Ok(attached),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::EBUSY | libc::ENODEV)) => {
                Err(refused("native")(error))
            }
            Err(error) => {
                tracing::warn!(
                    interface,
                    %error,
                    "the driver takes no XDP program as the interface is set up now: attaching in generic mode, which is \
                     several times slower"
                );
                generic().map_err(refused("generic"))
            }
        },
    }
}

impl Kernel {
    /// Attaches a pass program to the far end of the veth `near`: an interface with index `far` in another namespace.
    /// Frames that XDP redirects to a veth arrive only where its far end has a program. A program that is there already
    /// serves as well, whoever's it is. Pinned, so that it outlives this process.
    ///
    /// # Errors
    ///
    /// [`DataPathError`]: frames will not arrive.
    pub fn attach_far_end(&mut self, near: &str, namespace: BorrowedFd<'_>, far: u32) -> Result<(), DataPathError> {
        let path = self.pins().link(&Pins::far_end(near));
        if let Ok(link) = sys::open_pin(&path) {
            // Indices are those of the far end's namespace.
            if sys::link_info(link.as_fd()).is_ok_and(|(_, on)| on == far) {
                return Ok(());
            }
            pins::remove_pin(&path)?;
        }
        let loaded = program::load_pass()?;
        let name = format!("{far} at the far end of {near}");
        let link = netlink::inside(namespace, || {
            if program_on(far)? != 0 {
                return Ok(None);
            }
            create_link(&name, far, loaded.fd.as_fd(), AttachMode::Native).map(Some)
        })??;
        if let Some((link, _)) = link {
            sys::pin(link.as_fd(), &path).map_err(DataPathError::file("pin the link at", &path))?;
        }
        Ok(())
    }

    /// Takes the pass program off the far end of the veth `near`, if it is ours. The veth need not be there any more.
    ///
    /// # Errors
    ///
    /// [`DataPathError::File`]: the pin could not be removed.
    pub fn detach_far_end(&mut self, near: &str) -> Result<(), DataPathError> {
        pins::remove_pin(&self.pins().link(&Pins::far_end(near)))
    }

    /// Veths whose far end has a pass program of ours.
    ///
    /// # Errors
    ///
    /// [`DataPathError::File`]: the pins cannot be listed.
    pub fn far_ends(&self) -> Result<Vec<String>, DataPathError> {
        let names = pins::names_in(&self.pins().links())?;
        Ok(names.iter().filter_map(|name| pins::unescape(name).strip_prefix("far-").map(str::to_owned)).collect())
    }
}
