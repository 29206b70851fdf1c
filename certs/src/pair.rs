//! A certificate that strangers are shown: a chain and its key in PEM, of whatever CA, as gateways
//! terminate TLS with. Unlike an SVID it proves names of DNS to clients outside the mesh, and nobody
//! here verifies whom it leads to. Refuses to know files, and what is called by these names.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::pem;

/// Bytes of PEM text, of a chain or of a key.
pub const PAIR_BYTES: usize = 64 * 1024;

/// Most certificates of one chain, the leaf included.
const CHAIN: usize = 10;

/// Why a chain and a key cannot be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPair {
    /// More text than any chain or key has.
    #[error("more than {PAIR_BYTES} bytes")]
    TooLarge,
    /// The text of the chain holds no certificate, more than ten, or one that is malformed.
    #[error("not a chain of 1 to {CHAIN} certificates in PEM")]
    Chain,
    /// The text of the key holds no private key.
    #[error("no private key in PEM")]
    NoKey,
    /// A key of a kind that cannot sign here, or a malformed one.
    #[error("a private key that is malformed or of an unknown kind")]
    Key,
    /// The leaf, which is the first of the chain, has another key.
    #[error("the key is not that of the first certificate")]
    Mismatch,
}

impl InvalidPair {
    /// Whether the chain is to blame, rather than the key.
    #[must_use]
    pub fn is_of_chain(self) -> bool {
        matches!(self, Self::Chain)
    }
}

/// A chain and its key, which fit each other. Its `Debug` shows neither.
#[derive(Clone)]
pub struct ServerPair(Arc<CertifiedKey>);

impl ServerPair {
    /// Reads a chain, leaf first, and the leaf's key, both PEM.
    ///
    /// # Errors
    /// They are none, or do not belong together.
    pub fn parse(chain: &[u8], key: &[u8]) -> Result<Self, InvalidPair> {
        if chain.len() > PAIR_BYTES || key.len() > PAIR_BYTES {
            return Err(InvalidPair::TooLarge);
        }
        let chain = pem::certificates(chain, CHAIN).ok_or(InvalidPair::Chain)?;
        let whole =
            |der: &[u8]| X509Certificate::from_der(der).is_ok_and(|(rest, _)| rest.is_empty());
        if chain.is_empty() || !chain.iter().all(|der| whole(der)) {
            return Err(InvalidPair::Chain);
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| InvalidPair::NoKey)?;
        let signer = default_provider()
            .key_provider
            .load_private_key(key)
            .map_err(|_| InvalidPair::Key)?;
        let pair = CertifiedKey::new(chain, signer);
        match pair.keys_match() {
            Ok(()) => Ok(Self(Arc::new(pair))),
            Err(rustls::Error::InconsistentKeys(_)) => Err(InvalidPair::Mismatch),
            Err(_) => Err(InvalidPair::Chain),
        }
    }

    /// As rustls serves it.
    #[must_use]
    pub fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.0)
    }
}

impl fmt::Debug for ServerPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerPair")
            .field("certificates", &self.0.cert.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn minted(name: &str) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        let certificate = params.self_signed(&key).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }

    #[test]
    fn a_pair_is_taken_where_both_fit() {
        let (chain, key) = minted("shop.example");
        let (other, other_key) = minted("other.example");
        let read = |chain: &str, key: &str| ServerPair::parse(chain.as_bytes(), key.as_bytes());
        assert_eq!(
            read(&chain, &key).expect("a pair").certified().cert.len(),
            1
        );
        let both = format!("{chain}{other}");
        assert_eq!(read(&both, &key).expect("a pair").certified().cert.len(), 2);
        let broken = chain.replacen("MII", "AAA", 1);
        let long = chain.repeat(11);
        let large = " ".repeat(PAIR_BYTES + 1);
        for (chain, key, why) in [
            (other.as_str(), key.as_str(), InvalidPair::Mismatch),
            (&chain, &other_key, InvalidPair::Mismatch),
            ("", &key, InvalidPair::Chain),
            (&key, &key, InvalidPair::Chain),
            (&broken, &key, InvalidPair::Chain),
            (&long, &key, InvalidPair::Chain),
            (&chain, "", InvalidPair::NoKey),
            (&chain, &chain, InvalidPair::NoKey),
            (&large, &key, InvalidPair::TooLarge),
        ] {
            assert_eq!(read(chain, key).err(), Some(why));
        }
    }

    #[test]
    fn nothing_of_a_key_is_shown() {
        let (chain, key) = minted("shop.example");
        let pair = ServerPair::parse(chain.as_bytes(), key.as_bytes()).expect("a pair");
        assert_eq!(format!("{pair:?}"), "ServerPair { certificates: 1, .. }");
    }
}
