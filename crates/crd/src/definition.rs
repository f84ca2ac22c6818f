//! CustomResourceDefinitions, as a server is given them.

use kube::CustomResourceExt as _;
use serde_json::{Number, Value};

use crate::{GuenonNode, VirtualService, rules};

/// The definitions of all kinds, each with its name.
#[must_use]
pub fn definitions() -> Vec<(&'static str, Value)> {
    let of = |name, definition| {
        let mut definition = serde_json::to_value(definition).unwrap_or_default();
        tidy(&mut definition);
        (name, definition)
    };
    let mut definitions =
        vec![of(VirtualService::crd_name(), VirtualService::crd()), of(GuenonNode::crd_name(), GuenonNode::crd())];
    definitions[0].1["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["x-kubernetes-validations"] = rules::name();
    definitions
}

/// What may be left out may not be null: a CEL rule that asks whether a field is there would take null for a value. And
/// bounds of whole numbers are whole numbers.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if fields.get("type").is_some_and(Value::is_string) {
                fields.remove("nullable");
            }
            fields.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        Value::Number(number) => {
            if let Some(whole) = number.as_f64().filter(|number| number.fract() == 0.0) {
                *number = Number::from(whole as i64);
            }
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}
