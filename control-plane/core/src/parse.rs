//! Texts to resources. Every document is read, so that one answer names all
//! that is wrong. Kinds of the contract that do not exist yet are refused as
//! such; others with the nearest kind there is. Refuses to know what is stored.

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::config::Checker;
use crate::decode::decode;
use crate::diagnostic::{Diagnostic, Diagnostics, Source, Span};
use crate::nearest::nearest;
use crate::resource::backend::BackendRef;
use crate::resource::namespace::NamespaceDocument;
use crate::resource::reference::{RouteReference, ServiceReference, TargetRef};
use crate::resource::route::{BackendObjectRef, Parent, ParentRef};
use crate::resource::secret::SecretDocument;
use crate::resource::service::CoreServiceSpec;
use crate::resource::traffic_policy::TrafficPolicySpec;
use crate::resource::{
    DEFAULT_NAMESPACE, Metadata, Resource, ResourceKey, ResourceKind, ServiceName, Spec,
};
use crate::yaml::{self, Node, Value};

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

/// A document of one kind, whole. Its `status` is what was said of it when it
/// was read back, and is not taken.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document<S> {
    #[serde(rename = "apiVersion")]
    _api_version: Option<String>,
    #[serde(rename = "kind")]
    _kind: String,
    metadata: Metadata,
    spec: S,
    #[serde(default, rename = "status")]
    _status: Option<IgnoredAny>,
}

impl<S> From<Document<S>> for (Metadata, S) {
    fn from(document: Document<S>) -> Self {
        (document.metadata, document.spec)
    }
}

fn resource(source: &Source, node: &Node) -> Result<Resource, Diagnostics> {
    let kind = kind(source, node)?;
    match kind {
        ResourceKind::Service if is_of_core(node) => {
            finish(source, node, kind, CoreServiceSpec::check, |spec| {
                Spec::Service(spec.meant())
            })
        }
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
        ResourceKind::Gateway => finish(
            source,
            node,
            kind,
            crate::resource::gateway::GatewaySpec::check,
            |spec| Spec::Gateway(Box::new(spec)),
        ),
        ResourceKind::HttpRoute => finish(
            source,
            node,
            kind,
            crate::resource::http_route::HttpRouteSpec::check,
            |spec| Spec::HttpRoute(Box::new(spec)),
        ),
        ResourceKind::GrpcRoute => finish(
            source,
            node,
            kind,
            crate::resource::grpc_route::GrpcRouteSpec::check,
            |spec| Spec::GrpcRoute(Box::new(spec)),
        ),
        ResourceKind::TlsRoute => finish(
            source,
            node,
            kind,
            crate::resource::tls_route::TlsRouteSpec::check,
            |spec| Spec::TlsRoute(Box::new(spec)),
        ),
        ResourceKind::TcpRoute => finish(
            source,
            node,
            kind,
            crate::resource::tcp_route::TcpRouteSpec::check,
            |spec| Spec::TcpRoute(Box::new(spec)),
        ),
        ResourceKind::ReferenceGrant => finish(
            source,
            node,
            kind,
            crate::resource::reference_grant::ReferenceGrantSpec::check,
            |spec| Spec::ReferenceGrant(Box::new(spec)),
        ),
        ResourceKind::Secret => finish_as::<SecretDocument, _>(
            &source.unseen(),
            node,
            kind,
            crate::resource::secret::SecretSpec::check,
            |spec| Spec::Secret(Box::new(spec)),
        ),
        ResourceKind::Namespace => finish_as::<NamespaceDocument, _>(
            source,
            node,
            kind,
            crate::resource::namespace::NamespaceSpec::check,
            |spec| Spec::Namespace(Box::new(spec)),
        ),
    }
}

/// The kind of a document, or why it cannot be told or taken.
fn kind(source: &Source, node: &Node) -> Result<ResourceKind, Diagnostics> {
    let source = &source.guarded(&node.to_json().to_string());
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
        Some(node) if !version_text.is_some_and(|it| kind.api_versions().contains(&it)) => {
            let shown = version_text.unwrap_or("something else");
            let known = kind.api_versions().join("` or `");
            let message = format!("`{kind}` is of version `{known}`, found `{shown}`");
            Err(refuse(node.span, "apiVersion", message).into())
        }
        _ => Ok(kind),
    }
}

/// Whether a document says it is of the core group.
fn is_of_core(node: &Node) -> bool {
    let version = node.entry("apiVersion");
    version.and_then(|entry| entry.node.text()) == Some("v1")
}

/// Of a kind whose documents have a `spec`.
fn finish<S: DeserializeOwned>(
    source: &Source,
    node: &Node,
    kind: ResourceKind,
    validate: impl FnOnce(&S, &str, &mut Checker<'_>),
    wrap: impl FnOnce(S) -> Spec,
) -> Result<Resource, Diagnostics> {
    finish_as::<Document<S>, S>(source, node, kind, validate, wrap)
}

/// Of a kind whose documents are a `D`.
fn finish_as<D: DeserializeOwned + Into<(Metadata, S)>, S>(
    source: &Source,
    node: &Node,
    kind: ResourceKind,
    validate: impl FnOnce(&S, &str, &mut Checker<'_>),
    wrap: impl FnOnce(S) -> Spec,
) -> Result<Resource, Diagnostics> {
    let (metadata, spec) = decode::<D>(source, node)?.into();
    let namespace = metadata
        .namespace
        .clone()
        .unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
    let mut check = Checker::new(source, node);
    metadata.check(&mut check);
    check.require(
        kind != ResourceKind::Namespace || metadata.namespace.is_none(),
        "metadata.namespace",
        "a Namespace is in no other",
    );
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
        _ => &[],
    };
    let references = references(source, node, targets, &namespace);
    let routes = routes(source, node, targets, &namespace);
    let uses = match &spec {
        Spec::TrafficPolicy(spec) => uses(source, node, spec, &namespace),
        route => {
            let parents = route.parents();
            route_uses(source, node, parents, route.backends(), &namespace)
        }
    };
    let fields: Vec<String> = match &spec {
        Spec::MeshConfig(_) => vec!["spec.trustDomain".to_owned()],
        Spec::Service(spec) => (0..spec.endpoints.len())
            .filter(|index| spec.endpoints[*index].identity.is_some())
            .map(|index| format!("spec.endpoints[{index}].identity"))
            .collect(),
        Spec::HttpRoute(spec) => rules(spec.rules.iter().map(|rule| rule.matches.len())),
        Spec::GrpcRoute(spec) => rules(spec.rules.iter().map(|rule| rule.matches.len())),
        Spec::Gateway(spec) => (0..spec.listeners.len())
            .map(|index| format!("spec.listeners[{index}]"))
            .collect(),
        _ => Vec::new(),
    };
    let mut document = node.to_json();
    if let Some(keys) = document.as_object_mut() {
        keys.remove("status");
    }
    let parents = (0..spec.parents().len()).map(|index| format!("spec.parentRefs[{index}]"));
    let backends = spec.backends().into_iter().map(|(path, _)| path);
    let fields = fields.into_iter().chain(parents).chain(backends);
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
        document,
        place: source.place(node.at("metadata.name").span),
        references,
        uses,
        routes,
        marked: fields.into_iter().map(mark).collect(),
    })
}

/// The fields of rules and of their matches, of which each rule has so many.
fn rules(matches: impl Iterator<Item = usize>) -> Vec<String> {
    let of_rule = |(index, count): (usize, usize)| {
        let rule = format!("spec.rules[{index}]");
        let of_match = move |matched| format!("spec.rules[{index}].matches[{matched}]");
        std::iter::once(rule).chain((0..count).map(of_match))
    };
    matches.enumerate().flat_map(of_rule).collect()
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
    targets
        .iter()
        .enumerate()
        .filter(|(_, target)| target.route(namespace).is_none())
        .map(reference)
        .collect()
}

/// The routes a policy is for.
fn routes(
    source: &Source,
    node: &Node,
    targets: &[TargetRef],
    namespace: &str,
) -> Vec<RouteReference> {
    let reference = |(index, target): (usize, &TargetRef)| {
        let path = format!("spec.targetRefs[{index}]");
        let name = node.at(&format!("{path}.name"));
        let section = node.at(&path).entry("sectionName");
        let target = target.route(namespace)?;
        Some(RouteReference {
            target,
            path,
            place: source.place(name.span),
            section_place: source.place(section.map_or(name.span, |entry| entry.node.span)),
        })
    };
    targets.iter().enumerate().filter_map(reference).collect()
}

/// The services a route is attached to, and those it leads to.
fn route_uses(
    source: &Source,
    node: &Node,
    parents: &[ParentRef],
    backends: Vec<(String, BackendObjectRef)>,
    namespace: &str,
) -> Vec<ServiceReference> {
    let parents = parents.iter().enumerate().filter_map(|(index, parent)| {
        let key = parent.target(namespace);
        let path = format!("spec.parentRefs[{index}]");
        (parent.parent() == Parent::Service)
            .then(|| (path, ServiceName::new(&key.namespace, &key.name)))
    });
    let backends = backends
        .into_iter()
        .filter_map(|(path, backend)| Some((path, backend.service(namespace)?)));
    let reference = |(path, target): (String, ServiceName)| {
        let path = format!("{path}.name");
        ServiceReference {
            target,
            place: source.place(node.at(&path).span),
            path,
        }
    };
    parents.chain(backends).map(reference).collect()
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
