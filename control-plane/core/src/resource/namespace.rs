//! `Namespace`: a namespace with its labels, by which listeners may choose
//! whose routes they take. A namespace needs no document to exist. Refuses to
//! know other resources.

use serde::Deserialize;

use super::Metadata;
use crate::config::Checker;

/// The label that every namespace has, with its name as the value.
pub const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// `spec` of a `Namespace`: its labels, which say it all, stand in `metadata`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NamespaceSpec {}

/// A `Namespace` as it is written. Finalizers concern the deletion of what is
/// in a cluster, and are read over.
#[derive(Deserialize)]
pub(crate) struct NamespaceDocument {
    #[serde(rename = "apiVersion")]
    _api_version: Option<String>,
    #[serde(rename = "kind")]
    _kind: String,
    metadata: Metadata,
    #[serde(default, rename = "spec")]
    _spec: Finalizers,
}

#[derive(Deserialize, Default)]
struct Finalizers {
    #[serde(default, rename = "finalizers")]
    _finalizers: Vec<String>,
}

impl From<NamespaceDocument> for (Metadata, NamespaceSpec) {
    fn from(document: NamespaceDocument) -> Self {
        (document.metadata, NamespaceSpec {})
    }
}

impl NamespaceSpec {
    pub(crate) fn check(&self, _own_namespace: &str, _check: &mut Checker<'_>) {}
}
