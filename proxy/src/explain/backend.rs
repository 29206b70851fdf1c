//! One backend of a request: what is sent there, under which policy, whether
//! its workloads would take it from this caller, and who they are.

use std::borrow::Cow;

use http::{Method, Uri};
use selvage_core::attach::{self, Leaf, RuleName};
use selvage_core::resource::{ResourceKey, ResourceKind, ServiceName as Name};
use selvage_policy::authority;
use selvage_policy::authorize::{Caller as Peer, Operated};
use selvage_policy::flag::Flag;
use selvage_policy::path;
use selvage_policy::route::{Filters, Match, PathMatch, RouteBackend, RouteTarget, Rule};
use selvage_policy::snapshot::{Endpoint, Service, ServicePort, TrafficPolicy};
use serde::Serialize;
use serde_json::Value;

use super::mesh::Mesh;
use super::{InvalidQuestion, Outcome, Request, words};
use crate::admin::dump;

/// Where a request may be sent.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendShown {
    /// `namespace/service:port`, or what stands in its place.
    pub to: String,
    /// Its share of the rule's requests.
    pub percent: f64,
    /// What arrives there: method, host and path.
    pub sees: String,
    /// What is done besides the rule's own filters.
    pub filters: Vec<String>,
    /// What resources set of its policy, and which; the rest is built in.
    pub policy: Vec<Leaf>,
    /// The whole policy, built-in figures included.
    pub effective: Value,
    /// Who judges the caller there, and how.
    pub authorization: Option<Judged>,
    /// Who serves it.
    pub endpoints: Vec<EndpointShown>,
    /// Why its share is not served.
    pub refused: Option<Refused>,
}

/// The verdict of a backend's inbound side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Judged {
    /// Whether the call may pass.
    pub permitted: bool,
    /// The policy and rule that decide, or the default.
    pub by: String,
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointShown {
    /// `namespace/workload`, or the address.
    pub id: String,
    /// Where it is.
    pub address: String,
    /// Who it must prove to be; `None`: plaintext, outside the mesh.
    pub identity: Option<String>,
    /// Its share.
    pub weight: u32,
    /// Whether its application answers, as far as the registry knows.
    pub healthy: bool,
}

/// Why a share is not served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    /// What the caller is told.
    pub flag: &'static str,
    /// With which status.
    pub status: u16,
    /// In words.
    pub why: String,
}

impl Refused {
    fn new(flag: Flag, why: impl Into<String>) -> Self {
        Self {
            flag: flag.as_str(),
            status: flag.status().as_u16(),
            why: why.into(),
        }
    }
}

/// A request as a rule sends it on.
pub(super) struct Sent<'r> {
    method: &'r Method,
    uri: Uri,
    authority: Cow<'r, str>,
    prefix: Option<&'r str>,
}

impl<'r> Sent<'r> {
    /// As it came, with its canonical path.
    pub(super) fn plain(request: &'r Request, path: &str) -> Self {
        let target = match request.uri.query() {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        };
        Self {
            method: &request.method,
            uri: target.parse().unwrap_or_default(),
            authority: Cow::Borrowed(&request.authority),
            prefix: None,
        }
    }

    /// As a rule makes it.
    pub(super) fn by_rule(
        request: &'r Request,
        path: &str,
        rule: &Rule,
        prefix: Option<&'r str>,
    ) -> Self {
        let sent = Self {
            prefix,
            ..Self::plain(request, path)
        };
        sent.after(&rule.filters)
    }

    fn after(&self, filters: &Filters) -> Self {
        let rewrite = filters.rewrite.as_ref();
        let target = rewrite.and_then(|it| it.target(&self.uri, self.prefix));
        let authority = rewrite.and_then(selvage_policy::route::Rewrite::authority);
        Self {
            method: self.method,
            uri: target.map_or_else(|| self.uri.clone(), Uri::from),
            authority: authority.map_or_else(
                || self.authority.clone(),
                |authority| Cow::Owned(authority.as_str().to_owned()),
            ),
            prefix: self.prefix,
        }
    }

    fn shown(&self) -> String {
        format!("{} {}{}", self.method, self.authority, self.uri)
    }
}

/// What becomes of a request with these backends.
pub(super) fn outcome(backends: &[BackendShown]) -> Outcome {
    let shares: Vec<&BackendShown> = backends.iter().filter(|it| it.percent > 0.0).collect();
    if shares.is_empty() {
        let why = match backends {
            [] => "the rule has no backend",
            _ => "no backend of the rule has any weight",
        };
        return Outcome::refused(Flag::InvalidBackend, why);
    }
    let refused: Vec<(&BackendShown, &Refused)> = shares
        .iter()
        .filter_map(|it| it.refused.as_ref().map(|refused| (*it, refused)))
        .collect();
    match refused.as_slice() {
        [] => Outcome::served(match shares.as_slice() {
            [only] => format!("sent to {}", only.to),
            several => format!("sent to one of {} backends", several.len()),
        }),
        [(first, refused), ..] => Outcome {
            served: false,
            flag: Some(refused.flag),
            status: Some(refused.status),
            why: match shares.len() {
                1 => refused.why.clone(),
                _ => format!("{:.1} % of them: {}", first.percent, refused.why),
            },
        },
    }
}

impl Mesh<'_> {
    /// The endpoints of a port without routes.
    pub(super) fn plain_backend(
        &self,
        port: &ServicePort,
        sent: &Sent<'_>,
    ) -> Result<BackendShown, InvalidQuestion> {
        let service = self.service(&port.service)?;
        let policy = service.as_deref().map(|it| &*it.policy);
        let leaves = attach::origins(
            self.world,
            None,
            &Name::new(&port.service.namespace, &port.service.name),
            &self.caller.workload.namespace,
        );
        self.shown(port, policy, leaves, 100.0, sent, Vec::new())
    }

    /// One backend of a rule.
    pub(super) fn backend(
        &self,
        rule: &Rule,
        backend: &RouteBackend,
        parent: Option<&ServicePort>,
        sent: &Sent<'_>,
    ) -> Result<BackendShown, InvalidQuestion> {
        let total: u64 = rule.backends.iter().map(|it| u64::from(it.weight)).sum();
        #[expect(
            clippy::cast_precision_loss,
            reason = "a sum of 16 weights up to a million"
        )]
        let percent = 100.0 * f64::from(backend.weight) / total.max(1) as f64;
        let sent = sent.after(&backend.filters);
        let filters = words::filters(&backend.filters);
        let target = match &backend.to {
            RouteTarget::Invalid(why) => {
                let refused = Refused::new(Flag::InvalidBackend, &**why);
                return Ok(unserved(
                    "(invalid)".to_owned(),
                    percent,
                    &sent,
                    filters,
                    refused,
                ));
            }
            RouteTarget::Service(target) => target,
        };
        let service = self.service(&target.service)?;
        let port = service.as_deref().and_then(|it| port_of(it, target.port));
        let (Some(service), Some(port)) = (&service, port) else {
            let why = format!("there is no service {} with such a port", target.service);
            let refused = Refused::new(Flag::NoService, why);
            let to = target.service.to_string();
            return Ok(unserved(to, percent, &sent, filters, refused));
        };
        let policy = backend.policy.as_ref().unwrap_or(&service.policy);
        let parent = parent.map(|it| Name::new(&it.service.namespace, &it.service.name));
        let named = self.named(rule);
        let leaves = attach::origins(
            self.world,
            named.as_ref().map(|(route, rule)| RuleName {
                route,
                rule,
                parent: parent.as_ref(),
            }),
            &Name::new(&target.service.namespace, &target.service.name),
            &self.caller.workload.namespace,
        );
        self.shown(port, Some(policy), leaves, percent, &sent, filters)
    }

    /// The resource of a rule, and what the rule is called in it.
    fn named<'r>(&self, rule: &'r Rule) -> Option<(ResourceKey, &'r str)> {
        let mut parts = rule.label.splitn(3, '/');
        let (namespace, name, rule_name) = (parts.next()?, parts.next()?, parts.next()?);
        let is_grpc = |it: &Match| matches!(it.path, PathMatch::Grpc(_));
        let kinds = match rule.matches.iter().any(is_grpc) {
            true => [ResourceKind::GrpcRoute, ResourceKind::HttpRoute],
            false => [ResourceKind::HttpRoute, ResourceKind::GrpcRoute],
        };
        let key = |kind| ResourceKey {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let mut keys = kinds.into_iter().map(key);
        let key = keys.find(|key| self.world.resource(key).is_some())?;
        Some((key, rule_name))
    }

    fn shown(
        &self,
        port: &ServicePort,
        policy: Option<&TrafficPolicy>,
        leaves: Vec<Leaf>,
        percent: f64,
        sent: &Sent<'_>,
        filters: Vec<String>,
    ) -> Result<BackendShown, InvalidQuestion> {
        let meshed = port.endpoints.iter().any(|it| it.key.identity.is_some());
        let authorization = match meshed {
            true => Some(self.judged(port, sent)?),
            false => None,
        };
        let refused = match &authorization {
            Some(judged) if !judged.permitted => {
                let why = format!("{} denies it: {}", port.service, judged.by);
                Some(Refused::new(Flag::Denied, why))
            }
            _ => self.nobody(port),
        };
        Ok(BackendShown {
            to: format!("{}:{}", port.service, port.port),
            percent,
            sees: sent.shown(),
            filters,
            policy: leaves,
            effective: policy.map_or(Value::Null, dump::traffic_policy),
            authorization,
            endpoints: port.endpoints.iter().map(|it| endpoint(it)).collect(),
            refused,
        })
    }

    /// Whether nobody would serve it: without any workload known that cannot be told.
    fn nobody(&self, port: &ServicePort) -> Option<Refused> {
        let serves = |it: &&std::sync::Arc<Endpoint>| it.healthy && it.weight > 0;
        let any = port.endpoints.iter().any(|it| serves(&it));
        let known = self.knows_workloads() || !port.endpoints.is_empty();
        (known && !any).then(|| {
            let why = format!("no endpoint of {} is healthy", port.service);
            Refused::new(Flag::NoHealthyEndpoint, why)
        })
    }

    /// What the inbound side of a backend says of the caller.
    fn judged(&self, port: &ServicePort, sent: &Sent<'_>) -> Result<Judged, InvalidQuestion> {
        let inbound = self.inbound(&port.service)?;
        let path = match inbound.looks_at_paths() {
            true => path::canonical_for_authorization(sent.uri.path()),
            false => path::canonical(sent.uri.path()),
        };
        let path = match path {
            Ok(path) => path,
            Err(error) => {
                return Ok(Judged {
                    permitted: false,
                    by: error.to_string(),
                });
            }
        };
        let caller = Peer {
            identity: Some(&self.caller.identity),
        };
        let operated = Operated {
            method: Some(sent.method),
            path: Some(&path),
        };
        let verdict = inbound.authorize(caller, operated);
        let by = match (verdict.policy, verdict.rule) {
            (Some(policy), Some(rule)) => format!(
                "rule `{}` of AuthorizationPolicy {}/{}",
                rule.name, policy.namespace, policy.name
            ),
            (Some(policy), None) => format!(
                "no rule of AuthorizationPolicy {}/{} allows it",
                policy.namespace, policy.name
            ),
            (None, _) => "the default of the mesh".to_owned(),
        };
        Ok(Judged {
            permitted: verdict.permitted,
            by,
        })
    }
}

fn port_of(service: &Service, number: Option<u16>) -> Option<&ServicePort> {
    authority::choose_port(service, number, 0).map(|port| &**port)
}

fn unserved(
    to: String,
    percent: f64,
    sent: &Sent<'_>,
    filters: Vec<String>,
    refused: Refused,
) -> BackendShown {
    BackendShown {
        to,
        percent,
        sees: sent.shown(),
        filters,
        policy: Vec::new(),
        effective: Value::Null,
        authorization: None,
        endpoints: Vec::new(),
        refused: Some(refused),
    }
}

fn endpoint(endpoint: &Endpoint) -> EndpointShown {
    EndpointShown {
        id: endpoint.id.to_string(),
        address: endpoint.key.address.to_string(),
        identity: endpoint.key.identity.as_ref().map(ToString::to_string),
        weight: endpoint.weight,
        healthy: endpoint.healthy,
    }
}
