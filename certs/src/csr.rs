//! Certificate signing requests: how a workload says which key it holds.
//!
//! Of a request nothing is taken but its public key, after the request's own signature has proved
//! that the asker holds the private half. Names, usages and constraints it may ask for are not even
//! looked at: those come from the registration alone.

use rcgen::{CertificateParams, DistinguishedName};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::OID_SIG_ECDSA_WITH_SHA256;
use x509_parser::prelude::FromDer;

use crate::key::{InvalidKey, KeyPair, PublicKey};

/// Largest request that is parsed, in bytes of DER.
pub const CSR_BYTES: usize = 16 * 1024;

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCsr {
    /// Larger than [`CSR_BYTES`].
    #[error("the CSR is larger than 16 KiB")]
    TooLarge,
    /// Not a PKCS#10 request in DER, or followed by other bytes.
    #[error("not a PKCS#10 request in DER")]
    Malformed,
    /// The key or the signature is not ECDSA P-256 with SHA-256.
    #[error("only ECDSA P-256 keys signed with SHA-256 are supported")]
    NotP256,
    /// The request is not signed by the key it names.
    #[error("the CSR's signature does not verify")]
    Signature,
}

/// A request whose signature has been verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Csr {
    public_key: PublicKey,
}

impl Csr {
    /// Parses PKCS#10 DER and checks its signature.
    pub fn parse(der: &[u8]) -> Result<Self, InvalidCsr> {
        if der.len() > CSR_BYTES {
            return Err(InvalidCsr::TooLarge);
        }
        let (rest, request) =
            X509CertificationRequest::from_der(der).map_err(|_| InvalidCsr::Malformed)?;
        if !rest.is_empty() {
            return Err(InvalidCsr::Malformed);
        }
        let info = &request.certification_request_info;
        let public_key = PublicKey::from_spki(&info.subject_pki).ok_or(InvalidCsr::NotP256)?;
        if request.signature_algorithm.algorithm != OID_SIG_ECDSA_WITH_SHA256 {
            return Err(InvalidCsr::NotP256);
        }
        if !public_key.verifies(info.raw, &request.signature_value.data) {
            return Err(InvalidCsr::Signature);
        }
        Ok(Self { public_key })
    }

    /// The key whose private half the asker holds.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }
}

impl KeyPair {
    /// A request for this key, PKCS#10 DER, with an empty subject and no extensions.
    pub fn csr_der(&self) -> Result<Vec<u8>, InvalidKey> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params
            .serialize_request(self)
            .map_err(|_| InvalidKey::Crypto)?;
        Ok(request.der().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request() -> (KeyPair, Vec<u8>) {
        let key = KeyPair::generate().expect("randomness");
        let der = key.csr_der().expect("a request");
        (key, der)
    }

    #[test]
    fn a_request_gives_its_public_key() {
        let (key, der) = request();
        assert_eq!(
            Csr::parse(&der).expect("a request").public_key(),
            key.public_key()
        );
    }

    #[test]
    fn a_request_whose_signature_does_not_verify_is_refused() {
        let (_, mut der) = request();
        let last = der.len() - 1;
        der[last] ^= 1;
        assert_eq!(Csr::parse(&der), Err(InvalidCsr::Signature));
    }

    #[test]
    fn a_key_swapped_into_a_request_is_refused() {
        let (key, mut der) = request();
        let other = KeyPair::generate().expect("randomness");
        let point = rcgen::PublicKeyData::der_bytes(key.public_key());
        let at = der
            .windows(point.len())
            .position(|window| window == point)
            .expect("the key");
        der[at..at + point.len()]
            .copy_from_slice(rcgen::PublicKeyData::der_bytes(other.public_key()));
        assert_eq!(Csr::parse(&der), Err(InvalidCsr::Signature));
    }

    #[test]
    fn other_keys_large_and_trailing_bytes_are_refused() {
        let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("a key");
        let other = CertificateParams::default()
            .serialize_request(&p384)
            .expect("a request");
        assert_eq!(Csr::parse(other.der()), Err(InvalidCsr::NotP256));
        assert_eq!(
            Csr::parse(&vec![0x30; CSR_BYTES + 1]),
            Err(InvalidCsr::TooLarge)
        );
        let (_, mut der) = request();
        der.push(0);
        assert_eq!(Csr::parse(&der), Err(InvalidCsr::Malformed));
        assert_eq!(Csr::parse(b""), Err(InvalidCsr::Malformed));
    }

    proptest! {
        #[test]
        fn damage_never_panics_and_never_gives_another_key(at in 0usize..300, flip in 1u8..) {
            let (key, mut der) = request();
            let at = at % der.len();
            der[at] ^= flip;
            if let Ok(csr) = Csr::parse(&der) {
                prop_assert_eq!(csr.public_key(), key.public_key());
            }
        }
    }
}
