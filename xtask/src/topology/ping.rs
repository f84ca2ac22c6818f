//! ICMP echo by a raw socket: machines without `ping` are not rare.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, recv, sendto, setsockopt,
    socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::netns;

const LIMIT: Duration = Duration::from_secs(3);

/// One echo request from inside a host; an error unless its reply comes back with the same data.
pub(crate) fn ping(netns: &str, to: IpAddr, sequence: u16, data: &[u8]) -> Result<()> {
    netns::inside(netns, || exchange(to, sequence, data)).with_context(|| format!("ping {to} from {netns}"))
}

fn exchange(to: IpAddr, sequence: u16, data: &[u8]) -> Result<()> {
    let (family, protocol, request, reply) = match to {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp, 8, 0),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6, 128, 129),
    };
    let socket = socket(family, SockType::Raw, SockFlag::empty(), protocol).context("no raw socket (root?)")?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(200)).context("no receive timeout")?;
    let message = message(request, sequence, data);
    match SocketAddr::new(to, 0) {
        SocketAddr::V4(to) => sendto(socket.as_raw_fd(), &message, &SockaddrIn::from(to), MsgFlags::empty()),
        SocketAddr::V6(to) => sendto(socket.as_raw_fd(), &message, &SockaddrIn6::from(to), MsgFlags::empty()),
    }
    .context("cannot send")?;
    let begin = Instant::now();
    let mut buffer = vec![0; 65536];
    while begin.elapsed() < LIMIT {
        let Ok(length) = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) else { continue };
        let packet = &buffer[..length];
        // A raw IPv4 socket gives the IP header too.
        let icmp = if to.is_ipv4() { packet.get(usize::from(packet[0] & 15) * 4..) } else { Some(packet) };
        let Some(icmp) = icmp else { continue };
        if icmp.first() == Some(&reply) && icmp.get(4..8) == message.get(4..8) {
            if icmp.get(8..) != Some(data) {
                bail!("the reply carries other data");
            }
            return Ok(());
        }
    }
    bail!("no reply within {} s", LIMIT.as_secs())
}

/// Identifier, sequence and data; the checksum is the kernel's work for ICMPv6, ours for ICMP.
fn message(kind: u8, sequence: u16, data: &[u8]) -> Vec<u8> {
    let identifier = std::process::id() as u16; // its low half: any number will do
    let mut message = vec![kind, 0, 0, 0];
    message.extend_from_slice(&identifier.to_be_bytes());
    message.extend_from_slice(&sequence.to_be_bytes());
    message.extend_from_slice(data);
    let mut sum: u32 =
        message.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = !(sum as u16);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}
