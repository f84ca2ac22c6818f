//! Manifests and a node's view in, what its data path should hold out.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use guenon_ebpf::hash::Schedule;

use crate::files::Manifests;
use crate::index::Index;
use crate::model::{InterfaceView, NodeView, Policy, Problem, State};
use crate::resolve::{ResolveOptions, Resolver};
use crate::source::SourceEvent;

/// Why there is nothing to simulate on.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// The directory of manifests cannot be read.
    #[error("cannot read the directory of manifests {}", path.display())]
    Manifests {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The view cannot be read.
    #[error("cannot read the view {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The view is not one.
    #[error("{} is no view of a node: {message}; `guenon view` prints one", path.display())]
    View {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        message: String,
    },
    /// There is no such interface.
    #[error("the view {} has no interface `{name}`; it has {known}", path.display())]
    Interface {
        /// The file.
        path: PathBuf,
        /// The name that was asked for.
        name: String,
        /// Those that are there.
        known: String,
    },
}

/// What a node would put in force.
#[derive(Clone, Debug)]
pub struct Desired {
    /// The data path's state.
    pub state: State,
    /// Everything that keeps part of the manifests out of force.
    pub problems: Vec<Problem>,
}

/// Resolves the manifests of a directory as the node of this view would, with this hash schedule, these directors
/// beside the Nodes' InternalIPs, and this policy.
///
/// # Errors
///
/// The directory cannot be read. What is wrong with single documents is among the problems.
pub fn desired(
    manifests: &Path,
    view: &NodeView,
    schedule: Schedule,
    directors: BTreeSet<IpAddr>,
    policy: Policy,
) -> Result<Desired, InputError> {
    let events =
        Manifests::read(manifests).map_err(|source| InputError::Manifests { path: manifests.to_owned(), source })?;
    let mut index = Index::new();
    let mut problems = Vec::new();
    for event in events {
        match event {
            SourceEvent::Apply(object) => index.apply(object),
            SourceEvent::Delete(key) => index.delete(&key),
            SourceEvent::Reset(objects) => index.reset(objects),
            SourceEvent::Reached(_) => {}
            SourceEvent::Problems { place: _, problems: found } => problems.extend(found),
        }
    }
    let mut resolver = Resolver::new(ResolveOptions { schedule, directors, policy });
    resolver.resolve(&mut index, view, &BTreeMap::new());
    problems.extend(resolver.problems(&index));
    Ok(Desired { state: resolver.state().clone(), problems })
}

/// Reads a view.
///
/// # Errors
///
/// The file cannot be read, or is no view.
pub fn read_view(path: &Path) -> Result<NodeView, InputError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| InputError::Unreadable { path: path.to_owned(), source })?;
    let wrong = |message: String| InputError::View { path: path.to_owned(), message };
    let view: NodeView = serde_yaml_ng::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    if view.interfaces.is_empty() {
        return Err(wrong("`interfaces` is empty: packets must come in somewhere".to_owned()));
    }
    if view.roles.is_empty() {
        return Err(wrong("`roles` is empty: name `director`, `decap`, or both".to_owned()));
    }
    Ok(view)
}

/// The interface of a view that packets come in on: the one of this name, else the first that the program is attached to,
/// else the first.
///
/// # Errors
///
/// There is no such interface.
pub fn incoming<'a>(view: &'a NodeView, path: &Path, name: Option<&str>) -> Result<&'a InterfaceView, InputError> {
    let name = name.or(view.attached.first().map(String::as_str));
    let found = match name {
        Some(name) => view.interfaces.iter().find(|interface| interface.name == name),
        None => view.interfaces.first(),
    };
    found.ok_or_else(|| InputError::Interface {
        path: path.to_owned(),
        name: name.unwrap_or_default().to_owned(),
        known: view.interfaces.iter().map(|interface| format!("`{}`", interface.name)).collect::<Vec<_>>().join(", "),
    })
}
