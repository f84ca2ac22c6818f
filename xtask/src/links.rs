//! Where the documentation is for somebody who has no clone: the one place that says so.

/// A file of docs/ in the repository's main branch, with what to go to in it.
pub(crate) fn docs(file: &str, anchor: &str) -> String {
    format!("{}/blob/main/docs/{file}#{anchor}", env!("CARGO_PKG_REPOSITORY"))
}
