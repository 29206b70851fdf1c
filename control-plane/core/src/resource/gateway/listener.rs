//! One listener of a gateway: its port, what is spoken there, for which hosts,
//! and which routes it takes. Refuses to know routes and namespaces.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::tls::{ListenerTls, TlsMode};
use crate::config::Checker;
use crate::resource::route::{check_hostname, check_section};
use crate::resource::{ResourceKind, check_dns_label, check_labels, is_dns_label};

/// Kinds of routes that one listener names, as in Gateway API.
const MAX_KINDS: usize = 8;
/// Expressions of one selector, and values of one of them.
const MAX_EXPRESSIONS: usize = 64;

/// One listener.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    /// What routes call it, as `sectionName`.
    pub name: String,
    /// A host, or `*.` and the end of hosts; every host if left out.
    pub hostname: Option<String>,
    /// The port that clients use.
    pub port: u16,
    /// What is spoken there.
    pub protocol: ListenerProtocol,
    /// How TLS is handled; of [`ListenerProtocol::Https`] and [`ListenerProtocol::Tls`].
    pub tls: Option<ListenerTls>,
    /// Which routes it takes.
    #[serde(default)]
    pub allowed_routes: AllowedRoutes,
}

/// What a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ListenerProtocol {
    /// HTTP in plaintext.
    Http,
    /// HTTP over TLS, terminated here.
    Https,
    /// TLS, passed through or terminated here, with opaque bytes in it.
    Tls,
    /// Opaque bytes.
    Tcp,
}

/// Which routes a listener takes.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
pub struct AllowedRoutes {
    /// Of which namespaces.
    #[serde(default)]
    pub namespaces: Namespaces,
    /// Of which kinds; if empty, of all that its protocol can carry.
    #[serde(default)]
    pub kinds: Vec<RouteGroupKind>,
}

/// Namespaces of routes.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
pub struct Namespaces {
    /// How they are chosen.
    #[serde(default)]
    pub from: From,
    /// The labels of those chosen; of [`From::Selector`].
    pub selector: Option<Selector>,
}

/// How namespaces are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum From {
    /// Every one.
    All,
    /// Those with certain labels.
    Selector,
    /// That of the gateway.
    #[default]
    Same,
    /// None.
    None,
}

/// A kind of route.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RouteGroupKind {
    /// Its group; that of Gateway API if left out.
    pub group: Option<String>,
    /// Its name.
    pub kind: String,
}

/// Labels that something must have: all that is said must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    /// These, with these values.
    #[serde(default)]
    pub match_labels: BTreeMap<String, String>,
    /// And these.
    #[serde(default)]
    pub match_expressions: Vec<Expression>,
}

/// One condition on a label.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Expression {
    key: String,
    operator: Operator,
    #[serde(default)]
    values: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl Selector {
    /// Whether something with these labels is chosen. An empty selector chooses everything.
    #[must_use]
    pub fn chooses(&self, labels: &BTreeMap<String, String>) -> bool {
        let equal = |(key, value): (&String, &String)| labels.get(key) == Some(value);
        self.match_labels.iter().all(equal)
            && self.match_expressions.iter().all(|expression| {
                let value = labels.get(&expression.key);
                let listed = value.is_some_and(|value| expression.values.contains(value));
                match expression.operator {
                    Operator::In => listed,
                    Operator::NotIn => !listed,
                    Operator::Exists => value.is_some(),
                    Operator::DoesNotExist => value.is_none(),
                }
            })
    }

    fn check(&self, path: &str, check: &mut Checker<'_>) {
        check_labels(check, &format!("{path}.matchLabels"), &self.match_labels);
        let count = self.match_expressions.len();
        check.require(
            count <= MAX_EXPRESSIONS,
            format!("{path}.matchExpressions"),
            format!("expected at most {MAX_EXPRESSIONS} expressions, found {count}"),
        );
        for (index, expression) in self.match_expressions.iter().enumerate() {
            let path = format!("{path}.matchExpressions[{index}]");
            let count = expression.values.len();
            let listed = matches!(expression.operator, Operator::In | Operator::NotIn);
            check.require(
                !expression.key.is_empty(),
                format!("{path}.key"),
                "expected the key of a label",
            );
            check.require(
                match listed {
                    true => (1..=MAX_EXPRESSIONS).contains(&count),
                    false => count == 0,
                },
                format!("{path}.values"),
                match listed {
                    true => format!("`In` and `NotIn` take 1 to {MAX_EXPRESSIONS} values"),
                    false => "`Exists` and `DoesNotExist` take no values".to_owned(),
                },
            );
        }
    }
}

impl ListenerProtocol {
    /// As written after `protocol:`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Https => "HTTPS",
            Self::Tls => "TLS",
            Self::Tcp => "TCP",
        }
    }

    const fn has_tls(self) -> bool {
        matches!(self, Self::Https | Self::Tls)
    }
}

impl Listener {
    /// Whether it hands TLS on as it comes.
    #[must_use]
    pub fn is_passthrough(&self) -> bool {
        let mode = self.tls.as_ref().map(|tls| tls.mode);
        self.protocol == ListenerProtocol::Tls && mode == Some(TlsMode::Passthrough)
    }

    /// The kinds of routes that its protocol can carry.
    #[must_use]
    pub fn carries(&self) -> &'static [ResourceKind] {
        match self.protocol {
            ListenerProtocol::Http | ListenerProtocol::Https => {
                &[ResourceKind::HttpRoute, ResourceKind::GrpcRoute]
            }
            ListenerProtocol::Tls if self.is_passthrough() => &[ResourceKind::TlsRoute],
            ListenerProtocol::Tls => &[ResourceKind::TlsRoute, ResourceKind::TcpRoute],
            ListenerProtocol::Tcp => &[ResourceKind::TcpRoute],
        }
    }

    pub(super) fn check(&self, path: &str, check: &mut Checker<'_>) {
        check_section(check, format!("{path}.name"), &self.name);
        check.require(
            self.port > 0,
            format!("{path}.port"),
            "expected a port from 1 to 65535, found `0`",
        );
        let protocol = self.protocol.as_str();
        if let Some(hostname) = &self.hostname {
            let path = format!("{path}.hostname");
            check.require(
                self.protocol != ListenerProtocol::Tcp,
                path.as_str(),
                format!("a listener of protocol {protocol} knows no host"),
            );
            check_hostname(check, path, hostname);
        }
        match &self.tls {
            Some(tls) if self.protocol.has_tls() => {
                tls.check(&format!("{path}.tls"), self.protocol, check);
            }
            Some(_) => check.error(
                format!("{path}.tls"),
                format!("a listener of protocol {protocol} has no TLS: that is of HTTPS and TLS"),
            ),
            None => check.require(
                !self.protocol.has_tls(),
                path,
                format!("the key `tls` is missing: protocol {protocol} needs it"),
            ),
        }
        self.allowed_routes
            .check(&format!("{path}.allowedRoutes"), check);
    }
}

impl RouteGroupKind {
    /// Whether it is a kind of Gateway API's.
    #[must_use]
    pub fn means(&self, kind: ResourceKind) -> bool {
        let group = self.group.as_deref();
        group.is_none_or(|group| group == "gateway.networking.k8s.io") && self.kind == kind.as_str()
    }
}

impl AllowedRoutes {
    fn check(&self, path: &str, check: &mut Checker<'_>) {
        let namespaces = format!("{path}.namespaces");
        let chosen = self.namespaces.from == From::Selector;
        match &self.namespaces.selector {
            Some(selector) => {
                let path = format!("{namespaces}.selector");
                check.require(chosen, path.as_str(), "a selector needs `from: Selector`");
                selector.check(&path, check);
            }
            None => check.require(
                !chosen,
                namespaces,
                "the key `selector` is missing: `from: Selector` needs it",
            ),
        }
        let count = self.kinds.len();
        check.require(
            count <= MAX_KINDS,
            format!("{path}.kinds"),
            format!("expected at most {MAX_KINDS} kinds, found {count}"),
        );
        for (index, kind) in self.kinds.iter().enumerate() {
            let path = format!("{path}.kinds[{index}]");
            let lower = kind.kind.to_ascii_lowercase();
            check_dns_label(check, format!("{path}.kind"), &lower);
            if let Some(group) = &kind.group {
                check.require(
                    group.is_empty() || group.split('.').all(is_dns_label),
                    format!("{path}.group"),
                    format!("expected the name of a group, found `{group}`"),
                );
            }
        }
    }
}
