//! A program that passes everything, for the far ends of veths that no agent tends: frames that XDP sends to a veth
//! arrive only where its far end has a program.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::attach::create_link;
use super::error::DataPathError;
use super::interfaces::{foreign, index_of, program_on};
use super::kernel::AttachMode;
use super::tables::attachments::Mode;
use super::{pins, program, sys};

/// Attaches the pass program to an interface of this thread's network namespace, and pins the link below `pin_dir`, so
/// that it stays. One that is there already stays as it is.
///
/// # Errors
///
/// [`DataPathError`]; nothing has changed.
pub fn attach(pin_dir: &Path, interface: &str) -> Result<Mode, DataPathError> {
    let ifindex = index_of(interface)?;
    pins::ensure_bpffs(pin_dir)?;
    pins::create_dir(pin_dir)?;
    let path = pin(pin_dir, interface)?;
    if let Ok(link) = sys::open_pin(&path) {
        if sys::link_info(link.as_fd()).is_ok_and(|(_, on)| on == ifindex) {
            return super::interfaces::mode_on(ifindex);
        }
        pins::remove_pin(&path)?;
    }
    match program_on(ifindex)? {
        0 => {}
        id => return Err(foreign(interface, id)),
    }
    let loaded = program::load_pass()?;
    let (link, mode) = create_link(interface, ifindex, loaded.fd.as_fd(), AttachMode::Auto)?;
    sys::pin(link.as_fd(), &path).map_err(DataPathError::file("pin the link at", &path))?;
    Ok(mode)
}

/// Takes it off again; `false`: it was not there. The directory of pins goes with the last one.
///
/// # Errors
///
/// [`DataPathError::File`].
pub fn detach(pin_dir: &Path, interface: &str) -> Result<bool, DataPathError> {
    let path = pin(pin_dir, interface)?;
    let was_there = path.exists();
    pins::remove_pin(&path)?;
    // Not empty, or not there: both are right.
    let _ = fs::remove_dir(pin_dir);
    Ok(was_there)
}

/// Interfaces have names of their own in each namespace, and pins are shared.
fn pin(pin_dir: &Path, interface: &str) -> Result<PathBuf, DataPathError> {
    const NAMESPACE: &str = "/proc/thread-self/ns/net";
    let namespace = fs::read_link(NAMESPACE).map_err(DataPathError::file("read", NAMESPACE))?;
    let number: String = namespace.to_string_lossy().chars().filter(char::is_ascii_digit).collect();
    Ok(pin_dir.join(format!("{number}-{}", pins::escape(interface))))
}
