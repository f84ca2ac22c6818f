//! What an API server would say of a VirtualService: the bounds and rules of the generated CustomResourceDefinition.
//!
//! It is asked only about what is refused already, and words that as `kubectl apply` would: conversion to the domain accepts
//! the same objects (the tests compare the two) and costs a hundredth of what rules in CEL cost.

mod bounds;

#[cfg(test)]
pub(in crate::files) use bounds::KEYWORDS;

use guenon_crd as crd;
use kube_cel::{CompiledSchema, Validator, apply_defaults, compile_schema};
use serde_json::{Map, Value};

use super::yaml::{self, Node};
use crate::model::{Place, Problem, ProblemReason};

/// Something that a server would say.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Path of the field, as in `spec.ports[0].port`.
    pub(super) field: String,
    /// The server's own words.
    pub(super) message: String,
    /// Whether a server asks no rule where it has said this.
    pub(super) stops_rules: bool,
}

/// All that a server would say of an object's spec, unknown fields aside.
pub(super) fn judge(object: &Node<'_>) -> Vec<Verdict> {
    let Some(spec) = object.get("spec").filter(|spec| spec.value != yaml::Value::Null) else {
        let message = "Required value".to_owned();
        return vec![Verdict { field: "spec".to_owned(), message, stops_rules: true }];
    };
    let mut verdicts = JUDGE.with(|judge| judge.judge(&json(spec)));
    // Rules are asked in no order.
    verdicts.sort_by(|a, b| a.field.cmp(&b.field));
    verdicts
}

/// The same problems in a server's words, each with the cure that we know.
pub(super) fn worded(object: &Node<'_>, ours: Vec<Problem>, place: &Place) -> Vec<Problem> {
    let verdicts = judge(object);
    if verdicts.is_empty() {
        return ours;
    }
    let mut problems: Vec<Problem> = verdicts
        .into_iter()
        .map(|Verdict { field, message, .. }| Problem {
            reason: ProblemReason::Invalid,
            message: match cure(&ours, &field, &message) {
                Some(cure) => format!("{message}; {cure}"),
                None => message,
            },
            place: Place { line: object.line_of(&field), field, ..place.clone() },
        })
        .collect();
    let of_spec = |problem: &Problem| problem.place.field.starts_with("spec") || problem.message.contains("`spec`");
    problems.extend(ours.into_iter().filter(|problem| !of_spec(problem)));
    problems
}

/// What to do, from our own message about the same field: it ends with that.
fn cure<'a>(ours: &'a [Problem], field: &str, message: &str) -> Option<&'a str> {
    let same = |problem: &&Problem| match problem.place.field.strip_prefix(field) {
        Some("") => true,
        Some(rest) => message.starts_with("Duplicate value") && rest.starts_with('.'),
        None => false,
    };
    ours.iter().find(same)?.message.rsplit_once("; ").map(|(_, cure)| cure)
}

thread_local! {
    /// Compiled rules stay with their thread.
    static JUDGE: Judge = Judge::new();
}

struct Judge {
    /// The schema of a VirtualService's spec.
    schema: Value,
    rules: CompiledSchema,
    validator: Validator,
}

impl Judge {
    fn new() -> Self {
        let is_ours = |name: &str| name.starts_with("virtualservices.");
        let definition = crd::definitions().into_iter().find(|(name, _)| is_ours(name)).map(|(_, crd)| crd);
        let pointer = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";
        let schema = definition.as_ref().and_then(|crd| crd.pointer(pointer)).cloned().unwrap_or_default();
        Self { rules: compile_schema(&schema), schema, validator: Validator::new() }
    }

    fn judge(&self, spec: &Value) -> Vec<Verdict> {
        let spec = apply_defaults(&self.schema, spec);
        let mut verdicts = Vec::new();
        bounds::check(&self.schema, &spec, "spec", &mut verdicts);
        if verdicts.iter().any(|verdict| verdict.stops_rules) {
            return verdicts;
        }
        if let Err(errors) = self.validator.validate_compiled(&self.rules, &spec, None) {
            for error in errors {
                let value = at(&spec, &error.field_path);
                let shown = value.filter(|value| !value.is_object() && !value.is_array());
                let shown = shown.map(|value| format!("{value}: ")).unwrap_or_default();
                let dot = if error.field_path.is_empty() { "" } else { "." };
                verdicts.push(Verdict {
                    field: format!("spec{dot}{}", error.field_path),
                    message: format!("Invalid value: {shown}{}", error.message),
                    stops_rules: false,
                });
            }
        }
        verdicts
    }
}

/// The value of a field such as `ports[0].port`.
fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    let mut steps = path.split(['.', '[', ']']).filter(|step| !step.is_empty());
    steps.try_fold(value, |value, step| match value {
        Value::Object(fields) => fields.get(step),
        Value::Array(items) => items.get(step.parse::<usize>().ok()?),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    })
}

/// As a server is sent it. Of fields that are null it takes no notice.
fn json(node: &Node<'_>) -> Value {
    match &node.value {
        yaml::Value::Null => Value::Null,
        yaml::Value::Bool(value) => Value::from(*value),
        yaml::Value::Integer(value) => Value::from(*value),
        yaml::Value::Float(value) => match yaml::whole(*value) {
            Some(whole) => Value::from(whole),
            None => Value::from(*value),
        },
        yaml::Value::String(text) => Value::from(text.as_ref()),
        yaml::Value::List(items) => items.iter().map(json).collect(),
        yaml::Value::Map(entries) => {
            let present = entries.iter().filter(|entry| entry.node.value != yaml::Value::Null);
            Value::Object(present.map(|entry| (entry.key.to_string(), json(&entry.node))).collect::<Map<_, _>>())
        }
    }
}
