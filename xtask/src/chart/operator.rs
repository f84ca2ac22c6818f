//! The Prometheus operator's CustomResourceDefinitions, from its Go module, so that a server can judge our objects of its kinds.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::shell::cmd;
use crate::{paths, progress};

const MODULE: &str = "github.com/prometheus-operator/prometheus-operator";
const VERSION: &str = "v0.85.0";
/// What go.sum would say of it.
const SUM: &str = "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=";

/// Names of the definitions.
pub(super) const DEFINITIONS: [&str; 3] = ["podmonitors", "servicemonitors", "prometheusrules"];

/// The files, one a definition.
pub(super) fn definitions() -> Result<[PathBuf; 3]> {
    let dir = paths::cache()?.join(format!("prometheus-operator-{VERSION}"));
    let files = DEFINITIONS.map(|name| dir.join(format!("monitoring.coreos.com_{name}.yaml")));
    if !files.iter().all(|file| file.is_file()) {
        fetch(&dir, &files)?;
    }
    Ok(files)
}

fn fetch(dir: &Path, files: &[PathBuf]) -> Result<()> {
    if paths::which("go").is_none() {
        bail!("the Prometheus operator's definitions come from a Go module, and there is no Go: https://go.dev/dl");
    }
    progress::step(format_args!("fetching the Prometheus operator's definitions {VERSION} (once)"));
    let said = cmd("go")
        .args(["mod", "download", "-json", &format!("{MODULE}@{VERSION}")])
        // Its sum is compared here.
        .env("GONOSUMDB", "*")
        .dir("/")
        .limit(Duration::from_secs(300))
        .read()
        .context("it needs the Go module proxy")?;
    let said: Value = serde_json::from_str(&said).context("go says something that is no JSON")?;
    ensure!(said["Sum"] == SUM, "{MODULE} {VERSION} has the sum {}, not {SUM}", said["Sum"]);
    let from = Path::new(said["Dir"].as_str().context("go does not say where the module is")?);
    std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    for file in files {
        let name = file.file_name().context("a file without a name")?;
        std::fs::copy(from.join("example/prometheus-operator-crd").join(name), file)
            .with_context(|| format!("{MODULE} {VERSION} has no {name:?}"))?;
    }
    Ok(())
}
