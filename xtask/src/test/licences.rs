//! Whether everything that Guenon links comes from crates.io under a licence that deny.toml allows. Needs no network
//! and no other program; `cargo deny` reads the same file and knows advisories too, but wants a database of them.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::shell::cmd;
use crate::{build, paths};

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
}

/// How many packages were found right.
pub(super) fn check() -> Result<usize> {
    let file = paths::root().join("deny.toml");
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let allowed = allowed(&text).with_context(|| format!("no `allow = [` in {}", file.display()))?;
    let text = cmd(paths::cargo())
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", "x86_64-unknown-linux-gnu"])
        .dir(paths::root())
        .limit(build::LIMIT)
        .read()?;
    let metadata: Metadata = serde_json::from_str(&text).context("cannot read what cargo metadata said")?;
    let used: BTreeSet<&str> = metadata.resolve.nodes.iter().map(|node| node.id.as_str()).collect();
    let packages: Vec<&Package> = metadata.packages.iter().filter(|p| used.contains(p.id.as_str())).collect();
    let faults: Vec<String> = packages.iter().filter_map(|package| fault(package, &allowed)).collect();
    if !faults.is_empty() {
        bail!("{}\nAllow the licence in deny.toml, with thought, or do without the crate.", faults.join("\n"));
    }
    Ok(packages.len())
}

fn fault(package: &Package, allowed: &BTreeSet<&str>) -> Option<String> {
    let Package { id: _, name, version, license, source } = package;
    match (source.as_deref(), license.as_deref()) {
        (Some(source), _) if source != REGISTRY => Some(format!("{name} {version} comes from {source}")),
        (_, None) => Some(format!("{name} {version} names no licence")),
        (_, Some(license)) if !satisfied(license, allowed) => Some(format!("{name} {version} is under {license}")),
        (_, Some(_)) => None,
    }
}

/// The strings of the first `allow = [...]`.
fn allowed(deny: &str) -> Option<BTreeSet<&str>> {
    let list = deny.split_once("\nallow = [")?.1.split_once(']')?.0;
    Some(list.split('"').skip(1).step_by(2).collect())
}

/// Whether an SPDX expression (or cargo's older form, with `/` for OR) can be met by what is allowed.
/// AND binds closer than OR, WITH closer than AND.
fn satisfied(expression: &str, allowed: &BTreeSet<&str>) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    any(&tokens, &mut at, allowed) && at == tokens.len()
}

fn any(tokens: &[&str], at: &mut usize, allowed: &BTreeSet<&str>) -> bool {
    let mut met = all(tokens, at, allowed);
    while tokens.get(*at) == Some(&"OR") {
        *at += 1;
        met |= all(tokens, at, allowed);
    }
    met
}

fn all(tokens: &[&str], at: &mut usize, allowed: &BTreeSet<&str>) -> bool {
    let mut met = one(tokens, at, allowed);
    while tokens.get(*at) == Some(&"AND") {
        *at += 1;
        met &= one(tokens, at, allowed);
    }
    met
}

fn one(tokens: &[&str], at: &mut usize, allowed: &BTreeSet<&str>) -> bool {
    let Some(&token) = tokens.get(*at) else { return false };
    *at += 1;
    if token == "(" {
        let met = any(tokens, at, allowed);
        let closed = tokens.get(*at) == Some(&")");
        *at += 1;
        return met && closed;
    }
    if tokens.get(*at) == Some(&"WITH") {
        let exception = tokens.get(*at + 1).copied().unwrap_or_default();
        *at += 2;
        return allowed.contains(format!("{token} WITH {exception}").as_str());
    }
    allowed.contains(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_judged() {
        let allowed = BTreeSet::from(["MIT", "Apache-2.0", "Unicode-3.0", "Apache-2.0 WITH LLVM-exception"]);
        for good in [
            "MIT",
            "MIT OR GPL-2.0",
            "Unlicense/MIT",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR GPL-2.0",
            "GPL-2.0 AND X OR MIT",
        ] {
            assert!(satisfied(good, &allowed), "{good}");
        }
        for bad in ["GPL-2.0", "MIT AND GPL-2.0", "(MIT OR Apache-2.0) AND BSL-1.0", "GPL-2.0 WITH X", "", "(MIT"] {
            assert!(!satisfied(bad, &allowed), "{bad}");
        }
    }

    #[test]
    fn the_list_is_read() {
        assert_eq!(
            allowed("[licenses]\nallow = [\n \"MIT\", # why\n \"ISC\"]\n"),
            Some(BTreeSet::from(["MIT", "ISC"]))
        );
    }
}
