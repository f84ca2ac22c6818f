//! Generated and shared files reach the cluster whole through the templates that wrap them.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_yaml_ng::Value;

use super::DIRECTORY;
use super::helm::Helm;
use crate::paths;

pub(super) fn test(helm: &Helm) -> Result<()> {
    let left_out = "GuenonGenericXdp";
    let set = format!("dashboards.enabled=true,alerts.enabled=true,alerts.disabled={{{left_out}}}");
    let rendered = helm.template(&["--set", &set]).read()?;
    let documents = serde_yaml_ng::Deserializer::from_str(&rendered)
        .map(Value::deserialize)
        .collect::<Result<Vec<_>, _>>()
        .context("the chart renders to something that is no YAML")?;
    let of = |kind: &str| documents.iter().filter(|document| document["kind"] == kind).collect::<Vec<_>>();

    let definitions = files("crds")?;
    for file in &definitions {
        let definition: Value = serde_yaml_ng::from_str(&text(file)?).context("a definition is no YAML")?;
        let found = of("CustomResourceDefinition");
        let wrapped = found.iter().find(|wrapped| wrapped["metadata"]["name"] == definition["metadata"]["name"]);
        let wrapped = wrapped.with_context(|| format!("{} is not rendered", file.display()))?;
        ensure!(wrapped["spec"] == definition["spec"], "{} is rendered otherwise", file.display());
        let policy = &wrapped["metadata"]["annotations"]["helm.sh/resource-policy"];
        ensure!(policy == "keep", "{} would go with the chart", file.display());
    }

    let dashboards = files("dashboards")?;
    for file in &dashboards {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (text, found) = (text(file)?, of("ConfigMap"));
        let whole = found.iter().any(|map| map["data"][name.as_str()] == text.as_str());
        ensure!(whole, "{} is not rendered, or not whole", file.display());
    }
    ensure!(!definitions.is_empty() && !dashboards.is_empty(), "nothing is wrapped");

    let alerts = paths::root().join(DIRECTORY).join("files/alerts.yaml");
    let alerts: Value = serde_yaml_ng::from_str(&text(&alerts)?).context("alerts.yaml is no YAML")?;
    let rules = |groups: &Value| groups[0]["rules"].as_sequence().cloned().unwrap_or_default();
    let mut expected = rules(&alerts["groups"]);
    let before = expected.len();
    expected.retain(|rule| rule["alert"] != left_out);
    ensure!(expected.len() + 1 == before, "no alert is called {left_out}");
    let found = of("PrometheusRule");
    ensure!(found.len() == 1 && rules(&found[0]["spec"]["groups"]) == expected, "alerts are rendered otherwise");
    Ok(())
}

/// Of a directory in the chart's `files`.
fn files(directory: &str) -> Result<Vec<PathBuf>> {
    let directory = paths::root().join(DIRECTORY).join("files").join(directory);
    std::fs::read_dir(&directory)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .with_context(|| format!("cannot read {}", directory.display()))
}

fn text(file: &PathBuf) -> Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}
