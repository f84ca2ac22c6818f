//! Types of conditions, the same words as Gateway API's where it has one.

/// The object is valid and its frontends are its own.
pub const ACCEPTED: &str = "Accepted";
/// Everything that it refers to is there and can be used. No endpoints leave it True.
pub const RESOLVED_REFS: &str = "ResolvedRefs";
/// Every director has it in force.
pub const PROGRAMMED: &str = "Programmed";
/// The sum of the others, and an endpoint is ready.
pub const READY: &str = "Ready";
