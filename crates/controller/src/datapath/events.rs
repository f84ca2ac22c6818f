//! What the program tells by itself: routers that refused a tunnel packet for its size.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use aya::maps::{Map, MapData, RingBuf};
use guenon_ebpf::abi::{self, map};
use zerocopy::FromBytes;

use super::error::DataPathError;
use super::kernel::Kernel;
use super::sys;

/// A router said that tunnel packets to an address are too big.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelTooBig {
    /// The tunnel address.
    pub destination: IpAddr,
    /// The MTU that fits, bytes of IP, as the router says.
    pub mtu: u32,
}

/// The program's messages. Its file descriptor becomes readable when there is one.
pub struct Events(RingBuf<MapData>);

impl Events {
    /// The next message, if there is one.
    pub fn next_event(&mut self) -> Option<TunnelTooBig> {
        loop {
            let item = self.0.next()?;
            // Of another size: another version's program, which is about to be replaced.
            if let Ok(event) = abi::TunnelTooBig::read_from_bytes(&item) {
                return Some(TunnelTooBig { destination: event.destination.to_ip(), mtu: event.mtu });
            }
        }
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Kernel {
    /// The program's messages: one reader at a time. After maps were replaced ([`Kernel::open`]) those of the new ones.
    ///
    /// # Errors
    ///
    /// [`DataPathError::Map`].
    pub fn events(&self) -> Result<Events, DataPathError> {
        let other = |error: &dyn std::error::Error| std::io::Error::other(error.to_string());
        let failed = || DataPathError::map("read", map::EVENTS);
        let fd = self.store().fd(map::EVENTS).ok_or_else(|| failed()(std::io::ErrorKind::NotFound.into()))?;
        let fd = sys::duplicate(&fd).map_err(failed())?;
        let data = MapData::from_fd(fd).map_err(|error| failed()(other(&error)))?;
        let map = Map::from_map_data(data).map_err(|error| failed()(other(&error)))?;
        RingBuf::try_from(map).map(Events).map_err(|error| failed()(other(&error)))
    }
}
