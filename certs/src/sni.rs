//! The server name between sidecars: which service port is meant, and nothing else.
//!
//! `p<port>.<service>.<namespace>.<trust domain>`. It chooses a port; it is never identity and never
//! authorization.

use rustls_pki_types::ServerName;

use crate::id::TrustDomain;

/// Longest server name in bytes (RFC 1035, section 2.3.4, as text without the final dot).
pub const SNI_BYTES: usize = 253;
const LABEL_BYTES: usize = 63;

/// Why there is no server name for a service port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSni {
    /// The service or namespace is not a DNS label.
    #[error("service and namespace must be DNS labels: a-z, 0-9 and `-` inside, at most 63 bytes")]
    Label,
    /// Port 0.
    #[error("port 0 is no service port")]
    Port,
    /// Longer than [`SNI_BYTES`], or the trust domain is not a DNS name.
    #[error("the whole name must be a DNS name of at most 253 bytes")]
    Name,
}

/// What a client's server name says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sni {
    /// A service port of this mesh.
    Port {
        /// The port of the service.
        port: u16,
        /// The service.
        service: String,
        /// Its namespace.
        namespace: String,
    },
    /// A name outside the trust domain: the only port of an inbound is meant.
    OutsideTrustDomain,
    /// No DNS name, or one inside the trust domain that names no port: `unrecognized_name`.
    Malformed,
}

/// The server name that means one service port.
pub fn sni_for(
    service: &str,
    namespace: &str,
    port: u16,
    trust_domain: &TrustDomain,
) -> Result<ServerName<'static>, InvalidSni> {
    if !is_label(service) || !is_label(namespace) {
        return Err(InvalidSni::Label);
    }
    if port == 0 {
        return Err(InvalidSni::Port);
    }
    let name = format!("p{port}.{service}.{namespace}.{trust_domain}");
    if name.len() > SNI_BYTES {
        return Err(InvalidSni::Name);
    }
    match ServerName::try_from(name) {
        Ok(name @ ServerName::DnsName(_)) => Ok(name),
        _ => Err(InvalidSni::Name),
    }
}

/// Reads a client's server name, whose case does not matter (RFC 6066, section 3).
pub fn parse_sni(name: &str, trust_domain: &TrustDomain) -> Sni {
    if name.is_empty() || name.len() > SNI_BYTES || !name.is_ascii() {
        return Sni::Malformed;
    }
    let name = name.to_ascii_lowercase();
    if name == trust_domain.as_str() {
        return Sni::Malformed;
    }
    let inside = name
        .strip_suffix(trust_domain.as_str())
        .and_then(|rest| rest.strip_suffix('.'));
    match inside {
        Some(labels) => service_port(labels).unwrap_or(Sni::Malformed),
        None if name.split('.').all(is_lenient_label) => Sni::OutsideTrustDomain,
        None => Sni::Malformed,
    }
}

fn service_port(labels: &str) -> Option<Sni> {
    let mut labels = labels.split('.');
    let (port, service, namespace) = (labels.next()?, labels.next()?, labels.next()?);
    let digits = port.strip_prefix('p')?;
    let canonical = !digits.starts_with('0') && digits.bytes().all(|digit| digit.is_ascii_digit());
    if labels.next().is_some() || !canonical || !is_label(service) || !is_label(namespace) {
        return None;
    }
    let port = digits.parse().ok()?;
    Some(Sni::Port {
        port,
        service: service.to_owned(),
        namespace: namespace.to_owned(),
    })
}

/// A DNS label as Kubernetes names have them (RFC 1123, section 2.1), in lower case.
fn is_label(label: &str) -> bool {
    is_lenient_label(label)
        && !label.contains('_')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// What other meshes and DNS itself put into names.
fn is_lenient_label(label: &str) -> bool {
    let allowed = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
    (1..=LABEL_BYTES).contains(&label.len()) && label.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn domain() -> TrustDomain {
        TrustDomain::parse("mesh.local").expect("a trust domain")
    }

    fn port(port: u16, service: &str, namespace: &str) -> Sni {
        Sni::Port {
            port,
            service: service.into(),
            namespace: namespace.into(),
        }
    }

    #[test]
    fn names_inside_the_trust_domain_mean_a_port_or_nothing() {
        let longest = format!("{}.local", "a.".repeat(130));
        let table = [
            ("p80.ratings.shop.mesh.local", port(80, "ratings", "shop")),
            ("P80.Ratings.SHOP.Mesh.Local", port(80, "ratings", "shop")),
            ("p65535.a.b.mesh.local", port(65535, "a", "b")),
            ("p65536.a.b.mesh.local", Sni::Malformed),
            ("p0.a.b.mesh.local", Sni::Malformed),
            ("p080.a.b.mesh.local", Sni::Malformed),
            ("p+80.a.b.mesh.local", Sni::Malformed),
            ("p.a.b.mesh.local", Sni::Malformed),
            ("80.a.b.mesh.local", Sni::Malformed),
            ("p80.a.mesh.local", Sni::Malformed),
            ("p80.a.b.c.mesh.local", Sni::Malformed),
            ("p80.-a.b.mesh.local", Sni::Malformed),
            ("p80.a..mesh.local", Sni::Malformed),
            ("mesh.local", Sni::Malformed),
            (".mesh.local", Sni::Malformed),
            ("notmesh.local", Sni::OutsideTrustDomain),
            (
                "outbound_.80_._.ratings.shop.svc.cluster.local",
                Sni::OutsideTrustDomain,
            ),
            ("p80.a.b.mesh.local.", Sni::Malformed),
            ("", Sni::Malformed),
            ("a..b", Sni::Malformed),
            ("ä.b", Sni::Malformed),
            (longest.as_str(), Sni::Malformed),
        ];
        for (name, expected) in table {
            assert_eq!(parse_sni(name, &domain()), expected, "{name}");
        }
    }

    #[test]
    fn names_that_are_no_labels_make_no_server_name() {
        for name in ["", "a.b", "-a", "a-", "A", "a_b", &"a".repeat(64)] {
            assert_eq!(
                sni_for(name, "shop", 80, &domain()),
                Err(InvalidSni::Label),
                "{name}"
            );
            assert_eq!(
                sni_for("ratings", name, 80, &domain()),
                Err(InvalidSni::Label),
                "{name}"
            );
        }
        assert_eq!(sni_for("a", "b", 0, &domain()), Err(InvalidSni::Port));
        let long = TrustDomain::parse(&["a".repeat(63), "b".repeat(63)].join(".")).expect("valid");
        let label = "c".repeat(63);
        assert_eq!(sni_for(&label, &label, 80, &long), Err(InvalidSni::Name));
    }

    proptest! {
        #[test]
        fn what_is_sent_is_what_is_read(service in "[a-z]([a-z0-9-]{0,20}[a-z0-9])?", namespace in "[a-z0-9]{1,20}", number in 1u16..) {
            let name = sni_for(&service, &namespace, number, &domain()).expect("valid labels");
            prop_assert_eq!(parse_sni(&name.to_str(), &domain()), port(number, &service, &namespace));
        }

        #[test]
        fn reading_never_panics(name in "\\PC{0,60}(\\.mesh\\.local)?") {
            let _ = parse_sni(&name, &domain());
        }
    }
}
