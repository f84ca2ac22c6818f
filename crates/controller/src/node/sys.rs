//! Two questions to the kernel that no library asks: the only unsafe code of the node's setup.

use std::io;
use std::mem;
use std::os::fd::AsRawFd;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// Name of the calling thread's network namespace, never used again until reboot; 0 where the kernel has none
/// (before 5.14).
pub(super) fn namespace_cookie() -> u64 {
    let Ok(socket) = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None) else { return 0 };
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of_val(&cookie)).unwrap_or_default();
    // SAFETY: the socket is open; `cookie` and `length` outlive the call, and `length` is the size of `cookie`.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if answer == 0 { cookie } else { 0 }
}

/// ETHTOOL_GTXCSUM of linux/ethtool.h.
const ETHTOOL_GTXCSUM: u32 = 0x16;

/// Why an offload could not be read.
#[derive(Debug, thiserror::Error)]
pub enum OffloadError {
    /// Longer than names of devices are.
    #[error("`{0}` is no name of a device")]
    Name(String),
    /// The kernel refused.
    #[error("cannot read whether {device} offloads checksums: {error}")]
    Refused {
        /// The device.
        device: String,
        /// Why.
        #[source]
        error: io::Error,
    },
}

/// struct ethtool_value of linux/ethtool.h.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// Whether a device of the calling thread's network namespace leaves checksums of what it sends to the receiver.
///
/// # Errors
///
/// [`OffloadError`].
pub fn tx_checksum(device: &str) -> Result<bool, OffloadError> {
    let refused = |error| OffloadError::Refused { device: device.to_owned(), error };
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .map_err(|error| refused(error.into()))?;
    let mut value = EthtoolValue { command: ETHTOOL_GTXCSUM, data: 0 };
    // SAFETY: ifreq is plain data; all zeroes is a value of it.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    if device.len() >= request.ifr_name.len() {
        return Err(OffloadError::Name(device.to_owned()));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: the socket is open; `request` holds a terminated name and points to `value`, which has the shape
    // that ETHTOOL_GTXCSUM writes and outlives the call.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as libc::Ioctl, &raw mut request) };
    if answer < 0 {
        return Err(refused(io::Error::last_os_error()));
    }
    Ok(value.data != 0)
}
