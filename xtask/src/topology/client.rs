//! Clients, run from inside a host: HTTP/1.0 by hand and UDP echo. The demo uses curl; these are for tests that need
//! to hold a connection, and for machines without curl.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::netns;
use super::serve::{read_pattern, write_pattern};
use crate::interrupt;

/// How long a client waits for TCP: an emulated guest under load that also starts agents is slow.
const LIMIT: Duration = Duration::from_secs(60);
/// How long it waits for a datagram, which may be lost.
const DATAGRAM_LIMIT: Duration = Duration::from_secs(5);

/// An HTTP reply.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// GET.
pub(crate) fn get(netns: &str, server: SocketAddr, path: &str) -> Result<Reply> {
    exchange(netns, server, format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", server.ip()).as_bytes())
}

/// GET, answered within this time or not at all.
pub(crate) fn try_get(netns: &str, server: SocketAddr, path: &str, limit: Duration) -> Result<Reply> {
    let request = format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", server.ip());
    talk(netns, server, limit, |stream| stream.write_all(request.as_bytes()))
}

/// POST.
pub(crate) fn post(netns: &str, server: SocketAddr, path: &str, body: &[u8]) -> Result<Reply> {
    let head = format!("POST {path} HTTP/1.0\r\nHost: {}\r\nContent-Length: {}\r\n\r\n", server.ip(), body.len());
    exchange(netns, server, &[head.as_bytes(), body].concat())
}

/// A download of so many bytes, whole and in order; gives how long they took.
pub(crate) fn download(netns: &str, server: SocketAddr, length: usize) -> Result<Duration> {
    let download = || -> Result<Duration> {
        let mut stream = connected(server, LIMIT)?;
        let begin = Instant::now();
        stream.write_all(format!("GET /bytes/{length} HTTP/1.0\r\n\r\n").as_bytes()).context("cannot ask")?;
        let mut reader = BufReader::with_capacity(1 << 18, stream);
        let mut line = String::new();
        while reader.read_line(&mut line).context("no head")? > 2 {
            line.clear();
        }
        ensure!(read_pattern(reader, length).context("cut short")?, "it arrived spoilt");
        Ok(begin.elapsed())
    };
    netns::inside(netns, download).with_context(|| format!("a download of {length} bytes from {server} by {netns}"))
}

/// An upload, likewise.
pub(crate) fn upload(netns: &str, server: SocketAddr, length: usize) -> Result<Duration> {
    let upload = || -> Result<Duration> {
        let mut stream = connected(server, LIMIT)?;
        let begin = Instant::now();
        stream.write_all(format!("POST / HTTP/1.0\r\nContent-Length: {length}\r\n\r\n").as_bytes())?;
        write_pattern(&stream, length).context("cannot send")?;
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).context("no reply")?;
        let reply = parse(&reply).context("what was answered is no HTTP")?;
        ensure!(reply.status == 200, "it arrived spoilt: {}", reply.text());
        Ok(begin.elapsed())
    };
    netns::inside(netns, upload).with_context(|| format!("an upload of {length} bytes from {netns} to {server}"))
}

fn connected(server: SocketAddr, limit: Duration) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&server, limit).context("cannot connect")?;
    stream.set_read_timeout(Some(limit)).and_then(|()| stream.set_write_timeout(Some(limit)))?;
    Ok(stream)
}

/// Tries for a while: a server that has just been started may not listen yet.
pub(crate) fn patiently<T>(mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let begin = Instant::now();
    loop {
        match attempt() {
            Err(_) if begin.elapsed() < LIMIT => std::thread::sleep(Duration::from_millis(50)),
            result => return result,
        }
        interrupt::check()?;
    }
}

/// POST at a pace that leaves room in every queue of the way: what is lost then, was lost by nobody's lack of room. A veth takes
/// 256 frames at a time from XDP.
pub(crate) fn post_gently(netns: &str, server: SocketAddr, path: &str, body: &[u8]) -> Result<Reply> {
    let head = format!("POST {path} HTTP/1.0\r\nHost: {}\r\nContent-Length: {}\r\n\r\n", server.ip(), body.len());
    talk(netns, server, LIMIT, |stream| {
        stream.write_all(head.as_bytes())?;
        for part in body.chunks(8 << 10) {
            stream.write_all(part)?;
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    })
}

fn exchange(netns: &str, server: SocketAddr, request: &[u8]) -> Result<Reply> {
    talk(netns, server, LIMIT, |stream| stream.write_all(request))
}

/// Connects, lets `send` send, and reads the reply.
fn talk(
    netns: &str,
    server: SocketAddr,
    limit: Duration,
    send: impl FnOnce(&mut TcpStream) -> std::io::Result<()> + Send,
) -> Result<Reply> {
    let talk = || -> Result<Vec<u8>> {
        let mut stream = connected(server, limit)?;
        send(&mut stream).context("cannot send")?;
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).context("no reply")?;
        Ok(reply)
    };
    let reply = netns::inside(netns, talk).with_context(|| format!("HTTP from {netns} to {server}"))?;
    parse(&reply).with_context(|| format!("{server} answered something that is no HTTP"))
}

fn parse(reply: &[u8]) -> Option<Reply> {
    let head = reply.windows(4).position(|w| w == b"\r\n\r\n")?;
    let first = reply[..head].split(|&b| b == b'\r').next()?;
    let status = std::str::from_utf8(first).ok()?.split(' ').nth(1)?.parse().ok()?;
    Some(Reply { status, body: reply[head + 4..].to_vec() })
}

/// Sends a datagram and gives what comes back from the very address it was sent to.
pub(crate) fn echo(netns: &str, server: SocketAddr, payload: &[u8]) -> Result<Vec<u8>> {
    let talk = || -> Result<Vec<u8>> {
        let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).context("cannot bind")?;
        socket.connect(server).context("no route")?;
        socket.set_read_timeout(Some(DATAGRAM_LIMIT))?;
        socket.send(payload).context("cannot send")?;
        let mut reply = vec![0; 65536];
        let length = socket.recv(&mut reply).context("no reply")?;
        reply.truncate(length);
        Ok(reply)
    };
    netns::inside(netns, talk).with_context(|| format!("UDP from {netns} to {server}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_read() {
        let reply = parse(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nt22\n").expect("this is HTTP");
        assert_eq!((reply.status, reply.text().as_str()), (200, "t22\n"));
        assert!(parse(b"SSH-2.0-x\r\n").is_none());
    }
}
