//! Resources: what an operator writes. Each kind has its file, with its types
//! and what is contradictory within one document. Stands between the parser,
//! which makes them, and the world, which holds them. Refuses to know other
//! resources, and time.

pub mod authorization_policy;
pub mod backend;
pub mod call_policy;
pub mod failures;
pub mod fallback;
pub mod fault;
pub mod gateway;
pub mod grpc_route;
pub mod health_check;
pub mod hedge;
pub mod http_route;
pub mod load_balancer;
pub mod mesh_config;
pub mod mirror;
pub mod namespace;
pub mod reference;
pub mod reference_grant;
pub mod retry_condition;
pub mod route;
pub mod secret;
pub mod server_policy;
pub mod service;
pub mod status;
pub mod stream_rule;
pub mod tcp_route;
pub mod tls_route;
pub mod traffic_policy;

use std::collections::BTreeMap;
use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::config::Checker;
use crate::diagnostic::Place;
use authorization_policy::AuthorizationPolicySpec;
use mesh_config::MeshConfigSpec;
use server_policy::ServerPolicySpec;
use service::ServiceSpec;
use traffic_policy::TrafficPolicySpec;

/// The namespace of what names none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// The version of selvage's own kinds.
pub const API_VERSION: &str = "selvage.dev/v1";

/// Labels, and annotations, of one resource or endpoint.
pub const MAX_LABELS: usize = 64;

/// Bytes of a label's key or value.
pub const MAX_LABEL_BYTES: usize = 256;

/// The kinds that exist. Ordered as they are listed to people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum ResourceKind {
    /// One per mesh: settings of the whole.
    MeshConfig,
    /// What can be called.
    Service,
    /// How callers treat a service.
    TrafficPolicy,
    /// How a service protects itself.
    ServerPolicy,
    /// Who may call what.
    AuthorizationPolicy,
    /// Where traffic enters the mesh.
    Gateway,
    /// Where HTTP requests go.
    HttpRoute,
    /// Where gRPC calls go.
    GrpcRoute,
    /// Where TLS connections go, unopened.
    TlsRoute,
    /// Where connections of opaque bytes go.
    TcpRoute,
    /// Who may refer to what is here.
    ReferenceGrant,
    /// Certificates with their keys.
    Secret,
    /// A namespace with its labels.
    Namespace,
}

impl ResourceKind {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::MeshConfig,
        Self::Service,
        Self::TrafficPolicy,
        Self::ServerPolicy,
        Self::AuthorizationPolicy,
        Self::Gateway,
        Self::HttpRoute,
        Self::GrpcRoute,
        Self::TlsRoute,
        Self::TcpRoute,
        Self::ReferenceGrant,
        Self::Secret,
        Self::Namespace,
    ];

    /// As written after `kind:`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MeshConfig => "MeshConfig",
            Self::Service => "Service",
            Self::TrafficPolicy => "TrafficPolicy",
            Self::ServerPolicy => "ServerPolicy",
            Self::AuthorizationPolicy => "AuthorizationPolicy",
            Self::Gateway => "Gateway",
            Self::HttpRoute => "HTTPRoute",
            Self::GrpcRoute => "GRPCRoute",
            Self::TlsRoute => "TLSRoute",
            Self::TcpRoute => "TCPRoute",
            Self::ReferenceGrant => "ReferenceGrant",
            Self::Secret => "Secret",
            Self::Namespace => "Namespace",
        }
    }

    /// The versions it may be written in; a document that says none is of the first.
    #[must_use]
    pub fn api_versions(self) -> &'static [&'static str] {
        match self {
            Self::MeshConfig
            | Self::TrafficPolicy
            | Self::ServerPolicy
            | Self::AuthorizationPolicy => &[API_VERSION],
            Self::Service => &[API_VERSION, "v1"],
            Self::Secret | Self::Namespace => &["v1"],
            Self::Gateway | Self::HttpRoute | Self::GrpcRoute => &["gateway.networking.k8s.io/v1"],
            Self::TlsRoute => &[
                "gateway.networking.k8s.io/v1",
                "gateway.networking.k8s.io/v1alpha3",
                "gateway.networking.k8s.io/v1alpha2",
            ],
            Self::TcpRoute => &[
                "gateway.networking.k8s.io/v1",
                "gateway.networking.k8s.io/v1alpha2",
            ],
            Self::ReferenceGrant => &[
                "gateway.networking.k8s.io/v1",
                "gateway.networking.k8s.io/v1beta1",
            ],
        }
    }

    /// The kind of this name, whatever its case, also in the plural.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        Self::ALL.into_iter().find(|kind| {
            let known = kind.as_str().to_ascii_lowercase();
            let plural = match known.strip_suffix('y') {
                Some(stem) => format!("{stem}ies"),
                None => format!("{known}s"),
            };
            name == known || name == plural
        })
    }
}

impl fmt::Display for ResourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a resource is known by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ResourceKey {
    /// Its kind.
    pub kind: ResourceKind,
    /// Its namespace.
    pub namespace: String,
    /// Its name there.
    pub name: String,
}

/// `Service shop/ratings`.
impl fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// `namespace/name` of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServiceName {
    /// The namespace.
    pub namespace: String,
    /// The name there.
    pub name: String,
}

impl ServiceName {
    /// From its two parts.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// From `namespace/name`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (namespace, name) = text.split_once('/')?;
        (is_dns_label(namespace) && is_dns_label(name)).then(|| Self::new(namespace, name))
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One resource: parsed, and free of contradictions within itself. Its `Debug`
/// shows what it is known by, and nothing that might be secret.
pub struct Resource {
    /// What it is known by.
    pub key: ResourceKey,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What it says.
    pub spec: Spec,
    /// The document as it was given, to be kept. What is given back is
    /// [`Resource::shown`].
    pub document: serde_json::Value,
    /// Where it was written.
    pub place: Place,
    /// The services it is for.
    pub references: Vec<reference::ServiceReference>,
    /// The services it makes use of besides.
    pub uses: Vec<reference::ServiceReference>,
    /// The routes it is for.
    pub routes: Vec<reference::RouteReference>,
    /// Where the fields stand that are judged beside other resources.
    pub(crate) marked: Vec<(String, Place)>,
}

impl Resource {
    /// Where a field stands, as far as that is known: else where the resource does.
    pub(crate) fn place_of(&self, path: &str) -> &Place {
        let marked = self.marked.iter().find(|(field, _)| field == path);
        marked.map_or(&self.place, |(_, place)| place)
    }

    /// The document as it may be shown: with fingerprints in the place of secrets.
    #[must_use]
    pub fn shown(&self) -> serde_json::Value {
        match self.key.kind {
            ResourceKind::Secret => secret::hide(&self.document),
            _ => self.document.clone(),
        }
    }

    /// Whether the place of a field is known.
    pub(crate) fn knows(&self, path: &str) -> bool {
        self.marked.iter().any(|(field, _)| field == path)
    }

    /// The document as YAML, as it may be shown.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        crate::yaml::write(&self.shown())
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Resource({})", self.key)
    }
}

/// What a resource says.
#[derive(Debug)]
pub enum Spec {
    /// Settings of the mesh.
    MeshConfig(Box<MeshConfigSpec>),
    /// A service.
    Service(ServiceSpec),
    /// How callers treat a service.
    TrafficPolicy(Box<TrafficPolicySpec>),
    /// How a service protects itself.
    ServerPolicy(ServerPolicySpec),
    /// Who may call what.
    AuthorizationPolicy(AuthorizationPolicySpec),
    /// Where traffic enters the mesh.
    Gateway(Box<gateway::GatewaySpec>),
    /// Where HTTP requests go.
    HttpRoute(Box<http_route::HttpRouteSpec>),
    /// Where gRPC calls go.
    GrpcRoute(Box<grpc_route::GrpcRouteSpec>),
    /// Where TLS connections go, unopened.
    TlsRoute(Box<tls_route::TlsRouteSpec>),
    /// Where connections of opaque bytes go.
    TcpRoute(Box<tcp_route::TcpRouteSpec>),
    /// Who may refer to what is here.
    ReferenceGrant(Box<reference_grant::ReferenceGrantSpec>),
    /// Certificates with their keys.
    Secret(Box<secret::SecretSpec>),
    /// A namespace with its labels.
    Namespace(Box<namespace::NamespaceSpec>),
}

impl Spec {
    /// What a route attaches to; nothing if it is no route.
    pub(crate) fn parents(&self) -> &[route::ParentRef] {
        match self {
            Self::HttpRoute(spec) => &spec.parent_refs,
            Self::GrpcRoute(spec) => &spec.parent_refs,
            Self::TlsRoute(spec) => &spec.parent_refs,
            Self::TcpRoute(spec) => &spec.parent_refs,
            _ => &[],
        }
    }

    /// The backends that a route leads to and those that get copies, each with
    /// its field; none of what is no route.
    pub(crate) fn backends(&self) -> Vec<(String, route::BackendObjectRef)> {
        match self {
            Self::HttpRoute(spec) => spec.backends(),
            Self::GrpcRoute(spec) => spec.backends(),
            Self::TlsRoute(spec) => stream_rule::backends(&spec.rules),
            Self::TcpRoute(spec) => stream_rule::backends(&spec.rules),
            _ => Vec::new(),
        }
    }
}

/// The part that is the same in every kind.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) name: String,
    pub(crate) namespace: Option<String>,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
}

impl Metadata {
    pub(crate) fn check(&self, check: &mut Checker<'_>) {
        check_dns_label(check, "metadata.name", &self.name);
        if let Some(namespace) = &self.namespace {
            check_dns_label(check, "metadata.namespace", namespace);
        }
        check_labels(check, "metadata.labels", &self.labels);
        let count = self.annotations.len();
        check.require(
            count <= MAX_LABELS,
            "metadata.annotations",
            format!("at most {MAX_LABELS} annotations, found {count}"),
        );
    }
}

pub(crate) fn check_labels(check: &mut Checker<'_>, path: &str, labels: &BTreeMap<String, String>) {
    let count = labels.len();
    check.require(
        count <= MAX_LABELS,
        path,
        format!("at most {MAX_LABELS} labels, found {count}"),
    );
    for (key, value) in labels {
        let fits =
            !key.is_empty() && key.len() <= MAX_LABEL_BYTES && value.len() <= MAX_LABEL_BYTES;
        let clean = !key.chars().chain(value.chars()).any(char::is_control);
        check.require(
            fits && clean,
            path,
            format!("label `{key}`: keys and values have at most {MAX_LABEL_BYTES} bytes, without control characters"),
        );
    }
}

/// Longest DNS label (RFC 1035, 2.3.4).
pub const MAX_DNS_LABEL_BYTES: usize = 63;

/// Whether a text is a DNS label: up to 63 of `a-z0-9-`, neither first nor last a `-`.
#[must_use]
pub fn is_dns_label(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=MAX_DNS_LABEL_BYTES).contains(&text.len())
        && text.bytes().all(allowed)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

pub(crate) fn check_dns_label(check: &mut Checker<'_>, path: impl Into<String>, text: &str) {
    if !is_dns_label(text) {
        let message = format!(
            "expected a DNS label (1 to {MAX_DNS_LABEL_BYTES} of a-z, 0-9 and `-`), found `{text}`"
        );
        check.error(path, message);
    }
}

/// Longest name in SNI.
pub const MAX_SNI_BYTES: usize = 253;

/// Bytes of the longest SNI of a service, `p<port>.<service>.<namespace>.<trust domain>`.
#[must_use]
pub fn sni_bytes(port: u16, service: &ServiceName, trust_domain: &str) -> usize {
    format!(
        "p{port}.{}.{}.{trust_domain}",
        service.name, service.namespace
    )
    .len()
}

/// A key that is part of the contract and does nothing yet: refused where it is set.
#[derive(Debug, Clone)]
pub struct NotSupportedYet(());

impl<'de> Deserialize<'de> for NotSupportedYet {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(D::Error::custom("not supported yet"))
    }
}

/// An HTTP method: a token (RFC 9110, 5.6.2), and not a known one in the wrong case.
pub(crate) fn check_method(check: &mut Checker<'_>, path: String, method: &str) {
    const KNOWN: [&str; 9] = [
        "GET", "HEAD", "OPTIONS", "PUT", "DELETE", "POST", "PATCH", "TRACE", "CONNECT",
    ];
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if method.is_empty() || method.len() > MAX_DNS_LABEL_BYTES || !method.bytes().all(token) {
        check.error(path, format!("expected an HTTP method, found `{method}`"));
    } else if let Some(known) = KNOWN
        .iter()
        .find(|known| known.eq_ignore_ascii_case(method))
        && *known != method
    {
        let message = format!("methods are compared with their case, and `{method}` is not one");
        check.error_with_help(path, message, format!("did you mean `{known}`?"));
    }
}
