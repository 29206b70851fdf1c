//! Routes as they are attached to a port or a listener: their rules, and the
//! table that finds one for a request. References are resolved already; what a
//! backend that cannot be used is answered with is decided elsewhere.

mod filter;
mod matching;

use std::collections::HashMap;
use std::sync::Arc;

use prost::Message;
use selvage_api::v1;
use selvage_policy::route::{
    HttpRoute, RouteBackend, RouteTable, RouteTarget, Rule, SessionCarrier, SessionPersistence,
    StreamRoute,
};
use selvage_policy::snapshot::TrafficPolicy;

use self::filter::{filters, of_backend};
use self::matching::{hostnames, matched};
use super::server::rate_limit;
use super::service::port_number;
use super::traffic::{backend, duration, static_response, traffic_policy};
use super::{InvalidResource, absent, invalid};

pub(super) use self::matching::hostname;

/// Policies that are equal, once: rules share them by the thousand.
#[derive(Default)]
pub(super) struct Policies(HashMap<Vec<u8>, Arc<TrafficPolicy>>);

impl Policies {
    fn of(&mut self, message: &v1::TrafficPolicy) -> Result<Arc<TrafficPolicy>, InvalidResource> {
        let bytes = message.encode_to_vec();
        if let Some(known) = self.0.get(&bytes) {
            return Ok(known.clone());
        }
        let policy = Arc::new(traffic_policy(message)?);
        self.0.insert(bytes, policy.clone());
        Ok(policy)
    }
}

/// What is attached to a service, for each of its ports.
pub(super) struct Attached {
    http: Vec<(Option<u16>, HttpRoute)>,
    streams: Vec<(Option<u16>, Arc<StreamRoute>)>,
    /// The table of ports that no route names by itself.
    common: Option<Arc<RouteTable>>,
}

impl Attached {
    pub(super) fn decode(
        http: &[v1::HttpRoute],
        streams: &[v1::StreamRoute],
    ) -> Result<Self, InvalidResource> {
        let mut policies = Policies::default();
        let http = http
            .iter()
            .map(|message| Ok((port(message.port)?, http_route(message, &mut policies)?)))
            .collect::<Result<Vec<_>, InvalidResource>>()?;
        let streams = streams
            .iter()
            .map(|message| Ok((port(message.port)?, stream_route(message, &mut policies)?)))
            .collect::<Result<Vec<_>, InvalidResource>>()?;
        let mut attached = Self {
            http,
            streams,
            common: None,
        };
        attached.common = attached.table(None);
        Ok(attached)
    }

    /// The routes of a port for HTTP and gRPC; `None`: none are attached to it.
    pub(super) fn routes(&self, number: u16) -> Option<Arc<RouteTable>> {
        let names = |(port, _): &(Option<u16>, HttpRoute)| *port == Some(number);
        if self.http.iter().any(names) {
            self.table(Some(number))
        } else {
            self.common.clone()
        }
    }

    fn table(&self, number: Option<u16>) -> Option<Arc<RouteTable>> {
        let routes: Vec<HttpRoute> = self
            .http
            .iter()
            .filter(|(port, _)| port.is_none() || *port == number)
            .map(|(_, route)| HttpRoute {
                name: route.name.clone(),
                hostnames: route.hostnames.clone(),
                rules: route.rules.clone(),
            })
            .collect();
        (!routes.is_empty()).then(|| Arc::new(RouteTable::new(&routes)))
    }

    /// The routes of a port for TLS and TCP.
    pub(super) fn streams(&self, number: u16) -> Vec<Arc<StreamRoute>> {
        let takes = |(port, _): &&(Option<u16>, _)| port.is_none_or(|port| port == number);
        let of_port = self.streams.iter().filter(takes);
        of_port.map(|(_, route)| route.clone()).collect()
    }
}

/// The port a route is attached to; `None`: all of them.
fn port(number: u32) -> Result<Option<u16>, InvalidResource> {
    match number {
        0 => Ok(None),
        number => port_number("route.port", number).map(Some),
    }
}

/// A route without the port it is attached to.
pub(super) fn http_route(
    message: &v1::HttpRoute,
    policies: &mut Policies,
) -> Result<HttpRoute, InvalidResource> {
    let v1::HttpRoute {
        namespace,
        name,
        kind: _,
        hostnames: hosts,
        port: _,
        rules,
    } = message;
    if message.kind() == v1::RouteKind::Unspecified {
        return Err(absent("route.kind"));
    }
    let name: Arc<str> = format!("{namespace}/{name}").into();
    let rules = rules
        .iter()
        .map(|message| {
            rule(&name, message, policies)
                .map(Arc::new)
                .map_err(|error| invalid(format!("route {name}: {}", error.field), error.reason))
        })
        .collect::<Result<_, _>>()?;
    Ok(HttpRoute {
        hostnames: hostnames(hosts)?,
        rules,
        name,
    })
}

fn rule(
    route: &str,
    message: &v1::HttpRule,
    policies: &mut Policies,
) -> Result<Rule, InvalidResource> {
    let v1::HttpRule {
        name,
        matches,
        filters: list,
        backends: targets,
        session: persistence,
        response,
        rate_limit: limit,
    } = message;
    Ok(Rule {
        rate_limit: limit.as_ref().map(rate_limit).transpose()?,
        label: format!("{route}/{name}").into(),
        matches: matches.iter().map(matched).collect::<Result<_, _>>()?,
        filters: filters(list)?,
        backends: backends(targets, policies)?,
        session: persistence.as_ref().map(session).transpose()?,
        response: match response {
            None => None,
            Some(message) => Some(Arc::new(static_response("rule.response", message)?)),
        },
    })
}

fn backends(
    messages: &[v1::RouteBackend],
    policies: &mut Policies,
) -> Result<Vec<RouteBackend>, InvalidResource> {
    use v1::route_backend::To;
    let one = |message: &v1::RouteBackend| {
        let v1::RouteBackend {
            to,
            weight,
            filters: list,
            policy,
        } = message;
        Ok(RouteBackend {
            to: match to.as_ref().ok_or_else(|| absent("backend.to"))? {
                To::Service(message) => RouteTarget::Service(backend("backend.service", message)?),
                To::Invalid(why) => RouteTarget::Invalid(why.as_str().into()),
            },
            weight: *weight,
            filters: of_backend(list)?,
            policy: match policy {
                None => None,
                Some(message) => Some(policies.of(message)?),
            },
        })
    };
    messages.iter().map(one).collect()
}

fn session(message: &v1::SessionPersistence) -> Result<SessionPersistence, InvalidResource> {
    let v1::SessionPersistence {
        name,
        header,
        absolute_timeout,
        idle_timeout,
        permanent,
    } = message;
    let limit = |field, message: Option<&prost_types::Duration>| {
        message.map(|message| duration(field, message)).transpose()
    };
    if name.is_empty() {
        return Err(absent("session.name"));
    }
    Ok(SessionPersistence {
        name: name.as_str().into(),
        carrier: match (*header, *permanent) {
            (true, true) => return Err(invalid("session.permanent", "a header is none")),
            (true, false) => SessionCarrier::Header,
            (false, permanent) => SessionCarrier::Cookie { permanent },
        },
        absolute_timeout: limit("session.absolute_timeout", absolute_timeout.as_ref())?,
        idle_timeout: limit("session.idle_timeout", idle_timeout.as_ref())?,
    })
}

/// A route for whole connections, without the port it is attached to.
pub(super) fn stream_route(
    message: &v1::StreamRoute,
    policies: &mut Policies,
) -> Result<Arc<StreamRoute>, InvalidResource> {
    let v1::StreamRoute {
        namespace,
        name,
        kind: _,
        hostnames: hosts,
        port: _,
        rule,
        backends: targets,
    } = message;
    let tls = match message.kind() {
        v1::StreamRouteKind::Tls => true,
        v1::StreamRouteKind::Tcp => false,
        v1::StreamRouteKind::Unspecified => return Err(absent("route.kind")),
    };
    Ok(Arc::new(StreamRoute {
        label: format!("{namespace}/{name}/{rule}").into(),
        hostnames: hostnames(hosts)?,
        tls,
        backends: backends(targets, policies)?,
    }))
}

#[cfg(test)]
mod tests;
