//! Which listener of a gateway a connection or a request meets, and which
//! TLSRoute or TCPRoute a connection.
//!
//! Listeners of one port share a socket and are told apart by their hostnames,
//! the most specific first (Gateway API, Listener): a TLS client by its SNI, a
//! request by its host. Within HTTPS both must mean the same listener, because
//! HTTP/2 clients use one connection for all hosts that its certificate names
//! (RFC 9113 §9.1.1): what belongs to another is misdirected. A gateway has at
//! most 64 listeners: a scan of them costs less than an index would save.

use std::sync::Arc;

use super::{Gateway, Hostname, Listener, ListenerProtocol, StreamRoute};

/// Why a request meets no listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Astray {
    /// None is for its host.
    NoListener,
    /// Another than that of its connection.
    Misdirected,
}

impl Gateway {
    /// What is spoken on a port: all listeners of it agree but for what is
    /// within TLS. `None` where nobody listens.
    #[must_use]
    pub fn speaks(&self, port: u16) -> Option<ListenerProtocol> {
        self.of_port(port).next().map(|listener| listener.protocol)
    }

    /// The listener that a TLS client asks for.
    #[must_use]
    pub fn by_server_name(&self, port: u16, name: Option<&str>) -> Option<&Arc<Listener>> {
        most_specific(self.of_port(port), name)
    }

    /// The listener that a request within plaintext asks for.
    ///
    /// # Errors
    /// None is for its host.
    pub fn by_host(&self, port: u16, host: Option<&str>) -> Result<&Arc<Listener>, Astray> {
        let plain = self.of_port(port);
        let plain = plain.filter(|listener| listener.protocol == ListenerProtocol::Http);
        most_specific(plain, host).ok_or(Astray::NoListener)
    }

    /// The listener that a request within TLS asks for, on a connection made
    /// with a server name.
    ///
    /// # Errors
    /// None is for its host, or another than the connection's.
    pub fn within_tls(
        &self,
        port: u16,
        server_name: Option<&str>,
        host: Option<&str>,
    ) -> Result<&Arc<Listener>, Astray> {
        let https = || {
            let of_port = self.of_port(port);
            of_port.filter(|listener| listener.protocol == ListenerProtocol::Https)
        };
        // Among all: a client that asks for the host of one that passes TLS on shall connect anew.
        let asked = most_specific(self.of_port(port), host).ok_or(Astray::NoListener)?;
        if asked.protocol != ListenerProtocol::Https {
            return Err(Astray::Misdirected);
        }
        if same(server_name, host) {
            return Ok(asked);
        }
        match most_specific(https(), server_name) {
            Some(met) if Arc::ptr_eq(met, asked) => Ok(asked),
            _ => Err(Astray::Misdirected),
        }
    }

    fn of_port(&self, port: u16) -> impl Iterator<Item = &Arc<Listener>> {
        self.listeners
            .iter()
            .filter(move |listener| listener.port == port)
    }
}

fn same(server_name: Option<&str>, host: Option<&str>) -> bool {
    match (server_name, host) {
        (Some(name), Some(host)) => name.eq_ignore_ascii_case(host),
        _ => false,
    }
}

/// The first of the most specific that take a name.
fn most_specific<'l>(
    listeners: impl Iterator<Item = &'l Arc<Listener>>,
    name: Option<&str>,
) -> Option<&'l Arc<Listener>> {
    let mut best: Option<(&Arc<Listener>, (u8, usize))> = None;
    for listener in listeners {
        let hostname = listener.hostname.as_ref();
        if !takes(hostname, name) {
            continue;
        }
        let specificity = specificity(hostname);
        if best.is_none_or(|(_, other)| specificity > other) {
            best = Some((listener, specificity));
        }
    }
    best.map(|(listener, _)| listener)
}

/// Compared without case: neither server names nor hosts have one.
fn takes(hostname: Option<&Hostname>, name: Option<&str>) -> bool {
    let (Some(hostname), Some(name)) = (hostname, name) else {
        return hostname.is_none();
    };
    let name = name.as_bytes();
    match hostname {
        Hostname::Exact(own) => name.eq_ignore_ascii_case(own.as_bytes()),
        Hostname::Below(suffix) => name
            .len()
            .checked_sub(suffix.len())
            .filter(|labels| *labels > 0)
            .is_some_and(|labels| name[labels..].eq_ignore_ascii_case(suffix.as_bytes())),
    }
}

/// Exact before wildcards before none; longer before shorter.
fn specificity(hostname: Option<&Hostname>) -> (u8, usize) {
    match hostname {
        None => (0, 0),
        Some(Hostname::Below(suffix)) => (1, suffix.len()),
        Some(Hostname::Exact(name)) => (2, name.len()),
    }
}

/// The route of a connection of opaque bytes: of those that take its server
/// name the most specific, TLSRoutes before TCPRoutes, the oldest of equals.
/// `routes` oldest first; no server name where none was said, or no TLS.
#[must_use]
pub fn stream<'r>(
    routes: &'r [Arc<StreamRoute>],
    server_name: Option<&str>,
) -> Option<&'r Arc<StreamRoute>> {
    let taking = routes.iter().filter_map(|route| {
        let specificity = how_specific(route, server_name)?;
        Some((route, (route.tls, specificity)))
    });
    // Of equals `max_by_key` has the last.
    let best = taking.rev().max_by_key(|(_, specificity)| *specificity);
    best.map(|(route, _)| route)
}

/// The most specific hostname of a route that takes a server name.
fn how_specific(route: &StreamRoute, server_name: Option<&str>) -> Option<(u8, usize)> {
    if route.hostnames.is_empty() {
        return Some((0, 0));
    }
    let hostnames = route.hostnames.iter().map(Some);
    let taking = hostnames.filter(|hostname| takes(*hostname, server_name));
    taking.map(specificity).max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::RouteTable;

    fn hostname(text: &str) -> Option<Hostname> {
        match text.strip_prefix('*') {
            _ if text.is_empty() => None,
            Some(suffix) => Some(Hostname::Below(suffix.into())),
            None => Some(Hostname::Exact(text.into())),
        }
    }

    fn gateway(listeners: &[(u16, ListenerProtocol, &str)]) -> Gateway {
        let listener = |(port, protocol, host): &(u16, ListenerProtocol, &str)| {
            Arc::new(Listener {
                name: format!("{host}:{port}").into(),
                port: *port,
                protocol: *protocol,
                hostname: hostname(host),
                certificates: Vec::new(),
                routes: Arc::new(RouteTable::new(&[])),
                streams: Vec::new(),
            })
        };
        Gateway {
            name: "shop/public".into(),
            listeners: listeners.iter().map(listener).collect(),
        }
    }

    #[test]
    fn a_request_meets_the_most_specific_listener_of_its_port() {
        use ListenerProtocol::Http;
        let gateway = gateway(&[
            (80, Http, ""),
            (80, Http, "*.example.com"),
            (80, Http, "*.b.example.com"),
            (80, Http, "a.example.com"),
            (81, Http, "a.example.com"),
        ]);
        for (port, host, expected) in [
            (80, Some("a.example.com"), Ok("a.example.com:80")),
            (80, Some("A.Example.com"), Ok("a.example.com:80")),
            (80, Some("x.example.com"), Ok("*.example.com:80")),
            (80, Some("x.b.example.com"), Ok("*.b.example.com:80")),
            (80, Some("b.example.com"), Ok("*.example.com:80")),
            (80, Some("elsewhere"), Ok(":80")),
            (80, None, Ok(":80")),
            (81, Some("x.example.com"), Err(Astray::NoListener)),
            (82, Some("a.example.com"), Err(Astray::NoListener)),
        ] {
            let met = gateway.by_host(port, host).map(|listener| &*listener.name);
            assert_eq!(met, expected, "{host:?} on {port}");
        }
    }

    #[test]
    fn within_tls_host_and_server_name_mean_one_listener() {
        use ListenerProtocol::{Https, Passthrough};
        let gateway = gateway(&[
            (443, Https, "*.example.com"),
            (443, Https, "a.example.com"),
            (443, Https, "b.org"),
            (443, Passthrough, "raw.org"),
        ]);
        for (name, host, expected) in [
            ("a.example.com", "a.example.com", Ok("a.example.com:443")),
            ("x.example.com", "y.example.com", Ok("*.example.com:443")),
            ("x.example.com", "a.example.com", Err(Astray::Misdirected)),
            ("a.example.com", "x.example.com", Err(Astray::Misdirected)),
            ("a.example.com", "b.org", Err(Astray::Misdirected)),
            ("a.example.com", "elsewhere", Err(Astray::NoListener)),
            ("a.example.com", "raw.org", Err(Astray::Misdirected)),
        ] {
            let met = gateway
                .within_tls(443, Some(name), Some(host))
                .map(|listener| &*listener.name);
            assert_eq!(met, expected, "{host} on a connection to {name}");
        }
        let raw = gateway.by_server_name(443, Some("raw.org"));
        assert_eq!(raw.map(|listener| listener.protocol), Some(Passthrough));
        assert!(gateway.by_server_name(443, Some("c.org")).is_none());
        assert!(gateway.by_server_name(443, None).is_none());
    }

    #[test]
    fn a_connection_meets_the_most_specific_route_of_its_server_name() {
        let route = |label: &str, tls: bool, hosts: &[&str]| {
            Arc::new(StreamRoute {
                label: label.into(),
                hostnames: hosts.iter().filter_map(|host| hostname(host)).collect(),
                tls,
                backends: Vec::new(),
            })
        };
        let routes = [
            route("any", true, &[]),
            route("below", true, &["*.a.org", "*.b.org"]),
            route("exact", true, &["x.a.org", "y.a.org"]),
            route("younger", true, &["x.a.org"]),
            route("tcp", false, &[]),
        ];
        for (routes, name, expected) in [
            (&routes[..], Some("x.a.org"), Some("exact")),
            (&routes, Some("z.b.org"), Some("below")),
            (&routes, Some("c.org"), Some("any")),
            (&routes, None, Some("any")),
            (&routes[1..4], None, None),
            (&routes[1..4], Some("c.org"), None),
            (&routes[1..], None, Some("tcp")),
        ] {
            let met = stream(routes, name).map(|route| &*route.label);
            assert_eq!(met, expected, "{name:?}");
        }
    }
}
