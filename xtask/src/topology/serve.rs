//! `xtask serve`: a small HTTP and UDP echo server that answers with its name.
//!
//! | request | answer |
//! |---|---|
//! | `GET /` | the name |
//! | `GET /client` | address and port of the client, as the server sees them |
//! | `GET /bytes/N` | N bytes, the i-th is i mod 251 |
//! | `GET /lines` | from then on, the name, a blank and the line for every line that comes |
//! | `POST /` | the name, and how many bytes came; 400 if one is not what `/bytes/N` would have given |
//! | a datagram | name, a blank, the datagram; sent from the address that it was sent to |

use std::io::{BufRead, BufReader, IoSlice, IoSliceMut, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, sendmsg, setsockopt, sockopt,
};

/// How long a connection may be silent.
const LIMIT: Duration = Duration::from_secs(30);

/// Serves until it is ended. One socket takes both families (IPv4 as mapped addresses).
pub(crate) fn serve(name: &str, http: u16, echo: u16) -> Result<()> {
    let listener = TcpListener::bind(("::", http)).with_context(|| format!("cannot listen on TCP port {http}"))?;
    let socket = UdpSocket::bind(("::", echo)).with_context(|| format!("cannot bind UDP port {echo}"))?;
    setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true).context("cannot ask for IPV6_PKTINFO")?;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            loop {
                if let Err(error) = echo_one(&socket, name) {
                    eprintln!("echo: {error:#}");
                }
            }
        });
        for connection in listener.incoming() {
            match connection {
                Ok(stream) => drop(scope.spawn(|| answer(stream, name).unwrap_or_else(|e| eprintln!("http: {e:#}")))),
                Err(error) => eprintln!("accept: {error}"),
            }
        }
        Ok(())
    })
}

/// What `/bytes/N` consists of.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..251).cycle().take(length).collect()
}

/// Bytes of the pattern that are written and judged at a time.
const PORTION: usize = 251 * 1024;

/// Writes so many bytes of the pattern.
pub(crate) fn write_pattern(mut writer: impl Write, length: usize) -> std::io::Result<()> {
    let portion = pattern(PORTION.min(length));
    let mut left = length;
    while left > 0 {
        let now = left.min(PORTION);
        writer.write_all(&portion[..now])?;
        left -= now;
    }
    Ok(())
}

/// Reads so many bytes, and says whether they are the pattern.
pub(crate) fn read_pattern(mut reader: impl Read, length: usize) -> std::io::Result<bool> {
    let portion = pattern(PORTION.min(length));
    let mut got = vec![0; portion.len()];
    let (mut left, mut right) = (length, true);
    while left > 0 {
        let now = left.min(PORTION);
        reader.read_exact(&mut got[..now])?;
        right &= got[..now] == portion[..now];
        left -= now;
    }
    Ok(right)
}

fn answer(stream: TcpStream, name: &str) -> Result<()> {
    stream.set_read_timeout(Some(LIMIT)).and_then(|()| stream.set_write_timeout(Some(LIMIT)))?;
    let mut reader = BufReader::new(&stream);
    let mut request = String::new();
    reader.read_line(&mut request).context("no request line")?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).context("no end of headers")?;
        if line.trim().is_empty() {
            break;
        }
        if let Some((header, value)) = line.split_once(':')
            && header.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().context("a Content-Length that is no number")?;
        }
    }
    let mut words = request.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if (method, path) == ("GET", "/lines") {
        return lines(reader, &stream, name);
    }
    if let ("GET", Some(Ok(count))) = (method, path.strip_prefix("/bytes/").map(str::parse)) {
        head(&stream, "200 OK", count)?;
        return write_pattern(&stream, count).context("cannot answer");
    }
    let (status, body) = match (method, path) {
        ("GET", "/") => ("200 OK", format!("{name}\n")),
        ("GET", "/client") => {
            let client = stream.peer_addr().context("cannot tell who the client is")?;
            ("200 OK", format!("{}\n", SocketAddr::new(client.ip().to_canonical(), client.port())))
        }
        ("POST", "/") => {
            let right = read_pattern(reader, length).context("a body that is cut short")?;
            (if right { "200 OK" } else { "400 Bad Request" }, format!("{name} {length}\n"))
        }
        _ => ("404 Not Found", format!("{name} has no {path}\n")),
    };
    head(&stream, status, body.len())?;
    (&stream).write_all(body.as_bytes()).context("cannot answer")
}

fn head(mut writer: &TcpStream, status: &str, length: usize) -> Result<()> {
    let head = format!("HTTP/1.0 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    writer.write_all(head.as_bytes()).context("cannot answer")
}

/// Line by line, until the client has no more.
fn lines(mut reader: BufReader<&TcpStream>, mut writer: &TcpStream, name: &str) -> Result<()> {
    writer.set_nodelay(true)?;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).context("no line")? == 0 {
            return Ok(());
        }
        writer.write_all(format!("{name} {line}").as_bytes()).context("cannot answer")?;
    }
}

/// One datagram. The source of the answer is the destination of the question: a client that dialled a VIP takes
/// answers from that VIP only, and the route alone would pick the node's own address.
fn echo_one(socket: &UdpSocket, name: &str) -> Result<()> {
    let mut payload = vec![0; 65536];
    let mut control = nix::cmsg_space!(libc::in6_pktinfo);
    let (length, from, mut to) = {
        let mut parts = [IoSliceMut::new(&mut payload)];
        let got = recvmsg::<SockaddrIn6>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty())
            .context("recvmsg")?;
        let to = got.cmsgs().context("recvmsg: control data")?.find_map(|message| {
            if let ControlMessageOwned::Ipv6PacketInfo(info) = message { Some(info) } else { None }
        });
        (got.bytes, got.address.context("no source address")?, to.context("no IPV6_PKTINFO")?)
    };
    to.ipi6_ifindex = 0; // any way out: what matters is the address
    let (name, blank) = (IoSlice::new(name.as_bytes()), IoSlice::new(b" "));
    let parts = [name, blank, IoSlice::new(&payload[..length])];
    sendmsg(socket.as_raw_fd(), &parts, &[ControlMessage::Ipv6PacketInfo(&to)], MsgFlags::empty(), Some(&from))
        .with_context(|| format!("sendmsg to {from}"))?;
    Ok(())
}
