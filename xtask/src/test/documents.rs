//! Whether every relative link and anchor of the documentation leads somewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::paths;

/// What is read: these files, and every Markdown file of these directories.
const FILES: [&str; 5] = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"];
const DIRECTORIES: [&str; 1] = ["docs"];

/// How many links were followed.
pub(super) fn check() -> Result<usize> {
    let root = paths::root();
    let mut files: Vec<PathBuf> = FILES.iter().map(|file| root.join(file)).collect();
    for directory in DIRECTORIES.map(|directory| root.join(directory)) {
        let entries = std::fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))?;
        for entry in entries {
            files.push(entry.with_context(|| format!("cannot read {}", directory.display()))?.path());
        }
    }
    files.retain(|file| file.extension().is_some_and(|ending| ending == "md"));
    let mut pages = BTreeMap::new();
    for file in files {
        let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        pages.insert(file.canonicalize().with_context(|| format!("cannot find {}", file.display()))?, text);
    }
    let anchors: BTreeMap<&Path, BTreeSet<String>> =
        pages.iter().map(|(file, text)| (file.as_path(), anchors(text))).collect();
    let mut faults = Vec::new();
    let mut followed = 0;
    for (file, text) in &pages {
        for (line, link) in links(text) {
            followed += 1;
            if let Some(fault) = fault(file, &link, &anchors) {
                faults.push(format!("{}:{line}: {link}: {fault}", file.display()));
            }
        }
    }
    if !faults.is_empty() {
        bail!("links that lead nowhere:\n{}", faults.join("\n"));
    }
    Ok(followed)
}

fn fault(file: &Path, link: &str, anchors: &BTreeMap<&Path, BTreeSet<String>>) -> Option<String> {
    let (path, anchor) = link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor)));
    let target = match path {
        "" => file.to_owned(),
        path => match file.parent().map(|directory| directory.join(path)).and_then(|path| path.canonicalize().ok()) {
            Some(target) => target,
            None => return Some("there is no such file".to_owned()),
        },
    };
    let anchor = anchor?;
    match anchors.get(target.as_path()) {
        Some(there) if there.contains(anchor) => None,
        Some(_) => Some(format!("there is no heading or id {anchor:?} in {}", target.display())),
        None => Some("the anchor's file is not read by this test".to_owned()),
    }
}

/// Lines outside of code blocks, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut code = false;
    text.lines().enumerate().filter_map(move |(i, line)| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        (!code && !fence).then_some((i + 1, line))
    })
}

/// The relative links `[text](link)` with their lines.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut links = Vec::new();
    for (number, line) in prose(text) {
        // What stands between backquotes is no link.
        let line: String = line.split('`').step_by(2).collect();
        for (at, _) in line.match_indices("](") {
            let link = line[at + 2..].split(')').next().unwrap_or_default();
            if !link.contains("://") && !link.starts_with("mailto:") {
                links.push((number, link.to_owned()));
            }
        }
    }
    links
}

/// What a link may point at: headings as GitHub turns them into anchors, and ids given in HTML.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for (_, line) in prose(text) {
        if let Some(heading) = line.strip_prefix('#') {
            let slug = slug(heading.trim_start_matches('#').trim());
            let again = (1..).map(|i| format!("{slug}-{i}"));
            let free = std::iter::once(slug.clone()).chain(again).find(|slug| !anchors.contains(slug));
            anchors.extend(free);
        }
        for (at, found) in line.match_indices("<a id=\"") {
            anchors.extend(line[at + found.len()..].split('"').next().map(str::to_owned));
        }
    }
    anchors
}

/// GitHub's anchor of a heading: small letters, spaces to `-`, and of punctuation only `-` and `_` stay.
fn slug(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_are_githubs() {
        let text = "# The flow hash, `guenon-flow-1`\n## `spec`: what is wanted\n```\n# no heading\n```\n## A\n## A\n<a id=\"x_y\"></a>";
        let found: Vec<String> = anchors(text).into_iter().collect();
        assert_eq!(found, ["a", "a-1", "spec-what-is-wanted", "the-flow-hash-guenon-flow-1", "x_y"]);
    }

    #[test]
    fn links_are_found_where_they_are_links() {
        let text = "see [`a`](b.md#c), `[x](y)` and [d](https://e/f)\n```\n[no](x.md)\n```\n![p](q.png)";
        assert_eq!(links(text), [(1, "b.md#c".to_owned()), (5, "q.png".to_owned())]);
    }
}
