//! The queries of a dashboard, as Grafana would send them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// What Grafana fills in by itself. The window of rates is four scrapes and more.
const OWN: [(&str, &str); 3] = [("$__rate_interval", "15s"), ("$__range", "1m"), ("$__interval", "15s")];

/// One query.
#[derive(Debug, PartialEq)]
pub(super) struct Query {
    /// Where it stands.
    pub(super) panel: String,
    /// With every value that the variables may have.
    pub(super) expressions: Vec<String>,
    /// Of now, or over time.
    pub(super) instant: bool,
    /// Labels that the names of its series are made of.
    pub(super) labels: Vec<String>,
}

/// All of them; `values` tells the values of a metric's label.
pub(super) fn queries(board: &Value, values: impl Fn(&str, &str) -> Result<Vec<String>>) -> Result<Vec<Query>> {
    let mut variables: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for variable in board["templating"]["list"].as_array().into_iter().flatten().filter(|v| v["type"] == "query") {
        let name = variable["name"].as_str().context("a variable without a name")?;
        let query = variable["query"]["query"].as_str().context("a variable without a query")?;
        let inside = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
        let (metric, label) = inside.and_then(|inside| inside.split_once(", ")).with_context(|| query.to_owned())?;
        let found = values(metric, label)?;
        ensure!(!found.is_empty(), "the variable {name} has no value: {query}");
        let all = variable["allValue"].as_str().map(|all| vec![all.to_owned()]);
        variables.insert(format!("${name}"), all.unwrap_or(found));
    }
    let mut queries = Vec::new();
    for panel in board["panels"].as_array().context("no panels")? {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().context("a target without a query")?;
            let mut expressions =
                vec![OWN.iter().fold(expression.to_owned(), |text, (name, to)| text.replace(name, to))];
            for (name, values) in &variables {
                let with = |text: &String| values.iter().map(|value| text.replace(name, value)).collect::<Vec<_>>();
                expressions = expressions.iter().flat_map(with).collect();
            }
            expressions.dedup();
            ensure!(!expressions.iter().any(|text| text.contains('$')), "a variable is left in {expressions:?}");
            queries.push(Query {
                panel: panel["title"].as_str().unwrap_or_default().to_owned(),
                expressions,
                instant: target["instant"] == true,
                labels: labels(target["legendFormat"].as_str().unwrap_or_default()),
            });
        }
    }
    Ok(queries)
}

/// The metrics that a query asks for, by our names and those of every exporter.
pub(crate) fn metrics(expression: &str) -> BTreeSet<&str> {
    // What stands in quotes is a label's value.
    let code = expression.split('"').step_by(2);
    let words = code.flat_map(|code| code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
    words.filter(|word| *word == "up" || word.starts_with("guenon_") || word.starts_with("process_")).collect()
}

/// `{{a}} of {{b}}`: a, b.
fn labels(legend: &str) -> Vec<String> {
    let after = legend.split("{{").skip(1);
    after.filter_map(|rest| rest.split_once("}}")).map(|(label, _)| label.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn metrics_are_found() {
        let found = metrics("sum by (up_) (rate(guenon_a_total{x=\"guenon_b\"}[1m])) / up or process_c");
        assert_eq!(found, BTreeSet::from(["guenon_a_total", "process_c", "up"]));
    }

    #[test]
    fn variables_are_filled_in() {
        let board = json!({
            "templating": {"list": [
                {"name": "source", "type": "datasource"},
                {"name": "n", "type": "query", "query": {"query": "label_values(m, n)"}},
                {"name": "j", "type": "query", "query": {"query": "label_values(m, j)"}, "allValue": ".*"},
            ]},
            "panels": [{"title": "p", "targets": [
                {"expr": "rate(m{n=\"$n\", j=~\"$j\"}[$__rate_interval])", "legendFormat": "{{n}} of {{j}}", "instant": false},
            ]}],
        });
        let found = queries(&board, |_, _| Ok(vec!["a".into(), "b".into()])).expect("queries");
        let with = |value: &str| format!("rate(m{{n=\"{value}\", j=~\".*\"}}[15s])");
        assert_eq!(found[0].expressions, [with("a"), with("b")]);
        assert_eq!(found[0].labels, ["n", "j"]);
        assert!(queries(&board, |_, _| Ok(Vec::new())).is_err());
    }
}
