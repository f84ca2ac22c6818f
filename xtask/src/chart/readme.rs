//! The chart's README.md, made of the comments in values.yaml and of values.schema.json.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::DIRECTORY;
use crate::paths;

/// What starts the comment that says what a value is.
const MARK: &str = "# -- ";
/// Beside it in the chart's directory.
const BEGINNING: &str = include_str!("readme.md");

/// One value of the chart.
#[derive(Debug, PartialEq)]
struct Entry {
    /// `agent.capacity.services`
    path: Vec<String>,
    meaning: String,
}

/// What README.md should be.
pub(crate) fn text() -> Result<String> {
    let directory = paths::root().join(DIRECTORY);
    let values = read(&directory.join("values.yaml"))?;
    let schema = read(&directory.join("values.schema.json"))?;
    render(&values, &schema).with_context(|| format!("cannot make a README of the values in {DIRECTORY}"))
}

fn render(values: &str, schema: &str) -> Result<String> {
    let entries = entries(values)?;
    let values: Value = serde_yaml_ng::from_str(values).context("values.yaml is no YAML")?;
    let schema: Value = serde_json::from_str(schema).context("values.schema.json is no JSON")?;
    covered(&schema, &schema, &values, "")?;
    let mut text = format!("<!-- Made by `cargo xtask crdgen`; a test fails when it differs. -->\n{BEGINNING}");
    text.push_str("\n## Values\n\n| value | type | default | meaning |\n|---|---|---|---|\n");
    for Entry { path, meaning } in &entries {
        let default = path.iter().fold(&values, |value, key| &value[key]);
        let mut of = &schema;
        for key in path {
            of = property(&schema, of, key)
                .with_context(|| format!("values.schema.json has no {:?}", path.join(".")))?;
        }
        let cell = |text: &str| text.replace('|', "\\|");
        let (kind, default) = (cell(&kind(of)), cell(&default.to_string()));
        writeln!(text, "| `{}` | {kind} | `{default}` | {} |", path.join("."), cell(meaning))?;
    }
    Ok(text)
}

/// The values that have a meaning, in the order of the file; an error for one that has none.
fn entries(values: &str) -> Result<Vec<Entry>> {
    let mut entries: Vec<Entry> = Vec::new();
    // Keys that the line stands in, with their indentation.
    let mut stack: Vec<(usize, String)> = Vec::new();
    let mut meaning: Option<String> = None;
    let mut skipped: Option<usize> = None;
    for (number, line) in values.lines().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let content = line.trim();
        if content.is_empty() || skipped.is_some_and(|of| indent > of) {
            continue;
        }
        skipped = None;
        if let Some(begun) = content.strip_prefix(MARK) {
            meaning = Some(begun.to_owned());
        } else if let Some(more) = content.strip_prefix('#') {
            if let Some(meaning) = &mut meaning {
                meaning.push(' ');
                meaning.push_str(more.trim());
            }
        } else {
            let (key, value) = content.split_once(':').with_context(|| format!("line {}: no key", number + 1))?;
            stack.retain(|(of, _)| *of < indent);
            stack.push((indent, key.to_owned()));
            match meaning.take() {
                Some(meaning) => {
                    entries.push(Entry { path: stack.iter().map(|(_, key)| key.clone()).collect(), meaning });
                    skipped = Some(indent);
                }
                None if value.trim().is_empty() => {}
                None => bail!("line {} of values.yaml: {key} needs a comment that begins with `{MARK}`", number + 1),
            }
        }
    }
    Ok(entries)
}

/// An error for what the schema allows and values.yaml does not hold.
fn covered(schema: &Value, of: &Value, values: &Value, path: &str) -> Result<()> {
    let of = resolved(schema, of);
    let (Some(properties), Some(given)) = (of["properties"].as_object(), values.as_object()) else { return Ok(()) };
    // An empty object, or one with keys of its own choice, shows no keys.
    for key in properties.keys().filter(|key| !given.is_empty() && !["global", "claims"].contains(&key.as_str())) {
        ensure!(given.contains_key(key), "values.schema.json allows {path}{key}, which values.yaml does not show");
        covered(schema, &properties[key], &given[key], &format!("{path}{key}."))?;
    }
    Ok(())
}

fn property<'a>(schema: &'a Value, of: &'a Value, key: &str) -> Option<&'a Value> {
    resolved(schema, of)["properties"].get(key)
}

/// What a `$ref` points to.
fn resolved<'a>(schema: &'a Value, of: &'a Value) -> &'a Value {
    let pointer = of["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
    pointer.and_then(|pointer| schema.pointer(pointer)).unwrap_or(of)
}

/// What a value may be, for people.
fn kind(of: &Value) -> String {
    if let Some(reference) = of["$ref"].as_str() {
        return match reference.rsplit('/').next().unwrap_or_default() {
            "port" => "port".to_owned(),
            "interval" => "duration".to_owned(),
            "tolerations" | "env" => "list".to_owned(),
            _ => "object".to_owned(),
        };
    }
    if let Some(choices) = of["enum"].as_array() {
        return choices.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ");
    }
    if let Some(choices) = of["oneOf"].as_array() {
        return choices.iter().map(kind).collect::<Vec<_>>().join(" or ");
    }
    match of["type"].as_str().unwrap_or("any") {
        "array" => "list".to_owned(),
        other => other.to_owned(),
    }
}

fn read(file: &Path) -> Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = r##"{"properties": {"a": {"properties": {
        "b": {"$ref": "#/definitions/port"}, "c": {"enum": ["x", "y|z"]}}}}, "definitions": {"port": {"type": "integer"}}}"##;

    #[test]
    fn each_value_has_a_row() {
        let values = "# not shown\na:\n  # -- A port\n  # to dial.\n  b: 1\n  # -- A choice.\n  c: x\n";
        let text = render(values, SCHEMA).expect("a README");
        assert!(text.contains("| `a.b` | port | `1` | A port to dial. |\n"), "{text}");
        assert!(text.ends_with("| `a.c` | x, y\\|z | `\"x\"` | A choice. |\n"), "{text}");
    }

    #[test]
    fn what_is_below_a_value_with_a_meaning_is_its_default() {
        let found = entries("# -- What it asks for.\nresources:\n  requests: {cpu: 1}\n").expect("entries");
        assert_eq!(found, [Entry { path: vec!["resources".into()], meaning: "What it asks for.".into() }]);
    }

    #[test]
    fn a_value_without_a_meaning_or_a_schema_is_refused() {
        let error = |values: &str| format!("{:#}", render(values, SCHEMA).expect_err("it must be refused"));
        assert!(error("a:\n  b: 1\n").contains("needs a comment"));
        assert!(error("a:\n  # -- B.\n  b: 1\n").contains("allows a.c"));
        assert!(error("a:\n  # -- B.\n  b: 1\n  # -- C.\n  c: x\n# -- D.\nd: 1\n").contains("has no \"d\""));
    }
}
