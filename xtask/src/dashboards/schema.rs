//! Judges the committed dashboards by Grafana's own types (its Foundation SDK, a Go module): a field that they do not know, one that
//! is missing or has another type is an error, down to the options of panels and queries. They know no list of allowed words, and
//! do not look at what else stands beside `custom` in a panel's `defaults`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::COMMITTED;
use crate::shell::cmd;
use crate::{paths, progress};

const VERSION: &str = "0.0.12";
const PROGRAM: &str = include_str!("go/main.go");
const GO_MOD: &str = include_str!("go/go.mod");
const GO_SUM: &str = include_str!("go/go.sum");

pub(super) fn test() -> Result<()> {
    let judge = judge()?;
    let directory = paths::root().join(COMMITTED[0]);
    let mut files = std::fs::read_dir(&directory)
        .and_then(Iterator::collect::<std::io::Result<Vec<_>>>)
        .with_context(|| format!("cannot read {}", directory.display()))?;
    files.sort_by_key(std::fs::DirEntry::path);
    ensure!(!files.is_empty(), "no dashboard in {}", directory.display());
    let paths = files.iter().map(std::fs::DirEntry::path);
    cmd(judge).args(paths).limit(Duration::from_secs(60)).run()
}

/// The program that judges, built once.
fn judge() -> Result<PathBuf> {
    let home = paths::cache()?.join("go").join(format!("grafana-foundation-sdk-{VERSION}"));
    let program = home.join("judge");
    // The program may have changed since.
    if program.is_file() && std::fs::read_to_string(home.join("main.go")).is_ok_and(|text| text == PROGRAM) {
        return Ok(program);
    }
    if paths::which("go").is_none() {
        bail!("Grafana's types are a Go module, and there is no Go to build with: https://go.dev/dl");
    }
    progress::step(format_args!("building Grafana's Foundation SDK {VERSION} into {} (once)", home.display()));
    std::fs::create_dir_all(&home).with_context(|| format!("cannot create {}", home.display()))?;
    let write = |name: &str, text: &str| {
        let file = home.join(name);
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
    };
    write("go.mod", GO_MOD)?;
    write("go.sum", GO_SUM)?;
    write("judge.go", PROGRAM)?;
    cmd("go")
        .args(["build", "-trimpath", "-o", "judge", "judge.go"])
        .env("GOFLAGS", "-buildvcs=false -mod=mod")
        .env("CGO_ENABLED", "0")
        .dir(&home)
        .limit(Duration::from_secs(15 * 60))
        .show()
        .context("it needs the Go module proxy")?;
    std::fs::rename(home.join("judge.go"), home.join("main.go")).context("cannot keep what was built")?;
    Ok(program)
}
