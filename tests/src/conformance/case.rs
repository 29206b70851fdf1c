//! One test of the suite as a file says it: a head with the requests and what
//! is due, then the resources it needs. A word that the head does not know is
//! an error.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

/// How routes are used: north-south by a gateway, or between services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// `parentRefs` to a Gateway.
    Gateway,
    /// `parentRefs` to a Service.
    Mesh,
}

/// Where proxies learn of the resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// From files.
    Static,
    /// From a control plane.
    ControlPlane,
}

/// One file.
#[derive(Debug, Clone)]
pub struct Case {
    /// Its file, without the ending.
    pub file: String,
    /// What it asks and expects.
    pub head: Head,
    /// The resources, with `${…}` where the scene fills in.
    pub resources: String,
}

/// The first document of a file.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Head {
    /// What it is called in the gateway profile; not run there without.
    pub gateway: Option<String>,
    /// What it is called in the mesh profile; not run there without.
    pub mesh: Option<String>,
    /// What it is about, in one line.
    pub about: String,
    /// The gateways that must run, `namespace/name`.
    #[serde(default = "the_usual_gateway")]
    pub serves: Vec<String>,
    /// Services that have a port of their own on the caller's machine: `service.namespace:port`.
    #[serde(default)]
    pub listeners: Vec<String>,
    /// The requests, in order.
    #[serde(default)]
    pub expect: Vec<Expectation>,
    /// What resources say of themselves, where there is a control plane.
    #[serde(default)]
    pub status: Vec<Condition>,
}

/// A request, and what is due.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Expectation {
    /// Only in this profile.
    pub only: Option<Profile>,
    /// A gateway, the namespace of a caller, or one of the listeners of services.
    pub at: Option<String>,
    /// The listener's port.
    pub port: Option<u16>,
    /// What is spoken.
    #[serde(default)]
    pub speaks: Speaks,
    /// The server's name of the TLS around it.
    pub sni: Option<String>,
    /// The host asked for; each profile has its usual one.
    pub host: Option<String>,
    /// Path and query, or `/service/method` of a gRPC call.
    #[serde(default = "root")]
    pub path: String,
    /// The method.
    #[serde(default = "get")]
    pub method: String,
    /// Its headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// How often it is asked.
    pub times: Option<usize>,

    /// The status, or which ones will do; 200 if left out.
    pub status: Option<Few<u16>>,
    /// The `grpc-status`.
    pub grpc: Option<u32>,
    /// Who answers: `name` in `infra`, or `namespace/name`.
    pub backend: Option<String>,
    /// Who answers how many of a hundred.
    #[serde(default)]
    pub shares: BTreeMap<String, f64>,
    /// By how many of a hundred a share may be off.
    pub tolerance: Option<f64>,
    /// What the backend saw.
    #[serde(default)]
    pub seen: Seen,
    /// What came back.
    #[serde(default)]
    pub answer: Answered,
    /// Where a redirect leads.
    pub redirect: Option<Redirected>,
    /// Who got copies, and of how many of a hundred requests.
    #[serde(default)]
    pub mirrored: BTreeMap<String, f64>,
    /// How many requests reached backends, tries included.
    pub tries: Option<usize>,
    /// Name in the certificate shown.
    pub certificate: Option<String>,
    /// The connection is refused or ended without an answer.
    #[serde(default)]
    pub refused: bool,
    /// A session: every further request with its token meets the same endpoint.
    pub session: Option<Session>,
}

/// What is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Speaks {
    /// HTTP/1.1.
    #[default]
    Http,
    /// HTTP/2 by prior knowledge, or by ALPN within TLS.
    H2,
    /// gRPC.
    Grpc,
    /// HTTP/1.1 and an upgrade to WebSocket.
    Websocket,
    /// Bytes.
    Tcp,
}

/// One, or several of which any will do.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Few<T> {
    /// This one.
    One(T),
    /// Any of these.
    Any(Vec<T>),
}

/// What the backend saw.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Seen {
    /// Path and query.
    pub path: Option<String>,
    /// The host.
    pub host: Option<String>,
    /// The method.
    pub method: Option<String>,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub version: Option<String>,
    /// Headers; several fields of one name joined by `,`.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Headers that must not be there.
    #[serde(default)]
    pub absent: Vec<String>,
}

/// What came back.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Answered {
    /// Headers, whose white space does not count.
    #[serde(default)]
    pub headers: BTreeMap<String, Few<String>>,
    /// Headers that must not be there.
    #[serde(default)]
    pub absent: Vec<String>,
    /// The body.
    pub body: Option<String>,
}

/// Where a redirect leads; a port is expected to be left out where the scheme implies it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Redirected {
    /// `http` or `https`; the request's own if left out.
    pub scheme: Option<String>,
    /// The request's own if left out.
    pub host: Option<String>,
    /// None if left out.
    pub port: Option<u16>,
    /// Path and query; the request's own if left out.
    pub path: Option<String>,
}

/// How a session goes on.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Session {
    /// Whether the token is a cookie or a header.
    pub carrier: Carrier,
    /// Its name.
    pub name: String,
    /// Attributes that the cookie must have, in lower case.
    #[serde(default)]
    pub attributes: Vec<String>,
    /// Attributes that it must not have, in lower case.
    #[serde(default)]
    pub without: Vec<String>,
}

/// Where a session's token travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Carrier {
    /// `Set-Cookie` and `Cookie`.
    Cookie,
    /// A header field of the name.
    Header,
}

/// What a resource says of itself.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Condition {
    /// Only in this profile.
    pub only: Option<Profile>,
    /// `Kind/namespace/name`.
    pub of: String,
    /// A route's parent: `Kind/namespace/name`, and `/section` where it names one.
    pub parent: Option<String>,
    /// A gateway's listener.
    pub listener: Option<String>,
    /// Routes attached to that listener.
    pub attached: Option<u64>,
    /// Kinds that the listener takes.
    pub kinds: Option<Vec<String>>,
    /// Conditions: `True`, or `False` and a reason after a space.
    #[serde(default)]
    pub says: BTreeMap<String, String>,
    /// That there is no status for the parent.
    #[serde(default)]
    pub nothing: bool,
}

fn root() -> String {
    "/".to_owned()
}

fn get() -> String {
    "GET".to_owned()
}

fn the_usual_gateway() -> Vec<String> {
    vec!["infra/same".to_owned()]
}

impl Case {
    /// Every file of a folder, by name.
    ///
    /// # Panics
    /// When one cannot be read or understood.
    #[must_use]
    pub fn all(folder: &Path) -> Vec<Self> {
        let entries = std::fs::read_dir(folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut paths: Vec<_> = entries
            .map(|entry| entry.expect("a folder can be listed").path())
            .filter(|path| path.extension().is_some_and(|ending| ending == "yaml"))
            .collect();
        paths.sort();
        paths.iter().map(|path| Self::read(path)).collect()
    }

    fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let (head, resources) = text.split_once("\n---\n").unwrap_or((&text, ""));
        let head = serde_saphyr::from_str(head)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let file = path.file_stem().unwrap_or_default().to_string_lossy();
        Self {
            file: file.into_owned(),
            head,
            resources: resources.to_owned(),
        }
    }

    /// What it is called in `profile`; `None` where it is not for it.
    #[must_use]
    pub fn name(&self, profile: Profile) -> Option<&str> {
        match profile {
            Profile::Gateway => self.head.gateway.as_deref(),
            Profile::Mesh => self.head.mesh.as_deref(),
        }
    }

    /// Its requests in `profile`.
    pub fn expectations(&self, profile: Profile) -> impl Iterator<Item = &Expectation> {
        let all = self.head.expect.iter();
        all.filter(move |one| one.only.is_none_or(|only| only == profile))
    }

    /// Its conditions in `profile`.
    pub fn conditions(&self, profile: Profile) -> impl Iterator<Item = &Condition> {
        let all = self.head.status.iter();
        all.filter(move |one| one.only.is_none_or(|only| only == profile))
    }
}

/// The documents of a text, in order.
///
/// # Panics
/// When one is not YAML.
#[must_use]
pub fn documents(text: &str) -> Vec<Value> {
    let pieces = text.split("\n---\n").filter(|one| !one.trim().is_empty());
    pieces
        .map(|one| serde_saphyr::from_str(one).unwrap_or_else(|error| panic!("{error} in:\n{one}")))
        .collect()
}

impl<T: PartialEq> Few<T> {
    /// Whether `one` is among them.
    pub fn has(&self, one: &T) -> bool {
        match self {
            Self::One(only) => only == one,
            Self::Any(all) => all.contains(one),
        }
    }
}
