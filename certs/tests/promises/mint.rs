//! Certificates for the tests: good ones from the crate's own CA, and malformed ones made with rcgen
//! directly, as only a foreign or captured CA would sign them.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use selvage_certs::{IntermediateCa, KeyPair, RootCa, SpiffeId, Svid, TrustBundle, TrustDomain};

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

pub(crate) fn domain() -> TrustDomain {
    TrustDomain::parse("mesh.local").unwrap()
}

pub(crate) fn id(service: &str) -> SpiffeId {
    SpiffeId::of_service_account(&domain(), "shop", service).unwrap()
}

/// A mesh with one root and one intermediate, both made an hour ago.
pub(crate) struct Mesh {
    pub(crate) root: RootCa,
    pub(crate) ca: IntermediateCa,
}

impl Mesh {
    pub(crate) fn new(trust_domain: &TrustDomain) -> Self {
        let root = RootCa::generate(trust_domain, 48 * HOUR, now() - HOUR).unwrap();
        let ca = root.issue_intermediate(24 * HOUR, now() - HOUR).unwrap();
        Self { root, ca }
    }

    pub(crate) fn bundle(&self) -> TrustBundle {
        let root = self.root.certificate().clone();
        TrustBundle::from_der(self.root.trust_domain().clone(), 1, [root]).unwrap()
    }

    pub(crate) fn svid(&self, id: &SpiffeId) -> Svid {
        self.svid_at(id, HOUR, now())
    }

    pub(crate) fn svid_at(&self, id: &SpiffeId, ttl: Duration, at: SystemTime) -> Svid {
        let key = KeyPair::generate().unwrap();
        let issued = self.ca.issue_svid(key.public_key(), id, ttl, at).unwrap();
        Svid::parse(issued.chain, key).unwrap()
    }
}

/// A chain and key that need not make sense.
pub(crate) struct Presented {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl From<&Svid> for Presented {
    fn from(svid: &Svid) -> Self {
        let key = svid.key().to_pkcs8_der().unwrap();
        Self {
            chain: svid.chain().to_vec(),
            key: PrivatePkcs8KeyDer::from(key.to_vec()).into(),
        }
    }
}

impl Clone for Presented {
    fn clone(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
        }
    }
}

/// A root that signs anything it is given.
pub(crate) struct Careless {
    issuer: Issuer<'static, rcgen::KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Careless {
    pub(crate) fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = ca_params("careless root");
        let certificate = params.self_signed(&key).unwrap().into();
        Self {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    pub(crate) fn sign(&self, params: &CertificateParams) -> Presented {
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap().into();
        presented(leaf, &key)
    }
}

/// Signed by itself.
pub(crate) fn self_signed(params: &CertificateParams) -> Presented {
    let key = rcgen::KeyPair::generate().unwrap();
    presented(params.self_signed(&key).unwrap().into(), &key)
}

/// What a good leaf asks for, to be spoilt.
pub(crate) fn leaf_params(uris: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "leaf");
    params.not_before = (now() - HOUR).into();
    params.not_after = (now() + HOUR).into();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.subject_alt_names = uris
        .iter()
        .map(|&uri| SanType::URI(uri.try_into().unwrap()))
        .collect();
    params
}

pub(crate) fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = (now() - HOUR).into();
    params.not_after = (now() + HOUR).into();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn presented(leaf: CertificateDer<'static>, key: &rcgen::KeyPair) -> Presented {
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    Presented {
        chain: vec![leaf],
        key,
    }
}
