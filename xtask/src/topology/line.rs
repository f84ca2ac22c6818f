//! A connection that says a line and hears it again, as often as it is asked: whether it still goes on, and with whom.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::dial;

/// A repeated SYN comes after 1, 3, 7 s.
const PATIENCE: Duration = Duration::from_secs(20);

/// An open connection to `xtask serve`.
pub(crate) struct Line {
    reader: BufReader<TcpStream>,
    what: String,
    name: String,
}

impl Line {
    /// Opens one from this port of a host, and asks for the first time.
    pub(crate) fn open(netns: &str, port: u16, server: SocketAddr) -> Result<Self> {
        let what = format!("a connection from port {port} of {netns} to {server}");
        let stream = dial::tcp(netns, port, server, PATIENCE).with_context(|| what.clone())?;
        let mut line = Self { reader: BufReader::new(stream), what, name: String::new() };
        line.reader.get_ref().write_all(b"GET /lines HTTP/1.0\r\n\r\n").context("cannot ask")?;
        line.name = line.ask()?;
        Ok(line)
    }

    /// Who answers.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// An error unless the same answers again.
    pub(crate) fn goes_on(&mut self) -> Result<()> {
        let name = self.ask()?;
        ensure!(name == self.name, "{}: {name} answers in place of {}", self.what, self.name);
        Ok(())
    }

    fn ask(&mut self) -> Result<String> {
        let mut reply = String::new();
        self.reader.get_ref().write_all(b"hello\n").with_context(|| self.what.clone())?;
        self.reader.read_line(&mut reply).with_context(|| self.what.clone())?;
        let name = reply.strip_suffix(" hello\n").with_context(|| format!("{}: {reply:?}", self.what))?;
        Ok(name.to_owned())
    }
}
