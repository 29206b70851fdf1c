//! Who stands at the other end: a presented chain against a trust bundle, and the one id it proves.
//!
//! The only place where trust is decided: the verifiers call it during a handshake, and whoever
//! resumes a session calls [`recheck`] afterwards, because TLS does not verify a resumed peer again.
//! Names of DNS play no part.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::{CertificateError, OtherError};
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm};
use webpki::aws_lc_rs as algorithms;
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter, KeyUsage};

use crate::bundle::TrustBundle;
use crate::id::SpiffeId;
use crate::leaf::{CERTIFICATE_BYTES, InvalidSvid, Leaf, certificate, validity};
use crate::proven::Proven;
use crate::time::to_unix_time;

/// Most certificates that may follow the leaf. With webpki's own budget it bounds the work of one
/// handshake.
pub const INTERMEDIATES: usize = 4;

/// Signatures accepted on certificates: our own P-256, and what CAs of other meshes use.
pub(crate) static SIGNATURES: &[&dyn SignatureVerificationAlgorithm] = &[
    algorithms::ECDSA_P256_SHA256,
    algorithms::ECDSA_P256_SHA384,
    algorithms::ECDSA_P384_SHA256,
    algorithms::ECDSA_P384_SHA384,
    algorithms::ED25519,
    algorithms::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    algorithms::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    algorithms::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
];

/// A verified peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The one id of its leaf.
    pub id: SpiffeId,
    /// The last second of its leaf's life: a connection should not outlast it by much.
    pub not_after: SystemTime,
}

/// Why a peer is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefusedPeer {
    /// It presented no certificate.
    #[error("the peer presented no certificate")]
    NoCertificate,
    /// A certificate of its chain is no longer valid.
    #[error("a certificate of the peer's chain has expired")]
    Expired,
    /// A certificate of its chain is not valid yet: a clock may be wrong.
    #[error("a certificate of the peer's chain is not valid yet")]
    NotYetValid,
    /// Its chain leads to none of the bundle's roots, or is unsound.
    #[error("the peer's chain is not trusted: {0}")]
    Untrusted(webpki::Error),
    /// Its leaf is not an SVID.
    #[error("the peer's certificate is refused: {0}")]
    NotAnSvid(#[from] InvalidSvid),
    /// Its id belongs to another trust domain.
    #[error("the peer is `{0}`, of another trust domain")]
    ForeignTrustDomain(SpiffeId),
    /// It is somebody else.
    #[error("the peer is `{presented}`, expected was `{expected}`")]
    WrongIdentity {
        /// Who was meant.
        expected: SpiffeId,
        /// Who is there.
        presented: SpiffeId,
    },
}

/// The identity of a chain that has been verified already: that of a finished, full handshake.
pub fn peer_identity(chain: &[CertificateDer<'_>]) -> Result<PeerIdentity, RefusedPeer> {
    let leaf = Leaf::parse(chain.first().ok_or(RefusedPeer::NoCertificate)?)?;
    Ok(PeerIdentity {
        id: leaf.id,
        not_after: leaf.not_after,
    })
}

/// Verifies the peer of a resumed session against the bundle as it is now. `expected` is given by
/// the side that connected, and left out by the side that accepted.
pub fn recheck(
    chain_of_peer: &[CertificateDer<'_>],
    expected: Option<&SpiffeId>,
    bundle: &TrustBundle,
    now: SystemTime,
) -> Result<PeerIdentity, RefusedPeer> {
    let (leaf, intermediates) = chain_of_peer
        .split_first()
        .ok_or(RefusedPeer::NoCertificate)?;
    verify(leaf, intermediates, expected, bundle, now)
}

/// Chain, shape, trust domain, identity; in this order, so that what is said of a stranger's names
/// is never taken at its word.
pub(crate) fn verify(
    leaf_der: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    expected: Option<&SpiffeId>,
    bundle: &TrustBundle,
    now: SystemTime,
) -> Result<PeerIdentity, RefusedPeer> {
    if intermediates.len() > INTERMEDIATES {
        return Err(InvalidSvid::TooLong.into());
    }
    let mut sizes = std::iter::once(leaf_der)
        .chain(intermediates)
        .map(|der| der.len());
    if sizes.any(|size| size > CERTIFICATE_BYTES) {
        return Err(InvalidSvid::TooLarge.into());
    }
    let path = Proven::digest(leaf_der, intermediates);
    if !bundle.proven().holds(&path, now) {
        verify_path(leaf_der, intermediates, bundle, now)?;
        if let Some(until) = first_end(leaf_der, intermediates, bundle, now) {
            bundle.proven().keep(path, now..=until);
        }
    }
    let leaf = Leaf::parse(leaf_der)?;
    if !leaf.id.is_in(bundle.trust_domain()) {
        return Err(RefusedPeer::ForeignTrustDomain(leaf.id));
    }
    match expected {
        Some(expected) if *expected != leaf.id => Err(RefusedPeer::WrongIdentity {
            expected: expected.clone(),
            presented: leaf.id,
        }),
        _ => Ok(PeerIdentity {
            id: leaf.id,
            not_after: leaf.not_after,
        }),
    }
}

/// The first end among a path's certificates and the bundle's roots.
fn first_end(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    bundle: &TrustBundle,
    now: SystemTime,
) -> Option<SystemTime> {
    let mut first = bundle.next_end(now)?;
    for der in std::iter::once(leaf).chain(intermediates) {
        let (_, end) = validity(&certificate(der).ok()?);
        first = first.min(end);
    }
    Some(first)
}

fn verify_path(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    bundle: &TrustBundle,
    now: SystemTime,
) -> Result<(), RefusedPeer> {
    let leaf = EndEntityCert::try_from(leaf).map_err(refuse)?;
    let anchors = bundle.anchors(now);
    let time = to_unix_time(now);
    let path = leaf.verify_for_usage(
        SIGNATURES,
        &anchors,
        intermediates,
        time,
        BothSides,
        None,
        None,
    );
    path.map(drop).map_err(refuse)
}

fn refuse(error: webpki::Error) -> RefusedPeer {
    match error {
        webpki::Error::CertExpired { .. } => RefusedPeer::Expired,
        webpki::Error::CertNotValidYet { .. } => RefusedPeer::NotYetValid,
        webpki::Error::CaUsedAsEndEntity => InvalidSvid::CertificateAuthority.into(),
        webpki::Error::RequiredEkuNotFoundContext(_) => InvalidSvid::Purpose.into(),
        other => RefusedPeer::Untrusted(other),
    }
}

/// Extended key usages, where a certificate names any, must allow both sides of a connection. That
/// a leaf names them at all is checked with the rest of its shape.
struct BothSides;

impl ExtendedKeyUsageValidator for BothSides {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        let mut present = Vec::new();
        for purpose in purposes {
            present.push(purpose?.to_decoded_oid());
        }
        let names = |wanted: &[usize]| present.iter().any(|oid| oid == wanted);
        let server = names(KeyUsage::SERVER_AUTH_REPR);
        if present.is_empty() || server && names(KeyUsage::CLIENT_AUTH_REPR) {
            return Ok(());
        }
        let required = if server {
            KeyUsage::client_auth()
        } else {
            KeyUsage::server_auth()
        };
        Err(webpki::Error::RequiredEkuNotFoundContext(
            webpki::RequiredEkuNotFoundContext { required, present },
        ))
    }
}

/// As rustls wants it: the plain reasons as their own kinds, so that the peer is told by the right
/// alert; ours wrapped, so that [`crate::handshake_outcome`] finds them again.
impl From<RefusedPeer> for rustls::Error {
    fn from(refused: RefusedPeer) -> Self {
        let error = match refused {
            RefusedPeer::NoCertificate => return Self::NoCertificatesPresented,
            RefusedPeer::Expired => CertificateError::Expired,
            RefusedPeer::NotYetValid => CertificateError::NotValidYet,
            RefusedPeer::Untrusted(webpki::Error::UnknownIssuer) => CertificateError::UnknownIssuer,
            RefusedPeer::Untrusted(webpki::Error::InvalidSignatureForPublicKey) => {
                CertificateError::BadSignature
            }
            RefusedPeer::NotAnSvid(InvalidSvid::CertificateAuthority | InvalidSvid::Purpose) => {
                CertificateError::InvalidPurpose
            }
            other => CertificateError::Other(OtherError(Arc::new(other))),
        };
        Self::InvalidCertificate(error)
    }
}
