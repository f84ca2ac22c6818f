//! News from the kernel (inotify) on a directory, held back until a change is whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RenameMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::Instant;

use super::directory::Stamp;

/// After a change that is whole (a rename, a writer's close), for others that belong to it.
const SETTLE: Duration = Duration::from_millis(3);
/// After a write, for the writer's close.
const WRITING: Duration = Duration::from_millis(500);
/// A file that is written without pause is read all the same.
const PATIENCE: Duration = Duration::from_secs(3);

/// What to look at.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// These files.
    Files(BTreeSet<String>),
    /// All files, but those that are being written.
    Everything(BTreeSet<String>),
}

/// A watch on a directory.
#[derive(Default)]
pub(super) struct Watch {
    attached: Option<Attached>,
    /// Files that changed, and when to look at them.
    pending: BTreeMap<String, Pending>,
    /// When to look at everything.
    everything: Option<Instant>,
}

struct Attached {
    stamp: Stamp,
    events: UnboundedReceiver<notify::Result<Event>>,
    _watcher: RecommendedWatcher,
}

#[derive(Clone, Copy)]
struct Pending {
    first: Instant,
    due: Instant,
    writing: bool,
}

impl Watch {
    /// Sees to it that the directory is watched; true where it is another than before, so that all of it is new.
    pub(super) fn attach(&mut self, path: &Path) -> io::Result<bool> {
        let result = fs::metadata(path).and_then(|metadata| {
            if metadata.is_dir() { Ok(Stamp::new(&metadata)) } else { Err(io::Error::other("it is no directory")) }
        });
        let stamp = result.inspect_err(|_| self.attached = None)?;
        if self.attached.as_ref().is_some_and(|attached| attached.stamp.same_inode(&stamp)) {
            return Ok(false);
        }
        self.pending.clear();
        self.everything = None;
        self.attached = None;
        let (sender, events) = unbounded_channel();
        // The receiver is gone only while this watcher is being dropped.
        let tell = move |event| drop(sender.send(event));
        let mut watcher = notify::recommended_watcher(tell).map_err(io::Error::other)?;
        watcher.watch(path, RecursiveMode::NonRecursive).map_err(io::Error::other)?;
        self.attached = Some(Attached { stamp, events, _watcher: watcher });
        Ok(true)
    }

    /// Waits for a change that is whole. May be dropped while it waits, and nothing is lost.
    pub(super) async fn news(&mut self) -> News {
        loop {
            let now = Instant::now();
            if self.everything.is_some_and(|due| due <= now) {
                self.everything = None;
                self.pending.retain(|_, pending| pending.writing);
                return News::Everything(self.being_written());
            }
            let due: BTreeSet<String> =
                self.pending.iter().filter(|(_, pending)| pending.due <= now).map(|(name, _)| name.clone()).collect();
            if !due.is_empty() {
                self.pending.retain(|name, _| !due.contains(name));
                return News::Files(due);
            }
            let next = self.pending.values().map(|pending| pending.due).chain(self.everything).min();
            let Some(attached) = &mut self.attached else { return std::future::pending().await };
            let event = match next {
                Some(next) => tokio::select! {
                    event = attached.events.recv() => event,
                    () = tokio::time::sleep_until(next) => continue,
                },
                None => attached.events.recv().await,
            };
            match event {
                Some(event) => self.take(event),
                None => self.attached = None,
            }
        }
    }

    /// Files that somebody has begun to write.
    pub(super) fn being_written(&self) -> BTreeSet<String> {
        self.pending.iter().filter(|(_, pending)| pending.writing).map(|(name, _)| name.clone()).collect()
    }

    fn take(&mut self, event: notify::Result<Event>) {
        let now = Instant::now();
        let event = match event {
            Ok(event) if !event.need_rescan() => event,
            // Too much at once, or an error of the watch: look at everything.
            Ok(_) | Err(_) => {
                self.everything = Some(now + SETTLE);
                return;
            }
        };
        let Some(writing) = is_writing(&event) else { return };
        for name in event.paths.iter().filter_map(|path| path.file_name()?.to_str()) {
            // `..data` of a ConfigMap: every file may be another now.
            if name.starts_with("..") {
                self.everything.get_or_insert(now + SETTLE);
                continue;
            }
            let is_metadata = matches!(event.kind, EventKind::Modify(ModifyKind::Metadata(_)));
            if is_metadata && self.pending.contains_key(name) {
                continue; // It says nothing of whether the writer is done.
            }
            let pending = self.pending.entry(name.to_owned()).or_insert(Pending { first: now, due: now, writing });
            pending.writing = writing;
            pending.due = if writing { (now + WRITING).min(pending.first + PATIENCE) } else { now + SETTLE };
        }
    }
}

/// Whether an event says that a file is being written (true), or is whole or gone (false).
fn is_writing(event: &Event) -> Option<bool> {
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) | EventKind::Remove(_) => Some(false),
        EventKind::Modify(ModifyKind::Name(
            RenameMode::From | RenameMode::To | RenameMode::Both | RenameMode::Any | RenameMode::Other,
        )) => Some(false),
        EventKind::Modify(ModifyKind::Metadata(_)) => Some(false),
        // A symlink or a hard link is whole at once; nobody will close it.
        EventKind::Create(CreateKind::File | CreateKind::Any | CreateKind::Other) => {
            let is_open = |path: &std::path::PathBuf| {
                path.symlink_metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() == 0)
            };
            Some(event.paths.iter().any(is_open))
        }
        EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Any | ModifyKind::Other) => Some(true),
        EventKind::Create(CreateKind::Folder) | EventKind::Access(_) | EventKind::Any | EventKind::Other => None,
    }
}
