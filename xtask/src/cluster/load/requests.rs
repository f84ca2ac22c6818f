//! TCP requests, each a connection of its own: what somebody who dials anew meets.

use std::time::Duration;

use anyhow::{Result, anyhow};

use super::Task;
use super::report::{Kind, Loss, Report};
use crate::cluster::layout::http;
use crate::topology::{client, netns};

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
        let at = task.now();
        kind.sent += 1;
        if let Err(error) = client::try_get(&task.netns, http(), "/", LIMIT) {
            kind.lost.push(Loss { at, by: None, what: format!("{error:#}") });
        }
        std::thread::sleep(PAUSE);
    }
    kind
}
