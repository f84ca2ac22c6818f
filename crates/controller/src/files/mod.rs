//! The source of objects for machines without a cluster: a directory of manifests, watched.
//!
//! What holds:
//!
//! - A change of a file is picked up within milliseconds; one that is being written is read when its writer closes
//!   it. Only files that changed are read, and in them only documents that changed are parsed.
//! - A document that cannot be used never stops the others. What it put in force before stays in force until it is
//!   mended or removed, as for a file that is empty or unreadable, and for a directory that vanishes. (A restarted
//!   agent knows nothing of before: it takes what is good then.)
//! - Atomic renames and the symlink swaps of mounted ConfigMaps are one change.
//! - Of an object that two files hold, the first file by name counts.

mod chunks;
mod de;
mod directory;
mod document;
mod file;
mod judge;
#[cfg(test)]
mod tests;
mod watch;
mod yaml;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc::Sender;

use crate::model::{Place, Problem, ProblemReason};
use crate::source::{Source, SourceEvent};
use directory::Directory;
use watch::{News, Watch};

/// How often the directory itself is looked for, and all its files are compared (which finds what the kernel
/// does not tell of: network file systems, symlinks to elsewhere).
const LOOK_FOR_DIRECTORY: Duration = Duration::from_millis(250);
const LOOKS_PER_SCAN: u32 = 40;

/// The manifests in a directory.
#[derive(Debug)]
pub struct Manifests {
    path: PathBuf,
}

impl Manifests {
    /// The manifests (`*.yaml`, `*.yml`, `*.json`) in this directory, not in those beneath. It may be missing yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Reads the directory once: every object, and all problems by file.
    ///
    /// # Errors
    ///
    /// The directory cannot be read.
    pub fn read(path: &Path) -> io::Result<Vec<SourceEvent>> {
        let mut directory = Directory::new(path);
        let events = directory.scan(&BTreeSet::new())?;
        Ok(first_batch(&directory, events))
    }
}

impl Source for Manifests {
    fn name(&self) -> &'static str {
        "files"
    }

    async fn run(self, batches: Sender<Vec<SourceEvent>>) -> anyhow::Result<()> {
        let mut session = Session { directory: Directory::new(&self.path), path: self.path, told: false, lost: false };
        let mut watch = Watch::default();
        let mut looks = 0;
        loop {
            let events = match watch.attach(&session.path) {
                Ok(true) => session.look(News::Everything(BTreeSet::new())).await?,
                Ok(false) => {
                    let timeout = tokio::time::timeout(LOOK_FOR_DIRECTORY, watch.news());
                    let news = tokio::select! {
                        () = batches.closed() => return Ok(()),
                        news = timeout => news,
                    };
                    looks = if news.is_ok() { looks } else { looks + 1 };
                    match news {
                        Ok(news) => session.look(news).await?,
                        Err(_) if looks >= LOOKS_PER_SCAN => {
                            looks = 0;
                            session.look(News::Everything(watch.being_written())).await?
                        }
                        Err(_) => Vec::new(),
                    }
                }
                Err(error) => {
                    let events = session.lost(&error);
                    if events.is_empty() {
                        tokio::select! {
                            () = batches.closed() => return Ok(()),
                            () = tokio::time::sleep(LOOK_FOR_DIRECTORY) => {}
                        }
                    }
                    events
                }
            };
            if !events.is_empty() && batches.send(events).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// A directory and what was told of it.
struct Session {
    path: PathBuf,
    directory: Directory,
    /// Whether the first batch of objects was sent.
    told: bool,
    /// Whether it was said that the directory cannot be read.
    lost: bool,
}

impl Session {
    async fn look(&mut self, news: News) -> anyhow::Result<Vec<SourceEvent>> {
        let mut directory = std::mem::replace(&mut self.directory, Directory::new(&self.path));
        let (directory, result) = tokio::task::spawn_blocking(move || {
            let result = match news {
                News::Files(names) => Ok(directory.read(names)),
                News::Everything(being_written) => directory.scan(&being_written),
            };
            (directory, result)
        })
        .await?;
        self.directory = directory;
        let mut events = match result {
            Ok(events) if self.told => events,
            Ok(events) => {
                self.told = true;
                first_batch(&self.directory, events)
            }
            Err(error) => return Ok(self.lost(&error)),
        };
        if std::mem::take(&mut self.lost) {
            events.push(SourceEvent::Problems { place: self.shown(), problems: Vec::new() });
        }
        Ok(events)
    }

    /// The directory cannot be read; said once.
    fn lost(&mut self, error: &io::Error) -> Vec<SourceEvent> {
        if std::mem::replace(&mut self.lost, true) {
            return Vec::new();
        }
        let place = Place { file: self.shown(), ..Place::default() };
        let stays = if self.told { "; the last objects stay in force" } else { "; what is in force stays" };
        let message =
            format!("cannot read the directory of manifests: {error}; create it or correct --manifests{stays}");
        let problem = Problem { reason: ProblemReason::Source, place, message };
        vec![SourceEvent::Problems { place: self.shown(), problems: vec![problem] }]
    }

    fn shown(&self) -> String {
        self.path.display().to_string()
    }
}

/// The objects as one reset, with the problems of all files.
fn first_batch(directory: &Directory, events: Vec<SourceEvent>) -> Vec<SourceEvent> {
    let problems = events.into_iter().filter(|event| matches!(event, SourceEvent::Problems { .. }));
    std::iter::once(SourceEvent::Reset(directory.objects())).chain(problems).collect()
}
