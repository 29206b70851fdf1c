//! What a leaf certificate says: its one SPIFFE id, its life, its key, and whether it has the shape
//! of an X.509-SVID (SPIFFE X509-SVID, sections 3 to 5).
//!
//! Knows nothing of chains and trust: a leaf read here may have been signed by anybody.

use std::time::SystemTime;

use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::id::{InvalidSpiffeId, SpiffeId};
use crate::key::PublicKey;
use crate::time::from_unix_seconds;

/// Largest certificate that is parsed, in bytes of DER.
pub const CERTIFICATE_BYTES: usize = 16 * 1024;

/// Why a certificate is not an X.509-SVID of the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSvid {
    /// There is no certificate.
    #[error("there is no certificate")]
    Empty,
    /// More certificates than a chain may have.
    #[error("the chain has more than four intermediates")]
    TooLong,
    /// Larger than [`CERTIFICATE_BYTES`].
    #[error("a certificate is larger than 16 KiB")]
    TooLarge,
    /// Not a certificate, or one with extensions that contradict each other.
    #[error("the certificate is malformed")]
    Malformed,
    /// No URI among its names.
    #[error("the certificate has no URI name, so it carries no SPIFFE id")]
    NoUri,
    /// More than one URI among its names.
    #[error("the certificate has more than one URI name")]
    SeveralUris,
    /// Its URI is not a SPIFFE id.
    #[error("the certificate's URI name is not a SPIFFE id: {0}")]
    Id(InvalidSpiffeId),
    /// Its id is that of a whole trust domain.
    #[error("the certificate's SPIFFE id has no path")]
    NoPath,
    /// It is a CA, or may sign certificates or revocation lists.
    #[error("the certificate is a CA's, not a leaf")]
    CertificateAuthority,
    /// It may not sign, or not be used by both a server and a client.
    #[error("the certificate lacks the usages digitalSignature, serverAuth and clientAuth")]
    Purpose,
    /// Its key is not ECDSA P-256 (of our own certificates only).
    #[error("the certificate's key is not ECDSA P-256 (other kinds are not supported yet)")]
    NotP256,
    /// Its key is not the private key given with it.
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
    /// The PEM text is malformed.
    #[error("the PEM text is malformed")]
    Pem,
    /// The private key cannot be used.
    #[error(transparent)]
    Key(#[from] crate::key::InvalidKey),
}

/// What a leaf says of itself.
#[derive(Debug, Clone)]
pub(crate) struct Leaf {
    pub(crate) id: SpiffeId,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
    /// `None` for other kinds of key, which foreign peers may have.
    pub(crate) public_key: Option<PublicKey>,
}

impl Leaf {
    /// Reads `der` and refuses what has not the shape of a leaf SVID.
    pub(crate) fn parse(der: &CertificateDer<'_>) -> Result<Self, InvalidSvid> {
        let certificate = certificate(der)?;
        let id = SpiffeId::parse(only_uri(&certificate)?).map_err(InvalidSvid::Id)?;
        if id.path().is_empty() {
            return Err(InvalidSvid::NoPath);
        }
        check_usages(&certificate)?;
        let (not_before, not_after) = validity(&certificate);
        let public_key = PublicKey::from_spki(certificate.public_key());
        Ok(Self {
            id,
            not_before,
            not_after,
            public_key,
        })
    }
}

/// Parses one certificate, bounded in size and without bytes after it.
pub(crate) fn certificate<'a>(
    der: &'a CertificateDer<'_>,
) -> Result<X509Certificate<'a>, InvalidSvid> {
    if der.len() > CERTIFICATE_BYTES {
        return Err(InvalidSvid::TooLarge);
    }
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(InvalidSvid::Malformed),
    }
}

/// First and last second of a certificate's life.
pub(crate) fn validity(certificate: &X509Certificate<'_>) -> (SystemTime, SystemTime) {
    let validity = certificate.validity();
    (
        from_unix_seconds(validity.not_before.timestamp()),
        from_unix_seconds(validity.not_after.timestamp()),
    )
}

/// The only URI among the subject's alternative names. Names that cannot be read are refused, so
/// that none hides a second URI.
pub(crate) fn only_uri<'a>(certificate: &X509Certificate<'a>) -> Result<&'a str, InvalidSvid> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| InvalidSvid::Malformed)?;
    let mut uri = None;
    for name in names.iter().flat_map(|names| &names.value.general_names) {
        match name {
            GeneralName::URI(_) if uri.is_some() => return Err(InvalidSvid::SeveralUris),
            GeneralName::URI(text) => uri = Some(*text),
            GeneralName::Invalid(..) => return Err(InvalidSvid::Malformed),
            _ => {}
        }
    }
    uri.ok_or(InvalidSvid::NoUri)
}

fn check_usages(certificate: &X509Certificate<'_>) -> Result<(), InvalidSvid> {
    let constraints = certificate
        .basic_constraints()
        .map_err(|_| InvalidSvid::Malformed)?;
    if constraints.is_some_and(|constraints| constraints.value.ca) {
        return Err(InvalidSvid::CertificateAuthority);
    }
    if let Some(usage) = certificate
        .key_usage()
        .map_err(|_| InvalidSvid::Malformed)?
    {
        if usage.value.key_cert_sign() || usage.value.crl_sign() {
            return Err(InvalidSvid::CertificateAuthority);
        }
        if !usage.value.digital_signature() {
            return Err(InvalidSvid::Purpose);
        }
    }
    let extended = certificate
        .extended_key_usage()
        .map_err(|_| InvalidSvid::Malformed)?;
    match extended {
        Some(usage) if usage.value.server_auth && usage.value.client_auth => Ok(()),
        _ => Err(InvalidSvid::Purpose),
    }
}
