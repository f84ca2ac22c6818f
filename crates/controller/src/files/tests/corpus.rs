//! Files get the answers of a server: the corpus that the live tests give to a real one, and random objects.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::document::read;
use super::super::judge;
use super::super::yaml;

#[derive(serde::Deserialize)]
struct Case {
    it: String,
    #[serde(default)]
    metadata: Option<Value>,
    #[serde(default)]
    spec: Option<Value>,
    #[serde(default)]
    status: Option<Value>,
    #[serde(default)]
    says: Vec<String>,
}

fn object(metadata: Option<Value>, spec: Option<Value>) -> Value {
    let metadata = metadata.unwrap_or_else(|| json!({"namespace": "default", "name": "web"}));
    let mut object = json!({"apiVersion": "guenon.dev/v1alpha1", "kind": "VirtualService", "metadata": metadata});
    if let Some(spec) = spec {
        object["spec"] = spec;
    }
    object
}

/// What is said of an object in a file, a line each; whether it is accepted.
fn said(object: &Value) -> (Vec<String>, bool) {
    let text = object.to_string();
    let entries = read(&text);
    let [entry] = &entries[..] else { panic!("one object: {text}") };
    let line = |problem: &crate::model::Problem| format!("{}: {}", problem.place.field, problem.message);
    (entry.problems.iter().map(line).collect(), entry.object.is_some())
}

#[test]
fn a_file_gets_the_answer_of_a_server() {
    let corpus = include_str!("../../../../crd/corpus.yaml");
    let cases: Vec<Case> = serde_yaml_ng::from_str(corpus).expect("the corpus");
    assert!(cases.len() > 70, "{} cases", cases.len());
    for Case { it, metadata, spec, status, says } in cases {
        let mut object = object(metadata, spec);
        if let Some(status) = status {
            object["status"] = status;
        }
        let (lines, accepted) = said(&object);
        assert_eq!(accepted, says.is_empty(), "{it}: {lines:#?}");
        assert_eq!(lines.len(), says.len(), "{it}: a server says {says:#?}, a file {lines:#?}");
        for wanted in says {
            assert!(lines.iter().any(|line| line.contains(&wanted)), "{it}: {wanted:?} is not in {lines:#?}");
        }
    }
}

#[test]
fn a_refusal_says_what_to_do_too() {
    let spec = json!({
        "addresses": ["2001:DB8::10", "203.0.113.10", "203.0.113.10"],
        "ports": [{"port": 80}, {"port": 80}, {"port": 0}],
        "endpoints": [{"address": "10.0.0.7/24"}],
        "delivery": "nat",
    });
    let mistyped = said(&object(None, Some(spec.clone()))).0.join("\n");
    let mut spec = spec;
    spec["delivery"] = json!("Nat");
    insta::assert_snapshot!(mistyped + "\n--\n" + &said(&object(None, Some(spec))).0.join("\n"), @r#"
    spec.addresses[2]: Duplicate value: "203.0.113.10"
    spec.delivery: Unsupported value: "nat": supported values: "Auto", "Local", "Veth", "Nat"; did you mean `Nat`? write one of Auto, Local, Veth, Nat
    spec.ports[1]: Duplicate value: {"port":80,"protocol":"TCP"}
    spec.ports[2].port: Invalid value: 0: spec.ports[2].port in body should be greater than or equal to 1
    --
    spec.addresses[0]: Invalid value: "2001:DB8::10": must be in canonical form (RFC 5952; for example 2001:db8::1, not 2001:DB8:0::1); write 2001:db8::10
    spec.addresses[2]: Duplicate value: "203.0.113.10"; remove one of the two
    spec.endpoints[0].address: Invalid value: "10.0.0.7/24": must be an IPv4 or IPv6 address; write 10.0.0.7, without `/24`
    spec.ports[1]: Duplicate value: {"port":80,"protocol":"TCP"}; remove one of the two
    spec.ports[2].port: Invalid value: 0: spec.ports[2].port in body should be greater than or equal to 1; write a number from 1 to 65535
    "#);
}

/// A bound of a new kind must be judged here too.
#[test]
fn every_keyword_of_the_schema_is_known() {
    fn walk(schema: &Value) {
        for (keyword, value) in schema.as_object().expect("a schema") {
            // Rules are asked by kube-cel.
            let known = judge::KEYWORDS.contains(&keyword.as_str()) || keyword == "x-kubernetes-validations";
            assert!(known, "the judge knows nothing of {keyword}");
            match keyword.as_str() {
                "properties" => value.as_object().expect("properties").values().for_each(walk),
                "items" => walk(value),
                _ => {}
            }
        }
    }
    let (_, definition) = guenon_crd::definitions().swap_remove(0);
    walk(&definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]);
}

fn one_of(values: Value) -> BoxedStrategy<Value> {
    let Value::Array(values) = values else { panic!("a list") };
    prop::sample::select(values).boxed()
}

/// Mostly the first, so that some objects are good.
fn mostly(good: Value, others: Value) -> BoxedStrategy<Value> {
    prop_oneof![6 => Just(good), 1 => one_of(others)].boxed()
}

/// An object of these fields; a field that comes to the word "absent" is left out.
fn fields(fields: Vec<(&'static str, BoxedStrategy<Value>)>) -> BoxedStrategy<Value> {
    let (names, values): (Vec<_>, Vec<_>) = fields.into_iter().unzip();
    let object = move |values: Vec<Value>| {
        let fields = names.iter().map(|name| (*name).to_owned()).zip(values);
        Value::Object(fields.filter(|(_, value)| value != "absent").collect())
    };
    values.prop_map(object).boxed()
}

fn list(item: BoxedStrategy<Value>, most: usize) -> BoxedStrategy<Value> {
    let few = prop::collection::vec(item.clone(), 1..3);
    let many = prop::collection::vec(item, most - 1..most + 2);
    prop_oneof![12 => few, 1 => many, 1 => Just(vec![])].prop_map(Value::Array).boxed()
}

fn specs() -> BoxedStrategy<Value> {
    let vip = (1..250_u8).prop_map(|i| json!(format!("203.0.113.{i}")));
    let odd = json!([
        "2001:db8::10",
        "2001:DB8::10",
        "::1",
        "::ffff:1.2.3.4",
        "64:ff9b::1.2.3.4",
        "::1.2.3.4",
        "1.2.3",
        "01.2.3.4",
        "",
        "fe80::1%x",
        "fd00::1",
        "100.64.0.1",
        "240.0.0.1",
        "0.0.0.1",
        null,
        5,
        true,
        "::"
    ]);
    let address = prop_oneof![6 => vip, 1 => one_of(odd)].boxed();
    let name = one_of(json!(["web", "web-2", "2web", "-", "a.b", "A", "", "a", "b", "c", "d", "é", null, 1]));
    let weight = mostly(json!("absent"), json!([0, 1, 1000, 1001, -1, 1.0, 1.5, "1", null]));
    let number = (1..200_u16).prop_map(|i| json!(i));
    let odd = json!([0, 65535, 65536, -1, "80", 80.5, 80.0, null, "absent", 99_999_999_999_i64, [80]]);
    let ports = fields(vec![
        ("port", prop_oneof![8 => number, 1 => one_of(odd)].boxed()),
        ("protocol", mostly(json!("absent"), json!(["TCP", "UDP", "SCTP", "tcp", null, 6]))),
        ("name", prop_oneof![6 => Just(json!("absent")), 1 => name.clone()].boxed()),
    ]);
    let delivery = || mostly(json!("absent"), json!(["Auto", "Local", "Veth", "Nat", "nat", null, 1]));
    let endpoints = fields(vec![
        ("address", address.clone()),
        ("weight", weight.clone()),
        ("tunnel", prop_oneof![4 => Just(json!("absent")), 1 => address.clone()].boxed()),
        ("delivery", delivery()),
    ]);
    let refs = fields(vec![
        ("kind", mostly(json!("absent"), json!(["Service", "Pod", null]))),
        ("name", name),
        ("weight", weight),
    ]);
    let given = (Just(json!("absent")), list(endpoints.clone(), 8)).boxed();
    let referred = (list(refs.clone(), 8), Just(json!("absent"))).boxed();
    let both = (list(refs, 8), list(endpoints, 8)).boxed();
    let neither = Just((json!("absent"), json!(null))).boxed();
    let backends = prop_oneof![6 => given, 6 => referred, 1 => both, 1 => neither];
    let rest = fields(vec![
        ("addresses", list(address, 8)),
        ("ports", list(ports, 32)),
        ("sessionAffinity", mostly(json!("absent"), json!(["None", "ClientIP", "Cookie", null, 1]))),
        ("delivery", delivery()),
    ]);
    let put = |(mut spec, (refs, endpoints)): (Value, (Value, Value))| {
        for (name, value) in [("backendRefs", refs), ("endpoints", endpoints)] {
            if value != "absent" {
                spec[name] = value;
            }
        }
        spec
    };
    (rest, backends).prop_map(put).boxed()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Conversion to the domain decides; the judge only words what is refused. So both must refuse the same.
    #[test]
    fn conversion_accepts_what_the_definition_accepts(spec in specs()) {
        let object = object(None, Some(spec));
        let (lines, accepted) = said(&object);
        let text = object.to_string();
        let nodes = yaml::parse(&text).expect("JSON is YAML");
        let verdicts = judge::judge(&nodes[0]);
        prop_assert_eq!(accepted, verdicts.is_empty(), "{} {:#?} {:#?}", text, lines, verdicts);
    }
}
