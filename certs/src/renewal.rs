//! Renewing with an expired certificate: proof, for a while, that the asker still holds its key.
//!
//! After an outage, or when a laptop wakes, an SVID may be too old for a handshake. Its key then
//! signs the new CSR, and the CA accepts the old chain as it stood when the leaf expired. Whether
//! the id has been revoked since is for the caller to know.

use std::time::{Duration, SystemTime};

use rustls_pki_types::CertificateDer;

use crate::bundle::TrustBundle;
use crate::chain::{self, RefusedPeer};
use crate::csr::{Csr, InvalidCsr};
use crate::id::SpiffeId;
use crate::key::{InvalidKey, KeyPair};
use crate::leaf::{InvalidSvid, Leaf};

/// Keeps a renewal's signature from meaning anything elsewhere.
const CONTEXT: &[u8] = b"selvage renewal v1\0";

/// Why a renewal is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefusedRenewal {
    /// The chain was not trusted even when its leaf was alive.
    #[error(transparent)]
    Peer(#[from] RefusedPeer),
    /// The leaf expired longer ago than the grace allows.
    #[error("the certificate expired longer ago than may be renewed: a new join token is needed")]
    TooLate,
    /// The leaf's life has not begun.
    #[error("the certificate is not valid yet")]
    TooEarly,
    /// The CSR is refused.
    #[error(transparent)]
    Csr(#[from] InvalidCsr),
    /// The signature is not the leaf's key's over this CSR.
    #[error("the renewal is not signed by the certificate's key")]
    Signature,
}

impl KeyPair {
    /// Signs the CSR for the next key with this, the present one: ECDSA P-256 SHA-256, ASN.1.
    pub fn sign_renewal(&self, csr_der: &[u8]) -> Result<Vec<u8>, InvalidKey> {
        self.sign_message(&message(csr_der))
    }
}

/// Whom a renewal is for, and the verified request, if all of it holds: the chain leads to the
/// bundle as of the leaf's last second, `now` is at most `grace` later, and the leaf's key signed
/// the CSR.
pub fn verify_renewal(
    chain: &[CertificateDer<'_>],
    csr_der: &[u8],
    signature: &[u8],
    bundle: &TrustBundle,
    now: SystemTime,
    grace: Duration,
) -> Result<(SpiffeId, Csr), RefusedRenewal> {
    let (leaf_der, intermediates) = chain.split_first().ok_or(RefusedPeer::NoCertificate)?;
    let leaf = Leaf::parse(leaf_der).map_err(RefusedPeer::from)?;
    if now < leaf.not_before {
        return Err(RefusedRenewal::TooEarly);
    }
    if now
        .duration_since(leaf.not_after)
        .is_ok_and(|late| late > grace)
    {
        return Err(RefusedRenewal::TooLate);
    }
    let peer = chain::verify(leaf_der, intermediates, None, bundle, leaf.not_after)?;
    let public_key = leaf
        .public_key
        .ok_or(RefusedPeer::NotAnSvid(InvalidSvid::NotP256))?;
    let csr = Csr::parse(csr_der)?;
    if !public_key.verifies(&message(csr_der), signature) {
        return Err(RefusedRenewal::Signature);
    }
    Ok((peer.id, csr))
}

fn message(csr_der: &[u8]) -> Vec<u8> {
    [CONTEXT, csr_der].concat()
}
