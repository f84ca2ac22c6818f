//! The alerts, judged by promtool.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_yaml_ng::Value;

use crate::dashboards::queries::metrics;
use crate::test::{Count, count};
use crate::{links, paths, prometheus};

const RULES: &str = "deploy/helm/guenon/files/alerts.yaml";
const TESTS: &str = "deploy/alerts-test.yaml";

/// `cargo xtask test --only alerts`
pub(crate) fn test() -> Result<Count> {
    let promtool = |args: &[&str]| -> Result<()> {
        prometheus::program("promtool")?.args(args).dir(paths::root()).limit(Duration::from_secs(120)).run()
    };
    let mut total = count("promtool understands every rule", || promtool(&["check", "rules", "--lint-fatal", RULES]));
    total = total + count("alerts fire when they should", || promtool(&["test", "rules", TESTS]));
    let (rules, tests) = (read(RULES)?, read(TESTS)?);
    total = total + count("every alert is seen firing in a test", || all_are_tested(&rules, &tests));
    total = total + count("every alert asks for metrics that there are", || all_are_exported(&rules));
    Ok(total + count("every alert says what to do and where to read on", || all_are_documented(&rules)))
}

fn all_are_tested(rules: &Value, tests: &Value) -> Result<()> {
    for name in alerts(rules)?.iter().filter_map(|alert| alert["alert"].as_str()) {
        let fires = |case: &Value| {
            let expected = case["exp_samples"].as_sequence().is_some_and(|samples| !samples.is_empty());
            let asked = case["expr"].as_str().unwrap_or_default();
            expected && asked.contains(&format!("alertname=\"{name}\"")) && asked.contains("alertstate=\"firing\"")
        };
        let mut cases = list(&tests["tests"]).iter().flat_map(|test| list(&test["promql_expr_test"]));
        ensure!(cases.any(fires), "no test in {TESTS} sees {name} fire");
    }
    Ok(())
}

/// docs/metrics.md is made of the code.
fn all_are_exported(rules: &Value) -> Result<()> {
    let reference = text("docs/metrics.md")?;
    for alert in alerts(rules)? {
        for metric in metrics(alert["expr"].as_str().unwrap_or_default()).into_iter().filter(|name| *name != "up") {
            let known = reference.contains(&format!("\n| `{metric}` |"));
            let name = alert["alert"].as_str().unwrap_or_default();
            ensure!(known, "{name} asks for {metric}, which docs/metrics.md does not have");
        }
    }
    Ok(())
}

fn all_are_documented(rules: &Value) -> Result<()> {
    let page = text("docs/alerts.md")?;
    for alert in alerts(rules)? {
        let name = alert["alert"].as_str().context("an alert without a name")?;
        let severity = alert["labels"]["severity"].as_str().unwrap_or_default();
        ensure!(["info", "warning", "critical"].contains(&severity), "{name} has the severity {severity:?}");
        let said = |key: &str| alert["annotations"][key].as_str().unwrap_or_default();
        for key in ["summary", "description", "action"] {
            ensure!(!said(key).is_empty(), "{name} has no annotation {key}");
        }
        let runbook = links::docs("alerts.md", &name.to_lowercase());
        ensure!(said("runbook_url") == runbook, "{name}: its runbook_url should be {runbook}");
        ensure!(page.contains(&format!("\n## {name}\n")), "docs/alerts.md has no heading {name}");
    }
    Ok(())
}

fn alerts(rules: &Value) -> Result<Vec<&Value>> {
    let alerts: Vec<&Value> = list(&rules["groups"]).iter().flat_map(|group| list(&group["rules"])).collect();
    ensure!(!alerts.is_empty(), "no alert in {RULES}");
    Ok(alerts)
}

fn list(value: &Value) -> &[Value] {
    value.as_sequence().map_or(&[], Vec::as_slice)
}

fn read(name: &str) -> Result<Value> {
    serde_yaml_ng::from_str(&text(name)?).with_context(|| format!("{name} is no YAML"))
}

fn text(name: &str) -> Result<String> {
    let file = paths::root().join(name);
    std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
}
