//! Which service an authority names, and on which of its ports.
//!
//! Stands where a request on the outbound listener meets the mesh: it turns
//! `ratings.shop:80` into a [`ServiceName`], and a service into one
//! [`ServicePort`]. It does not know whether the service exists, and resolves
//! no names: what does not look like a service is said to be none.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::snapshot::{Service, ServiceName, ServicePort};

/// Longest name in bytes, without port (RFC 1035).
const NAME_BYTES: usize = 253;
/// Longest label in bytes (RFC 1035).
const LABEL_BYTES: usize = 63;
/// What may follow `service.namespace`.
const SUFFIXES: [&[&str]; 3] = [&["mesh"], &["svc", "cluster", "local"], &["localhost"]];
/// `service.namespace.svc.cluster.local`.
const MAXIMUM_LABELS: usize = 5;
/// The port that is meant where none is named and the service has it.
const USUAL_PORT: u16 = 80;

/// Why an authority gives no [`Target`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAuthority {
    /// Well formed, and not the name of a service: answered `no-service`.
    #[error("the authority names no service of the mesh")]
    NotAService,
    /// Not an authority: answered `bad-request`.
    #[error("malformed authority: {0}")]
    Malformed(&'static str),
}

/// What an authority names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The service, in lower case.
    pub name: ServiceName,
    /// The port, where one is written.
    pub port: Option<u16>,
}

/// Parses `service`, `service.namespace`, and the latter followed by `.mesh`,
/// `.svc.cluster.local` or `.localhost`; each with or without a port, in any
/// case, with at most one dot at the end. `namespace` is the caller's own.
///
/// # Errors
/// [`InvalidAuthority::Malformed`] for what is no authority, or carries user
/// information; [`InvalidAuthority::NotAService`] for IP addresses and other names.
pub fn parse(authority: &str, namespace: &str) -> Result<Target, InvalidAuthority> {
    use InvalidAuthority::{Malformed, NotAService};
    if authority.contains('@') {
        return Err(Malformed("user information is not accepted"));
    }
    if let Some(rest) = authority.strip_prefix('[') {
        let (inside, after) = rest.split_once(']').ok_or(Malformed("unclosed bracket"))?;
        parse_port(after)?;
        let literal = inside.parse::<Ipv6Addr>();
        return Err(literal.map_or(Malformed("not an IPv6 address"), |_| NotAService));
    }
    let (host, port) = match authority.find(':') {
        Some(at) => (&authority[..at], parse_port(&authority[at..])?),
        None => (authority, None),
    };
    check_host(host)?;
    if host.parse::<Ipv4Addr>().is_ok() {
        return Err(NotAService);
    }
    Ok(Target {
        name: parse_name(host, namespace)?,
        port,
    })
}

/// Chooses the port of a service.
///
/// An explicit port must exist. Where none is written, or the listener's own
/// (`curl http://ratings.shop.localhost:15001`), it is port 80 if the service
/// has it, else its only port, else none.
#[must_use]
pub fn choose_port(
    service: &Service,
    requested: Option<u16>,
    listener_port: u16,
) -> Option<&Arc<ServicePort>> {
    let find = |number: u16| service.ports.iter().find(|port| port.port == number);
    match requested {
        Some(number) if number != listener_port => find(number),
        _ => find(USUAL_PORT).or(match service.ports.as_slice() {
            [only] => Some(only),
            _ => None,
        }),
    }
}

/// `""`, `":"` and `":80"`; RFC 3986 §3.2.3 lets the digits be absent.
fn parse_port(text: &str) -> Result<Option<u16>, InvalidAuthority> {
    const INVALID: InvalidAuthority = InvalidAuthority::Malformed("not a port");
    if text.is_empty() {
        return Ok(None);
    }
    let digits = text.strip_prefix(':').ok_or(INVALID)?;
    if digits.is_empty() {
        return Ok(None);
    }
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(INVALID);
    }
    match digits.parse() {
        Ok(0) | Err(_) => Err(INVALID),
        Ok(number) => Ok(Some(number)),
    }
}

/// What no host may hold; percent-encoding is allowed by the grammar, but no service has it.
fn check_host(host: &str) -> Result<(), InvalidAuthority> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(&byte);
    if host.is_empty() {
        return Err(InvalidAuthority::Malformed("no host"));
    }
    if !host.bytes().all(legal) {
        return Err(InvalidAuthority::Malformed("a byte that no host may hold"));
    }
    Ok(())
}

fn parse_name(host: &str, namespace: &str) -> Result<ServiceName, InvalidAuthority> {
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.len() > NAME_BYTES || !host.split('.').all(is_label) {
        return Err(InvalidAuthority::NotAService);
    }
    let mut labels = [""; MAXIMUM_LABELS];
    let mut count = 0;
    for label in host.split('.') {
        *labels.get_mut(count).ok_or(InvalidAuthority::NotAService)? = label;
        count += 1;
    }
    let is_suffix = |rest: &[&str]| {
        SUFFIXES.iter().any(|suffix| {
            suffix.len() == rest.len()
                && suffix
                    .iter()
                    .zip(rest)
                    .all(|(a, b)| a.eq_ignore_ascii_case(b))
        })
    };
    match labels[..count] {
        [name] => Ok(service_name(namespace, name)),
        [name, namespace] => Ok(service_name(namespace, name)),
        [name, namespace, ref rest @ ..] if is_suffix(rest) => Ok(service_name(namespace, name)),
        _ => Err(InvalidAuthority::NotAService),
    }
}

fn service_name(namespace: &str, name: &str) -> ServiceName {
    ServiceName {
        namespace: lower(namespace),
        name: lower(name),
    }
}

fn lower(text: &str) -> Arc<str> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        text.to_ascii_lowercase().into()
    } else {
        text.into()
    }
}

/// RFC 1123 §2.1.
fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= LABEL_BYTES
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{service, service_port};

    #[test]
    fn every_form_names_the_same_service() {
        for host in [
            "ratings",
            "RATINGS",
            "ratings.",
            "ratings.shop",
            "Ratings.Shop.",
            "ratings.shop.mesh",
            "ratings.shop.MESH.",
            "ratings.shop.svc.cluster.local",
            "ratings.shop.localhost",
        ] {
            for (suffix, port) in [
                ("", None),
                (":", None),
                (":80", Some(80)),
                (":9001", Some(9001)),
            ] {
                let target = parse(&format!("{host}{suffix}"), "shop").expect(host);
                assert_eq!(target.name, ServiceName::new("shop", "ratings"), "{host}");
                assert_eq!(target.port, port, "{host}{suffix}");
            }
        }
    }

    #[test]
    fn what_is_no_service_is_told_from_what_is_malformed() {
        use InvalidAuthority::{Malformed, NotAService};
        let none = [
            "10.0.0.1",
            "10.0.0.1:80",
            "[::1]",
            "[::1]:80",
            "example.com.au",
            "a.b.svc",
            "a_b",
            "-a",
            "a-",
            "a.b.c.d.e.f",
            "a%20b",
            "a..b",
            "a..",
            ".",
        ];
        for authority in none {
            assert_eq!(parse(authority, "shop"), Err(NotAService), "{authority}");
        }
        assert_eq!(parse(&"a".repeat(64), "shop"), Err(NotAService));
        let malformed = [
            "",
            ":80",
            "user@ratings",
            "user:secret@ratings:80",
            "ratings:0",
            "ratings:65536",
            "ratings:+80",
            "ratings:8o",
            "ratings:80:80",
            "[::1",
            "[::g]",
            "[::1]80",
            "a b",
            "a/b",
            "a?b",
            "a#b",
            "ä",
            "a\\b",
            "::1",
        ];
        for authority in malformed {
            let error = parse(authority, "shop").expect_err(authority);
            assert!(matches!(error, Malformed(_)), "{authority}: {error}");
        }
    }

    #[test]
    fn the_port_rule() {
        let with = |ports: &[u16]| {
            service(
                ports
                    .iter()
                    .map(|port| service_port(*port, Vec::new()))
                    .collect(),
            )
        };
        let table: &[(&[u16], Option<u16>, Option<u16>)] = &[
            (&[80, 9000], None, Some(80)),
            (&[80, 9000], Some(15001), Some(80)),
            (&[80, 9000], Some(9000), Some(9000)),
            (&[80, 9000], Some(9001), None),
            (&[9000], None, Some(9000)),
            (&[9000], Some(80), None),
            (&[9000], Some(15001), Some(9000)),
            (&[9000, 9001], None, None),
            (&[], None, None),
        ];
        for (ports, requested, expected) in table {
            let service = with(ports);
            let chosen = choose_port(&service, *requested, 15001).map(|port| port.port);
            assert_eq!(chosen, *expected, "{ports:?} {requested:?}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(authority in ".{0,80}") {
            let _ = parse(&authority, "shop");
        }

        #[test]
        fn names_are_lower_case_labels(authority in "[A-Za-z0-9.:-]{0,40}") {
            if let Ok(target) = parse(&authority, "shop") {
                for part in [&target.name.name, &target.name.namespace] {
                    prop_assert!(is_label(part) && !part.bytes().any(|b| b.is_ascii_uppercase()));
                }
            }
        }
    }
}
