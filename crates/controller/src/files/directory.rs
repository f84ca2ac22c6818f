//! A directory of manifests: which files changed, and what that means for the objects.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::hash::RandomState;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::file::{File, Held};
use crate::model::{Object, ObjectKey, Place, Problem, ProblemReason};
use crate::parallel::parallel;
use crate::source::SourceEvent;

/// Endings of the files that are read.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

/// The state of a directory as it was read last. Files in subdirectories and hidden ones are not read.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    files: BTreeMap<Arc<str>, (Stamp, File)>,
    /// The files that hold an object; the first counts.
    holders: BTreeMap<ObjectKey, BTreeSet<Arc<str>>>,
    in_force: BTreeMap<ObjectKey, (Arc<str>, Held)>,
    /// What was said last of each file.
    said: BTreeMap<Arc<str>, Vec<Problem>>,
    hasher: RandomState,
}

/// What tells that a file has changed without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn new(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether both are of the same file or directory, whatever it holds.
    pub(super) fn same_inode(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

impl Directory {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            files: BTreeMap::new(),
            holders: BTreeMap::new(),
            in_force: BTreeMap::new(),
            said: BTreeMap::new(),
            hasher: RandomState::new(),
        }
    }

    /// Looks at every file but those being written, reads what has changed, and says what follows.
    pub(super) fn scan(&mut self, being_written: &BTreeSet<String>) -> io::Result<Vec<SourceEvent>> {
        let mut found = BTreeSet::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            if let Some(name) = name.to_str().filter(|name| is_manifest(name)) {
                found.insert(name.to_owned());
            }
        }
        let gone = self.files.keys().filter(|name| !found.contains(&***name)).map(|name| name.to_string());
        let names = gone.chain(found.iter().cloned()).filter(|name| !being_written.contains(name)).collect::<Vec<_>>();
        Ok(self.look(names, true))
    }

    /// Reads these files, which are said to have changed.
    pub(super) fn read(&mut self, names: impl IntoIterator<Item = String>) -> Vec<SourceEvent> {
        // Two writes within one tick of the kernel's clock may have one stamp.
        self.look(names, false)
    }

    fn look(&mut self, names: impl IntoIterator<Item = String>, trust_stamps: bool) -> Vec<SourceEvent> {
        let mut touched = BTreeSet::new();
        let mut work = Vec::new();
        for name in names.into_iter().filter(|name| is_manifest(name)) {
            let path = self.path.join(&name);
            let metadata = match fs::metadata(&path) {
                Ok(metadata) if metadata.is_file() => Ok(metadata),
                Ok(_) => continue,
                Err(error) if error.kind() == io::ErrorKind::NotFound && path.symlink_metadata().is_err() => {
                    if let Some((_, file)) = self.files.remove(name.as_str()) {
                        touched.extend(file.objects.into_keys());
                    }
                    self.said.entry(name.into()).or_default();
                    continue;
                }
                Err(error) => Err(error),
            };
            let stamp = metadata.as_ref().ok().map(Stamp::new);
            let known = self.files.get(name.as_str()).map(|(stamp, _)| *stamp);
            if trust_stamps && stamp.is_some() && stamp == known {
                continue;
            }
            let file = self.files.remove(name.as_str()).map(|(_, file)| file).unwrap_or_default();
            work.push((Arc::<str>::from(name), path, stamp, metadata.err(), file));
        }
        let hasher = &self.hasher;
        let read = parallel(work, |(name, path, stamp, error, mut file)| {
            let shown = path.display().to_string();
            let changed = match error.map_or_else(|| fs::read(&path), Err).map(String::from_utf8) {
                Ok(Ok(text)) => file.update(&shown, &text, hasher),
                Ok(Err(_)) => file.unreadable(&shown, "it is not UTF-8 text; save it as UTF-8"),
                Err(error) => file.unreadable(&shown, &error.to_string()),
            };
            (name, stamp, file, changed)
        });
        let mut names = BTreeSet::new();
        for (name, stamp, file, changed) in read {
            for key in changed {
                if file.objects.contains_key(&key) {
                    self.holders.entry(key.clone()).or_default().insert(Arc::clone(&name));
                }
                touched.insert(key);
            }
            names.insert(Arc::clone(&name));
            // A file that could not be read is tried again at the next look.
            let stamp = stamp.unwrap_or(Stamp { device: 0, inode: 0, size: 0, modified: (0, 0), changed: (0, 0) });
            self.files.insert(name, (stamp, file));
        }
        let mut events = self.settle(&touched, &mut names);
        events.extend(self.tell(names));
        events
    }

    /// Every object in force.
    pub(super) fn objects(&self) -> Vec<Object> {
        self.in_force.values().filter_map(|(name, held)| held.object(&self.shown(name))).collect()
    }

    /// Decides which file each of these objects is taken from now. Adds to `names` the files whose problems that
    /// changes.
    fn settle(&mut self, touched: &BTreeSet<ObjectKey>, names: &mut BTreeSet<Arc<str>>) -> Vec<SourceEvent> {
        let mut events = Vec::new();
        for key in touched {
            let holders = self.holders.entry(key.clone()).or_default();
            let several = holders.len() > 1;
            let held = |name: &Arc<str>| self.files.get(name).and_then(|(_, file)| file.objects.get(key));
            holders.retain(|name| held(name).is_some());
            if several {
                names.extend(holders.iter().cloned());
            }
            let winner = holders.first().and_then(|name| Some((Arc::clone(name), held(name)?.clone())));
            if holders.is_empty() {
                self.holders.remove(key);
            }
            if self.in_force.get(key) == winner.as_ref() {
                continue;
            }
            match winner {
                Some((name, held)) => {
                    events.extend(held.object(&self.path.join(&*name).display().to_string()).map(SourceEvent::Apply));
                    self.in_force.insert(key.clone(), (name, held));
                }
                None => {
                    self.in_force.remove(key);
                    events.push(SourceEvent::Delete(key.clone()));
                }
            }
        }
        events
    }

    /// What is wrong with these files, where it was not said before.
    fn tell(&mut self, names: BTreeSet<Arc<str>>) -> Vec<SourceEvent> {
        let gone: Vec<_> = self.said.keys().filter(|name| !self.files.contains_key(*name)).cloned().collect();
        let mut events = Vec::new();
        for name in names.into_iter().chain(gone) {
            let mut problems = Vec::new();
            if let Some((_, file)) = self.files.get(&name) {
                problems.clone_from(&file.problems);
                problems.extend(file.objects.iter().filter_map(|(key, held)| self.twin(&name, key, held)));
                problems.sort();
            }
            if self.said.get(&name).map_or(&[][..], Vec::as_slice) != problems.as_slice() {
                let place = self.shown(&name);
                events.push(SourceEvent::Problems { place, problems: problems.clone() });
            }
            if problems.is_empty() {
                self.said.remove(&name);
            } else {
                self.said.insert(name, problems);
            }
        }
        events
    }

    /// The problem of an object that another file holds too, and first.
    fn twin(&self, name: &Arc<str>, key: &ObjectKey, held: &Held) -> Option<Problem> {
        let first = self.holders.get(key)?.first().filter(|first| *first != name)?;
        let there = self.files.get(first).and_then(|(_, file)| file.objects.get(key)).map_or(0, Held::line);
        let place = Place { object: key.to_string(), line: held.own_line(), ..Place::default() };
        let message = format!(
            "this object is in {}:{there} too, which counts as its name comes first; remove one of the two",
            self.shown(first)
        );
        Some(Problem { reason: ProblemReason::Invalid, place: held.place(&self.shown(name), place), message })
    }

    fn shown(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }
}

fn is_manifest(name: &str) -> bool {
    !name.starts_with('.') && name.rsplit_once('.').is_some_and(|(_, ending)| ENDINGS.contains(&ending))
}
