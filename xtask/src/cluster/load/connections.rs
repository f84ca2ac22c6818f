//! Long TCP connections: a line there, the same line back, and again.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};

use super::report::{Kind, Loss, Report};
use super::{PATIENCE, Task};
use crate::cluster::layout::http;
use crate::topology::netns;

/// At a time: enough for every endpoint to have some through every director.
const CONNECTIONS: usize = 12;
/// Between two lines.
const PAUSE: Duration = Duration::from_millis(25);
/// A connection that hears nothing for so long is broken. A lost segment is sent again after a fifth of a second, and
/// again: that breaks none.
const SILENCE: Duration = PATIENCE.saturating_mul(3);

pub(super) fn run(task: &Task) -> Result<Report> {
    let kinds = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..CONNECTIONS).map(|_| scope.spawn(|| netns::inside(&task.netns, || Ok(one(task))))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow!("a connection panicked"))?)
            .collect::<Result<Vec<_>>>()
    })?;
    let mut report = Report::default();
    for kind in kinds {
        report.add(Report::one("connections", kind));
    }
    Ok(report)
}

/// One after the other: when one breaks, the next begins.
fn one(task: &Task) -> Kind {
    let mut kind = Kind::default();
    while !task.stopped() {
        let (mut by, from) = (None, task.now());
        kind.sent += 1;
        if let Err(error) = talk(task, &mut by) {
            // One that could not be made is a matter of requests, which count them.
            match by {
                Some(_) => {
                    let (until, what) = (task.now(), format!("broke: {error:#}"));
                    // Since when it had been broken nobody knows, but that it was silent for no longer.
                    let from = from.max(until.saturating_sub(SILENCE));
                    kind.lost.push(Loss { from, until, by, accepted: true, what });
                }
                None => kind.sent -= 1,
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    kind
}

fn talk(task: &Task, by: &mut Option<String>) -> Result<()> {
    let stream = TcpStream::connect_timeout(&http(), PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENCE))?;
    let (mut reader, mut writer) = (BufReader::new(&stream), &stream);
    writer.write_all(b"GET /lines HTTP/1.0\r\n\r\n")?;
    let mut number: u64 = 0;
    while !task.stopped() {
        writer.write_all(format!("{number}\n").as_bytes())?;
        let (mut line, since) = (String::new(), Instant::now());
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(' ') {
            Some((name, rest)) if rest == number.to_string() => *by = Some(name.to_owned()),
            _ => bail!("{line:?} came back for {number} after {} ms", since.elapsed().as_millis()),
        }
        number += 1;
        std::thread::sleep(PAUSE);
    }
    Ok(())
}
