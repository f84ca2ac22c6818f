use super::super::document::read;
use super::web;

/// What a text comes to: keys of accepted objects, then problems.
fn told(text: &str) -> String {
    let mut told = String::new();
    for entry in read(text) {
        if entry.object.is_some() {
            told += &format!("accepted: {}\n", entry.key.expect("an object has a key"));
        }
        for problem in entry.problems {
            told += &format!("line {}, {}: {}\n", problem.place.line, problem.place.field, problem.message);
        }
        told += &entry.note.map(|note| format!("{note}\n")).unwrap_or_default();
    }
    told
}

#[test]
fn an_unknown_field_is_told_with_the_one_that_was_meant() {
    let text = "\
apiVersion: guenon.dev/v1alpha1
kind: VirtualService
metadata: {namespace: shop, name: web}
spec:
  adresses: [203.0.113.10]
  addresses: [203.0.113.10]
  ports:
  - {prot: 80, port: 80}
  endpoints: [{address: 10.0.0.7}]
  sessionAfinity: ClientIP
  colour: blue
";
    insta::assert_snapshot!(told(text), @r#"
    line 5, spec.adresses: unknown field "spec.adresses"; did you mean `addresses`?
    line 8, spec.ports[0].prot: unknown field "spec.ports[0].prot"; did you mean `port`?
    line 10, spec.sessionAfinity: unknown field "spec.sessionAfinity"; did you mean `sessionAffinity`?
    line 11, spec.colour: unknown field "spec.colour"; remove it
    "#);
}

#[test]
fn a_value_of_the_wrong_type_is_told_with_its_line() {
    let with = |spec: &str| {
        told(&format!("apiVersion: guenon.dev/v1alpha1\nkind: VirtualService\nmetadata: {{name: web}}\nspec:\n{spec}"))
    };
    let texts = [
        "  addresses: [203.0.113.10]\n  ports:\n  - port: 80\n  - port: \"81\"\n",
        "  addresses: [203.0.113.10]\n  ports:\n  - protocol: tcp\n    port: 80\n",
        "  addresses: 203.0.113.10\n  ports: []\n",
        "  addresses: [203.0.113.10]\n",
        "  addresses: [203]\n  ports: []\n",
        "  addresses: [203.0.113.10]\n  ports: [{port: 99999999999}]\n",
        "  addresses: [203.0.113.10]\n  ports: [{name: web}]\n",
        "  addresses: [203.0.113.10]\n  ports:\n  - port: 0\n  endpoints:\n  - address: 10.0.0.256\n",
        "  - a list\n",
    ];
    insta::assert_snapshot!(texts.map(with).concat(), @r#"
    line 8, spec.ports[1].port: Invalid value: "string": spec.ports[1].port in body must be of type integer: "string"; leave out the quotes
    line 7, spec.ports[0].protocol: Unsupported value: "tcp": supported values: "TCP", "UDP"; did you mean `TCP`? write one of TCP, UDP
    line 5, spec.addresses: Invalid value: "string": spec.addresses in body must be of type array: "string"
    line 6, spec.ports: Invalid value: 0: spec.ports in body should have at least 1 items
    line 4, spec.ports: Required value
    line 5, spec.addresses[0]: Invalid value: "integer": spec.addresses[0] in body must be of type string: "integer"; put it in quotes
    line 6, spec.ports: Invalid value: 0: spec.ports in body should have at least 1 items
    line 4, spec: Invalid value: set exactly one of backendRefs and endpoints
    line 6, spec.ports[0].port: Invalid value: 99999999999: spec.ports[0].port in body should be less than or equal to 65535
    line 6, spec.ports[0].port: Required value
    line 9, spec.endpoints[0].address: Invalid value: "10.0.0.256": must be an IPv4 or IPv6 address; write one such as 203.0.113.10 or 2001:db8::10
    line 7, spec.ports[0].port: Invalid value: 0: spec.ports[0].port in body should be greater than or equal to 1; write a number from 1 to 65535
    line 4, spec: Invalid value: "array": spec in body must be of type object: "array"
    "#);
}

#[test]
fn what_is_no_object_of_a_known_kind_is_told() {
    let texts = [
        "apiVersion: guenon.dev/v1alpha1\nkind: VirtualServce\nmetadata: {name: web}\n",
        "apiVersion: guenon.dev/v2\nkind: VirtualService\nmetadata: {name: web}\n",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n",
        "kind: VirtualService\n",
        "apiVersion: v1\n",
        "just text\n",
        "- a\n- list\n",
        "a: [1, 2\nb: 3\n",
        "a: 1\nb: 2\na: 3\n",
        "a: \"never closed\n",
        "\tindented: by a tab\n",
        "apiVersion: guenon.dev/v1alpha1\nkind: VirtualService\nspec: {addresses: [], ports: []}\n",
    ];
    insta::assert_snapshot!(texts.map(told).concat(), @r#"
    line 2, kind: guenon.dev/v1alpha1 has no kind VirtualServce; did you mean `VirtualService`?
    line 1, apiVersion: there is no guenon.dev/v2; write guenon.dev/v1alpha1
    line 1: apps/v1 Deployment is none of VirtualService, Service, EndpointSlice, Endpoints, Node; left alone
    line 1, apiVersion: the field `apiVersion` is missing; write guenon.dev/v1alpha1
    line 1, kind: the field `kind` is missing; write one of VirtualService, Service, EndpointSlice, Endpoints, Node
    line 1, : this is no object; write apiVersion, kind, metadata and spec
    line 1, : this is no object; write apiVersion, kind, metadata and spec
    line 2, : this is no YAML: illegal placement of ':' indicator; mind indentation, quotes and tabs
    line 3, : the key `a` is there twice; remove one of the two
    line 1, : this is no YAML: while scanning a quoted scalar, found unexpected end of stream; mind indentation, quotes and tabs
    line 1, kind: the field `kind` is missing; write one of VirtualService, Service, EndpointSlice, Endpoints, Node
    line 3, spec: Invalid value: set exactly one of backendRefs and endpoints
    line 3, spec.addresses: Invalid value: 0: spec.addresses in body should have at least 1 items
    line 3, spec.ports: Invalid value: 0: spec.ports in body should have at least 1 items
    line 1, : the field `metadata` is missing; add it
    "#);
}

#[test]
fn lists_and_json_are_read() {
    let list =
        "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Node, metadata: {name: t33}}\n- {kind: Node}\n";
    let typed = "apiVersion: v1\nkind: NodeList\nitems: [{metadata: {name: t44}}]\n";
    let json = "{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"Service\",\n\t\"metadata\": {\"name\": \"web\"}\n}\n";
    insta::assert_snapshot!([list, typed, json].map(told).concat(), @r#"
    accepted: Node t33
    line 5, apiVersion: the field `apiVersion` is missing; write v1
    accepted: Node t44
    accepted: Service default/web
    "#);
}

#[test]
fn fields_of_kubernetes_own_kinds_that_are_newer_than_this_program_are_no_mistake() {
    let node =
        "apiVersion: v1\nkind: Node\nmetadata: {name: t33}\nstatus:\n  quantumEntanglement: true\n  adresses: []\n";
    insta::assert_snapshot!(told(node), @r#"
    accepted: Node t33
    line 6, status.adresses: unknown field "status.adresses"; did you mean `addresses`?
    "#);
}

#[test]
fn anchors_and_aliases_are_followed() {
    let text = web("web", "203.0.113.10").replace("[{port: 80}]", "&p [{port: 80}]") + "x: *p\n";
    insta::assert_snapshot!(told(&text), @r#"
    line 8, x: unknown field "x"; remove it
    "#);
}

#[test]
fn a_bomb_of_aliases_is_refused() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..9 {
        let aliases = vec![format!("*a{}", i - 1); 10].join(", ");
        text += &format!("a{i}: &a{i} [{aliases}]\n");
    }
    assert!(told(&text).contains("aliases copy"), "{}", told(&text));
    let deep = told(&"[".repeat(10_000));
    assert!(deep.contains("nested") || deep.contains("recursion"), "{deep}");
}
