//! What would become of a request, and why: asked about resources rather than
//! of a running proxy. From documents to the table that finds a rule it is the
//! road a proxy takes (view, decode, policy), so that the answer is the one a
//! proxy would give, as far as that is not chance or load. It sends nothing.

mod backend;
mod known;
mod mesh;
mod text;
mod words;

use http::uri::Scheme;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use selvage_policy::authority::{self, InvalidAuthority};
use selvage_policy::flag::Flag;
use selvage_policy::headers::{strip_hop_by_hop, strip_untrusted};
use selvage_policy::path;
use selvage_policy::route::cors::Visit;
use selvage_policy::route::redirect::Addressed;
use selvage_policy::route::{Asked, Found, ListenerProtocol, RouteTable};
use selvage_policy::snapshot::{Protocol, ServicePort};
use serde::Serialize;

pub use self::known::Known;

use self::backend::{BackendShown, Sent};
use self::mesh::{Caller, Mesh};
use self::words::RuleShown;

/// The port of the outbound listener, which an authority may name without meaning it.
const OUTBOUND_PORT: u16 = 15001;

/// A request that nobody sent.
#[derive(Debug, Clone)]
pub struct Question {
    /// Namespace and service account of the caller. Of a gateway: of its own workload.
    pub from: (String, String),
    /// Namespace and name of the Gateway it comes to; `None`: the caller's own sidecar.
    pub gateway: Option<(String, String)>,
    /// Its method.
    pub method: String,
    /// Where to: `http://ratings.shop/v1?a=b`.
    pub url: String,
    /// Its headers, as `name: value`.
    pub headers: Vec<String>,
}

/// The question is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {why}")]
pub struct InvalidQuestion {
    what: &'static str,
    why: String,
}

fn invalid(what: &'static str, why: impl std::fmt::Display) -> InvalidQuestion {
    InvalidQuestion {
        what,
        why: why.to_string(),
    }
}

/// The answer.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Who asks.
    pub from: String,
    /// The request in one line.
    pub request: String,
    /// The port of the service or the listener of the gateway it comes to.
    pub to: Option<String>,
    /// What becomes of it.
    pub outcome: Outcome,
    /// The rule that takes it, where there are routes.
    pub rule: Option<RuleShown>,
    /// Where it may be sent.
    pub backends: Vec<BackendShown>,
    /// The rules that do not take it, in the order of precedence, each with why.
    pub others: Vec<Other>,
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// Whether all such requests are served.
    pub served: bool,
    /// What its caller would be told, where they are not.
    pub flag: Option<&'static str>,
    /// The status of an answer that no application gives.
    pub status: Option<u16>,
    /// In a sentence.
    pub why: String,
}

impl Outcome {
    fn served(why: impl Into<String>) -> Self {
        Self {
            served: true,
            flag: None,
            status: None,
            why: why.into(),
        }
    }

    fn refused(flag: Flag, why: impl Into<String>) -> Self {
        Self {
            served: false,
            flag: Some(flag.as_str()),
            status: Some(flag.status().as_u16()),
            why: why.into(),
        }
    }
}

/// A rule that does not take the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Other {
    /// `namespace/name/rule`.
    pub rule: String,
    /// Which of its matches, from 0, where it has several.
    pub matched: Option<usize>,
    /// Why not.
    pub why: String,
}

/// A request, read.
struct Request {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    authority: String,
}

impl Request {
    fn read(question: &Question) -> Result<Self, InvalidQuestion> {
        let method = question.method.parse();
        let method = method.map_err(|error| invalid("--method", error))?;
        let uri: Uri = question
            .url
            .parse()
            .map_err(|error| invalid("--url", error))?;
        let mut headers = HeaderMap::new();
        for field in &question.headers {
            let Some((name, value)) = field.split_once(':') else {
                return Err(invalid(
                    "-H",
                    format!("expected `name: value`, found `{field}`"),
                ));
            };
            let name: HeaderName = name.trim().parse().map_err(|error| invalid("-H", error))?;
            let value: HeaderValue = value.trim().parse().map_err(|error| invalid("-H", error))?;
            headers.append(name, value);
        }
        // As at the door: what may not come in is not there for routes to see.
        strip_hop_by_hop(&mut headers);
        strip_untrusted(&mut headers);
        let host = headers.get(http::header::HOST);
        let host = host.and_then(|host| host.to_str().ok());
        let authority = match host.or(uri.authority().map(http::uri::Authority::as_str)) {
            Some(authority) => authority.to_owned(),
            None => return Err(invalid("--url", "expected http://HOST[:PORT]/PATH")),
        };
        Ok(Self {
            method,
            uri,
            headers,
            authority,
        })
    }

    /// Its host without a port.
    fn host(&self) -> &str {
        let host = self.authority.rsplit_once(':');
        host.filter(|(_, port)| !port.ends_with(']'))
            .map_or(self.authority.as_str(), |(host, _)| host)
    }

    fn asked<'a>(&'a self, path: &'a str) -> Asked<'a> {
        Asked {
            host: Some(self.host()),
            method: &self.method,
            path,
            query: self.uri.query(),
            headers: &self.headers,
        }
    }
}

/// Says what would become of a request in a mesh of these resources and workloads.
///
/// # Errors
/// [`InvalidQuestion`] where the question is malformed, or resources give no view.
pub fn explain(known: &Known, question: &Question) -> Result<Explanation, InvalidQuestion> {
    let request = Request::read(question)?;
    let caller = Caller::read(&known.world, question)?;
    let mesh = Mesh::new(known, caller);
    let mut shown = Explanation {
        from: mesh.caller.identity.as_str().to_owned(),
        request: format!("{} {}", request.method, question.url),
        to: None,
        outcome: Outcome::served(""),
        rule: None,
        backends: Vec::new(),
        others: Vec::new(),
    };
    shown.outcome = match path::canonical(request.uri.path()) {
        Err(error) => Outcome::refused(Flag::BadRequest, error.to_string()),
        Ok(path) => match &question.gateway {
            Some((namespace, name)) => {
                at_gateway(&mesh, &request, &path, (namespace, name), &mut shown)?
            }
            None => at_sidecar(&mesh, &request, &path, &mut shown)?,
        },
    };
    Ok(shown)
}

/// The caller's sidecar: the authority names a service.
fn at_sidecar(
    mesh: &Mesh<'_>,
    request: &Request,
    path: &str,
    shown: &mut Explanation,
) -> Result<Outcome, InvalidQuestion> {
    let target = match authority::parse(&request.authority, &mesh.caller.workload.namespace) {
        Ok(target) => target,
        Err(InvalidAuthority::NotAService) => {
            let why = format!("`{}` names no service of the mesh", request.authority);
            return Ok(Outcome::refused(Flag::NoService, why));
        }
        Err(error) => return Ok(Outcome::refused(Flag::BadRequest, error.to_string())),
    };
    let Some(service) = mesh.service(&target.name)? else {
        let why = match mesh.nearest(&target.name) {
            Some(near) => format!("there is no service {}; did you mean {near}?", target.name),
            None => format!("there is no service {}", target.name),
        };
        return Ok(Outcome::refused(Flag::NoService, why));
    };
    let Some(port) = authority::choose_port(&service, target.port, OUTBOUND_PORT) else {
        let ports: Vec<String> = service.ports.iter().map(|it| it.port.to_string()).collect();
        let why = match target.port {
            Some(port) => format!(
                "{} has no port {port}, but {}",
                target.name,
                ports.join(", ")
            ),
            None => format!(
                "{} has no port 80 and not one port alone ({}): name one",
                target.name,
                ports.join(", ")
            ),
        };
        return Ok(Outcome::refused(Flag::NoService, why));
    };
    shown.to = Some(format!("Service {}, port {}", port.service, port.port));
    if port.protocol == Protocol::Tcp {
        return Ok(Outcome::refused(
            Flag::NoRoute,
            "the port is declared tcp, this is HTTP",
        ));
    }
    match &port.routes {
        Some(table) => {
            let reached = Reached {
                scheme: Scheme::HTTP,
                port: port.port,
                parent: Some(port),
            };
            routed(mesh, table, request, path, &reached, shown)
        }
        None => {
            let sent = Sent::plain(request, path);
            let backend = mesh.plain_backend(port, &sent)?;
            shown.backends.push(backend);
            Ok(backend::outcome(&shown.backends))
        }
    }
}

/// A gateway: the host chooses the listener.
fn at_gateway(
    mesh: &Mesh<'_>,
    request: &Request,
    path: &str,
    gateway: (&str, &str),
    shown: &mut Explanation,
) -> Result<Outcome, InvalidQuestion> {
    let gateway = mesh.gateway(gateway)?;
    let scheme = request.uri.scheme_str().unwrap_or("http");
    match mesh::listener(&gateway, scheme, request) {
        Ok(listener) => {
            let (gateway, name, port) = (&gateway.name, &listener.name, listener.port);
            shown.to = Some(format!("Gateway {gateway}, listener {name}, port {port}"));
            let reached = Reached {
                scheme: match listener.protocol {
                    ListenerProtocol::Https => Scheme::HTTPS,
                    _ => Scheme::HTTP,
                },
                port,
                parent: None,
            };
            routed(mesh, &listener.routes, request, path, &reached, shown)
        }
        Err(why) => Ok(Outcome::refused(Flag::NoRoute, why)),
    }
}

/// Where a request comes to routes.
struct Reached<'m> {
    scheme: Scheme,
    /// As the client sees it.
    port: u16,
    /// The port of a service; `None`: a listener.
    parent: Option<&'m ServicePort>,
}

/// The rule that a table finds, and where it leads.
fn routed(
    mesh: &Mesh<'_>,
    table: &RouteTable,
    request: &Request,
    path: &str,
    reached: &Reached<'_>,
    shown: &mut Explanation,
) -> Result<Outcome, InvalidQuestion> {
    let asked = request.asked(path);
    let considered = table.explain(&asked);
    shown.others = words::others(&considered);
    let Some(found) = table.find(&asked) else {
        let why = "routes are attached, and no rule of them takes it";
        return Ok(Outcome::refused(Flag::NoRoute, why));
    };
    let Found { rule, prefix } = found;
    shown.rule = Some(RuleShown::of(rule, &considered));
    let cors = rule.filters.cors.as_ref();
    if let Some(Visit::Preflight(_)) = cors.map(|it| it.judge(&request.method, &request.headers)) {
        return Ok(Outcome::served("the rule answers the preflight by itself"));
    }
    if let Some(response) = &rule.response {
        let status = response.status.as_u16();
        return Ok(Outcome {
            status: Some(status),
            ..Outcome::served(format!("the rule answers {status} by itself"))
        });
    }
    if let Some(redirect) = &rule.filters.redirect {
        let addressed = Addressed {
            scheme: &reached.scheme,
            host: request.host(),
            port: reached.port,
            path,
            query: request.uri.query(),
            prefix,
        };
        let location = redirect.location(&addressed);
        let location = location.as_ref().and_then(|it| it.to_str().ok());
        let status = redirect.status.as_u16();
        let location = location.unwrap_or("nowhere");
        return Ok(Outcome {
            status: Some(status),
            ..Outcome::served(format!("redirected with {status} to {location}"))
        });
    }
    let sent = Sent::by_rule(request, path, rule, prefix);
    for backend in &rule.backends {
        let shown_backend = mesh.backend(rule, backend, reached.parent, &sent)?;
        shown.backends.push(shown_backend);
    }
    Ok(backend::outcome(&shown.backends))
}
