//! The references of docs/, made of the definitions.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// An object to copy from.
const EXAMPLE: &str = include_str!("../../../../../examples/virtualservice.yaml");

const GENERATED: &str = "<!-- Generated from crates/crd by `cargo xtask crdgen`; a test fails when it differs. -->\n";

/// One kind's page in Markdown.
pub(crate) fn page(definition: &Value) -> String {
    let spec = &definition["spec"];
    let version = &spec["versions"][0];
    let schema = &version["schema"]["openAPIV3Schema"];
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let kind = word(&spec["names"]["kind"]);
    let plural = word(&spec["names"]["plural"]);
    let short = word(&spec["names"]["shortNames"][0]);
    let scope = if spec["scope"] == "Namespaced" { "lives in a namespace" } else { "belongs to the whole cluster" };
    let mut text = format!(
        "{GENERATED}# {kind}\n\n{description}\n\n`{group}/{version}`, kind `{kind}`; `kubectl get {short}` or `kubectl get \
         {plural}.{group}`. It {scope}. The same is said by `kubectl explain {short} --recursive`.\n",
        description = word(&schema["description"]),
        group = word(&spec["group"]),
        version = word(&version["name"]),
    );
    if kind == "VirtualService" {
        let _ = write!(
            text,
            "\nWhat the words mean, and every condition with its reasons: [concepts.md](concepts.md). Mistakes and what a server says \
             of them: [troubleshooting.md](troubleshooting.md#the-object-is-refused).\n\n## Example\n\n```yaml\n{EXAMPLE}```\n"
        );
    }
    columns(&mut text, version);
    let mut rules = Rules::default();
    rules.of(schema, &kind);
    for (part, title) in [("spec", "what is wanted"), ("status", "what is; written by Guenon alone")] {
        let of = &schema["properties"][part];
        let _ = write!(text, "\n## `{part}`: {title}\n\n{}\n\n", sentence(of));
        text.push_str("| field | type | default | bounds | meaning |\n|---|---|---|---|---|\n");
        fields(&mut text, &mut rules, of, part);
    }
    rules.write(&mut text);
    text
}

fn columns(text: &mut String, version: &Value) {
    text.push_str("\n## Columns of `kubectl get`\n\n| column | shows |\n|---|---|\n");
    for column in version["additionalPrinterColumns"].as_array().into_iter().flatten() {
        let path = column["jsonPath"].as_str().unwrap_or_default().replace('|', "\\|");
        let wide = if column["priority"].as_i64().unwrap_or(0) > 0 { " (with `-o wide`)" } else { "" };
        let what = column["description"].as_str().map(|what| format!("{what}: ")).unwrap_or_default();
        let _ = writeln!(text, "| {} | {what}`{path}`{wide} |", column["name"].as_str().unwrap_or_default());
    }
}

/// The fields of an object, each followed by those in it.
fn fields(text: &mut String, rules: &mut Rules, object: &Value, path: &str) {
    rules.of(object, path);
    let empty = Map::new();
    let required = object["required"].as_array().map(Vec::as_slice).unwrap_or_default();
    for (name, schema) in object["properties"].as_object().unwrap_or(&empty) {
        let path = format!("{path}.{name}");
        let items = &schema["items"];
        let is_required = required.iter().any(|required| required == name);
        let default = match schema.get("default") {
            Some(default) => format!("`{}`", default.as_str().map_or_else(|| default.to_string(), str::to_owned)),
            None if is_required => "**required**".to_owned(),
            None => String::new(),
        };
        let cells = [format!("`{path}`"), kind(schema), default, bounds(schema), sentence(schema)];
        let _ = writeln!(text, "| {} |", cells.map(|cell| cell.replace('|', "\\|")).join(" | "));
        if items.is_object() {
            rules.of(schema, &path);
            fields(text, rules, items, &format!("{path}[]"));
        } else {
            fields(text, rules, schema, &path);
        }
    }
}

fn kind(schema: &Value) -> String {
    let of = |schema: &Value| schema["type"].as_str().unwrap_or_default().to_owned();
    match (of(schema).as_str(), &schema["items"]) {
        ("array", items) => format!("list of {}s", of(items)),
        (kind, _) => kind.to_owned(),
    }
}

fn bounds(schema: &Value) -> String {
    let mut bounds = Vec::new();
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<String> = values.iter().filter_map(Value::as_str).map(|value| format!("`{value}`")).collect();
        bounds.push(values.join(", "));
    }
    for (least, most, what) in
        [("minimum", "maximum", ""), ("minItems", "maxItems", " items"), ("minLength", "maxLength", " characters")]
    {
        match (schema[least].as_i64(), schema[most].as_i64()) {
            (Some(least), Some(most)) => bounds.push(format!("{least} to {most}{what}")),
            (Some(least), None) => bounds.push(format!("at least {least}{what}")),
            (None, Some(most)) => bounds.push(format!("at most {most}{what}")),
            (None, None) => {}
        }
    }
    if let Some(pattern) = schema["pattern"].as_str() {
        bounds.push(format!("`{pattern}`"));
    }
    let keys = schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let keys: Vec<&str> = keys.collect();
    match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => bounds.push("each once".to_owned()),
        Some("map") => bounds.push(format!("{} once each", keys.join(" + "))),
        Some(_) | None => {}
    }
    let items = &schema["items"];
    if items.is_object() && items["type"] != "object" {
        let each = self::bounds(items);
        if !each.is_empty() {
            bounds.push(format!("each {each}"));
        }
    }
    bounds.join("; ")
}

/// A description in one line.
fn sentence(schema: &Value) -> String {
    schema["description"].as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Rules in CEL, by where they stand.
#[derive(Default)]
struct Rules(Vec<[String; 3]>);

impl Rules {
    fn of(&mut self, schema: &Value, path: &str) {
        for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
            let word = |key: &str| rule[key].as_str().unwrap_or_default().to_owned();
            self.0.push([format!("`{path}`"), word("message"), format!("`{}`", word("rule"))]);
        }
    }

    fn write(&self, text: &mut String) {
        if self.0.is_empty() {
            return;
        }
        text.push_str(
            "\n## Rules\n\nBeyond the bounds above. An object that breaks one is refused at `kubectl apply`, and as a file, with these words.\n\n\
             | where | must | as CEL |\n|---|---|---|\n",
        );
        for cells in &self.0 {
            let _ = writeln!(text, "| {} |", cells.clone().map(|cell| cell.replace('|', "\\|")).join(" | "));
        }
    }
}
