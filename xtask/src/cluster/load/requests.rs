//! TCP requests, each a connection of its own: what somebody who dials anew meets.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

use super::Task;
use super::report::{Kind, Loss, Report};
use crate::cluster::layout::http;
use crate::topology::netns;

/// At a time.
const CLIENTS: usize = 2;
const PAUSE: Duration = Duration::from_millis(20);
/// A request that is not answered by then has failed. A lost SYN is sent again after one second, so that one loss does not
/// fail it: single losses are what datagrams are for.
const LIMIT: Duration = Duration::from_secs(3);

pub(super) fn run(task: &Task) -> Result<Report> {
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..CLIENTS).map(|_| scope.spawn(|| netns::inside(&task.netns, || Ok(one(task))))).collect();
        let mut report = Report::default();
        for thread in threads {
            report.add(Report::one("requests", thread.join().map_err(|_| anyhow!("a client panicked"))??));
        }
        Ok(report)
    })
}

fn one(task: &Task) -> Kind {
    let mut kind = Kind::default();
    while !task.stopped() {
        let (from, mut accepted) = (task.now(), false);
        kind.sent += 1;
        if let Err(error) = ask(&mut accepted) {
            let (until, what) = (task.now(), format!("{error:#}"));
            kind.lost.push(Loss { from, until, by: None, accepted, what });
        }
        std::thread::sleep(PAUSE);
    }
    kind
}

fn ask(accepted: &mut bool) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&http(), LIMIT).context("cannot connect")?;
    *accepted = true;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").context("cannot ask")?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).context("no reply")?;
    ensure!(reply.starts_with(b"HTTP/1.0 200 "), "no good reply: {:?}", String::from_utf8_lossy(&reply));
    Ok(())
}
