//! Connections from a port of one's choice.

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::netns;

/// A TCP connection from this port of a host, tried for as long as `limit`.
pub(crate) fn tcp(netns: &str, port: u16, server: SocketAddr, limit: Duration) -> Result<TcpStream> {
    let stream = dial(netns, SockType::Stream, port, server, limit)?;
    Ok(TcpStream::from(stream))
}

/// A UDP socket from this port of a host, which takes answers of the server alone.
pub(crate) fn udp(netns: &str, port: u16, server: SocketAddr, limit: Duration) -> Result<UdpSocket> {
    let socket = UdpSocket::from(dial(netns, SockType::Datagram, port, server, limit)?);
    socket.set_read_timeout(Some(limit)).context("cannot set a time limit")?;
    Ok(socket)
}

fn dial(netns: &str, kind: SockType, port: u16, server: SocketAddr, limit: Duration) -> Result<OwnedFd> {
    let (family, any) = match server {
        SocketAddr::V4(_) => (AddressFamily::Inet, SocketAddr::from(([0, 0, 0, 0], port))),
        SocketAddr::V6(_) => (AddressFamily::Inet6, SocketAddr::from(([0_u16; 8], port))),
    };
    let dial = || -> Result<OwnedFd> {
        let fd = socket(family, kind, SockFlag::SOCK_CLOEXEC, None).context("cannot make a socket")?;
        // Connections to several servers from one port.
        setsockopt(&fd, sockopt::ReuseAddr, &true).context("cannot share a port")?;
        // The limit of connect(2) as well.
        let limit = TimeVal::milliseconds(i64::try_from(limit.as_millis()).unwrap_or(i64::MAX));
        setsockopt(&fd, sockopt::SendTimeout, &limit).context("cannot set a time limit")?;
        setsockopt(&fd, sockopt::ReceiveTimeout, &limit).context("cannot set a time limit")?;
        bind(fd.as_raw_fd(), &SockaddrStorage::from(any)).with_context(|| format!("cannot bind port {port}"))?;
        connect(fd.as_raw_fd(), &SockaddrStorage::from(server)).context("cannot connect")?;
        Ok(fd)
    };
    netns::inside(netns, dial).with_context(|| format!("from port {port} of {netns} to {server}"))
}
