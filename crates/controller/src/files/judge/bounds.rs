//! The bounds of a schema, in the words of the Kubernetes API server (k8s.io/kube-openapi/pkg/validation and
//! k8s.io/apiextensions-apiserver/pkg/apiserver/validation).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::Verdict;

/// What this knows of a schema. Another keyword wants a line here, and a check.
#[cfg(test)]
pub(in crate::files) const KEYWORDS: [&str; 17] = [
    "default",
    "description",
    "enum",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maximum",
    "minItems",
    "minLength",
    "minimum",
    "pattern",
    "properties",
    "required",
    "type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
];

/// What is beyond the bounds; defaults must be filled in.
pub(super) fn check(schema: &Value, value: &Value, path: &str, found: &mut Vec<Verdict>) {
    match (schema["type"].as_str().unwrap_or_default(), value) {
        ("object", Value::Object(fields)) => object(schema, fields, path, found),
        ("array", Value::Array(items)) => list(schema, items, path, found),
        ("string", Value::String(text)) => string(schema, text, path, found),
        ("integer", Value::Number(number)) if !number.is_f64() => integer(schema, number.as_i64(), path, found),
        ("boolean", Value::Bool(_)) => {}
        (wanted, _) => {
            let is = kind(value);
            // A server names the format where a number is asked for and a number is given.
            let wanted = if is == "float64" { schema["format"].as_str().unwrap_or(wanted) } else { wanted };
            stop(path, format!("Invalid value: \"{is}\": {path} in body must be of type {wanted}: \"{is}\""), found);
            return;
        }
    }
    if let Some(values) = schema["enum"].as_array().filter(|values| !values.contains(value)) {
        let values: Vec<String> = values.iter().map(Value::to_string).collect();
        stop(path, format!("Unsupported value: {value}: supported values: {}", values.join(", ")), found);
    }
}

fn object(schema: &Value, fields: &Map<String, Value>, path: &str, found: &mut Vec<Verdict>) {
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    for name in required.filter(|name| !fields.contains_key(*name)) {
        stop(&format!("{path}.{name}"), "Required value".to_owned(), found);
    }
    for (name, value) in fields {
        if let Some(schema) = schema["properties"].get(name) {
            check(schema, value, &format!("{path}.{name}"), found);
        }
    }
}

fn list(schema: &Value, items: &[Value], path: &str, found: &mut Vec<Verdict>) {
    let count = items.len() as u64;
    if let Some(least) = schema["minItems"].as_u64().filter(|least| count < *least) {
        say(path, format!("Invalid value: {count}: {path} in body should have at least {least} items"), found);
    }
    if let Some(most) = schema["maxItems"].as_u64().filter(|most| count > *most) {
        stop(path, format!("Too many: {count}: must have at most {most} items"), found);
    }
    for (i, item) in items.iter().enumerate() {
        check(&schema["items"], item, &format!("{path}[{i}]"), found);
    }
    twins(schema, items, path, found);
}

/// What is in a set, or has the same keys in a map, twice. The third is not told.
fn twins(schema: &Value, items: &[Value], path: &str, found: &mut Vec<Verdict>) {
    let keys: Vec<&str> =
        schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let identity = |item: &Value| match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => Some(item.clone()),
        Some("map") => {
            let key = |key: &&str| item.get(*key).map(|value| ((*key).to_owned(), value.clone()));
            item.is_object().then(|| Value::Object(keys.iter().filter_map(key).collect()))
        }
        Some(_) | None => None,
    };
    let mut seen = BTreeMap::<String, usize>::new();
    for (i, item) in items.iter().enumerate() {
        let Some(identity) = identity(item).map(|identity| identity.to_string()) else { continue };
        let times = seen.entry(identity.clone()).or_default();
        *times += 1;
        if *times == 2 {
            say(&format!("{path}[{i}]"), format!("Duplicate value: {identity}"), found);
        }
    }
}

fn string(schema: &Value, text: &str, path: &str, found: &mut Vec<Verdict>) {
    let length = text.chars().count() as u64;
    if let Some(most) = schema["maxLength"].as_u64().filter(|most| length > *most) {
        stop(path, format!("Too long: may not be more than {most} bytes"), found);
    } else if let Some(least) = schema["minLength"].as_u64().filter(|least| length < *least) {
        let message = format!("Invalid value: {text:?}: {path} in body should be at least {least} chars long");
        say(path, message, found);
    } else if let Some(pattern) = schema["pattern"].as_str() {
        let fits = regex::Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(text));
        if !fits {
            say(path, format!("Invalid value: {text:?}: {path} in body should match '{pattern}'"), found);
        }
    }
}

fn integer(schema: &Value, number: Option<i64>, path: &str, found: &mut Vec<Verdict>) {
    let (least, most) = (schema["minimum"].as_i64(), schema["maximum"].as_i64());
    // A number that fits no i64 is larger than any bound.
    let number = number.unwrap_or(i64::MAX);
    if let Some(most) = most.filter(|most| number > *most) {
        let message = format!("Invalid value: {number}: {path} in body should be less than or equal to {most}");
        say(path, message, found);
    } else if let Some(least) = least.filter(|least| number < *least) {
        let message = format!("Invalid value: {number}: {path} in body should be greater than or equal to {least}");
        say(path, message, found);
    }
}

/// The kind of a value, as a server names it.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn say(path: &str, message: String, found: &mut Vec<Verdict>) {
    found.push(Verdict { field: path.to_owned(), message, stops_rules: false });
}

/// After this a server asks no rule.
fn stop(path: &str, message: String, found: &mut Vec<Verdict>) {
    found.push(Verdict { field: path.to_owned(), message, stops_rules: true });
}
