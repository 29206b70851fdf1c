//! Private and public keys: ECDSA on P-256, nothing else.
//!
//! Everything the mesh signs itself (roots, intermediates, leafs, CSRs, renewals) uses this one kind
//! of key. It knows nothing of files; what it exports is wiped from memory when dropped, and no
//! `Debug` output ever shows a private part.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _,
    UnparsedPublicKey,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY};
use x509_parser::x509::SubjectPublicKeyInfo;
use zeroize::Zeroizing;

use crate::pem;

/// An uncompressed P-256 point: 0x04, then two coordinates of 32 bytes (SEC 1, section 2.3.3).
const POINT_BYTES: usize = 65;
const UNCOMPRESSED: u8 = 4;

/// Why a key cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// The text holds no private key in PEM.
    #[error("no private key in the PEM text")]
    NoKey,
    /// Not an ECDSA P-256 key, or malformed.
    #[error("not an ECDSA P-256 private key (other kinds are not supported yet)")]
    NotP256,
    /// The cryptographic library failed: no randomness, say.
    #[error("the cryptographic library failed")]
    Crypto,
}

/// A public key, an uncompressed point on P-256.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PublicKey([u8; POINT_BYTES]);

impl PublicKey {
    pub(crate) fn from_point(point: &[u8]) -> Option<Self> {
        let point: [u8; POINT_BYTES] = point.try_into().ok()?;
        (point[0] == UNCOMPRESSED).then_some(Self(point))
    }

    /// Of a certificate or CSR; `None` for any other kind of key.
    pub(crate) fn from_spki(spki: &SubjectPublicKeyInfo<'_>) -> Option<Self> {
        let curve = spki.algorithm.parameters.as_ref()?.as_oid().ok()?;
        if spki.algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY || curve != OID_EC_P256 {
            return None;
        }
        Self::from_point(&spki.subject_public_key.data)
    }

    /// Whether `signature` (ASN.1) is this key's over the SHA-256 of `message`.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.0[..])
            .verify(message, signature)
            .is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", crate::hex::encode(&self.0[..8]))
    }
}

impl rcgen::PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

/// A private key with its public half. Cheap to clone.
#[derive(Clone)]
pub struct KeyPair(Arc<Inner>);

struct Inner {
    pair: EcdsaKeyPair,
    public: PublicKey,
}

impl KeyPair {
    /// A fresh key from the system's randomness.
    pub fn generate() -> Result<Self, InvalidKey> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING);
        Self::from_pair(pair.map_err(|_| InvalidKey::Crypto)?)
    }

    /// From DER: PKCS#8, or SEC 1 as older OpenSSL writes it.
    pub fn from_der(der: &[u8]) -> Result<Self, InvalidKey> {
        let pair = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_ASN1_SIGNING, der);
        Self::from_pair(pair.map_err(|_| InvalidKey::NotP256)?)
    }

    /// The first private key of a PEM text.
    pub fn from_pem(text: &[u8]) -> Result<Self, InvalidKey> {
        let mut key = PrivateKeyDer::from_pem_slice(text).map_err(|_| InvalidKey::NoKey)?;
        let parsed = Self::from_der(key.secret_der());
        zeroize::Zeroize::zeroize(&mut key);
        parsed
    }

    /// PKCS#8 DER, wiped when dropped.
    pub fn to_pkcs8_der(&self) -> Result<Zeroizing<Vec<u8>>, InvalidKey> {
        let document = self.0.pair.to_pkcs8v1().map_err(|_| InvalidKey::Crypto)?;
        Ok(Zeroizing::new(document.as_ref().to_vec()))
    }

    /// PKCS#8 PEM, wiped when dropped.
    pub fn to_pkcs8_pem(&self) -> Result<Zeroizing<String>, InvalidKey> {
        let mut out = Zeroizing::new(String::new());
        pem::encode(&mut out, "PRIVATE KEY", &self.to_pkcs8_der()?);
        Ok(out)
    }

    /// The public half.
    pub fn public_key(&self) -> &PublicKey {
        &self.0.public
    }

    /// ECDSA P-256 SHA-256 over `message`, ASN.1.
    pub(crate) fn sign_message(&self, message: &[u8]) -> Result<Vec<u8>, InvalidKey> {
        let signature = self.0.pair.sign(&SystemRandom::new(), message);
        Ok(signature.map_err(|_| InvalidKey::Crypto)?.as_ref().to_vec())
    }

    /// The same key, for rustls to sign handshakes with.
    pub(crate) fn to_rustls(&self) -> Result<Arc<dyn rustls::sign::SigningKey>, InvalidKey> {
        let der = self.to_pkcs8_der()?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(&der[..]));
        rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&key).map_err(|_| InvalidKey::NotP256)
    }

    fn from_pair(pair: EcdsaKeyPair) -> Result<Self, InvalidKey> {
        let public =
            PublicKey::from_point(pair.public_key().as_ref()).ok_or(InvalidKey::NotP256)?;
        Ok(Self(Arc::new(Inner { pair, public })))
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({:?}, private part hidden)", self.0.public)
    }
}

impl rcgen::PublicKeyData for KeyPair {
    fn der_bytes(&self) -> &[u8] {
        &self.0.public.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for KeyPair {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.sign_message(message)
            .map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_export_and_import() {
        let key = KeyPair::generate().expect("randomness");
        let der = key.to_pkcs8_der().expect("export");
        let pem = key.to_pkcs8_pem().expect("export");
        for again in [KeyPair::from_der(&der), KeyPair::from_pem(pem.as_bytes())] {
            let again = again.expect("import");
            assert_eq!(again.public_key(), key.public_key());
            let signature = again.sign_message(b"hello").expect("signature");
            assert!(key.public_key().verifies(b"hello", &signature));
            assert!(!key.public_key().verifies(b"hullo", &signature));
        }
    }

    #[test]
    fn other_kinds_of_key_are_refused() {
        for algorithm in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
            let other = rcgen::KeyPair::generate_for(algorithm).expect("randomness");
            let refused = KeyPair::from_pem(other.serialize_pem().as_bytes());
            assert_eq!(refused.err(), Some(InvalidKey::NotP256));
        }
        assert_eq!(KeyPair::from_pem(b"nothing").err(), Some(InvalidKey::NoKey));
        assert_eq!(
            KeyPair::from_der(b"nothing").err(),
            Some(InvalidKey::NotP256)
        );
    }

    #[test]
    fn debug_output_hides_the_private_part() {
        let key = KeyPair::generate().expect("randomness");
        let der = key.to_pkcs8_der().expect("export");
        let shown = format!("{key:?}");
        assert!(shown.contains("hidden"));
        // The private scalar stands at the 36th byte of a PKCS#8 P-256 key.
        assert!(!shown.contains(&crate::hex::encode(&der[36..44])));
    }
}
