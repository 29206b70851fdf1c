//! What a gateway presents to clients outside the mesh: a certificate of any authority, and the TLS
//! configuration of a listener that has some of them.
//!
//! Whether a certificate may be trusted is for those clients to judge; here it must only be usable.
//! TLS 1.2 and 1.3, and nobody is asked for a certificate. Sessions resume by tickets whose keys
//! belong to one configuration alone, so that a session of one listener is never resumed at another.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{InconsistentKeys, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use crate::leaf::{self, InvalidSvid};
use crate::pem;
use crate::svid::Svid;

/// Most certificates of a chain.
pub const CHAIN: usize = 10;

/// Why a certificate cannot be presented.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPresented {
    /// The text holds no certificate in PEM, or is malformed, or holds more than [`CHAIN`].
    #[error("no chain of 1 to 10 certificates in the PEM text")]
    Chain,
    /// The leaf is malformed or too large.
    #[error("the leaf: {0}")]
    Leaf(#[from] InvalidSvid),
    /// The text holds no private key in PEM.
    #[error("no private key in the PEM text")]
    NoKey,
    /// No key that TLS signs with: RSA from 2048 bits, ECDSA, Ed25519.
    #[error("a private key of a kind that is not supported")]
    Key,
    /// The two do not go together.
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
}

/// A chain with its key. `Debug` shows no private part.
#[derive(Debug, Clone)]
pub struct Presented {
    certified: Arc<CertifiedKey>,
    not_after: SystemTime,
}

impl Presented {
    /// From two PEM texts: the chain, leaf first, and the key.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, InvalidPresented> {
        let chain = pem::certificates(chain, CHAIN).ok_or(InvalidPresented::Chain)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| InvalidPresented::NoKey)?;
        let key = any_supported_type(&key).map_err(|_| InvalidPresented::Key)?;
        Self::checked(CertifiedKey::new(chain, key))
    }

    /// A workload's own identity.
    pub fn of_svid(svid: &Svid) -> Result<Self, InvalidPresented> {
        let key = svid.key().to_rustls().map_err(|_| InvalidPresented::Key)?;
        Self::checked(CertifiedKey::new(svid.chain().to_vec(), key))
    }

    fn checked(certified: CertifiedKey) -> Result<Self, InvalidPresented> {
        let leaf = certified.cert.first().ok_or(InvalidPresented::Chain)?;
        let (_, not_after) = leaf::validity(&leaf::certificate(leaf)?);
        match certified.keys_match() {
            // A key that does not say what it is the key of may be right.
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(Self {
                certified: Arc::new(certified),
                not_after,
            }),
            Err(_) => Err(InvalidPresented::KeyMismatch),
        }
    }

    /// The last second of the leaf's life.
    #[must_use]
    pub const fn not_after(&self) -> SystemTime {
        self.not_after
    }

    fn leaf(&self) -> Option<&CertificateDer<'static>> {
        self.certified.cert.first()
    }

    /// Whether the leaf names this host.
    #[must_use]
    pub fn names(&self, host: &str) -> bool {
        let (Some(leaf), Ok(host)) = (self.leaf(), ServerName::try_from(host)) else {
            return false;
        };
        webpki::EndEntityCert::try_from(leaf)
            .is_ok_and(|leaf| leaf.verify_is_valid_for_subject_name(&host).is_ok())
    }
}

/// The first that names the host and can sign what the client checks, else the
/// first that can sign.
#[derive(Debug)]
struct Choice(Vec<Presented>);

impl ResolvesServerCert for Choice {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        let mut usable = self
            .0
            .iter()
            .filter(|presented| presented.certified.key.choose_scheme(schemes).is_some());
        let named = hello
            .server_name()
            .and_then(|host| usable.clone().find(|presented| presented.names(host)));
        let chosen = named.or_else(|| usable.next())?;
        Some(chosen.certified.clone())
    }
}

/// The configuration of one listener: of its certificates the one that a client asks for by name.
/// `alpn` in order of preference; empty where whatever is spoken within is opaque.
#[must_use]
pub fn presenting_server_config(certificates: Vec<Presented>, alpn: &[&[u8]]) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .expect("the provider has suites and groups of TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Choice(certificates)));
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.max_early_data_size = 0;
    if let Ok(ticketer) = Ticketer::new() {
        config.ticketer = ticketer;
    }
    Arc::new(config)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn pair(hosts: &[&str]) -> (String, String) {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(hosts).expect("names");
        let leaf = params.self_signed(&key).expect("signed");
        (leaf.pem(), key.serialize_pem())
    }

    #[test]
    fn a_certificate_names_its_hosts_and_what_its_wildcards_cover() {
        let (chain, key) = pair(&["a.example.com", "*.b.example.com"]);
        let presented = Presented::from_pem(chain.as_bytes(), key.as_bytes()).expect("usable");
        for (host, named) in [
            ("a.example.com", true),
            ("A.example.com", true),
            ("x.b.example.com", true),
            ("b.example.com", false),
            ("x.y.b.example.com", false),
            ("not a host", false),
        ] {
            assert_eq!(presented.names(host), named, "{host}");
        }
    }

    #[test]
    fn what_cannot_be_presented_is_refused_by_its_reason() {
        let ((chain, key), (_, other)) = (pair(&["a"]), pair(&["b"]));
        let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (chain, key, expected) in [
            (
                chain.as_str(),
                other.as_str(),
                InvalidPresented::KeyMismatch,
            ),
            (chain.as_str(), "", InvalidPresented::NoKey),
            ("", key.as_str(), InvalidPresented::Chain),
            (
                garbage,
                key.as_str(),
                InvalidPresented::Leaf(InvalidSvid::Malformed),
            ),
        ] {
            let refused = Presented::from_pem(chain.as_bytes(), key.as_bytes());
            assert_eq!(refused.err(), Some(expected));
        }
    }
}
