//! Trust bundles: the roots a trust domain answers for, several of them while one replaces another.
//!
//! A bundle is a value with an epoch; who fetches it and when it changes is known elsewhere.

use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::digest;
use rustls_pki_types::{CertificateDer, TrustAnchor};

use crate::id::TrustDomain;
use crate::proven::Proven;
use crate::{hex, leaf, pem};

/// Most roots a bundle may hold: an old and a new one, with room for a foreign CA or two.
pub const ROOTS: usize = 16;

/// Why roots are not a trust bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTrustBundle {
    /// No root at all: such a bundle would refuse everybody.
    #[error("the trust bundle holds no certificate")]
    Empty,
    /// More than [`ROOTS`], or a PEM text that cannot be read.
    #[error("the trust bundle is malformed PEM or holds more than 16 certificates")]
    TooManyOrMalformed,
    /// A certificate that cannot be read.
    #[error("a certificate of the trust bundle is malformed")]
    Certificate,
    /// A certificate that is not a CA's.
    #[error("a certificate of the trust bundle is not a CA's")]
    NotCa,
}

/// The roots of one trust domain.
#[derive(Debug, Clone)]
pub struct TrustBundle {
    trust_domain: TrustDomain,
    epoch: u64,
    roots: Vec<Root>,
    /// Chains that were found to lead to these roots.
    proven: Arc<Proven>,
}

#[derive(Debug, Clone)]
struct Root {
    der: CertificateDer<'static>,
    anchor: TrustAnchor<'static>,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl TrustBundle {
    /// From certificates in DER; one given twice is held once.
    pub fn from_der(
        trust_domain: TrustDomain,
        epoch: u64,
        certificates: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Result<Self, InvalidTrustBundle> {
        let mut roots: Vec<Root> = Vec::new();
        for der in certificates {
            if roots.iter().any(|root| root.der == der) {
                continue;
            }
            if roots.len() == ROOTS {
                return Err(InvalidTrustBundle::TooManyOrMalformed);
            }
            roots.push(Root::parse(der)?);
        }
        if roots.is_empty() {
            return Err(InvalidTrustBundle::Empty);
        }
        Ok(Self {
            trust_domain,
            epoch,
            roots,
            proven: Arc::default(),
        })
    }

    /// From a PEM text.
    pub fn from_pem(
        trust_domain: TrustDomain,
        epoch: u64,
        text: &[u8],
    ) -> Result<Self, InvalidTrustBundle> {
        let roots = pem::certificates(text, ROOTS).ok_or(InvalidTrustBundle::TooManyOrMalformed)?;
        Self::from_der(trust_domain, epoch, roots)
    }

    pub(crate) fn proven(&self) -> &Proven {
        &self.proven
    }

    /// Whose roots these are.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Grows with every change of the bundle.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The roots in DER, in the order given.
    pub fn roots(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.roots.iter().map(|root| &root.der)
    }

    /// The roots as PEM text.
    pub fn to_pem(&self) -> String {
        let roots: Vec<_> = self.roots().cloned().collect();
        pem::certificates_to_pem(&roots)
    }

    /// SHA-256 of each root's DER in lower-case hex, in the order of [`TrustBundle::roots`].
    pub fn fingerprints(&self) -> Vec<String> {
        self.roots()
            .map(|root| hex::encode(&fingerprint(root)))
            .collect()
    }

    /// The last second at which any root is still valid.
    pub fn not_after(&self) -> SystemTime {
        let ends = self.roots.iter().map(|root| root.not_after);
        ends.max().expect("a bundle holds at least one root")
    }

    /// The next end of a root that is valid at `now`.
    pub(crate) fn next_end(&self, now: SystemTime) -> Option<SystemTime> {
        let ends = self.roots.iter().map(|root| root.not_after);
        ends.filter(|end| now <= *end).min()
    }

    /// The roots valid at `now`: webpki itself does not look at the life of an anchor.
    pub(crate) fn anchors(&self, now: SystemTime) -> Vec<TrustAnchor<'_>> {
        let alive = self
            .roots
            .iter()
            .filter(|root| root.not_before <= now && now <= root.not_after);
        alive.map(|root| root.anchor.clone()).collect()
    }

    /// A bundle for each root, to find out under which of them a chain stands.
    pub(crate) fn singles(&self) -> impl Iterator<Item = Self> {
        self.roots.iter().map(|root| Self {
            roots: vec![root.clone()],
            ..self.empty()
        })
    }

    fn empty(&self) -> Self {
        Self {
            trust_domain: self.trust_domain.clone(),
            epoch: self.epoch,
            roots: Vec::new(),
            proven: Arc::default(),
        }
    }
}

impl Root {
    fn parse(der: CertificateDer<'static>) -> Result<Self, InvalidTrustBundle> {
        let certificate = leaf::certificate(&der).map_err(|_| InvalidTrustBundle::Certificate)?;
        let constraints = certificate
            .basic_constraints()
            .map_err(|_| InvalidTrustBundle::Certificate)?;
        if !constraints.is_some_and(|constraints| constraints.value.ca) {
            return Err(InvalidTrustBundle::NotCa);
        }
        let (not_before, not_after) = leaf::validity(&certificate);
        let anchor = webpki::anchor_from_trusted_cert(&der)
            .map_err(|_| InvalidTrustBundle::Certificate)?
            .to_owned();
        Ok(Self {
            der,
            anchor,
            not_before,
            not_after,
        })
    }
}

/// SHA-256 of a certificate's DER.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> [u8; 32] {
    sha256(certificate)
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = digest::digest(&digest::SHA256, bytes);
    digest
        .as_ref()
        .try_into()
        .expect("a SHA-256 digest has 32 bytes")
}
