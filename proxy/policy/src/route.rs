//! Routes: which rule a request meets, and what that rule does with it.
//! Exactly Gateway API's HTTPRoute and GRPCRoute; TLSRoute and TCPRoute for
//! whole connections. A route is attached to a port of a service or to a
//! listener of a gateway; what is attached to one of them is compiled once
//! into a [`RouteTable`]. It knows no resources, no namespaces' rights and no
//! endpoints: references are resolved before it.

mod conditions;
pub mod cors;
pub mod edit;
mod entry;
mod explain;
mod hostnames;
mod listener;
mod matches;
mod paths;
mod patterns;
mod prefixes;
pub mod redirect;
pub mod session;
mod table;
pub mod weights;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use regex::Regex;

use crate::fallback::StaticResponse;
use crate::mirror::MirrorPolicy;
use crate::server::RateLimit;
use crate::snapshot::{Backend, TrafficPolicy};

pub use self::explain::{Considered, EXPLAINED, Verdict};
pub use self::listener::{Astray, stream};
pub use self::matches::{PATTERN_BYTES, pattern, whole};
pub use self::table::{Asked, Found, RouteTable};

/// An HTTPRoute or GRPCRoute, attached.
#[derive(Debug)]
pub struct HttpRoute {
    /// `namespace/name`.
    pub name: Arc<str>,
    /// The hosts it is for; empty: every host.
    pub hostnames: Vec<Hostname>,
    /// Its rules, in their order.
    pub rules: Vec<Arc<Rule>>,
}

/// A host, or all below one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hostname {
    /// This one, in lower case.
    Exact(Arc<str>),
    /// All that end in this, which begins with a dot and is in lower case:
    /// one label before it, or more.
    Below(Arc<str>),
}

/// One rule of a route.
#[derive(Debug)]
pub struct Rule {
    /// `namespace/name/rule`, for metrics, logs and people.
    pub label: Arc<str>,
    /// Any of them; empty: every request.
    pub matches: Vec<Match>,
    /// What is done to requests and responses.
    pub filters: Filters,
    /// Where its requests go, by weight. Empty without a redirect or an answer: `invalid-backend`.
    pub backends: Vec<RouteBackend>,
    /// Whether a client stays with its endpoint.
    pub session: Option<SessionPersistence>,
    /// What it answers by itself.
    pub response: Option<Arc<StaticResponse>>,
    /// How many requests it takes over time.
    pub rate_limit: Option<RateLimit>,
}

/// What a request must have: all of it.
#[derive(Debug, Clone)]
pub struct Match {
    /// Its path.
    pub path: PathMatch,
    /// Its method; `None`: any.
    pub method: Option<Method>,
    /// Its header fields, by name.
    pub headers: Vec<HeaderMatch>,
    /// Its query parameters, by name.
    pub query: Vec<QueryMatch>,
}

/// What a path must be.
#[derive(Debug, Clone)]
pub enum PathMatch {
    /// Anything.
    Any,
    /// This, whole.
    Exact(Arc<str>),
    /// This and what lies below it, by whole segments; without a slash at its
    /// end unless it is `/`.
    Prefix(Arc<str>),
    /// Of [`whole`].
    Regex(Regex),
    /// A gRPC call.
    Grpc(GrpcMatch),
}

/// Which gRPC calls: `None` stands for any.
#[derive(Debug, Clone)]
pub struct GrpcMatch {
    /// The service, with its package.
    pub service: Option<TextMatch>,
    /// The method.
    pub method: Option<TextMatch>,
}

/// What a text must be.
#[derive(Debug, Clone)]
pub enum TextMatch {
    /// This.
    Exact(Arc<str>),
    /// Of [`whole`].
    Regex(Regex),
}

/// One header field; of several fields of one name, joined by commas.
#[derive(Debug, Clone)]
pub struct HeaderMatch {
    /// Its name.
    pub name: HeaderName,
    /// Its value.
    pub value: TextMatch,
}

/// One query parameter; the first of its name.
#[derive(Debug, Clone)]
pub struct QueryMatch {
    /// Its name, percent-decoded.
    pub name: Arc<str>,
    /// Its value, percent-decoded.
    pub value: TextMatch,
}

/// What a rule, or a backend of it, does to requests and responses.
#[derive(Debug, Default)]
pub struct Filters {
    /// To the request's headers.
    pub request_headers: Option<HeaderEdits>,
    /// To the response's headers.
    pub response_headers: Option<HeaderEdits>,
    /// Answered with another address.
    pub redirect: Option<Redirect>,
    /// Another host or path for the backend.
    pub rewrite: Option<Rewrite>,
    /// Who gets copies.
    pub mirrors: Vec<Arc<MirrorPolicy>>,
    /// Which scripts of other origins may call.
    pub cors: Option<Cors>,
}

/// Changes of a head, in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// Instead of what is there.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Beside what is there.
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// Taken away.
    pub remove: Vec<HeaderName>,
}

/// Another path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathEdit {
    /// This one, whole.
    Full(Arc<str>),
    /// This instead of the prefix that matched.
    Prefix(Arc<str>),
}

/// Another address for the client; what is `None` stays as the request has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// `http` or `https`.
    pub scheme: Option<http::uri::Scheme>,
    /// The host, without a port.
    pub hostname: Option<Arc<str>>,
    /// The path.
    pub path: Option<PathEdit>,
    /// The port; `None`: the scheme's own where a scheme is given, else the listener's.
    pub port: Option<u16>,
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
}

/// Another host or path for the backend; what is `None` stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite {
    /// The host.
    pub hostname: Option<Arc<str>>,
    /// The path.
    pub path: Option<PathEdit>,
}

/// Cross-origin resource sharing (the Fetch standard's CORS protocol).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    /// `*`, or origins; a host may hold a `*`.
    pub allow_origins: Vec<Arc<str>>,
    /// Whether cookies and credentials go along.
    pub allow_credentials: bool,
    /// Methods, or `*`.
    pub allow_methods: Vec<Arc<str>>,
    /// Header fields, or `*`.
    pub allow_headers: Vec<Arc<str>>,
    /// Header fields of responses, or `*`.
    pub expose_headers: Vec<Arc<str>>,
    /// How long an answer to a preflight may be kept.
    pub max_age: Duration,
}

/// Where a rule's requests go, and how many of them.
#[derive(Debug)]
pub struct RouteBackend {
    /// Where to.
    pub to: RouteTarget,
    /// Its share; 0 takes none.
    pub weight: u32,
    /// What is done beside the rule's own filters.
    pub filters: Filters,
    /// How it is called; `None`: as the service's own policy says.
    pub policy: Option<Arc<TrafficPolicy>>,
}

/// A backend, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteTarget {
    /// A port of a service.
    Service(Backend),
    /// It cannot be used: why.
    Invalid(Arc<str>),
}

/// A client stays with its endpoint (GEP-1619).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionPersistence {
    /// The name of the cookie or the header.
    pub name: Arc<str>,
    /// Where its token travels.
    pub carrier: SessionCarrier,
    /// Ends however much it is used.
    pub absolute_timeout: Option<Duration>,
    /// Ends unused.
    pub idle_timeout: Option<Duration>,
}

/// Where a session's token travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionCarrier {
    /// A cookie; permanent ones outlive the browser's session.
    Cookie {
        /// Until `absolute_timeout`.
        permanent: bool,
    },
    /// A header field, of requests and of responses.
    Header,
}

/// A TLSRoute or TCPRoute, attached.
#[derive(Debug)]
pub struct StreamRoute {
    /// `namespace/name/rule`.
    pub label: Arc<str>,
    /// By SNI; of a TCPRoute empty: every connection.
    pub hostnames: Vec<Hostname>,
    /// Whether it is for TLS alone.
    pub tls: bool,
    /// Where its connections go, by weight.
    pub backends: Vec<RouteBackend>,
}

/// What a gateway serves.
#[derive(Debug)]
pub struct Gateway {
    /// `namespace/name`.
    pub name: Arc<str>,
    /// Its listeners, in their order.
    pub listeners: Vec<Arc<Listener>>,
}

/// One listener of a gateway.
#[derive(Debug)]
pub struct Listener {
    /// Its name.
    pub name: Arc<str>,
    /// Its port, as clients see it.
    pub port: u16,
    /// What it speaks.
    pub protocol: ListenerProtocol,
    /// The hosts it is for; `None`: every one.
    pub hostname: Option<Hostname>,
    /// What it terminates TLS with.
    pub certificates: Vec<Certificate>,
    /// Its HTTP and gRPC routes.
    pub routes: Arc<RouteTable>,
    /// Its TLS and TCP routes, oldest first.
    pub streams: Vec<Arc<StreamRoute>>,
}

/// What a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerProtocol {
    /// HTTP.
    Http,
    /// HTTP within TLS.
    Https,
    /// Opaque bytes within TLS, which ends here.
    Tls,
    /// TLS that passes unopened, chosen by SNI.
    Passthrough,
    /// Opaque bytes.
    Tcp,
}

/// What TLS is terminated with.
#[derive(Clone, PartialEq, Eq)]
pub enum Certificate {
    /// A chain and its key, PEM.
    Pair {
        /// The chain, leaf first.
        chain: Arc<[u8]>,
        /// Its key.
        key: Arc<[u8]>,
    },
    /// Files on this machine, PEM, watched.
    Files {
        /// The chain, leaf first.
        certificate: Arc<str>,
        /// Its key.
        key: Arc<str>,
    },
    /// The proxy's own identity.
    Mesh,
}

/// Without the key.
impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pair { chain, .. } => write!(f, "Pair({} bytes)", chain.len()),
            Self::Files { certificate, .. } => write!(f, "Files({certificate})"),
            Self::Mesh => f.write_str("Mesh"),
        }
    }
}
