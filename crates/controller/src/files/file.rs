//! One file: its documents, the objects that it puts in force, and its problems.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use super::chunks::{Chunk, split};
use super::document::{self, Entry};
use crate::model::{Object, ObjectKey, Place, Problem, ProblemReason};
use crate::parallel::parallel;

/// A file as it was read last.
#[derive(Debug, Default)]
pub(super) struct File {
    /// What the text of each document came to, by a hash of the text.
    texts: HashMap<u64, Arc<[Entry]>>,
    /// What it puts in force.
    pub(super) objects: HashMap<ObjectKey, Held>,
    /// What is wrong with it.
    pub(super) problems: Vec<Problem>,
}

/// An object and where it is.
#[derive(Clone, Debug)]
pub(super) struct Held {
    entries: Arc<[Entry]>,
    index: usize,
    /// Number of its document, from 1.
    document: usize,
    /// Lines before its document.
    offset: usize,
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        let Self { entries, index, document, offset } = self;
        Arc::ptr_eq(entries, &other.entries)
            && (*index, *document, *offset) == (other.index, other.document, other.offset)
    }
}

impl Held {
    /// The object, with its place in this file.
    pub(super) fn object(&self, file: &str) -> Option<Object> {
        let mut object = self.entries.get(self.index)?.object.clone()?;
        if let Object::VirtualService(service) = &mut object {
            service.place = self.place(file, std::mem::take(&mut service.place));
        }
        Some(object)
    }

    /// Its line in the file.
    pub(super) fn line(&self) -> usize {
        self.own_line() + self.offset
    }

    /// Its line in the text of its document.
    pub(super) fn own_line(&self) -> usize {
        self.entries.get(self.index).map_or(1, |entry| entry.line)
    }

    pub(super) fn place(&self, file: &str, place: Place) -> Place {
        Place { file: file.to_owned(), document: self.document, line: place.line + self.offset, ..place }
    }
}

impl File {
    /// Takes the new text. An object that the text spoils keeps its last good version; so do all objects that are
    /// missing while part of the text cannot be read, since they may be in there. Returns the objects that have
    /// changed, moved, appeared or gone.
    pub(super) fn update(&mut self, path: &str, text: &str, hasher: &RandomState) -> Vec<ObjectKey> {
        self.problems.clear();
        let documents = self.parse(text, hasher);
        let mut before = std::mem::take(&mut self.objects);
        let mut all_read = true;
        for (i, (offset, entries)) in documents.iter().enumerate() {
            for (index, entry) in entries.iter().enumerate() {
                let held = Held { entries: Arc::clone(entries), index, document: i + 1, offset: *offset };
                let mut kept = false;
                match (&entry.key, &entry.object) {
                    (Some(key), Some(_)) => self.hold(path, key, held.clone()),
                    (Some(key), None) if !entry.problems.is_empty() => {
                        if let Some(old) = before.remove(key) {
                            kept = true;
                            self.objects.entry(key.clone()).or_insert(old);
                        }
                    }
                    (None, _) if !entry.problems.is_empty() => all_read = false,
                    (Some(_) | None, _) => {}
                }
                for problem in &entry.problems {
                    let mut problem = problem.clone();
                    problem.place = held.place(path, problem.place);
                    if kept {
                        problem.message.push_str(" (until then its last good version stays in force)");
                    }
                    self.problems.push(problem);
                }
                if let Some(note) = &entry.note {
                    tracing::info!(file = path, document = i + 1, "{note}");
                }
            }
        }
        let emptied = documents.is_empty() && !before.is_empty();
        let differs = |(key, held): &(&ObjectKey, &Held)| before.get(*key) != Some(*held);
        let mut changed: Vec<_> = self.objects.iter().filter(differs).map(|(key, _)| key.clone()).collect();
        if !all_read || emptied {
            self.keep(path, before, emptied);
        } else {
            changed.extend(before.into_keys().filter(|key| !self.objects.contains_key(key)));
        }
        changed
    }

    /// The file cannot be read: what it put in force stays.
    pub(super) fn unreadable(&mut self, path: &str, why: &str) -> Vec<ObjectKey> {
        let place = Place { file: path.to_owned(), ..Place::default() };
        let message = format!("cannot read the file: {why}{}", stays(self.objects.len()));
        self.problems = vec![Problem { reason: ProblemReason::Unreadable, place, message }];
        Vec::new()
    }

    /// Parses those documents that are new.
    fn parse(&mut self, text: &str, hasher: &RandomState) -> Vec<(usize, Arc<[Entry]>)> {
        let chunks: Vec<(u64, Chunk<'_>)> =
            split(text).into_iter().map(|chunk| (hasher.hash_one(chunk.text), chunk)).collect();
        let new: Vec<_> = chunks.iter().filter(|(hash, _)| !self.texts.contains_key(hash)).collect();
        let parsed = parallel(new, |(hash, chunk)| (*hash, Arc::from(document::read(chunk.text))));
        let parsed: HashMap<_, _> = parsed.into_iter().collect();
        let mut documents = Vec::with_capacity(chunks.len());
        let mut texts = HashMap::with_capacity(chunks.len());
        for (hash, chunk) in chunks {
            if let Some(entries) = parsed.get(&hash).or_else(|| self.texts.get(&hash)) {
                documents.push((chunk.offset, Arc::clone(entries)));
                texts.insert(hash, Arc::clone(entries));
            }
        }
        self.texts = texts;
        documents
    }

    fn hold(&mut self, path: &str, key: &ObjectKey, held: Held) {
        let Some(first) = self.objects.get(key) else {
            self.objects.insert(key.clone(), held);
            return;
        };
        let place = Place { line: held.own_line(), object: key.to_string(), ..Place::default() };
        let place = held.place(path, place);
        let message = format!("this object is in line {} already, which counts; remove one of the two", first.line());
        self.problems.push(Problem { reason: ProblemReason::Invalid, place, message });
    }

    fn keep(&mut self, path: &str, before: HashMap<ObjectKey, Held>, emptied: bool) {
        let missing: Vec<_> = before.into_iter().filter(|(key, _)| !self.objects.contains_key(key)).collect();
        if emptied {
            let place = Place { file: path.to_owned(), ..Place::default() };
            let message = format!("the file is empty{}; remove the file to withdraw them", stays(missing.len()));
            self.problems.push(Problem { reason: ProblemReason::Unreadable, place, message });
        } else if let (Some(problem), 1..) =
            (self.problems.iter_mut().find(|problem| problem.reason == ProblemReason::Unreadable), missing.len())
        {
            problem.message.push_str(&stays(missing.len()));
        }
        self.objects.extend(missing);
    }
}

fn stays(count: usize) -> String {
    match count {
        0 => String::new(),
        1 => "; 1 object that the file held before stays in force".to_owned(),
        count => format!("; {count} objects that the file held before stay in force"),
    }
}
