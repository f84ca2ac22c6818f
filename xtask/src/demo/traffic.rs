//! Sends real traffic and counts who answered.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail};

use crate::topology::layout::{ECHO, HTTP, Host, addresses};
use crate::topology::{Topology, client};
use crate::{interrupt, progress};

/// Connections, and datagrams, for each family.
const COUNT: usize = 100;
/// Errors that are kept to be shown.
const ERRORS_SHOWN: usize = 3;

/// Who answered one kind of question.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    pub(crate) kind: String,
    pub(crate) asked: usize,
    /// By name of the endpoint.
    pub(crate) by: BTreeMap<String, usize>,
    pub(crate) errors: Vec<String>,
}

impl Answers {
    /// Asks again and again.
    pub(crate) fn ask(kind: String, question: impl Fn(usize) -> Result<String>) -> Result<Self> {
        let mut answers = Self { kind, asked: COUNT, ..Self::default() };
        for number in 0..COUNT {
            interrupt::check()?;
            match question(number) {
                Ok(name) => *answers.by.entry(name).or_default() += 1,
                Err(error) => answers.errors.push(format!("{error:#}")),
            }
        }
        Ok(answers)
    }

    pub(crate) fn answered(&self) -> usize {
        self.by.values().sum()
    }
}

/// curl over each of these VIPs, then UDP.
pub(crate) fn send(topology: &Topology, vips: [(&str, IpAddr); 2]) -> Result<Vec<Answers>> {
    let mut all = Vec::new();
    for (family, vip) in vips {
        let url = format!("http://{}/", SocketAddr::new(vip, HTTP));
        progress::step(format_args!("{COUNT} times curl {url}"));
        all.push(Answers::ask(format!("curl {family}"), |_| {
            let curl = topology.at(Host::Client, "curl").args(["-sS", "--fail", "--max-time", "10", &url]);
            Ok(curl.read()?.trim().to_owned())
        })?);
    }
    for (family, vip) in vips {
        let server = SocketAddr::new(vip, ECHO);
        progress::step(format_args!("{COUNT} datagrams to {server}"));
        all.push(Answers::ask(format!("UDP {family}"), |number| {
            let payload = format!("datagram {number}");
            let reply = client::echo(&topology.netns(Host::Client), server, payload.as_bytes())?;
            let reply = String::from_utf8_lossy(&reply).into_owned();
            match reply.split_once(' ') {
                Some((name, rest)) if rest == payload => Ok(name.to_owned()),
                _ => bail!("{server} echoed {reply:?} for {payload:?}"),
            }
        })?);
    }
    Ok(all)
}

/// Whom the pods take for their client: the client itself.
pub(crate) fn clients(topology: &Topology, vips: [(&str, IpAddr); 2]) -> Result<()> {
    for (family, vip) in vips {
        let reply = client::get(&topology.netns(Host::Client), SocketAddr::new(vip, HTTP), "/client")?;
        let seen: SocketAddr = reply.text().trim().parse().context("a pod names no client")?;
        progress::note(format_args!("a pod behind {vip} saw its client as {seen}"));
        if !addresses(Host::Client).any(|address| address == seen.ip()) {
            bail!("{family}: a pod behind {vip} saw {seen}, which is not the client");
        }
    }
    Ok(())
}

/// Every question answered, and every endpoint heard.
pub(crate) fn judge(all: &[Answers], names: &[&str]) -> Result<()> {
    let mut faults = Vec::new();
    for answers in all {
        if answers.answered() != answers.asked {
            faults.push(format!("{}: {} of {} answered", answers.kind, answers.answered(), answers.asked));
            faults.extend(answers.errors.iter().take(ERRORS_SHOWN).map(|error| format!("  {error}")));
        }
        for name in names.iter().filter(|name| !answers.by.contains_key(**name)) {
            faults.push(format!("{}: {name} was never heard", answers.kind));
        }
    }
    if !faults.is_empty() {
        bail!("not everything was answered:\n{}", faults.join("\n"));
    }
    Ok(())
}
