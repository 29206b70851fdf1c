//! The mesh's certificate authority: a root, kept cold, and intermediates that sign leafs.
//!
//! What a certificate says is decided here and by the caller's registration alone: a workload
//! contributes its public key and nothing else. There are no name constraints, because webpki refuses
//! every chain that has one on URIs; the verifiers compare trust domains instead.

use std::fmt;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use crate::id::{SpiffeId, TrustDomain};
use crate::key::{InvalidKey, KeyPair, PublicKey};
use crate::life::Life;
use crate::svid::Svid;
use crate::{bundle, hex, leaf, pem};

/// Why the CA issues nothing, or cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CaError {
    /// A life of nothing, or longer than [`crate::LONGEST_TTL`].
    #[error("the life asked for must be between one second and 3650 days")]
    Ttl,
    /// `now` is outside what a certificate can name, or before the issuer's own life.
    #[error("the clock is before the issuer's life, or out of range")]
    Clock,
    /// The issuer has expired.
    #[error("the issuing certificate has expired")]
    IssuerExpired,
    /// The id belongs to another trust domain.
    #[error("`{0}` is of another trust domain than this CA")]
    ForeignTrustDomain(SpiffeId),
    /// The control plane's own id is not for workloads.
    #[error("the control plane's own id is never issued to a workload")]
    ControlPlaneIdentity,
    /// The id of a trust domain itself is not for workloads.
    #[error("an id without a path is not a workload's")]
    NoPath,
    /// The PEM text has not one CA certificate of the mesh and its key.
    #[error("not a CA of the mesh: the PEM text needs its certificate and private key: {0}")]
    Unreadable(&'static str),
    /// The key cannot be used.
    #[error(transparent)]
    Key(#[from] InvalidKey),
    /// The encoder or the cryptographic library failed.
    #[error("the certificate could not be made: {0}")]
    Encoding(String),
}

impl From<rcgen::Error> for CaError {
    fn from(error: rcgen::Error) -> Self {
        Self::Encoding(error.to_string())
    }
}

/// The root: signs intermediates, and nothing else.
#[derive(Debug, Clone)]
pub struct RootCa(Authority);

/// An intermediate: signs leafs, and nothing else (its path length is 0).
#[derive(Debug, Clone)]
pub struct IntermediateCa(Authority);

/// A chain issued to a key that is held elsewhere.
#[derive(Debug, Clone)]
pub struct IssuedSvid {
    /// The leaf first, then its intermediate, without the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// Whose it is.
    pub id: SpiffeId,
    /// First second of the leaf's life.
    pub not_before: SystemTime,
    /// Last second of the leaf's life.
    pub not_after: SystemTime,
}

#[derive(Clone)]
struct Authority {
    certificate: CertificateDer<'static>,
    key: KeyPair,
    trust_domain: TrustDomain,
    life: Life,
}

impl RootCa {
    /// A new root with a new key.
    pub fn generate(
        trust_domain: &TrustDomain,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<Self, CaError> {
        let key = KeyPair::generate()?;
        let life = Life::starting(now, ttl, None)?;
        let mut params = authority_params(trust_domain, &key, "root", life);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        set_serial(&mut params)?;
        let certificate = params.self_signed(&key)?.into();
        Ok(Self(Authority::new(
            certificate,
            key,
            trust_domain.clone(),
            life,
        )))
    }

    /// A new intermediate with a new key. It never outlives this root.
    pub fn issue_intermediate(
        &self,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<IntermediateCa, CaError> {
        let root = &self.0;
        let key = KeyPair::generate()?;
        let life = Life::starting(now, ttl, Some(root.life))?;
        let mut params = authority_params(&root.trust_domain, &key, "intermediate", life);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let certificate = root.sign(params, &key)?;
        let trust_domain = root.trust_domain.clone();
        Ok(IntermediateCa(Authority::new(
            certificate,
            key,
            trust_domain,
            life,
        )))
    }

    /// The root certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.0.certificate
    }

    /// SHA-256 of the root certificate, as a join token carries it.
    pub fn fingerprint(&self) -> [u8; 32] {
        bundle::fingerprint(&self.0.certificate)
    }

    /// The trust domain this root answers for.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.0.trust_domain
    }

    /// Last second of the root's life.
    pub fn not_after(&self) -> SystemTime {
        self.0.life.not_after
    }

    /// Certificate and private key as PEM, wiped when dropped.
    pub fn to_pem(&self) -> Result<Zeroizing<String>, CaError> {
        self.0.to_pem()
    }

    /// Reads what [`RootCa::to_pem`] wrote.
    pub fn from_pem(text: &[u8]) -> Result<Self, CaError> {
        let (authority, self_issued) = Authority::from_pem(text)?;
        if !self_issued {
            return Err(CaError::Unreadable("the certificate is not a root"));
        }
        Ok(Self(authority))
    }
}

impl IntermediateCa {
    /// A leaf for a workload's key. Refuses the control plane's id and foreign trust domains.
    pub fn issue_svid(
        &self,
        public_key: &PublicKey,
        id: &SpiffeId,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<IssuedSvid, CaError> {
        if id.is_control_plane() {
            return Err(CaError::ControlPlaneIdentity);
        }
        self.issue(public_key, id, ttl, now)
    }

    /// A leaf for the control plane itself, with a new key. The only way to its id.
    pub fn issue_control_plane_svid(
        &self,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<Svid, CaError> {
        let key = KeyPair::generate()?;
        let id = SpiffeId::of_control_plane(&self.0.trust_domain);
        let issued = self.issue(key.public_key(), &id, ttl, now)?;
        Svid::parse(issued.chain, key).map_err(|error| CaError::Encoding(error.to_string()))
    }

    /// The intermediate's certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.0.certificate
    }

    /// The trust domain this intermediate signs for.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.0.trust_domain
    }

    /// Last second of the intermediate's life.
    pub fn not_after(&self) -> SystemTime {
        self.0.life.not_after
    }

    /// Certificate and private key as PEM, wiped when dropped.
    pub fn to_pem(&self) -> Result<Zeroizing<String>, CaError> {
        self.0.to_pem()
    }

    /// Reads what [`IntermediateCa::to_pem`] wrote.
    pub fn from_pem(text: &[u8]) -> Result<Self, CaError> {
        let (authority, self_issued) = Authority::from_pem(text)?;
        if self_issued {
            return Err(CaError::Unreadable(
                "the certificate is a root, not an intermediate",
            ));
        }
        Ok(Self(authority))
    }

    fn issue(
        &self,
        public_key: &PublicKey,
        id: &SpiffeId,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<IssuedSvid, CaError> {
        if !id.is_in(&self.0.trust_domain) {
            return Err(CaError::ForeignTrustDomain(id.clone()));
        }
        if id.path().is_empty() {
            return Err(CaError::NoPath);
        }
        let life = Life::starting(now, ttl, Some(self.0.life))?;
        let mut params = params(id, life);
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Selvage");
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let leaf = self.0.sign(params, public_key)?;
        Ok(IssuedSvid {
            chain: vec![leaf, self.0.certificate.clone()],
            id: id.clone(),
            not_before: life.not_before,
            not_after: life.not_after,
        })
    }
}

impl Authority {
    fn new(
        certificate: CertificateDer<'static>,
        key: KeyPair,
        trust_domain: TrustDomain,
        life: Life,
    ) -> Self {
        Self {
            certificate,
            key,
            trust_domain,
            life,
        }
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        public_key: &impl PublicKeyData,
    ) -> Result<CertificateDer<'static>, CaError> {
        set_serial(&mut params)?;
        params.use_authority_key_identifier_extension = true;
        let issuer = Issuer::from_ca_cert_der(&self.certificate, &self.key)?;
        Ok(params.signed_by(public_key, &issuer)?.into())
    }

    fn to_pem(&self) -> Result<Zeroizing<String>, CaError> {
        let mut out = self.key.to_pkcs8_pem()?;
        pem::encode(&mut out, "CERTIFICATE", &self.certificate);
        Ok(out)
    }

    /// The authority, and whether its certificate names itself as issuer.
    fn from_pem(text: &[u8]) -> Result<(Self, bool), CaError> {
        let key = KeyPair::from_pem(text)?;
        let certificates = pem::certificates(text, 1);
        let der = certificates
            .and_then(|mut certificates| certificates.pop())
            .ok_or(CaError::Unreadable("exactly one certificate is expected"))?;
        let certificate =
            leaf::certificate(&der).map_err(|_| CaError::Unreadable("malformed certificate"))?;
        if PublicKey::from_spki(certificate.public_key()).as_ref() != Some(key.public_key()) {
            return Err(CaError::Unreadable(
                "the key does not belong to the certificate",
            ));
        }
        if !certificate.is_ca() {
            return Err(CaError::Unreadable("the certificate is not a CA's"));
        }
        let id = leaf::only_uri(&certificate)
            .ok()
            .and_then(|uri| SpiffeId::parse(uri).ok());
        let trust_domain = id
            .filter(|id| id.path().is_empty())
            .ok_or(CaError::Unreadable(
                "the certificate does not name a trust domain",
            ))?
            .trust_domain();
        let (not_before, not_after) = leaf::validity(&certificate);
        let self_issued = certificate.issuer() == certificate.subject();
        let life = Life {
            not_before,
            not_after,
        };
        Ok((Self::new(der.clone(), key, trust_domain, life), self_issued))
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("trust_domain", &self.trust_domain)
            .field(
                "fingerprint",
                &hex::encode(&bundle::fingerprint(&self.certificate)),
            )
            .field("not_after", &self.life.not_after)
            .finish_non_exhaustive()
    }
}

fn params(id: &SpiffeId, life: Life) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = life.not_before.into();
    params.not_after = life.not_after.into();
    let uri = id.as_str().try_into().expect("a SPIFFE id is ASCII");
    params.subject_alt_names = vec![SanType::URI(uri)];
    params
}

/// The subject names the key, so that two roots of one trust domain are never taken for each other.
fn authority_params(
    trust_domain: &TrustDomain,
    key: &KeyPair,
    role: &str,
    life: Life,
) -> CertificateParams {
    let mut params = params(&SpiffeId::of_trust_domain(trust_domain), life);
    let digest = bundle::sha256(key.der_bytes());
    params
        .distinguished_name
        .push(DnType::OrganizationName, "Selvage");
    let name = format!("Selvage {role} {}", hex::encode(&digest[..8]));
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// 128 random bits; the top bit is cleared so that the number is positive, and the next one set so
/// that it always takes 16 bytes.
fn set_serial(params: &mut CertificateParams) -> Result<(), CaError> {
    let mut serial = [0; 16];
    aws_lc_rs::rand::fill(&mut serial).map_err(|_| InvalidKey::Crypto)?;
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(())
}
