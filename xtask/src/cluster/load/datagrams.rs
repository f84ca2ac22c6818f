//! UDP: flows that go on, and datagrams that are each a flow. Nothing is sent twice, so every packet counts; nothing
//! waits, so a flow that is dead does not hide the others.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::time::Duration;

use anyhow::{Context, Result};

use super::report::{Kind, Loss, Report};
use super::{PATIENCE, Task};
use crate::cluster::layout::echo;

/// Flows that go on: enough for every endpoint to get some through every director.
const FLOWS: usize = 24;
/// Between two rounds of one datagram a flow and one new flow.
const PAUSE: Duration = Duration::from_millis(10);

/// A flow and what of it is under way.
struct Flow {
    socket: UdpSocket,
    /// Who answered last.
    by: Option<String>,
    /// When each was sent, by its number, and who had answered before.
    waiting: BTreeMap<u64, (Duration, Option<String>)>,
}

pub(super) fn run(task: &Task) -> Result<Report> {
    let mut flows = (0..FLOWS).map(|_| Flow::new()).collect::<Result<Vec<_>>>()?;
    let mut new: Vec<Flow> = Vec::new();
    let (mut steady, mut fresh) = (Kind::default(), Kind::default());
    let mut number = 0;
    loop {
        let stopped = task.stopped();
        if !stopped {
            for flow in &mut flows {
                flow.send(number, task.now(), &mut steady);
            }
            let mut flow = Flow::new()?;
            flow.send(number, task.now(), &mut fresh);
            new.push(flow);
            number += 1;
        }
        std::thread::sleep(PAUSE);
        for flow in &mut flows {
            flow.receive(task.now(), &mut steady);
        }
        for flow in &mut new {
            flow.receive(task.now(), &mut fresh);
        }
        new.retain(|flow| !flow.waiting.is_empty());
        if stopped && new.is_empty() && flows.iter().all(|flow| flow.waiting.is_empty()) {
            let mut report = Report::one("datagrams of long flows", steady);
            report.add(Report::one("datagrams of new flows", fresh));
            return Ok(report);
        }
    }
}

impl Flow {
    fn new() -> Result<Self> {
        let socket = UdpSocket::bind("0.0.0.0:0").context("cannot bind")?;
        socket.connect(echo()).and_then(|()| socket.set_nonblocking(true)).context("cannot make a flow")?;
        Ok(Self { socket, by: None, waiting: BTreeMap::new() })
    }

    fn send(&mut self, number: u64, now: Duration, kind: &mut Kind) {
        kind.sent += 1;
        match self.socket.send(&number.to_be_bytes()) {
            Ok(_) => drop(self.waiting.insert(number, (now, self.by.clone()))),
            // Somebody answered an earlier one with an ICMP error: this one did not leave.
            Err(error) => lose(now, self.by.clone(), format!("datagram {number}: {error}"), kind),
        }
    }

    /// What has come, and what is too late to come.
    fn receive(&mut self, now: Duration, kind: &mut Kind) {
        let mut reply = [0; 128];
        while let Ok(length) = self.socket.recv(&mut reply) {
            let Some((name, number)) = reply[..length].split_last_chunk::<8>() else { continue };
            self.by = Some(String::from_utf8_lossy(name).trim().to_owned());
            self.waiting.remove(&u64::from_be_bytes(*number));
        }
        while let Some((number, (at, by))) = self.waiting.pop_first() {
            if now.saturating_sub(at) < PATIENCE {
                self.waiting.insert(number, (at, by));
                break;
            }
            lose(at, by, format!("datagram {number} was not answered"), kind);
        }
    }
}

fn lose(at: Duration, by: Option<String>, what: String, kind: &mut Kind) {
    kind.lost.push(Loss { from: at, until: at, by, accepted: false, what });
}
