//! Texts to resources. Every document is read, so that one answer names all
//! that is wrong. Kinds of the contract that do not exist yet are refused as
//! such; others with the nearest kind there is. Refuses to know what is stored.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::config::Checker;
use crate::decode::decode;
use crate::diagnostic::{Diagnostic, Diagnostics, Source, Span};
use crate::nearest::nearest;
use crate::resource::backend::BackendRef;
use crate::resource::reference::{ServiceReference, TargetRef};
use crate::resource::traffic_policy::TrafficPolicySpec;
use crate::resource::{DEFAULT_NAMESPACE, Metadata, Resource, ResourceKey, ResourceKind, Spec};
use crate::yaml::{self, Node, Value};

/// The only version of selvage's own kinds.
pub const API_VERSION: &str = "selvage.dev/v1";

/// Kinds of the contract that are not there yet, with the version they come in.
const LATER: [(&str, &str); 9] = [
    ("HTTPRoute", "gateway.networking.k8s.io/v1"),
    ("GRPCRoute", "gateway.networking.k8s.io/v1"),
    ("TLSRoute", "gateway.networking.k8s.io/v1"),
    ("TCPRoute", "gateway.networking.k8s.io/v1"),
    ("Gateway", "gateway.networking.k8s.io/v1"),
    ("ReferenceGrant", "gateway.networking.k8s.io/v1"),
    ("Namespace", "v1"),
    ("Secret", "v1"),
    ("Service", "v1"),
];

/// Reads all documents of one text. `source_name` is shown in the diagnostics.
///
/// # Errors
/// All that was found to be wrong, over all documents.
pub fn parse(source_name: &str, text: &str) -> Result<Vec<Resource>, Diagnostics> {
    parse_all([(source_name, text)])
}

/// Reads all documents of several texts, given as name and text, in their order.
///
/// # Errors
/// All that was found to be wrong, over all texts.
pub fn parse_all<'a>(
    sources: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<Vec<Resource>, Diagnostics> {
    let mut resources = Vec::new();
    let mut found = Diagnostics::default();
    for (name, text) in sources {
        let source = Source::new(name, text);
        for document in yaml::documents(&source) {
            match document.and_then(|node| resource(&source, &node)) {
                Ok(resource) => resources.push(resource),
                Err(refused) => found.append(refused),
            }
        }
    }
    if found.is_empty() {
        Ok(resources)
    } else {
        Err(found)
    }
}

/// A document of one kind, whole.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document<S> {
    #[serde(rename = "apiVersion")]
    _api_version: Option<String>,
    #[serde(rename = "kind")]
    _kind: String,
    metadata: Metadata,
    spec: S,
}

fn resource(source: &Source, node: &Node) -> Result<Resource, Diagnostics> {
    let kind = kind(source, node)?;
    match kind {
        ResourceKind::Service => finish(
            source,
            node,
            kind,
            |spec: &_, _, check| {
                crate::resource::service::ServiceSpec::check(spec, check);
            },
            Spec::Service,
        ),
        ResourceKind::TrafficPolicy => finish(
            source,
            node,
            kind,
            crate::resource::traffic_policy::TrafficPolicySpec::check,
            |spec| Spec::TrafficPolicy(Box::new(spec)),
        ),
        ResourceKind::ServerPolicy => finish(
            source,
            node,
            kind,
            crate::resource::server_policy::ServerPolicySpec::check,
            Spec::ServerPolicy,
        ),
        ResourceKind::AuthorizationPolicy => finish(
            source,
            node,
            kind,
            crate::resource::authorization_policy::AuthorizationPolicySpec::check,
            Spec::AuthorizationPolicy,
        ),
        ResourceKind::MeshConfig => finish(
            source,
            node,
            kind,
            |spec: &_, _, check| {
                crate::resource::mesh_config::MeshConfigSpec::check(spec, check);
            },
            |spec| Spec::MeshConfig(Box::new(spec)),
        ),
    }
}

/// The kind of a document, or why it cannot be told or taken.
fn kind(source: &Source, node: &Node) -> Result<ResourceKind, Diagnostics> {
    let refuse = |span: Span, path: &str, message: String| {
        Diagnostic::error(&source.place(span), path, message)
    };
    let Value::Map(_) = &node.value else {
        let message = "expected a resource: a mapping with `kind`, `metadata` and `spec`";
        return Err(refuse(node.span, "", message.to_owned()).into());
    };
    let Some(entry) = node.entry("kind") else {
        let near = nearest(
            "kind",
            node.entries().iter().map(|entry| entry.key.as_str()),
        );
        let help = near.map(|near| format!("there is `{near}`"));
        return Err(
            refuse(node.span, "", "the key `kind` is missing".to_owned())
                .with_help(help)
                .into(),
        );
    };
    let name = entry.node.text().unwrap_or_default();
    let version = node.entry("apiVersion").map(|entry| &entry.node);
    let version_text = version.and_then(Node::text);
    let not_yet = |(later, group): &(&str, &str)| {
        *later == name && (*later != "Service" || version_text == Some(*group))
    };
    if let Some((later, group)) = LATER.iter().find(|later| not_yet(later)) {
        let message = format!("`{later}` of {group} is not supported yet");
        return Err(refuse(entry.node.span, "kind", message).into());
    }
    let Some(kind) = ResourceKind::ALL
        .into_iter()
        .find(|kind| kind.as_str() == name)
    else {
        let near = nearest(name, ResourceKind::ALL.iter().map(|kind| kind.as_str()));
        let help = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!(
                "known kinds: {}",
                ResourceKind::ALL.map(|kind| format!("`{kind}`")).join(", ")
            ),
        };
        return Err(
            refuse(entry.node.span, "kind", format!("unknown kind `{name}`"))
                .with_help(Some(help))
                .into(),
        );
    };
    match version {
        Some(node) if version_text != Some(API_VERSION) => {
            let shown = version_text.unwrap_or("something else");
            let message = format!("`{kind}` is of version `{API_VERSION}`, found `{shown}`");
            Err(refuse(node.span, "apiVersion", message).into())
        }
        _ => Ok(kind),
    }
}

fn finish<S: DeserializeOwned>(
    source: &Source,
    node: &Node,
    kind: ResourceKind,
    validate: impl FnOnce(&S, &str, &mut Checker<'_>),
    wrap: impl FnOnce(S) -> Spec,
) -> Result<Resource, Diagnostics> {
    let Document { metadata, spec, .. } = decode::<Document<S>>(source, node)?;
    let namespace = metadata
        .namespace
        .clone()
        .unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
    let mut check = Checker::new(source, node);
    metadata.check(&mut check);
    validate(&spec, &namespace, &mut check);
    let found = check.finish();
    if !found.is_empty() {
        return Err(found);
    }
    let spec = wrap(spec);
    let targets = match &spec {
        Spec::TrafficPolicy(spec) => spec.target_refs.as_slice(),
        Spec::ServerPolicy(spec) => spec.target_refs.as_slice(),
        Spec::AuthorizationPolicy(spec) => spec.target_refs.as_deref().unwrap_or_default(),
        Spec::Service(_) | Spec::MeshConfig(_) => &[],
    };
    let references = references(source, node, targets, &namespace);
    let uses = match &spec {
        Spec::TrafficPolicy(spec) => uses(source, node, spec, &namespace),
        Spec::ServerPolicy(_)
        | Spec::AuthorizationPolicy(_)
        | Spec::Service(_)
        | Spec::MeshConfig(_) => Vec::new(),
    };
    let fields: Vec<String> = match &spec {
        Spec::MeshConfig(_) => vec!["spec.trustDomain".to_owned()],
        Spec::Service(spec) => (0..spec.endpoints.len())
            .filter(|index| spec.endpoints[*index].identity.is_some())
            .map(|index| format!("spec.endpoints[{index}].identity"))
            .collect(),
        Spec::TrafficPolicy(_) | Spec::ServerPolicy(_) | Spec::AuthorizationPolicy(_) => Vec::new(),
    };
    let mark = |field: String| {
        let place = source.place(node.at(&field).span);
        (field, place)
    };
    Ok(Resource {
        key: ResourceKey {
            kind,
            namespace,
            name: metadata.name,
        },
        labels: metadata.labels,
        spec,
        document: node.to_json(),
        place: source.place(node.at("metadata.name").span),
        references,
        uses,
        marked: fields.into_iter().map(mark).collect(),
    })
}

fn references(
    source: &Source,
    node: &Node,
    targets: &[TargetRef],
    namespace: &str,
) -> Vec<ServiceReference> {
    let reference = |(index, target): (usize, &TargetRef)| {
        let path = format!("spec.targetRefs[{index}].name");
        ServiceReference {
            target: target.target(namespace),
            place: source.place(node.at(&path).span),
            path,
        }
    };
    targets.iter().enumerate().map(reference).collect()
}

fn uses(
    source: &Source,
    node: &Node,
    spec: &TrafficPolicySpec,
    namespace: &str,
) -> Vec<ServiceReference> {
    let reference = |(path, backend): (&str, &BackendRef)| {
        let path = format!("{path}.name");
        ServiceReference {
            target: backend.service(namespace),
            place: source.place(node.at(&path).span),
            path,
        }
    };
    spec.uses().map(reference).collect()
}
