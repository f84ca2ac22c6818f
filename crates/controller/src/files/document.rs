//! From a document's text to objects, or to all that is wrong with it.

use guenon_crd as crd;
use serde::de::DeserializeOwned;

use super::de::{self, Unknown};
use super::judge;
use super::yaml::{self, Node, Value};
use crate::convert::{self, Converted};
use crate::model::{Object, ObjectKey, Place, Problem, ProblemReason, ServiceName, SliceOrigin};

/// What one object of a document came to.
#[derive(Debug, PartialEq)]
pub(super) struct Entry {
    /// Where it starts, from 1.
    pub(super) line: usize,
    /// Which object it is, where that can be told.
    pub(super) key: Option<ObjectKey>,
    /// The object, unless it is none of Guenon's business or refused.
    pub(super) object: Option<Object>,
    /// Lines count from the start of the text; file and document are not told.
    pub(super) problems: Vec<Problem>,
    /// What was left alone, for the log.
    pub(super) note: Option<String>,
}

const KINDS: [&str; 5] = ["VirtualService", "Service", "EndpointSlice", "Endpoints", "Node"];

/// Reads the text of one document.
pub(super) fn read(text: &str) -> Vec<Entry> {
    match yaml::parse(text) {
        Ok(nodes) => nodes.iter().filter(|node| node.value != Value::Null).flat_map(objects).collect(),
        Err(error) => vec![unreadable(error.line, "", error.message)],
    }
}

/// The objects of a document: itself, or the items of a list.
fn objects(node: &Node<'_>) -> Vec<Entry> {
    let kind = node.get("kind").and_then(Node::text);
    let Some(of) = kind.and_then(|kind| kind.strip_suffix("List")) else { return vec![object(node, None)] };
    match node.get("items").map(|items| (&items.value, items.line)) {
        Some((Value::List(items), _)) => items.iter().map(|item| object(item, Some(of))).collect(),
        Some((Value::Null, _)) => Vec::new(),
        Some((_, line)) => vec![unreadable(line, "items", "`items` must be a list of objects")],
        None => vec![unreadable(node.line, "", "a List needs `items`; add the field")],
    }
}

/// One object; the items of a typed list may leave out their kind.
fn object(node: &Node<'_>, kind_of_list: Option<&str>) -> Entry {
    if !matches!(node.value, Value::Map(_)) {
        return unreadable(node.line, "", "this is no object; write apiVersion, kind, metadata and spec");
    }
    let text = |key| node.get(key).and_then(Node::text);
    let kind = text("kind").or(kind_of_list.filter(|kind| !kind.is_empty()));
    let Some(kind) = kind else {
        return unreadable(
            node.line,
            "kind",
            format!("the field `kind` is missing; write one of {}", KINDS.join(", ")),
        );
    };
    let api = text("apiVersion").or_else(|| kind_of_list.and_then(api_version_of));
    let Some(api) = api else {
        let wanted = api_version_of(kind).unwrap_or(GUENON);
        return unreadable(node.line, "apiVersion", format!("the field `apiVersion` is missing; write {wanted}"));
    };
    let of_guenon = api == crd::GROUP || api.starts_with("guenon.dev/");
    match kind {
        "VirtualService" if api == GUENON => strict(node, virtual_service_key(node)),
        "Service" if api == "v1" => lenient(node, namespaced(node).map(ObjectKey::Service), convert::service),
        "Endpoints" if api == "v1" => lenient(node, slice_key(node, SliceOrigin::Endpoints), convert::endpoints),
        "EndpointSlice" if api == "discovery.k8s.io/v1" => {
            lenient(node, slice_key(node, SliceOrigin::EndpointSlice), convert::endpoint_slice)
        }
        "Node" if api == "v1" => lenient(node, name(node).map(ObjectKey::Node), convert::node),
        "VirtualService" if of_guenon => {
            unreadable(line(node, "apiVersion"), "apiVersion", format!("there is no {api}; write {GUENON}"))
        }
        _ if of_guenon => {
            let hint = de::similar(kind, ["VirtualService"]).map(|known| format!("; did you mean `{known}`?"));
            let hint = hint.unwrap_or_else(|| "; this version knows VirtualService".to_owned());
            unreadable(line(node, "kind"), "kind", format!("{api} has no kind {kind}{hint}"))
        }
        _ => Entry {
            line: node.line,
            key: None,
            object: None,
            problems: Vec::new(),
            note: Some(format!("line {}: {api} {kind} is none of {}; left alone", node.line, KINDS.join(", "))),
        },
    }
}

const GUENON: &str = "guenon.dev/v1alpha1";

fn api_version_of(kind: &str) -> Option<&'static str> {
    match kind {
        "VirtualService" => Some(GUENON),
        "Service" | "Endpoints" | "Node" => Some("v1"),
        "EndpointSlice" => Some("discovery.k8s.io/v1"),
        _ => None,
    }
}

/// An object of Guenon's own API: a field that is not known is a mistake, as with `kubectl apply`.
fn strict(node: &Node<'_>, key: Option<ObjectKey>) -> Entry {
    let (mut read, mut unknown) = de::read::<crd::VirtualService>(node);
    if read.as_ref().is_err_and(|misfit| misfit.path.starts_with("status")) {
        // A server takes no notice of what people write there.
        (read, unknown) = de::read(&node.without("status"));
    }
    let mut entry = entry(node, key, read, convert::virtual_service);
    // Fields that only a server writes may come from a newer one.
    let unknown = unknown.into_iter().filter(|field| !field.path.starts_with("status"));
    let mistakes: Vec<_> = unknown.map(|field| mistake(&field, entry.key.as_ref())).collect();
    if !entry.problems.is_empty() {
        let object = entry.key.as_ref().map(ToString::to_string).unwrap_or_default();
        let place = Place { object, ..Place::default() };
        entry.problems = judge::worded(node, std::mem::take(&mut entry.problems), &place);
    }
    if !mistakes.is_empty() {
        entry.object = None;
        entry.problems.extend(mistakes);
    }
    entry
}

/// An object of Kubernetes' API, which may be newer than this program: only what looks like a slip of the pen is told,
/// and nothing is refused for it.
fn lenient<T: DeserializeOwned>(
    node: &Node<'_>,
    key: Option<ObjectKey>,
    convert: fn(&T, &Place) -> Converted,
) -> Entry {
    let (read, unknown) = de::read::<T>(node);
    let mut entry = entry(node, key, read, convert);
    let slips = unknown.iter().filter(|field| field.similar.is_some());
    let slips: Vec<_> = slips.map(|field| mistake(field, entry.key.as_ref())).collect();
    entry.problems.extend(slips);
    entry
}

fn entry<T>(
    node: &Node<'_>,
    key: Option<ObjectKey>,
    read: Result<T, de::Misfit>,
    convert: fn(&T, &Place) -> Converted,
) -> Entry {
    let shown = key.as_ref().map(ToString::to_string).unwrap_or_default();
    let place = Place { line: node.line, object: shown, ..Place::default() };
    let (object, problems) = match read {
        Ok(read) => match convert(&read, &place) {
            Ok(object) => (object, Vec::new()),
            Err(mut problems) => {
                problems.iter_mut().for_each(|problem| problem.place.line = node.line_of(&problem.place.field));
                (None, problems)
            }
        },
        Err(misfit) => {
            let place = Place { line: misfit.line, field: misfit.path, ..place };
            (None, vec![Problem { reason: ProblemReason::Invalid, place, message: misfit.message }])
        }
    };
    Entry { line: node.line, key, object, problems, note: None }
}

fn mistake(unknown: &Unknown, key: Option<&ObjectKey>) -> Problem {
    let Unknown { path, line, similar } = unknown;
    let cure = match similar {
        Some(similar) => format!("did you mean `{similar}`?"),
        None => "remove it".to_owned(),
    };
    let object = key.map(ToString::to_string).unwrap_or_default();
    Problem {
        reason: ProblemReason::Invalid,
        place: Place { line: *line, object, field: path.clone(), ..Place::default() },
        message: format!("unknown field {path:?}; {cure}"),
    }
}

fn unreadable(line: usize, field: &str, message: impl Into<String>) -> Entry {
    let place = Place { line, field: field.to_owned(), ..Place::default() };
    let problem = Problem { reason: ProblemReason::Unreadable, place, message: message.into() };
    Entry { line, key: None, object: None, problems: vec![problem], note: None }
}

fn line(node: &Node<'_>, field: &str) -> usize {
    node.line_of(field)
}

fn name(node: &Node<'_>) -> Option<String> {
    node.get("metadata")?.get("name")?.text().filter(|name| !name.is_empty()).map(str::to_owned)
}

fn namespaced(node: &Node<'_>) -> Option<ServiceName> {
    let namespace = node.get("metadata")?.get("namespace").and_then(Node::text).filter(|text| !text.is_empty());
    Some(ServiceName::new(namespace.unwrap_or("default"), name(node)?))
}

fn virtual_service_key(node: &Node<'_>) -> Option<ObjectKey> {
    namespaced(node).map(ObjectKey::VirtualService)
}

fn slice_key(node: &Node<'_>, origin: SliceOrigin) -> Option<ObjectKey> {
    namespaced(node).map(|name| ObjectKey::Slice(origin, name))
}
