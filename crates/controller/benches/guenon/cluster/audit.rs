//! Who asked the API server for what: its audit log.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Deserialize;

/// The log: an event a line.
pub(super) struct Audit(PathBuf);

/// A place in the log.
pub(super) struct Mark(u64);

/// Requests by who made them and what they were.
pub(super) struct Asked(BTreeMap<(String, String), usize>);

#[derive(Deserialize)]
struct Event {
    stage: String,
    verb: String,
    user: User,
    #[serde(rename = "objectRef")]
    object: Option<ObjectRef>,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Deserialize)]
struct ObjectRef {
    resource: String,
    subresource: Option<String>,
}

impl Audit {
    pub(super) fn new(file: &Path) -> Self {
        Self(file.to_owned())
    }

    fn open(&self) -> anyhow::Result<File> {
        File::open(&self.0).with_context(|| format!("cannot read the audit log {}", self.0.display()))
    }

    /// Where it ends now.
    pub(super) fn mark(&self) -> anyhow::Result<Mark> {
        Ok(Mark(self.open()?.metadata()?.len()))
    }

    /// What has been asked since. A request counts when it is answered, a watch when it begins.
    pub(super) fn since(&self, mark: &Mark) -> anyhow::Result<Asked> {
        let mut file = self.open()?;
        file.seek(SeekFrom::Start(mark.0))?;
        let mut asked = BTreeMap::new();
        for line in BufReader::new(file).lines() {
            let line = line?;
            // The last line may not be whole yet.
            let Ok(Event { stage, verb, user, object }) = serde_json::from_str(&line) else { continue };
            let counts = if verb == "watch" { "ResponseStarted" } else { "ResponseComplete" };
            if stage != counts {
                continue;
            }
            let on = object.map_or_else(
                || "another path".to_owned(),
                |ObjectRef { resource, subresource }| match subresource {
                    Some(subresource) => format!("{resource}/{subresource}"),
                    None => resource,
                },
            );
            *asked.entry((user.username, format!("{verb} {on}"))).or_insert(0) += 1;
        }
        Ok(Asked(asked))
    }
}

impl Asked {
    fn those(&self, who: &str) -> impl Iterator<Item = (&str, usize)> {
        let account = format!(":guenon-{who}");
        self.0
            .iter()
            .filter(move |((user, _), _)| user.ends_with(&account))
            .map(|((_, what), count)| (what.as_str(), *count))
    }

    /// How many requests the agents, or the controller, made.
    pub(super) fn of(&self, who: &str) -> usize {
        self.those(who).map(|(_, count)| count).sum()
    }

    /// What they were, the most frequent first.
    pub(super) fn kinds(&self, who: &str) -> String {
        let mut kinds: Vec<(&str, usize)> = self.those(who).collect();
        kinds.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let kinds: Vec<String> = kinds.into_iter().map(|(what, count)| format!("{count} {what}")).collect();
        if kinds.is_empty() { "none".to_owned() } else { kinds.join(", ") }
    }
}
