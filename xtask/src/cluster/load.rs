//! Steady traffic from outside that notices every packet that is lost and every connection that breaks: datagrams, long
//! connections, and requests that are each a new flow.

mod connections;
mod datagrams;
mod report;
mod requests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use super::Cluster;
use crate::topology::netns;
pub(super) use report::{Excuse, Loss, Report};

/// What has not been answered by then is lost.
const PATIENCE: Duration = Duration::from_secs(5);

/// Traffic that goes on until it is finished.
pub(super) struct Load {
    begin: Instant,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<Report>>>,
}

/// What each thread of it knows.
#[derive(Clone)]
struct Task {
    netns: String,
    begin: Instant,
    stop: Arc<AtomicBool>,
}

impl Task {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn now(&self) -> Duration {
        self.begin.elapsed()
    }
}

impl Load {
    /// Begins.
    pub(super) fn start(cluster: &Cluster) -> Self {
        let (begin, stop) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        let task = Task { netns: cluster.client_netns(), begin, stop: Arc::clone(&stop) };
        let works: [fn(&Task) -> Result<Report>; 3] = [datagrams::run, connections::run, requests::run];
        let threads = works
            .into_iter()
            .map(|work| {
                let task = task.clone();
                std::thread::spawn(move || netns::inside(&task.netns, || work(&task)))
            })
            .collect();
        Self { begin, stop, threads }
    }

    /// How long it has been going on.
    pub(super) fn now(&self) -> Duration {
        self.begin.elapsed()
    }

    /// Ends, and says what was sent and what of it was lost.
    pub(super) fn finish(self) -> Result<Report> {
        self.stop.store(true, Ordering::SeqCst);
        let mut report = Report::default();
        for thread in self.threads {
            report.add(thread.join().map_err(|_| anyhow!("the load panicked"))??);
        }
        Ok(report)
    }
}
