//! The data path for reading: takes no lock, changes nothing.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use guenon_ebpf::abi::{ABI_VERSION, Meta, map};

use super::bases::Bases;
use super::counters::{self, Extent};
use super::error::DataPathError;
use super::maps::Mapped;
use super::pins::Pins;
use super::sys;
use super::tables::attachments::{Attachment, read_attachments};
use super::tables::{read_meta, read_state};
use crate::model::State;
use crate::reading::Reading;

/// What is pinned, opened for reading.
#[derive(Debug)]
pub struct Reader {
    pins: Pins,
    state_dir: PathBuf,
    maps: Mapped,
}

impl Reader {
    /// Opens what is pinned.
    ///
    /// # Errors
    ///
    /// [`DataPathError::NotThere`], [`DataPathError::Version`], [`DataPathError::Map`].
    pub fn open(pin_dir: &Path, state_dir: &Path) -> Result<Self, DataPathError> {
        let pins = Pins::new(pin_dir);
        let maps = open(&pins)?;
        Ok(Self { pins, state_dir: state_dir.to_owned(), maps })
    }

    /// Counters and all that is not configuration. Follows an agent that has replaced its maps.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn reading(&mut self, extent: Extent) -> Result<Reading, DataPathError> {
        self.follow()?;
        counters::read(&self.maps, &Bases::read(&self.state_dir, self.maps.id()), extent)
    }

    /// The configuration in force. Follows an agent that has replaced its maps.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn state(&mut self) -> Result<State, DataPathError> {
        self.follow()?;
        Ok(read_state(&self.maps))
    }

    /// Version and revision.
    #[must_use]
    pub fn meta(&self) -> Meta {
        read_meta(&self.maps)
    }

    /// Interfaces that have, or had, the program.
    #[must_use]
    pub fn attachments(&self) -> Vec<Attachment> {
        read_attachments(&self.maps)
    }

    /// The tables, for lookups ([`super::tables::lookup`]).
    #[must_use]
    pub fn store(&self) -> &Mapped {
        &self.maps
    }

    fn follow(&mut self) -> Result<(), DataPathError> {
        let meta = sys::open_pin_read_only(&self.pins.maps().join(map::META));
        let id = meta.and_then(|meta| sys::map_info(meta.as_fd())).map(|(id, _)| id);
        if id.ok() != Some(self.maps.id()) {
            self.maps = open(&self.pins)?;
        }
        Ok(())
    }
}

fn open(pins: &Pins) -> Result<Mapped, DataPathError> {
    if !pins.maps().join(map::META).exists() {
        return Err(DataPathError::NotThere(pins.root().to_owned()));
    }
    let maps = Mapped::open(&pins.maps(), false)?;
    if maps.abi() != ABI_VERSION || !maps.is_readable()? {
        let path = pins.root().to_owned();
        return Err(DataPathError::Version { path, found: maps.abi(), expected: ABI_VERSION });
    }
    Ok(maps)
}
