//! Features: words in a resource that say what its reader must understand. A
//! reader that does not know one refuses the whole push, so that a rule it
//! could not see never vanishes silently. Knows the words, not their meaning.

use crate::v1::Resource;

/// An authorization policy stands in the workload.
pub const AUTHORIZATION: &str = "authorization";
/// A policy stands in audit mode: it is evaluated and recorded, not enforced.
pub const AUTHORIZATION_AUDIT: &str = "authorization-audit";

/// Every feature this version understands.
pub const KNOWN: &[&str] = &[AUTHORIZATION, AUTHORIZATION_AUDIT];

/// The first feature of a resource that this version does not understand.
pub fn first_unknown(resource: &Resource) -> Option<&str> {
    resource
        .features
        .iter()
        .map(String::as_str)
        .find(|feature| !KNOWN.contains(feature))
}
